"""Why an attempt ended as it did: one word each, with the sentence that documents it."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reasons that an attempt's outcome can carry."""

    # the task said so
    TASK_SUCCEEDED = "TaskSucceeded"
    TASK_FAILED = "TaskFailed"
    TASK_SKIPPED = "TaskSkipped"
    TASK_REMOVED = "TaskRemoved"
    RETRY_REQUESTED = "RetryRequested"
    TASK_DEFERRED = "TaskDeferred"
    TASK_RESCHEDULED = "TaskRescheduled"
    AWAITING_INPUT = "AwaitingInput"
    # the process ended otherwise
    EXITED = "RuntimeExited"
    SIGNALED = "RuntimeKilledBySignal"
    OUT_OF_MEMORY = "LikelyOutOfMemory"
    NO_TERMINAL_STATE = "NoTerminalState"
    EXIT_STATUS_LOST = "ExitStatusLost"
    # it never got going
    STARTUP_TIMEOUT = "StartupTimeout"
    STARTUP_FAILED = "StartupFailed"
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    INVALID_ROUTING = "InvalidRouting"
    INVALID_COORDINATOR = "InvalidCoordinator"
    INVALID_ROOT = "InvalidArtifactRoot"
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ARTIFACT_AMBIGUOUS = "ArtifactAmbiguous"
    INVALID_ARTIFACT = "InvalidArtifact"
    UNKNOWN_SCHEMA_VERSION = "UnknownSchemaVersion"
    INVALID_CONFIG = "InvalidConfig"
    # somebody ended it
    SERVER_TERMINATED = "ServerTerminated"
    ALREADY_RUNNING = "AlreadyRunning"
    ALREADY_ENDED = "AlreadyEnded"
    EXECUTION_TIMEOUT = "ExecutionTimeout"
    TERMINATED = "Terminated"
    # the wire or the API
    PROTOCOL_ERROR = "ProtocolError"
    UNSENDABLE = "UnsendableValue"
    WORKLOAD_EXPIRED = "WorkloadExpired"
    API_REFUSED = "ExecutionApiRefused"
    API_UNAVAILABLE = "ExecutionApiUnavailable"
    HEARTBEAT_FAILED = "HeartbeatFailed"
    BRIDGE_FAILED = "BridgeFailed"
    # the pod's own troubles
    BRIDGE_LOST = "BridgeLost"
    LAUNCHER_LOST = "LauncherLost"


TEXTS: dict[Reason, str] = {
    Reason.TASK_SUCCEEDED: "The task reported success.",
    Reason.TASK_FAILED: "The task reported failure.",
    Reason.TASK_SKIPPED: "The task asked to be skipped.",
    Reason.TASK_REMOVED: "The artifact does not contain this task, or the task asked to be removed.",
    Reason.RETRY_REQUESTED: "The task failed and asked for a retry.",
    Reason.TASK_DEFERRED: "The task deferred to a trigger in Airflow.",
    Reason.TASK_RESCHEDULED: "The task asked to run again later; this does not count as a retry.",
    Reason.AWAITING_INPUT: "The task waits for human input, which Airflow collects.",
    Reason.EXITED: "The runtime exited with a non-zero exit code.",
    Reason.SIGNALED: "The runtime was terminated by a signal.",
    Reason.OUT_OF_MEMORY: "The runtime was killed with SIGKILL, most likely because it ran out of memory.",
    Reason.NO_TERMINAL_STATE: "The runtime exited with code 0 without reporting a final state.",
    Reason.EXIT_STATUS_LOST: "Another process collected the runtime's exit status.",
    Reason.STARTUP_TIMEOUT: "The runtime did not connect to both sockets in time.",
    Reason.STARTUP_FAILED: "The runtime exited before it connected to both sockets.",
    Reason.RUNTIME_NOT_FOUND: "The command that runs the artifact (java, node) is missing or too old.",
    Reason.INVALID_ROUTING: "The routing does not map this queue to a coordinator.",
    Reason.INVALID_COORDINATOR: "The coordinator's classpath or keyword arguments are wrong.",
    Reason.INVALID_ROOT: "An artifact root is missing, empty or not a folder.",
    Reason.ARTIFACT_NOT_FOUND: "No artifact under the roots contains this Dag.",
    Reason.ARTIFACT_AMBIGUOUS: "Several artifacts under the roots match this task.",
    Reason.INVALID_ARTIFACT: "An artifact is corrupt or does not follow its specification.",
    Reason.UNKNOWN_SCHEMA_VERSION: "The artifact uses an unknown supervisor schema version.",
    Reason.INVALID_CONFIG: "The bridge's configuration is invalid.",
    Reason.SERVER_TERMINATED: "The Execution API asked the bridge to stop this task.",
    Reason.ALREADY_RUNNING: "The task instance is already running elsewhere.",
    Reason.ALREADY_ENDED: "An earlier attempt already reported the final state; the task is not run again.",
    Reason.EXECUTION_TIMEOUT: "The task ran longer than its execution timeout.",
    Reason.TERMINATED: "The supervisor was stopped (SIGTERM, SIGINT or a cancel).",
    Reason.PROTOCOL_ERROR: "The runtime sent bytes that are not a frame of the protocol.",
    Reason.UNSENDABLE: "An argument or param cannot be passed to the runtime without loss; the message names it.",
    Reason.WORKLOAD_EXPIRED: "The token of Airflow's workload expired before the task could start.",
    Reason.API_REFUSED: "The Execution API refused to start this task.",
    Reason.API_UNAVAILABLE: "The Execution API is unreachable.",
    Reason.HEARTBEAT_FAILED: "The Execution API did not answer any heartbeat for 150 s.",
    Reason.BRIDGE_FAILED: "The bridge failed; this is a bug in Polypod.",
    Reason.BRIDGE_LOST: "The bridge container terminated while the task was running; the outcome is unknown.",
    Reason.LAUNCHER_LOST: "The language container terminated before the runtime started.",
}
