"""What each reason means and what a person can do about it: the source of docs/reasons.md."""

from __future__ import annotations

from typing import NamedTuple

from polypod_core.reasons import Reason


class Text(NamedTuple):
    """What a reason means, and what to do about it."""

    meaning: str
    remedy: str


BRIDGE: dict[Reason, Text] = {
    Reason.TASK_SUCCEEDED: Text(
        "The task reported success.",
        "None.",
    ),
    Reason.TASK_FAILED: Text(
        "The task reported failure.",
        "Read the log: `polypod logs NAME`. The task itself gave up.",
    ),
    Reason.TASK_SKIPPED: Text(
        "The task asked to be skipped.",
        "None; the scheduler handles downstream tasks.",
    ),
    Reason.TASK_REMOVED: Text(
        "The artifact does not contain this task. The TaskRun fails, unless Airflow started it: there the task is "
        "`removed`, as upstream.",
        "Correct `taskId`; the message names the tasks that the artifact's manifest lists. "
        "`polypod validate --routing` finds this before.",
    ),
    Reason.RETRY_REQUESTED: Text(
        "The task failed and asked for a retry.",
        "None; the next try starts after its delay.",
    ),
    Reason.TASK_DEFERRED: Text(
        "The task deferred to a trigger in Airflow.",
        "Run the task with Airflow; without it, nothing resumes the task.",
    ),
    Reason.TASK_RESCHEDULED: Text(
        "The task asked to run again later; this does not count as a retry.",
        "None; `status.nextAttemptTime` is when the task runs again.",
    ),
    Reason.AWAITING_INPUT: Text(
        "The task waits for human input, which Airflow collects.",
        "As for TaskDeferred.",
    ),
    Reason.EXITED: Text(
        "The runtime exited with a non-zero exit code.",
        "Read the log and the output of the runtime: `polypod logs NAME --printed`.",
    ),
    Reason.SIGNALED: Text(
        "The runtime was terminated by a signal.",
        "The message names the signal; SIGSEGV and SIGABRT come from the program itself.",
    ),
    Reason.LIKELY_OUT_OF_MEMORY: Text(
        "The runtime was killed with SIGKILL, most likely because it ran out of memory.",
        "Give the container more memory, or the JVM a smaller heap (`jvm_args`).",
    ),
    Reason.NO_TERMINAL_STATE: Text(
        "The runtime exited with code 0 without reporting a final state.",
        "The program exits by itself (os.Exit, System.exit); let the SDK exit instead.",
    ),
    Reason.EXIT_STATUS_LOST: Text(
        "Another process collected the runtime's exit status.",
        "Look for a process in the image that reaps child processes; the task counts as failed.",
    ),
    Reason.STARTUP_TIMEOUT: Text(
        "The runtime did not connect to both sockets in time.",
        "Raise `timeouts.startup` or the CPU request: a JVM with 50m takes longer than 10 s.",
    ),
    Reason.STARTUP_FAILED: Text(
        "The runtime exited before it connected to both sockets.",
        "Read `polypod logs NAME --printed`: the usual cause is a missing library or a wrong JVM option.",
    ),
    Reason.RUNTIME_NOT_FOUND: Text(
        "The command that runs the artifact (java, node) is missing or too old.",
        "Install java or node in the language image, in a version that the artifact supports.",
    ),
    Reason.INVALID_ROUTING: Text(
        "The routing does not map this queue to a coordinator.",
        "Add the queue to `queue_to_coordinator`, or fix the TaskRun's `queue`; the message suggests the closest name.",
    ),
    Reason.INVALID_COORDINATOR: Text(
        "The coordinator's classpath or keyword arguments are wrong.",
        "Fix the coordinator's `classpath` or `kwargs` in the routing; the message names the key.",
    ),
    Reason.INVALID_ROOT: Text(
        "An artifact root is missing, empty or not a folder.",
        "Fix `jars_root`, `executables_root`, `bundles_root` or the bundle in `dag_bundles`; they are paths in the "
        "language image.",
    ),
    Reason.ARTIFACT_NOT_FOUND: Text(
        "No artifact under the roots contains this Dag.",
        "The message lists every candidate and why it was rejected, such as another Dag id or file permissions.",
    ),
    Reason.ARTIFACT_AMBIGUOUS: Text(
        "Several artifacts under the roots match this task.",
        "Set `main_class`, give each artifact its own folder and queue, or remove all but one.",
    ),
    Reason.INVALID_ARTIFACT: Text(
        "An artifact is corrupt or does not follow its specification.",
        "Rebuild it; `polypod bundle verify` runs the same checks locally.",
    ),
    Reason.UNKNOWN_SCHEMA_VERSION: Text(
        "The artifact uses an unknown supervisor schema version.",
        "Rebuild with a supported SDK version, or upgrade Polypod.",
    ),
    Reason.INVALID_CONFIG: Text(
        "The bridge's configuration is invalid.",
        "The message names the key; with Airflow, check the workload Secret.",
    ),
    Reason.SERVER_TERMINATED: Text(
        "The Execution API asked the bridge to stop this task.",
        "None; the task instance was cleared, marked or deleted.",
    ),
    Reason.ALREADY_RUNNING: Text(
        "The task instance is already running elsewhere.",
        "Another TaskRun runs the same task of the same run; wait for it, or use another `runId`.",
    ),
    Reason.ALREADY_ENDED: Text(
        "An earlier attempt already reported the final state; the task is not run again.",
        "None; the task was not run again.",
    ),
    Reason.EXECUTION_TIMEOUT: Text(
        "The task ran longer than its execution timeout.",
        "Raise `timeouts.execution`, or speed up the task.",
    ),
    Reason.TERMINATED: Text(
        "The supervisor was stopped (SIGTERM, SIGINT or a cancel).",
        "The pod was deleted or its node drained; check the pod's Events.",
    ),
    Reason.PROTOCOL_ERROR: Text(
        "The runtime sent bytes that are not a frame of the protocol.",
        "Report it with the log; the SDK and Polypod disagree about the protocol.",
    ),
    Reason.UNSENDABLE: Text(
        "An argument or param cannot be passed to the runtime without loss; the message names it.",
        "Pass the value that the message names in another form, for example as a string.",
    ),
    Reason.WORKLOAD_EXPIRED: Text(
        "The token of Airflow's workload expired before the task could start.",
        "The TaskRun waited longer than `[scheduler] task_queued_timeout` (10 m): raise that timeout or the queue "
        "limit. A task that Airflow's scheduler has queued is queued again; a workload that you have applied yourself "
        "needs a new token.",
    ),
    Reason.API_REFUSED: Text(
        "The Execution API refused to start this task.",
        "The message is the API's; check its log: `kubectl -n polypod-system logs deployment/polypod-api`.",
    ),
    Reason.API_UNAVAILABLE: Text(
        "The Execution API did not answer in time, and the task did not start.",
        "The attempt is replaced. Check the pods, database and network policies of the Execution API.",
    ),
    Reason.HEARTBEAT_FAILED: Text(
        "The Execution API did not answer any heartbeat for 150 s.",
        "Check the pods, database and network policies of the Execution API. The task was stopped so that it cannot "
        "run twice.",
    ),
    Reason.BRIDGE_FAILED: Text(
        "The bridge failed; this is a bug in Polypod.",
        "Report it with the bridge's log.",
    ),
    Reason.BRIDGE_LOST: Text(
        "The bridge container terminated before the language container did; the outcome is unknown.",
        "Check for a node that ran out of memory; the attempt is replaced.",
    ),
    Reason.LAUNCHER_LOST: Text(
        "The language container terminated before the runtime started.",
        "Check the language container's last state; the attempt is replaced.",
    ),
}
"""Reasons that the bridge gives, in a pod and on this machine."""

