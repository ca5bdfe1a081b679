"""Running TaskRuns on this machine: the bridge as a child, an Execution API on SQLite beside it.

Each attempt runs the very program that is the sidecar in a pod. This module does what the operator does there:
one attempt after the other, the user's retries, and the status.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec
from polypod_coordinators.attempt import PASSED
from polypod_coordinators.comm.answers import BundleInfo, TaskInstance
from polypod_coordinators.config import BridgeConfig, ExecutionApiConfig, Timeouts
from polypod_coordinators.supervisor.reasons import Reason
from polypod_coordinators.termination import Outcome, decode
from polypod_crds.durations import seconds
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Attempt, TaskRun, TaskRunStatus
from polypod_execution_api import models as db
from polypod_execution_api import registry
from polypod_execution_api.app import create_app
from polypod_execution_api.cluster import run_of, task_of
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.server import ServerThread
from polypod_execution_api.tokens import TokenSigner
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from polypod_cli.manifests import Manifests
from polypod_cli.plan import Planned


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the task's log is shown on standard error."""

    format: str = "console"
    colors: bool = False


@dataclass(frozen=True, slots=True)
class _Backend:
    """What stands behind the tasks of a run: the Execution API, its database, and a folder of the run's own."""

    engine: Engine
    signer: TokenSigner
    url: str
    folder: Path


