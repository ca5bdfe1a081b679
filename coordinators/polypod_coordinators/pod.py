"""The bridge in a pod: a native sidecar that runs one attempt, once, and then waits to be told to end.

A native sidecar that exits is started again by the kubelet. So what has begun is noted in a folder that outlives the
container: a second start tells the outcome that was there, or that the attempt is lost; it never runs it again.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from polypod_coordinators.attempt import run_attempt
from polypod_coordinators.config import BridgeConfig, PodConfig, Workload
from polypod_coordinators.errors import UserError
from polypod_coordinators.process.launcher import LauncherHost, LauncherLost
from polypod_coordinators.supervisor.reasons import Reason
from polypod_coordinators.termination import Outcome, decode, encode


def run_in_pod(config: BridgeConfig, pod: PodConfig) -> int:
    """Run the attempt, tell its outcome, wait for SIGTERM; return the exit code."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    told: list[int] = []

    def note(number: int, frame: object) -> None:
        told.append(number)
        os.write(wake_w, b"\0")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    state = Path(pod.state_dir)
    outcome = _earlier(state)
    if outcome is None:
        host = LauncherHost(pod.socket)
        outcome = _attempt(config, pod, state, host, wake_r)
        _keep(outcome, state)
        _tell(outcome, pod)
        # last of all: the pod begins to end when the launcher does
        host.close()
    else:
        _tell(outcome, pod)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    # to exit now would only have the kubelet start us again
    if not told:
        os.read(wake_r, 1)
    return 0


def _attempt(config: BridgeConfig, pod: PodConfig, state: Path, host: LauncherHost, wake: int) -> Outcome:
    started = datetime.now(UTC)
    try:
        if not host.wait(wake):
            message = "told to end before the language container had started"
            return Outcome(state="failed", reason=Reason.TERMINATED, message=message, finish_time=datetime.now(UTC))
        (state / "begun").touch()
        return run_attempt(_complete(config, pod), host)
    except UserError as error:
        print(f"polypod-bridge: {error.message}", file=sys.stderr)
        return Outcome(state="failed", reason=error.reason, message=error.message, start_time=started,
                       finish_time=datetime.now(UTC), user_error=True)  # fmt: skip
    except LauncherLost as error:
        message = f"the language container ended before its runtime was started: {error}"
        return Outcome(state="failed", reason=Reason.LAUNCHER_LOST, message=message, start_time=started,
                       finish_time=datetime.now(UTC))  # fmt: skip
    except Exception as error:
        # whatever went wrong, the attempt must have an outcome
        traceback.print_exc()
        message = f"the bridge failed: {type(error).__name__}: {error}"
        return Outcome(state="failed", reason=Reason.BRIDGE_FAILED, message=message, start_time=started,
                       finish_time=datetime.now(UTC))  # fmt: skip


def _complete(config: BridgeConfig, pod: PodConfig) -> BridgeConfig:
    """Return the configuration with what only the pod's volumes know: Airflow's workload, or whom a token is for.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    if pod.workload_file is not None:
        try:
            workload = msgspec.json.decode(Path(pod.workload_file).read_bytes(), type=Workload)
        except OSError as error:
            raise UserError(Reason.INVALID_CONFIG, f"the workload Secret cannot be read: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise UserError(
                Reason.INVALID_CONFIG, f"the workload Secret holds no ExecuteTask workload: {error}"
            ) from None
        return msgspec.structs.replace(
            config,
            ti=workload.ti,
            token=workload.token,
            bundle_info=workload.bundle_info,
            dag_rel_path=workload.dag_rel_path,
            sentry_integration=workload.sentry_integration,
        )
    if pod.token_names_task:
        assert config.token_file is not None
        subject = _subject(config.token_file)
        return msgspec.structs.replace(config, ti=msgspec.structs.replace(config.ti, id=subject))
    return config


def _subject(path: str) -> str:
    """Return whom a token is for. The server checks the token; here only its own words are read."""
    import base64

    try:
        payload = Path(path).read_text("ascii").strip().split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = claims["sub"]
    except OSError as error:
        raise UserError(Reason.INVALID_CONFIG, f"the token Secret cannot be read: {error.strerror}") from None
    except (ValueError, IndexError, KeyError, TypeError, msgspec.MsgspecError):
        raise UserError(
            Reason.INVALID_CONFIG, "the token Secret holds no token of a task instance: a JWT with a subject"
        ) from None
    return str(subject)


def _earlier(state: Path) -> Outcome | None:
    """Return the outcome that an earlier start of this container has left or lost, None at the first start."""
    try:
        return decode((state / "outcome.json").read_bytes())
    except (OSError, msgspec.MsgspecError):
        pass
    if (state / "begun").exists():
        message = "the bridge's container was ended while the task ran, and with it the attempt"
        return Outcome(state="failed", reason=Reason.BRIDGE_LOST, message=message, finish_time=datetime.now(UTC))
    return None


def _keep(outcome: Outcome, state: Path) -> None:
    temporary = state / "outcome.json.part"
    temporary.write_bytes(encode(outcome))
    temporary.replace(state / "outcome.json")


def _tell(outcome: Outcome, pod: PodConfig) -> None:
    # written in place: the kubelet has mounted this very file
    try:
        Path(pod.termination_log).write_bytes(encode(outcome))
    except OSError as error:
        print(f"polypod-bridge: {pod.termination_log} cannot be written: {error.strerror}", file=sys.stderr)