OPERATOR: dict[Reason, Text] = {
    Reason.WAITING_FOR_ROUTING: Text(
        "There is no valid routing yet, or the last valid one does not map the queue and the newest one is not valid.",
        "Create or correct the ConfigMap; the message says what is wrong with it.",
    ),
    Reason.WAITING_FOR_UPSTREAM: Text(
        "Waiting for upstream tasks; the message names them.",
        "Wait, or check the tasks that the message names; a task without a TaskRun has yet to be applied.",
    ),
    Reason.QUEUE_LIMIT: Text(
        "The queue is at its limit (queue_limits); this TaskRun waits in line.",
        "None, or raise `queue_limits`; `spec.priority` sets the order.",
    ),
    Reason.ROUTED: Text(
        "The queue maps to a coordinator and an image.",
        "None.",
    ),
    Reason.POD_STARTING: Text(
        "The pod is pulling images and starting containers.",
        "None.",
    ),
    Reason.RUNNING: Text(
        "The language container is running.",
        "None.",
    ),
    Reason.RETRYING: Text(
        "An attempt failed; the next one starts after the retry delay.",
        "None; see `status.attempts`.",
    ),
    Reason.REPLACING: Text(
        "An attempt was lost to infrastructure; the same try starts again in another pod.",
        "None; see `status.attempts`. Frequent losses point to unstable nodes.",
    ),
    Reason.RESCHEDULED: Text(
        "The task asked to run again at status.nextAttemptTime; this does not count as a retry.",
        "None; `status.nextAttemptTime` is when the task runs again. `spec.cancel` stops it.",
    ),
    Reason.SUSPENDED: Text(
        "spec.suspend is true: nothing starts, and a running attempt was stopped without using a try.",
        "Set `suspend` to false.",
    ),
    Reason.CANCELLED: Text(
        "spec.cancel is true.",
        "None.",
    ),
    Reason.UNSCHEDULABLE: Text(
        "The scheduler found no node for the pod; the message is the scheduler's.",
        "Lower the requests or add nodes; set tolerations and selectors in the pod template.",
    ),
    Reason.SCHEDULING_GATED: Text(
        "Scheduling gates hold the pod until their owner removes them.",
        "Ask the owner of the gates that the message names; Kueue removes its own when quota is available.",
    ),
    Reason.IMAGE_PULL_FAILED: Text(
        "An image cannot be pulled; the message names it.",
        "Fix the image name in the routing, or add `image_pull_secrets`. For the bridge's image, set the chart's "
        "`imagePullSecrets`, and create a Secret of that name in the TaskRun's namespace.",
    ),
    Reason.CONTAINER_CONFIG: Text(
        "A container cannot be created: a key does not exist, or its user is root.",
        "Set a numeric non-root user in the image, or fix the key that the message names.",
    ),
    Reason.MOUNT_FAILED: Text(
        "A volume cannot be mounted: its Secret, ConfigMap or claim does not exist.",
        "Create the Secret, ConfigMap or claim that the message names in the TaskRun's namespace.",
    ),
    Reason.POD_REFUSED: Text(
        "The API server rejects the pod (quota, admission); retried until the pending timeout.",
        "Check the namespace's quotas and admission policies; the message is theirs. If a quota requires "
        "limits.cpu, set it in the routing and in `bridge.resources`.",
    ),
    Reason.POD_CHANGED: Text(
        "An admission policy or webhook changed the new pod: it took away what Polypod needs, or made it less secure. "
        "The pod was deleted before its task ran; retried until the pending timeout.",
        "The message names the fields. Find the policy (`kubectl get mutatingwebhookconfigurations,"
        "mutatingadmissionpolicies`), and exempt these pods or fields. What the pod may do is also set by `allow` "
        "of the coordinator.",
    ),
    Reason.CREATING_POD: Text(
        "The API server is slow to create the pod; an admission webhook may be hanging.",
        "Check the admission webhooks for pods (`kubectl get "
        "mutatingwebhookconfigurations,validatingwebhookconfigurations`). Only namespaces that the webhook selects "
        "are affected.",
    ),
    Reason.POD_NAME_TAKEN: Text(
        "Another pod has the name of this attempt's pod; retried until the pending timeout.",
        "Find out who created the pod that the message names, and delete it.",
    ),
    Reason.PENDING_TIMEOUT: Text(
        "The pod did not start within timeouts.pending.",
        "The message has the last cause; raise `timeouts.pending` if the cluster adds nodes slowly.",
    ),
    Reason.UPSTREAM_FAILED: Text(
        "An upstream task failed, so this task was not started.",
        "Fix the task that the message names; then delete this TaskRun and apply it again.",
    ),
    Reason.UPSTREAM_SKIPPED: Text(
        "An upstream task was skipped, so this task is skipped too.",
        "None; to run this task anyway, list the upstream task in `dependsOn` with `when: finished`.",
    ),
    Reason.DEPENDENCY_CYCLE: Text(
        "The run's tasks depend on each other in a cycle; none of them can start.",
        "Remove one of the dependencies that the message names from `dependsOn` or `fromXCom`, and apply the "
        "TaskRuns again.",
    ),
    Reason.INVALID_SPEC: Text(
        "The TaskRun's spec is invalid.",
        "Fix the field that the message names; `polypod validate -f FILE` reports the same error with its line.",
    ),
    Reason.UNREADABLE: Text(
        "The operator cannot parse the object and ignores it (Event only).",
        "Someone changed its status, or the API server is newer than the operator; the message says what could not "
        "be parsed.",
    ),
    Reason.STATUS_EDITED: Text(
        "Somebody other than the operator wrote to the TaskRun's status. The operator restores it from what it knows: "
        "its own last status and the pods. Of a task that had ended, only its final state may be left.",
        "The Event names the field manager. To end a task, use `polypod cancel` or `spec.cancel`; to run it again, "
        "create a new TaskRun.",
    ),
    Reason.INVALID_POD_TEMPLATE: Text(
        "The merged pod template is not a valid pod.",
        "Fix the pod template; the message is the API server's.",
    ),
    Reason.INVALID_POD: Text(
        "The API server rejects the pod as invalid, although no pod template changes it.",
        "Check the namespace's LimitRange and mutating webhooks; then `resources` in the routing and "
        "`bridge.resources` in the chart.",
    ),
    Reason.FORBIDDEN_POD_TEMPLATE: Text(
        "The pod template weakens the pod's security and the routing does not allow it.",
        "Remove the field from the pod template, or have the owner of the routing `allow` it.",
    ),
    Reason.NO_IMAGE: Text(
        "No image is set: not by the coordinator, the queue or the pod template.",
        "Set the coordinator's `image`, or `queue_to_image`.",
    ),
    Reason.OOM_KILLED: Text(
        "The language container exceeded its memory limit and was killed.",
        "Raise the memory limit; `status.attempts` shows the peak usage.",
    ),
    Reason.STORAGE_LIMIT: Text(
        "The pod exceeded one of its local storage limits.",
        "Raise the limit that the message names (`ephemeral-storage`, or the volume's `sizeLimit`), or write less.",
    ),
    Reason.EVICTED: Text(
        "The pod was evicted: its node ran low on a resource, or the cluster needed the node.",
        "The attempt is replaced. Set realistic resource requests.",
    ),
    Reason.POD_DELETED: Text(
        "The pod was deleted while the task was running.",
        "The attempt is replaced; find out who deletes pods.",
    ),
    Reason.POD_LOST: Text(
        "The pod was removed before its final status was observed.",
        "The attempt is replaced; check for removed nodes.",
    ),
    Reason.NODE_LOST: Text(
        "The node did not confirm termination in time; the pod was force-deleted.",
        "The attempt is replaced; check the node's kubelet.",
    ),
    Reason.ARTIFACT_COPY_FAILED: Text(
        "The artifacts could not be copied from their image.",
        "Fix `artifacts.image` or `artifacts.path`; the message is the launcher's.",
    ),
    Reason.INIT_FAILED: Text(
        "An init container failed (from the pod template, or injected by a webhook).",
        "Check that container's log.",
    ),
    Reason.DEADLINE_EXCEEDED: Text(
        "The kubelet stopped the pod at its activeDeadlineSeconds.",
        "If a pod template sets `activeDeadlineSeconds`, raise it; otherwise report it, because a timeout should "
        "have stopped the task earlier.",
    ),
    Reason.NO_OUTCOME: Text(
        "The pod ended without an outcome from the bridge.",
        "Check the bridge container's log.",
    ),
    Reason.BRIDGE_UNREACHABLE: Text(
        "The bridge did not answer the language container in time; the task did not start.",
        "The attempt is replaced. Give the bridge more CPU (`bridge.resources`), or raise `timeouts.pending`.",
    ),
    Reason.LAUNCHER_FAILED: Text(
        "The launcher, which starts the runtime in the language container, failed; the task did not start.",
        "The message is the launcher's. Check what changes the container's securityContext, such as a webhook.",
    ),
    Reason.OPERATOR_FAILED: Text(
        "The operator failed to process this TaskRun or to write its status; it retries.",
        "See the message and the operator's log; report it with the TaskRun.",
    ),
    Reason.OPERATOR_LEADING: Text(
        "On the Lease: this replica of the operator processes TaskRuns from now on.",
        "None.",
    ),
    Reason.OPERATOR_PAUSED: Text(
        "On the Lease: the leader could not renew it and processes no TaskRun, as another replica may take over. Tasks "
        "that are running go on.",
        "The message has the API server's answer: check that it can be reached, and that the Role "
        "`polypod-operator-own` may get, update and create Leases.",
    ),
    Reason.ROUTING_INVALID: Text(
        "The routing ConfigMap is invalid; the last valid version stays in use.",
        "Fix the key that the Event names; the last valid routing stays in use.",
    ),
    Reason.ROUTING_UNTRIED: Text(
        "The routing ConfigMap is in use, but the API server could not be asked (by a dry run in the operator's "
        "namespace, or one that it serves) whether it accepts the pods. It is asked again.",
        "See the message: an admission policy, a quota, a webhook without dry run or a missing right. If the pods can "
        "never be tried there, this Event is harmless: a pod that is refused is said in its TaskRun.",
    ),
    Reason.ROUTING_LOADED: Text(
        "The routing ConfigMap is valid and in use.",
        "None.",
    ),
}
"""Reasons that the operator gives, of TaskRuns and their pods."""
