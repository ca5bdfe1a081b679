"""One attempt, from its configuration to its outcome.

The order is chosen for speed: listeners, artifact, spawn; only then, while the runtime boots, everything else is
imported. A mistake of the user is told to the Execution API as a failed task, so that nothing is left running there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from polypod_coordinators.artifacts.search import Rejected
from polypod_coordinators.coordinator import Command, Coordinator, Wanted, create, locate
from polypod_core.errors import UserError
from polypod_core.outcome import Outcome
from polypod_core.reasons import Reason
from polypod_core.states import NOT_FAILED, REMOVED

from polypod_bridge.config import BridgeConfig, airflow_settings
from polypod_bridge.process.base import Host, Process

if TYPE_CHECKING:
    from polypod_bridge.api.client import ExecutionApiClient
    from polypod_bridge.logs.masking import Masker
    from polypod_bridge.logs.pipeline import Destination, TaskLog
    from polypod_bridge.logs.stored import StoredLog
    from polypod_bridge.supervisor.actions import Finish
    from polypod_bridge.supervisor.assignment import Assignment


_UNEXPLAINED = frozenset({Reason.STARTUP_FAILED, Reason.EXITED, Reason.NO_TERMINAL_STATE})
"""Reasons for which the runtime itself has not reported how the task ended."""


def run_attempt(
    config: BridgeConfig,
    host: Host,
    stored: Callable[[], StoredLog | None] | None = None,
    terminated_before: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run the attempt that `config` describes, on `host`; always returns.

    The log goes to standard error, to the configured file, and to what `stored` opens, which the caller finishes.

    Args:
        terminated_before: tells whether a signal to end had come before this was called.
    """
    from polypod_bridge.supervisor.listeners import Listeners

    started = datetime.now(UTC)
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # until the shell takes over: terminated this early, the attempt still needs an outcome
        signal.signal(number, lambda number, frame: caught.append(number))
    # from here on it is caught; what came before must not be forgotten
    if terminated_before() and not caught:
        caught.append(signal.SIGTERM)
    listeners = Listeners()
    process: Process | None = None
    failure: UserError | None = None
    command: Command | None = None
    startup = config.timeouts.startup
    try:
        coordinator = create(config.coordinator_name, config.coordinator.classpath, config.coordinator.kwargs)
        startup = startup if startup is not None else coordinator.task_startup_timeout
        command = find_command(coordinator, _wanted(config), host, config.dag_bundles)
        argv = [*command.argv, *listeners.arguments()]
        process = host.spawn(argv, _environment(config), native=command.native)
    except UserError as error:
        failure = error
    except Exception as error:
        failure = _unforeseen(error)
    log, masker = _open_log(config, stored() if stored is not None else None)
    try:
        if failure is not None or process is None or command is None:
            listeners.close()
            assert failure is not None
            outcome = _report_failure(config, failure, log, started)
        else:
            if config.unknown_fields:
                log.event("info", "ignoring unknown fields of the workload", fields=config.unknown_fields)
            outcome = _supervise(config, command, process, listeners, startup or 0.0, log, masker, started, caught)
    except Exception as error:
        # it has been told, if it could be
        unforeseen = _unforeseen(error, masker.text)
        outcome = _failed(unforeseen, unforeseen.message, started)
    for name, lost in log.lost().items():
        log.event("error", "log lines could not be written", destination=name, lines=lost)
    outcome.log_lines = log.written()
    return outcome


def refuse_attempt(config: BridgeConfig, reason: str, message: str) -> Outcome:
    """Fail an attempt that cannot even be configured, so that it is not left queued in Airflow.

    Args:
        reason: why, as one word; the operator's, too.
    """
    log, _ = _open_log(config, None)
    outcome = _report_failure(config, UserError(Reason.INVALID_CONFIG, message), log, datetime.now(UTC))
    outcome.reason = reason
    return outcome


