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
from polypod_bridge.config import BridgeConfig, ExecutionApiConfig, NotAWorkload, parse_workload

EXIT_PASSED, EXIT_FAILED, EXIT_USER_ERROR = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attempt, or print a stored log; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given and os.environ.get("POLYPOD_CONFIG"):
            return run_config(_decoded(os.environ["POLYPOD_CONFIG"].encode(), "$POLYPOD_CONFIG"))
        if len(given) == 2 and given[0] == "--config":
            # as `polypod run` starts it, for each attempt: argparse would take 7 ms
            return run_config(_decoded(_read(given[1]), given[1]))
        from polypod_bridge.arguments import parse

        options = parse(given)
        if options.stored_log is not None:
            return _print_stored_log(options.stored_log, options.options_dir, options.pod, options.skip_lines)
        if options.workload is not None:
            return run_workload(
                options.workload, options.execution_api_url, options.routing, options.log_file, options.log_format
            )
        return run_config(_decoded(_read(options.config), options.config))
    except UserError as error:
        print(f"polypod-bridge: {error.message}", file=sys.stderr)
        return EXIT_USER_ERROR


def _decoded(raw: bytes, where: str) -> BridgeConfig:
    try:
        return msgspec.json.decode(raw, type=BridgeConfig)
    except msgspec.MsgspecError as error:
        raise UserError(Reason.INVALID_CONFIG, f"{where}: {error}") from None


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


def _print_stored_log(url: str, options_dir: str, pod: str, skip: int) -> int:
    from polypod_bridge.logs.storage import PART, StorageError, of_pod, part, read, read_options

    try:
        lines = of_pod(read(url, read_options(options_dir)), pod)
        for line in part(lines, skip, PART):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except StorageError as error:
        print(f"polypod-bridge: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_PASSED


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
    except NotAWorkload as error:
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


def _read(path: str) -> bytes:
    from polypod_core.files import read_file

    return read_file(path)


if __name__ == "__main__":
    sys.exit(main())
