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
    Reason.WAITING_FOR_ROUTING: "There is no valid routing ConfigMap yet.",
    Reason.WAITING_FOR_UPSTREAM: "Tasks that this one depends on have not ended; the message names them.",
    Reason.QUEUE_LIMIT: "The queue runs as many attempts as queue_limits allows; this one waits for its turn.",
    Reason.ROUTED: "The queue leads to a coordinator and an image.",
    Reason.POD_STARTING: "The pod's images are pulled and its containers started.",
    Reason.RUNNING: "The language container runs.",
    Reason.RETRYING: "An attempt failed; the next one starts after the user's delay.",
    Reason.REPLACING: "An attempt was lost with what it ran on; the same try starts again in another pod.",
    Reason.RESCHEDULED: "The task asked to be started again later, at status.nextAttemptTime; it is the same try.",
    Reason.SUSPENDED: "spec.suspend is true: nothing is started, and what ran was ended; that attempt does not count.",
    Reason.CANCELLED: "spec.cancel is true.",
    Reason.UNSCHEDULABLE: "No node takes the pod; the message is the scheduler's.",
    Reason.SCHEDULING_GATED: "Scheduling gates hold the pod until whoever has set them removes them.",
    Reason.IMAGE_PULL_FAILED: "An image cannot be pulled; the message names it.",
    Reason.CONTAINER_CONFIG: "A container cannot be made: a key that does not exist, or a user that is root.",
    Reason.MOUNT_FAILED: "A volume cannot be mounted: a Secret, ConfigMap or claim that does not exist.",
    Reason.POD_REFUSED: "The API server refuses the pod (quota, admission); tried again until the pending timeout.",
    Reason.CREATING_POD: "The API server is slow to create the pod; an admission webhook may be hanging.",
    Reason.POD_NAME_TAKEN: "A pod of the attempt's name is there that this TaskRun does not control; tried again.",
    Reason.PENDING_TIMEOUT: "The pod did not start within timeouts.pending.",
    Reason.UPSTREAM_FAILED: "A task that this one depends on has failed, so this one was not started.",
    Reason.UPSTREAM_SKIPPED: "A task that this one depends on was skipped, and so is this one.",
    Reason.DEPENDENCY_CYCLE: "The tasks of the run depend on each other in a circle, so none of them can start.",
    Reason.INVALID_SPEC: "The TaskRun's spec is not valid.",
    Reason.UNREADABLE: "The operator cannot read the object, and leaves it out (an Event only).",
    Reason.INVALID_POD_TEMPLATE: "The merged pod template is no valid pod.",
    Reason.INVALID_POD: "The API server says that the pod is not valid, and no pod template has changed it.",
    Reason.FORBIDDEN_POD_TEMPLATE: "The pod template weakens the pod's security, and the routing does not allow it.",
    Reason.NO_IMAGE: "Neither the coordinator nor the queue nor the pod template names an image.",
    Reason.OUT_OF_MEMORY: "The language container was killed because it reached its memory limit.",
    Reason.STORAGE_LIMIT: "The pod wrote more to its local storage than a limit of its own allows.",
    Reason.EVICTED: "The pod was evicted: its node ran low on a resource, or the cluster needed the node.",
    Reason.POD_DELETED: "Somebody deleted the pod while the task ran.",
    Reason.POD_LOST: "The pod is gone and nobody saw how it ended: its node, or the pod itself, was removed.",
    Reason.NODE_LOST: "The pod was to end and its node did not answer; it was removed without the kubelet's word.",
    Reason.ARTIFACT_COPY_FAILED: "The artifacts could not be copied from their image.",
    Reason.INIT_FAILED: "An init container of the pod template, or one that a webhook has added, failed.",
    Reason.DEADLINE_EXCEEDED: "The kubelet ended the pod at its activeDeadlineSeconds.",
    Reason.NO_OUTCOME: "The pod ended and the bridge left no outcome.",
    Reason.OPERATOR_FAILED: "The operator failed at this TaskRun, or its status could not be written; it tries again.",
    Reason.ROUTING_INVALID: "The routing ConfigMap was edited to something invalid; the last good one stays in use.",
    Reason.ROUTING_LOADED: "The routing ConfigMap was valid and is in use.",
}