def _unforeseen(error: Exception, masked: Callable[[str], str] = str) -> UserError:
    """Return an unexpected error as one for users; print its traceback to standard error.

    Args:
        masked: hides the secrets that the task has been given; an exception's text may quote them.
    """
    import traceback

    print(masked("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    return UserError(Reason.BRIDGE_FAILED, masked(f"the bridge failed: {type(error).__name__}: {error}"))


def find_command(coordinator: Coordinator, wanted: Wanted, host: Host, dag_bundles: Mapping[str, str]) -> Command:
    """Return the command that runs a task, from the artifacts that are on `host` now.

    Args:
        dag_bundles: the folder of each Dag bundle that the routing knows.

    Raises:
        UserError: a root is missing, or no artifact, or several, hold the Dag.
    """
    rel_path = wanted.rel_path or (wanted.dag_rel_path if coordinator.runs_dag_file(wanted.dag_rel_path) else "")
    with host.open_roots(*locate(coordinator, wanted, dag_bundles)) as roots:
        return coordinator.command(wanted.dag_id, roots, rel_path)


def _wanted(config: BridgeConfig) -> Wanted:
    artifact = config.task_handler_artifact
    info = artifact.bundle_info if artifact is not None else None
    return Wanted(
        config.ti.dag_id,
        rel_path=artifact.rel_path if artifact is not None else "",
        bundle=info.name if info is not None else "",
        own_bundle=config.bundle_info.name,
        dag_rel_path=config.dag_rel_path,
    )


def _environment(config: BridgeConfig) -> Mapping[str, str]:
    # the runtime cannot read Airflow's configuration, and StartupDetails comes too late for its first lines
    logging = {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": config.logging_level,
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": config.namespace_levels,
    }
    # in a pod the language container has the others, set by the operator, and its template may change them
    return logging if config.pod is not None else {**airflow_settings(os.environ), **logging}


def _open_log(config: BridgeConfig, stored: StoredLog | None) -> tuple[TaskLog, Masker]:
    from polypod_bridge.logs.masking import Masker
    from polypod_bridge.logs.pipeline import STANDARD_ERROR, Levels, Output, TaskLog
    from polypod_bridge.logs.render import console, json_line

    outputs: list[Destination] = []
    problem: OSError | None = None
    if config.log_file is not None:
        try:
            os.makedirs(os.path.dirname(os.path.abspath(config.log_file)), mode=0o775, exist_ok=True)
            fd = os.open(config.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o664)
            outputs.append(Output(fd, json_line, config.log_file))
        except OSError as error:
            problem = error
    levels = Levels(config.logging_level, config.namespace_levels)
    if config.log_format != "none":
        if config.log_format == "console":
            # for people: what is below the wanted level is noise, even if the runtime sends it
            outputs.append(Output(sys.stderr.fileno(), console(config.colors), STANDARD_ERROR, levels))
        else:
            outputs.append(Output(sys.stderr.fileno(), json_line, STANDARD_ERROR))
    if stored is not None:
        outputs.append(stored)
    masker = Masker(config.sensitive_names)
    masker.add(config.token)
    if config.token_file is not None:
        masker.add(_read_token(config.token_file))
    log = TaskLog(masker, outputs, levels)
    if stored is not None:
        stored.report_to(log.event)
    if problem is not None:
        log.event("error", "cannot open the log file; the task continues", path=config.log_file, error=str(problem))
    return log, masker


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _client(config: BridgeConfig, log: TaskLog) -> ExecutionApiClient:
    from polypod_bridge.api.client import ExecutionApiClient
    from polypod_bridge.comm.requests import ApiCall

    def retrying(call: ApiCall, attempt: int, problem: str) -> None:
        fields = {"call": call.path, "attempt": attempt, "error": problem}
        log.event("warning", "the Execution API did not answer; trying again", **fields)

    return ExecutionApiClient(config.execution_api, config.token, retrying, config.token_file)


def _identity() -> tuple[str, str]:
    import socket

    try:
        import pwd

        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return socket.gethostname(), user


def _assignment(config: BridgeConfig, command: Command | None) -> Assignment:
    from polypod_bridge.api.client import token_end
    from polypod_bridge.supervisor.assignment import Assignment, Identity

    runtime: dict[str, Any] = {"schema_version": ""}
    if command is not None:
        runtime = {
            "schema_version": command.schema_version,
            "whole_bits": command.whole_bits,
            "exits_on_second_sigterm": command.exits_on_second_sigterm,
        }
    return Assignment(
        config.ti, config.bundle_info, Identity(*_identity()), dag_rel_path=config.dag_rel_path,
        sentry_integration=config.sentry_integration, token_end=token_end(config.token), **runtime,
    )  # fmt: skip


def _supervise(
    config: BridgeConfig,
    command: Command,
    process: Process,
    listeners: Any,
    startup: float,
    log: TaskLog,
    masker: Masker,
    started: datetime,
    caught: list[int],
) -> Outcome:
    from polypod_bridge.secrets import SecretStore
    from polypod_bridge.supervisor.run import Shell
    from polypod_bridge.supervisor.serving import REFUSED
    from polypod_bridge.supervisor.state import Supervision

    supervision = Supervision(_assignment(config, command), config.timeouts, startup)
    try:
        client = _client(config, log)
    except UserError as error:
        process.end_tree()
        listeners.close()
        log.event("error", error.message, reason=error.reason)
        return _failed(error, error.message, started)
    fields = {"pid": process.pid, "artifact": command.artifact, "schema_version": command.schema_version}
    log.event("debug", "runtime started", **fields)
    for item in command.passed_over:
        log.event("error", "skipping an invalid artifact", path=item.path, why=item.why)
    secrets = SecretStore(config.secrets_dirs, os.environ)
    for key, right in secrets.misnamed():
        log.event("warning", "a key of connectionsFrom or variablesFrom is not used: its name is not as Airflow's",
                  key=key, expected=right)  # fmt: skip
    shell = Shell(supervision, process, listeners, client, secrets, log, masker, caught)
    try:
        finish = shell.run()
    except Exception as error:
        if supervision.allowed:
            _report_failed(config, client, log)
        log.event("error", "the bridge failed", error=f"{type(error).__name__}: {error}")
        raise
    verdict = finish.verdict
    # a terminal message of Airflow's has no room for why the task failed: its log has
    failed = verdict.state not in NOT_FAILED or verdict.state == REMOVED
    said = shell.last_error if failed else ""
    if verdict.state == REMOVED and (command.listed is None or command.lacks(config.ti.dag_id, config.ti.task_id)):
        said = command.no_such_task(config.ti.dag_id, config.ti.task_id)
    elif verdict.reason in _UNEXPLAINED:
        said = _explained(verdict.message, shell.last_output or shell.last_error, command.passed_over)
        verdict = replace(verdict, message=said)
    said = verdict.message or said
    if supervision.refused and REFUSED in said and supervision.refused not in said:
        # Airflow's TypeScript SDK throws the error's type alone
        said = f"{said}: {supervision.refused}"
    message = masker.cut_text(said)
    level = "error" if failed else "info"
    why = {"message": message} if message else {}
    log.event(level, "task finished", state=verdict.state, reason=verdict.reason, **why)
    return _outcome(finish, message, started, shell.connect_time)


def _explained(message: str, said: str, passed_over: tuple[Rejected, ...]) -> str:
    """Return why a runtime ended that did not report it: its last error, and the artifacts that it may have lacked."""
    parts = [message]
    if said:
        parts.append(f"its last error: {said}")
    parts += [f"passed over: {item}" for item in passed_over]
    return "; ".join(parts)


def _report_failure(config: BridgeConfig, error: UserError, log: TaskLog, started: datetime) -> Outcome:
    """Tell the Execution API that the task failed before it could start, so that it is not left queued or running."""
    from polypod_bridge.supervisor.report import report
    from polypod_bridge.supervisor.state import Supervision

    ti = config.ti
    who = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "queue": ti.queue}
    log.event("error", error.message, reason=error.reason, **who)
    try:
        client = _client(config, log)
    except UserError as unreachable:
        log.event("error", "the failure could not be reported", error=unreachable.message)
        return _failed(error, f"{error.message}; {unreachable.message}", started)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: client.stop_retrying())
    state = Supervision(_assignment(config, None), config.timeouts, 0.0)
    finish = report(state, state.not_started(os.getpid(), started, error), client, log)
    outcome = _outcome(finish, finish.verdict.message, started)
    outcome.user_error = error.reason is not Reason.BRIDGE_FAILED
    return outcome


