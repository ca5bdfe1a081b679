"""The bridge in a pod: a native sidecar that runs one attempt, once, and then waits for SIGTERM.

A native sidecar that exits is started again by the kubelet. So what has begun is noted in a folder that outlives the
container: a second start tells the outcome that was there, or that the attempt is lost; it never runs it again.

The kubelet ends a sidecar when every other container has ended. If it does not come to that, because a container that
is not ours runs on (a mesh's, for one), the first start exits by itself: so its word gets out.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from datetime import UTC, datetime

import msgspec
from polypod_core.errors import UserError
from polypod_core.outcome import Outcome, decode, encode
from polypod_core.reasons import Reason

from polypod_bridge.attempt import refuse_attempt, run_attempt
from polypod_bridge.config import BridgeConfig, NotAWorkload, PodConfig, Refusal, parse_workload
from polypod_bridge.pod.log import PodLog
from polypod_bridge.process.launcher import LauncherHost, LauncherLost

SENT_WITHIN = 3.0
"""Seconds in which the operator is told the outcome, or not at all."""
TOLD_WITHIN = 5.0
"""Seconds in which the kubelet, once the language container has ended, tells a sidecar to end."""


def run_in_pod(config: BridgeConfig, pod: PodConfig) -> int:
    """Run the attempt, tell its outcome, wait for SIGTERM; return the exit code."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    # whoever handles a signal, the attempt's own supervision for one, we hear of it here
    signal.set_wakeup_fd(wake_w)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    # blocked by `polypod-launcher hold`: one that came while we booted arrives now
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    outcome = _earlier(pod)
    log = PodLog(pod.log)
    if config.refusal is not None:
        _refuse(config, config.refusal, pod, log)
        return 0
    if outcome is None:
        host = LauncherHost(pod.socket)
        outcome = _attempt(config, pod, host, wake_r, log)
        log.account_for(outcome)
        _keep(outcome, pod)
        _tell(outcome, pod)
        # the pod begins to end when the launcher does
        host.close()
        _send(outcome, pod)
        patience: float | None = TOLD_WITHIN
    else:
        _tell(outcome, pod)
        _go_on(log, config, pod, outcome)
        patience = None
    if log.finish(outcome):
        _tell(outcome, pod)
    if patience is None:
        _let_go(pod, wake_r)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    # exiting before SIGTERM makes the kubelet restart us
    select.select([wake_r], [], [], patience)
    return 0


def _refuse(config: BridgeConfig, refusal: Refusal, pod: PodConfig, log: PodLog) -> None:
    """Tell whoever started the task that it cannot run."""
    try:
        outcome = refuse_attempt(_complete(config, pod, log), refusal.reason, refusal.message)
    except UserError as error:
        # nobody can be told without a workload; the TaskRun is
        print(f"polypod-bridge: {error.message}", file=sys.stderr)
        outcome = Outcome(state="failed", reason=refusal.reason, message=refusal.message, user_error=True)
    _tell(outcome, pod)


def _attempt(config: BridgeConfig, pod: PodConfig, host: LauncherHost, wake: int, log: PodLog) -> Outcome:
    started = datetime.now(UTC)
    try:
        if not host.wait(wake):
            message = "the bridge was terminated before the language container connected to it; the task did not start"
            return Outcome(state="failed", reason=Reason.TERMINATED, message=message, finish_time=datetime.now(UTC))
        _write(f"{pod.state_dir}/begun", b"")
        complete = _complete(config, pod, log)
        outcome = run_attempt(
            complete, host, log.open, terminated_before=lambda: bool(select.select([wake], [], [], 0)[0])
        )
        outcome.log_url = log.own_url
        return outcome
    except UserError as error:
        log.say(error.message)
        return Outcome(state="failed", reason=error.reason, message=error.message, start_time=started,
                       finish_time=datetime.now(UTC), user_error=True)  # fmt: skip
    except LauncherLost as error:
        message = f"the language container ended before its runtime was started: {error}"
        log.say(message)
        return Outcome(state="failed", reason=Reason.LAUNCHER_LOST, message=message, start_time=started,
                       finish_time=datetime.now(UTC))  # fmt: skip
    except Exception as error:
        # whatever went wrong, the attempt must have an outcome
        import traceback

        traceback.print_exc()
        message = f"the bridge failed: {type(error).__name__}: {error}"
        log.say(message)
        return Outcome(state="failed", reason=Reason.BRIDGE_FAILED, message=message, start_time=started,
                       finish_time=datetime.now(UTC))  # fmt: skip