@dataclass(slots=True)
class LocalRun:
    """Runs planned TaskRuns in order.

    Attributes:
        xcoms: what each TaskRun has left: its name → key → JSON text.
    """

    manifests: Manifests
    log: LogOptions
    keep_going: bool = False
    xcoms: dict[str, dict[str, str]] = field(default_factory=dict)
    _bridge: subprocess.Popen[bytes] | None = None
    _interrupts: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def interrupted(self) -> bool:
        return self._interrupts > 0

    def run(self, planned: list[Planned]) -> list[TaskRun]:
        """Run them; return the TaskRuns with their status."""
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with tempfile.TemporaryDirectory(prefix="polypod-") as folder:
                engine = connect(f"sqlite:///{folder}/execution-api.db")
                migrate(engine)
                signer = TokenSigner(secrets.token_bytes(32))
                with ServerThread(create_app(engine, signer)) as server:
                    try:
                        return self._run_all(planned, _Backend(engine, signer, server.url, Path(folder)))
                    finally:
                        engine.dispose()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C ends the runtime cleanly, the second at once."""
        self._interrupts += 1
        self._stopped.set()
        bridge = self._bridge
        if bridge is not None and bridge.poll() is None:
            bridge.send_signal(signal.SIGTERM if self._interrupts == 1 else signal.SIGKILL)

    def _run_all(self, planned: list[Planned], backend: _Backend) -> list[TaskRun]:
        instances = self._register(planned, backend.engine)
        results: list[TaskRun] = []
        failed = False
        for index, (item, ti_id) in enumerate(zip(planned, instances, strict=True)):
            task_run = item.item.task_run.model_copy(deep=True)
            task_run.status = TaskRunStatus()
            results.append(task_run)
            if self.interrupted or (failed and not self.keep_going):
                continue
            secrets_dir = backend.folder / f"secrets-{index}"
            self._write_secrets(secrets_dir, item)
            self._run_one(task_run, item, ti_id, backend, secrets_dir)
            failed = failed or task_run.status.phase == "Failed"
        return results

    def _register(self, planned: list[Planned], engine: Engine) -> list[uuid.UUID]:
        instances = []
        with Session(engine) as session, session.begin():
            for item in planned:
                spec = item.item.task_run.spec
                instances.append(registry.add_task(session, run_of(spec), task_of(spec)).id)
        return instances

    def _write_secrets(self, folder: Path, item: Planned) -> None:
        """Lay out Secrets and ConfigMaps as a pod would mount them."""
        folder.mkdir(mode=0o700)
        spec = item.item.task_run.spec
        sources = [self.manifests.secrets[source.secret_ref.name] for source in spec.connections_from]
        for source in spec.variables_from:
            if source.config_map_ref is not None:
                sources.append(self.manifests.config_maps[source.config_map_ref.name])
            elif source.secret_ref is not None:
                sources.append(self.manifests.secrets[source.secret_ref.name])
        for data in sources:
            for key, text in data.items():
                path = folder / key
                path.write_text(text, encoding="utf-8")
                path.chmod(0o600)

    def _run_one(
        self, task_run: TaskRun, item: Planned, ti_id: uuid.UUID, backend: _Backend, secrets_dir: Path
    ) -> None:
        status = task_run.status
        assert status is not None
        while True:
            with Session(backend.engine) as session:
                instance = session.get_one(db.TaskInstance, ti_id)
            if instance.state == "skipped":
                status.state, status.phase = "skipped", "Succeeded"
                return
            config = self._config(item, instance, backend, secrets_dir)
            outcome = self._attempt(config, backend.folder)
            status.state = outcome.state
            status.attempts.append(_attempt_status(instance.try_number, outcome))
            if outcome.reschedule_time is not None and not self.interrupted:
                self._sleep_until(outcome.reschedule_time)
                if not self.interrupted:
                    with Session(backend.engine) as session, session.begin():
                        registry.start_again(session, ti_id)
                    continue
            again = outcome.state == "up_for_retry" and not self.interrupted
            if not again or instance.try_number > task_run.spec.retries.limit:
                break
            with Session(backend.engine) as session, session.begin():
                asked = session.get_one(db.TaskInstance, ti_id).retry_delay_seconds
                ti_id = registry.next_try(session, ti_id).id
            wait = asked if asked is not None else retry_delay(task_run.spec.retries, instance.try_number)
            self._stopped.wait(wait)
            if self.interrupted:
                break
        if status.state in ("up_for_retry", "up_for_reschedule"):
            # interrupted before it could be started again
            status.state = "failed"
        status.phase = "Succeeded" if status.state in PASSED else "Failed"
        spec = task_run.spec
        with Session(backend.engine) as session:
            values = registry.xcom_values(session, spec.dag_id, spec.run_id, spec.task_id, spec.map_index)
        status.x_coms = list(values)
        self.xcoms[task_run.metadata.name] = values

    def _sleep_until(self, when: datetime) -> None:
        """Wait for a time, a second at the least, or for Ctrl-C."""
        self._stopped.wait(max(1.0, (when - datetime.now(UTC)).total_seconds()))

    def _config(self, item: Planned, instance: db.TaskInstance, backend: _Backend, secrets_dir: Path) -> BridgeConfig:
        timeouts = item.item.task_run.spec.timeouts
        environ = os.environ
        return BridgeConfig(
            ti=TaskInstance(
                id=str(instance.id),
                dag_id=instance.dag_id,
                task_id=instance.task_id,
                run_id=instance.run_id,
                try_number=instance.try_number,
                dag_version_id=str(uuid.uuid5(uuid.NAMESPACE_URL, instance.dag_id)),
                map_index=instance.map_index,
                queue=instance.queue,
            ),
            bundle_info=BundleInfo(name="polypod"),
            token=backend.signer.issue(instance.id),
            execution_api=ExecutionApiConfig(url=backend.url),
            coordinator_name=item.coordinator_name,
            coordinator=item.coordinator,
            dag_bundles=item.dag_bundles,
            timeouts=Timeouts(
                startup=seconds(timeouts.startup) if timeouts.startup else None,
                execution=seconds(timeouts.execution) if timeouts.execution else None,
            ),
            secrets_dirs=[str(secrets_dir)],
            log_format=self.log.format,
            colors=self.log.colors,
            outcome_file=str(backend.folder / "outcome.json"),
            logging_level=environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO"),
            namespace_levels=environ.get("AIRFLOW__LOGGING__NAMESPACE_LEVELS", ""),
            parent_pid=os.getpid(),
        )

    def _attempt(self, config: BridgeConfig, folder: Path) -> Outcome:
        """Run the bridge; return what it left."""
        outcome_file = folder / "outcome.json"
        outcome_file.unlink(missing_ok=True)
        config_file = folder / "bridge.json"
        config_file.touch(mode=0o600)
        config_file.write_bytes(msgspec.json.encode(config))
        command = [sys.executable, "-m", "polypod_coordinators.sidecar", "--config", str(config_file)]
        started = datetime.now(UTC)
        # a session of its own: Ctrl-C is for us, and we pass it on
        self._bridge = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        if self.interrupted:
            self._bridge.send_signal(signal.SIGTERM)
        self._bridge.wait()
        try:
            return decode(outcome_file.read_bytes())
        except (OSError, msgspec.MsgspecError):
            code = self._bridge.returncode
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            return Outcome(
                state="failed",
                reason=Reason.TERMINATED if self.interrupted else Reason.BRIDGE_FAILED,
                message=f"the bridge {how} and left no outcome",
                start_time=started,
                finish_time=datetime.now(UTC),
            )


def _attempt_status(number: int, outcome: Outcome) -> Attempt:
    return Attempt(
        number=number,
        state=outcome.state,
        reason=outcome.reason,
        message=outcome.message,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        start_time=outcome.start_time,
        finish_time=outcome.finish_time,
        peak_memory_bytes=outcome.peak_memory_bytes,
        connect_time=outcome.connect_time,
        cpu_seconds=outcome.cpu_seconds,
    )
