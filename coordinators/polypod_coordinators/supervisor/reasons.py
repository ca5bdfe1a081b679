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
    Reason.TASK_FAILED: "The task reported that it failed.",
    Reason.TASK_SKIPPED: "The task asked to be skipped.",
    Reason.TASK_REMOVED: "The artifact does not hold this task, or the task asked to be removed.",
    Reason.RETRY_REQUESTED: "The task failed and asked to be tried again.",
    Reason.TASK_DEFERRED: "The task deferred itself to a trigger of Airflow's.",
    Reason.TASK_RESCHEDULED: "The task asked to be started again at a later time; it is the same try.",
    Reason.AWAITING_INPUT: "The task waits for a person's input, which Airflow asks for.",
    Reason.EXITED: "The runtime ended with a non-zero exit code.",
    Reason.SIGNALED: "The runtime was ended by a signal.",
    Reason.OUT_OF_MEMORY: "The runtime was killed by SIGKILL; the usual cause is a lack of memory.",
    Reason.NO_TERMINAL_STATE: "The runtime exited with 0 but never said how the task ended.",
    Reason.EXIT_STATUS_LOST: "The runtime is gone and somebody else collected its exit status.",
    Reason.STARTUP_TIMEOUT: "The runtime did not connect to both sockets in time.",
    Reason.STARTUP_FAILED: "The runtime ended before it had connected to both sockets.",
    Reason.RUNTIME_NOT_FOUND: "The command that runs the artifact (java, node) is missing or too old.",
    Reason.INVALID_ROUTING: "The routing does not lead this queue to a coordinator.",
    Reason.INVALID_COORDINATOR: "The coordinator's classpath or keyword arguments are wrong.",
    Reason.INVALID_ROOT: "An artifact root is missing, empty or not a folder.",
    Reason.ARTIFACT_NOT_FOUND: "No artifact under the roots holds this Dag.",
    Reason.ARTIFACT_AMBIGUOUS: "Several artifacts under the roots could run this task.",
    Reason.INVALID_ARTIFACT: "An artifact is damaged or does not follow its specification.",
    Reason.UNKNOWN_SCHEMA_VERSION: "The artifact speaks a supervisor schema version that is not known here.",
    Reason.INVALID_CONFIG: "The bridge's own configuration is wrong.",
    Reason.SERVER_TERMINATED: "The Execution API said that this task must not run any more.",
    Reason.ALREADY_RUNNING: "The task instance already runs elsewhere.",
    Reason.ALREADY_ENDED: "An earlier attempt had reported how the task ended; it is not run again.",
    Reason.EXECUTION_TIMEOUT: "The task ran longer than its execution timeout.",
    Reason.TERMINATED: "The supervisor was told to end (SIGTERM, SIGINT or a cancel).",
    Reason.PROTOCOL_ERROR: "The runtime sent bytes that are not a frame of the protocol.",
    Reason.UNSENDABLE: "An argument or param cannot be sent to the runtime exactly as it is; the message says which.",
    Reason.WORKLOAD_EXPIRED: "The token of Airflow's workload had expired before the task could start.",
    Reason.API_REFUSED: "The Execution API refused to start this task.",
    Reason.API_UNAVAILABLE: "The Execution API could not be reached.",
    Reason.HEARTBEAT_FAILED: "The Execution API answered no heartbeat for 150 s.",
    Reason.BRIDGE_FAILED: "The bridge itself failed; this is a defect of Polypod.",
    Reason.BRIDGE_LOST: "The bridge's container was ended while the task ran, so its outcome is not known.",
    Reason.LAUNCHER_LOST: "The language container ended before its runtime had been started.",
}