def _complete(config: BridgeConfig, pod: PodConfig, log: PodLog) -> BridgeConfig:
    """Return the configuration with what only the pod's volumes know: Airflow's workload, or whom a token is for.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    if pod.workload_file is not None:
        try:
            workload, unknown = parse_workload(_read(pod.workload_file))
        except OSError as error:
            raise UserError(Reason.INVALID_CONFIG, f"the workload Secret cannot be read: {error.strerror}") from None
        except NotAWorkload as error:
            raise UserError(
                Reason.INVALID_CONFIG, f"the workload Secret holds no ExecuteTask workload: {error}"
            ) from None
        log.at(workload.log_path)
        return msgspec.structs.replace(
            config,
            ti=workload.ti,
            token=workload.token,
            bundle_info=workload.bundle_info,
            dag_rel_path=workload.dag_rel_path,
            sentry_integration=workload.sentry_integration,
            task_handler_artifact=workload.task_handler_artifact,
            unknown_fields=unknown,
        )
    if pod.token_names_task:
        assert config.token_file is not None
        subject = _subject(config.token_file)
        return msgspec.structs.replace(config, ti=msgspec.structs.replace(config.ti, id=subject))
    return config


def _go_on(log: PodLog, config: BridgeConfig, pod: PodConfig, outcome: Outcome) -> None:
    """Go on with the log of an earlier start, which may not have stored it all."""
    if outcome.reason != Reason.BRIDGE_LOST:
        log.open()
        return
    try:
        _complete(config, pod, log)
    except UserError:
        # it has begun once; a workload that is gone by now only means the usual place
        pass
    log.say(outcome.message)


def _let_go(pod: PodConfig, wake: int) -> None:
    """Let the launcher go, which holds the pod for us if an earlier start was killed."""
    host = LauncherHost(pod.socket)
    try:
        if host.wait(wake):
            host.close()
    except LauncherLost:
        pass


def _subject(path: str) -> str:
    """Return whom a token is for. The server checks the token; here only its own words are read."""
    import base64

    try:
        payload = _read(path).decode("ascii").strip().split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = claims["sub"]
    except OSError as error:
        raise UserError(Reason.INVALID_CONFIG, f"the token Secret cannot be read: {error.strerror}") from None
    except (ValueError, IndexError, KeyError, TypeError, msgspec.MsgspecError):
        raise UserError(
            Reason.INVALID_CONFIG, "the token Secret holds no token of a task instance: a JWT with a subject"
        ) from None
    return str(subject)


def _earlier(pod: PodConfig) -> Outcome | None:
    """Return the outcome that an earlier start of this container has left or lost, None at the first start."""
    try:
        return decode(_read(f"{pod.state_dir}/outcome.json"))
    except (OSError, msgspec.MsgspecError):
        pass
    if os.path.exists(f"{pod.state_dir}/begun"):
        message = "the bridge container terminated while the task was running, which ended the attempt"
        return Outcome(state="failed", reason=Reason.BRIDGE_LOST, message=message, finish_time=datetime.now(UTC))
    return None


def _keep(outcome: Outcome, pod: PodConfig) -> None:
    path = f"{pod.state_dir}/outcome.json"
    _write(f"{path}.part", encode(outcome))
    os.replace(f"{path}.part", path)


def _tell(outcome: Outcome, pod: PodConfig) -> None:
    # written in place: the kubelet has mounted this very file
    try:
        _write(pod.termination_log, encode(outcome))
    except OSError as error:
        print(f"polypod-bridge: {pod.termination_log} cannot be written: {error.strerror}", file=sys.stderr)


def _send(outcome: Outcome, pod: PodConfig) -> None:
    """Tell the operator, which otherwise hears of it when the kubelet has ended the pod; that is enough if we fail."""
    if not pod.outcome_url:
        return
    import time

    import urllib3

    give_up = time.monotonic() + SENT_WITHIN
    from polypod_bridge.api.client import trusting

    context = trusting(pod.outcome_authority) if pod.outcome_authority else None
    timeout = urllib3.Timeout(connect=1.0, read=2.0)
    pool = urllib3.PoolManager(retries=False, timeout=timeout, ssl_context=context)
    problem = ""
    while time.monotonic() < give_up:
        try:
            # a new connection each time: behind the address there may be operators that do not lead
            token = _read(pod.pod_token_file).decode("ascii").strip()
            headers = {"authorization": f"Bearer {token}", "connection": "close"}
            answer = pool.request("POST", pod.outcome_url, body=encode(outcome), headers=headers)
            if answer.status in (204, 404):
                # 404: an operator that knows nothing of this pod will learn it from the kubelet
                return
            problem = f"it answers {answer.status}"
            if answer.status < 500:
                # asking again would change nothing
                break
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            problem = str(error)
        time.sleep(0.2)
    print(f"polypod-bridge: the outcome could not be sent to the operator: {problem}", file=sys.stderr)


# not pathlib: its import costs more than these
def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
