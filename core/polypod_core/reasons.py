"""Why an attempt ended, and why a TaskRun is in its phase: one word each, as they stand in statuses and Events.

What each means and what to do about it is in `reason_texts.py`, which only documentation needs.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reasons of outcomes, conditions, attempts and Events."""

    # Given by the bridge, in a pod and on this machine.

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
    LIKELY_OUT_OF_MEMORY = "LikelyOutOfMemory"
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

    # Given by the operator.

    # on the way
    WAITING_FOR_ROUTING = "WaitingForRouting"
    WAITING_FOR_UPSTREAM = "WaitingForUpstream"
    QUEUE_LIMIT = "QueueLimit"
    ROUTED = "Routed"
    POD_STARTING = "PodStarting"
    RUNNING = "Running"
    RETRYING = "Retrying"
    REPLACING = "Replacing"
    RESCHEDULED = "Rescheduled"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"
    # the pod does not start
    UNSCHEDULABLE = "Unschedulable"
    SCHEDULING_GATED = "SchedulingGated"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG = "ContainerConfigError"
    MOUNT_FAILED = "MountFailed"
    POD_REFUSED = "PodRefused"
    POD_CHANGED = "PodChanged"
    CREATING_POD = "CreatingPod"
    POD_NAME_TAKEN = "PodNameTaken"
    PENDING_TIMEOUT = "PendingTimeout"
    # a task that this one depends on has decided its end
    UPSTREAM_FAILED = "UpstreamFailed"
    UPSTREAM_SKIPPED = "UpstreamSkipped"
    # the user's mistakes
    DEPENDENCY_CYCLE = "DependencyCycle"
    INVALID_SPEC = "InvalidSpec"
    UNREADABLE = "Unreadable"
    STATUS_EDITED = "StatusEdited"
    INVALID_POD_TEMPLATE = "InvalidPodTemplate"
    INVALID_POD = "InvalidPod"
    FORBIDDEN_POD_TEMPLATE = "ForbiddenPodTemplate"
    NO_IMAGE = "NoImage"
    # the pod ended otherwise than by the bridge's word
    OOM_KILLED = "OOMKilled"
    STORAGE_LIMIT = "StorageLimitExceeded"
    EVICTED = "Evicted"
    POD_DELETED = "PodDeleted"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    ARTIFACT_COPY_FAILED = "ArtifactCopyFailed"
    INIT_FAILED = "InitContainerFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_OUTCOME = "NoOutcome"
    BRIDGE_UNREACHABLE = "BridgeUnreachable"
    LAUNCHER_FAILED = "LauncherFailed"
    # the operator's own trouble
    OPERATOR_FAILED = "OperatorFailed"
    # of the Lease
    OPERATOR_LEADING = "OperatorLeading"
    OPERATOR_PAUSED = "OperatorPaused"
    # of the routing ConfigMap
    ROUTING_INVALID = "RoutingInvalid"
    ROUTING_UNTRIED = "RoutingUntried"
    ROUTING_LOADED = "RoutingLoaded"
