"""The bridge's entry point: `polypod-bridge --config FILE`, or one of Airflow's own workloads.

Exit code 0: the task ended well. 1: it failed or is to be tried again. 2: what the user gave is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import msgspec
from polypod_core.errors import UserError
from polypod_core.outcome import Outcome, encode
from polypod_core.reasons import Reason
from polypod_core.routing import CoordinatorSpec, read_routing
from polypod_core.states import NOT_FAILED

from polypod_bridge.attempt import refuse_attempt, run_attempt
from polypod_bridge.config import BridgeConfig, ExecutionApiConfig, parse_workload

EXIT_PASSED, EXIT_FAILED, EXIT_USER_ERROR = 0, 1, 2

_OPTIONS = {"config", "workload", "execution-api-url", "routing", "log-file", "log-format", "stored-log", "pod",
            "skip-lines", "options-dir"}  # fmt: skip
USAGE = """usage: polypod-bridge --config FILE
       polypod-bridge            in a pod: the configuration is in $POLYPOD_CONFIG
       polypod-bridge --stored-log URL --pod NAME [--skip-lines N] [--options-dir FOLDER]
       polypod-bridge --workload FILE --execution-api-url URL --routing FILE [--log-file FILE] [--log-format FORMAT]

  --config FILE             the attempt to run, as JSON (see BridgeConfig); "-" reads standard input
  --stored-log URL          print what a pod has written to a log that is kept, as JSON lines, up to 8 MiB at once
  --pod NAME                that pod
  --skip-lines N            lines that were printed before
  --options-dir FOLDER      the storage's options, a file each
  --workload FILE           one of Airflow's ExecuteTask workloads, as JSON
  --execution-api-url URL   Airflow's Execution API, such as http://airflow:8080/execution/
  --routing FILE            the routing (queue to coordinator), as YAML
  --log-file FILE           append the task's log there, as JSON lines
  --log-format FORMAT       json (default), console or none, on standard error
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attempt; return the exit code."""
    try:
        options = _parse(list(sys.argv[1:] if arguments is None else arguments))
        if "stored-log" in options:
            return _print_stored_log(options)
        if _runs_a_workload(options):
            return run_workload(
                options["workload"],
                options["execution-api-url"],
                options["routing"],
                options.get("log-file"),
                options.get("log-format", "json"),
            )
        config = _configure(options)
    except UserError as error:
        print(f"polypod-bridge: {error.message}", file=sys.stderr)
        return EXIT_USER_ERROR
    return run_config(config)


def run_config(config: BridgeConfig) -> int:
    """Run the attempt, write its outcome, and return the exit code."""
    if config.pod is not None:
        from polypod_bridge.pod.lifecycle import run_in_pod

        return run_in_pod(config, config.pod)
    from polypod_bridge.process.local import LocalHost, end_with_parent

    if config.parent_pid is not None:
        end_with_parent(config.parent_pid, signal.SIGTERM)
    try:
        outcome = run_attempt(config, LocalHost())
    except BaseException as error:
        # whatever went wrong, the attempt must have an outcome
        outcome = Outcome(
            state="failed", reason=Reason.BRIDGE_FAILED, message=f"the bridge failed: {type(error).__name__}: {error}"
        )
        write_outcome(config.outcome_file, outcome)
        raise
    write_outcome(config.outcome_file, outcome)
    if outcome.user_error:
        return EXIT_USER_ERROR
    return EXIT_PASSED if outcome.state in NOT_FAILED else EXIT_FAILED


def write_outcome(path: str | None, outcome: Outcome) -> None:
    """Write the outcome as a whole or not at all: a reader never sees half of it."""
    if path is None:
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(encode(outcome))
        os.replace(temporary, path)
    except OSError as error:
        print(f"polypod-bridge: the outcome cannot be written to {path}: {error.strerror}", file=sys.stderr)


def _print_stored_log(options: dict[str, str]) -> int:
    from polypod_bridge.logs.storage import PART, StorageError, of_pod, part, read, read_options

    skip = options.get("skip-lines", "0")
    if not (skip.isascii() and skip.isdecimal()):
        raise UserError(Reason.INVALID_CONFIG, f"--skip-lines: {skip!r} is not a number of lines")
    try:
        lines = read(options["stored-log"], read_options(options.get("options-dir", "")))
        mine = of_pod(lines, options.get("pod", ""))
        for line in part(mine, int(skip), PART):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except StorageError as error:
        print(f"polypod-bridge: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_PASSED


def _runs_a_workload(options: dict[str, str]) -> bool:
    if "config" in options or (not options and os.environ.get("POLYPOD_CONFIG")):
        return False
    missing = [f"--{name}" for name in ("workload", "execution-api-url", "routing") if name not in options]
    if missing:
        raise UserError(Reason.INVALID_CONFIG, f"missing {', '.join(missing)}\n{USAGE}")
    return True


def _configure(options: dict[str, str]) -> BridgeConfig:
    raw = _read(options["config"]) if options else os.environ["POLYPOD_CONFIG"].encode()
    try:
        return msgspec.json.decode(raw, type=BridgeConfig)
    except msgspec.MsgspecError as error:
        raise UserError(Reason.INVALID_CONFIG, f"{options.get('config', '$POLYPOD_CONFIG')}: {error}") from None


def run_workload(
    workload_path: str, url: str, routing_path: str, log_file: str | None, log_format: str, colors: bool = False
) -> int:
    """Run one of Airflow's workloads; return the exit code.

    If the routing cannot be used, the task instance fails in Airflow, and is not left queued there.

    Raises:
        UserError: the workload cannot be read or is none, so that there is nobody to tell.
    """
    try:
        workload, unknown = parse_workload(_read(workload_path))
    except msgspec.MsgspecError as error:
        raise UserError(Reason.INVALID_CONFIG, f"{workload_path} is not an ExecuteTask workload: {error}") from None
    ti, environ = workload.ti, os.environ
    config = BridgeConfig(
        ti=ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=workload.dag_rel_path,
        sentry_integration=workload.sentry_integration,
        token=workload.token,
        execution_api=ExecutionApiConfig(
            url=url,
            timeout=float(environ.get("AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", 10)),
            ca_file=environ.get("AIRFLOW__API__SSL_CA_FILE") or environ.get("AIRFLOW__API__SSL_CERT") or None,
            client_cert=environ.get("AIRFLOW__API__CLIENT_SSL_CERT") or None,
            client_key=environ.get("AIRFLOW__API__CLIENT_SSL_KEY") or None,
        ),
        coordinator_name="",
        coordinator=CoordinatorSpec(classpath=""),
        log_file=log_file,
        log_format=log_format,
        colors=colors,
        outcome_file=environ.get("POLYPOD_OUTCOME_FILE"),
        logging_level=environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO"),
        namespace_levels=environ.get("AIRFLOW__LOGGING__NAMESPACE_LEVELS", ""),
        sensitive_names=environ.get("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "").split(","),
        task_handler_artifact=workload.task_handler_artifact,
        unknown_fields=unknown,
    )
    try:
        routing = read_routing(routing_path)
        who = f"Dag {ti.dag_id!r}, task {ti.task_id!r}, run {ti.run_id!r}"
        name, spec = routing.for_queue(ti.queue or "default", who)
    except UserError as error:
        print(f"polypod-bridge: {error.message}", file=sys.stderr)
        write_outcome(config.outcome_file, refuse_attempt(config, error.reason, error.message))
        return EXIT_USER_ERROR
    routed = msgspec.structs.replace(
        config, coordinator_name=name, coordinator=spec, dag_bundles=routing.bundle_folders(spec)
    )
    return run_config(routed)


def _parse(arguments: list[str]) -> dict[str, str]:
    # not argparse: its import costs more than this whole file
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if flag in ("-h", "--help"):
            print(USAGE, end="")
            raise SystemExit(EXIT_PASSED)
        name, equals, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or name not in _OPTIONS or not (equals or rest):
            raise UserError(Reason.INVALID_CONFIG, f"cannot use {flag!r}\n{USAGE}")
        options[name] = value if equals else rest.pop(0)
    return options


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(Reason.INVALID_CONFIG, f"{path} cannot be read: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