def _report_failed(config: BridgeConfig, client: ExecutionApiClient, log: TaskLog) -> None:
    """Tell the Execution API that a task has failed which it had allowed to run: the bridge itself has failed."""
    from polypod_bridge.api.client import ApiUnavailable
    from polypod_bridge.comm.requests import ApiCall

    body: dict[str, Any] = {"state": "failed", "end_date": datetime.now(UTC), "rendered_map_index": None}
    try:
        reply = client.call(ApiCall("PATCH", f"task-instances/{config.ti.id}/state", body=body))
    except ApiUnavailable as error:
        log.event("error", "the failure could not be reported", error=str(error))
        return
    if not reply.ok:
        log.event("error", "the failure could not be reported", status=reply.status, error=reply.text())


def _outcome(finish: Finish, message: str, started: datetime, connected: datetime | None = None) -> Outcome:
    verdict, ended = finish.verdict, finish.exit
    return Outcome(
        state=verdict.state,
        reason=verdict.reason,
        message=message,
        exit_code=ended.code,
        signal=ended.signal,
        start_time=started,
        finish_time=datetime.now(UTC),
        reported=finish.reported,
        retry_delay_seconds=verdict.retry_delay_seconds,
        reschedule_time=verdict.reschedule_time,
        peak_memory_bytes=ended.peak_memory,
        cpu_seconds=ended.cpu_seconds,
        connect_time=connected,
    )


def _failed(error: UserError, message: str, started: datetime) -> Outcome:
    """Return the outcome of an attempt that nobody could be told of."""
    mistake = error.reason is not Reason.BRIDGE_FAILED
    return Outcome(state="failed", reason=error.reason, message=message, start_time=started,
                   finish_time=datetime.now(UTC), user_error=mistake)  # fmt: skip
