"""Why a TaskRun is in its phase: the operator's own words. Those of an attempt's outcome are the bridge's."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reasons of conditions, attempts and Events that the operator gives."""

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
    INVALID_POD_TEMPLATE = "InvalidPodTemplate"
    INVALID_POD = "InvalidPod"
    FORBIDDEN_POD_TEMPLATE = "ForbiddenPodTemplate"
    NO_IMAGE = "NoImage"
    # the pod ended otherwise than by the bridge's word
    OUT_OF_MEMORY = "OOMKilled"
    STORAGE_LIMIT = "StorageLimitExceeded"
    EVICTED = "Evicted"
    POD_DELETED = "PodDeleted"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    ARTIFACT_COPY_FAILED = "ArtifactCopyFailed"
    INIT_FAILED = "InitContainerFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_OUTCOME = "NoOutcome"
    # the operator's own trouble
    OPERATOR_FAILED = "OperatorFailed"
    # of the routing ConfigMap
    ROUTING_INVALID = "RoutingInvalid"
    ROUTING_LOADED = "RoutingLoaded"


TEXTS: dict[Reason, str] = {
    Reason.WAITING_FOR_ROUTING: "No valid routing ConfigMap exists yet.",
    Reason.WAITING_FOR_UPSTREAM: "Waiting for upstream tasks; the message names them.",
    Reason.QUEUE_LIMIT: "The queue is at its limit (queue_limits); this TaskRun waits in line.",
    Reason.ROUTED: "The queue maps to a coordinator and an image.",
    Reason.POD_STARTING: "The pod is pulling images and starting containers.",
    Reason.RUNNING: "The language container is running.",
    Reason.RETRYING: "An attempt failed; the next one starts after the retry delay.",
    Reason.REPLACING: "An attempt was lost to infrastructure; the same try starts again in another pod.",
    Reason.RESCHEDULED: "The task asked to run again at status.nextAttemptTime; this does not count as a retry.",
    Reason.SUSPENDED: "spec.suspend is true: nothing starts, and a running attempt was stopped without using a try.",
    Reason.CANCELLED: "spec.cancel is true.",
    Reason.UNSCHEDULABLE: "The scheduler found no node for the pod; the message is the scheduler's.",
    Reason.SCHEDULING_GATED: "Scheduling gates hold the pod until their owner removes them.",
    Reason.IMAGE_PULL_FAILED: "An image cannot be pulled; the message names it.",
    Reason.CONTAINER_CONFIG: "A container cannot be created: a key does not exist, or its user is root.",
    Reason.MOUNT_FAILED: "A volume cannot be mounted: its Secret, ConfigMap or claim does not exist.",
    Reason.POD_REFUSED: "The API server rejects the pod (quota, admission); retried until the pending timeout.",
    Reason.CREATING_POD: "The API server is slow to create the pod; an admission webhook may be hanging.",
    Reason.POD_NAME_TAKEN: "Another pod has the name of this attempt's pod; retried until the pending timeout.",
    Reason.PENDING_TIMEOUT: "The pod did not start within timeouts.pending.",
    Reason.UPSTREAM_FAILED: "An upstream task failed, so this task was not started.",
    Reason.UPSTREAM_SKIPPED: "An upstream task was skipped, so this task is skipped too.",
    Reason.DEPENDENCY_CYCLE: "The run's tasks depend on each other in a cycle; none of them can start.",
    Reason.INVALID_SPEC: "The TaskRun's spec is invalid.",
    Reason.UNREADABLE: "The operator cannot parse the object and ignores it (Event only).",
    Reason.INVALID_POD_TEMPLATE: "The merged pod template is not a valid pod.",
    Reason.INVALID_POD: "The API server rejects the pod as invalid, although no pod template changes it.",
    Reason.FORBIDDEN_POD_TEMPLATE: "The pod template weakens the pod's security and the routing does not allow it.",
    Reason.NO_IMAGE: "No image is set: not by the coordinator, the queue or the pod template.",
    Reason.OUT_OF_MEMORY: "The language container exceeded its memory limit and was killed.",
    Reason.STORAGE_LIMIT: "The pod exceeded one of its local storage limits.",
    Reason.EVICTED: "The pod was evicted: its node ran low on a resource, or the cluster needed the node.",
    Reason.POD_DELETED: "The pod was deleted while the task was running.",
    Reason.POD_LOST: "The pod was removed before its final status was observed.",
    Reason.NODE_LOST: "The node did not confirm termination in time; the pod was force-deleted.",
    Reason.ARTIFACT_COPY_FAILED: "The artifacts could not be copied from their image.",
    Reason.INIT_FAILED: "An init container failed (from the pod template, or injected by a webhook).",
    Reason.DEADLINE_EXCEEDED: "The kubelet stopped the pod at its activeDeadlineSeconds.",
    Reason.NO_OUTCOME: "The pod ended without an outcome from the bridge.",
    Reason.OPERATOR_FAILED: "The operator failed to process this TaskRun or to write its status; it retries.",
    Reason.ROUTING_INVALID: "The routing ConfigMap is invalid; the last valid version stays in use.",
    Reason.ROUTING_LOADED: "The routing ConfigMap is valid and in use.",
}
