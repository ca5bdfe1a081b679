"""The command line: `polypod run`, `validate`, `bundle` and `routing`; what is for a cluster is in remote.py."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from polypod_core.errors import UserError
from polypod_core.files import check_file
from polypod_core.reasons import Reason
from polypod_core.routing import read_routing

from polypod_cli import remote
from polypod_cli.interrupts import exit_code

EXIT_FAILED, EXIT_USER_ERROR = 1, 2
EXIT_NO_READER = exit_code(signal.SIGPIPE)

FILES = click.Path(path_type=Path, dir_okay=False)


class _Group(click.Group):
    """The commands; one whose reader has gone away, as of `polypod logs -f x | head`, ends as other programs do."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            ctx.exit(EXIT_NO_READER)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="polypod")
def cli() -> None:
    """Run tasks written for Airflow's language SDKs: JVM jars, native bundles and TypeScript bundles.

    \b
    Try it:
      polypod run -f examples/sales/taskruns.yaml --routing examples/sales/routing.yaml
      polypod validate -f my-taskrun.yaml --routing my-routing.yaml
      polypod bundle inspect path/to/artifact
      polypod submit -f my-taskrun.yaml --wait
      polypod routing from-airflow airflow.cfg

    A TaskRun says what is to run; the routing says which coordinator runs a queue's tasks and where its artifacts
    are. TaskRuns are the same here and with kubectl apply; routing on a cluster needs absolute paths and images.

    Exit codes: 0 all succeeded, 1 a task failed, 2 something you gave is wrong, 3 not in time, 130 interrupted
    (143 by SIGTERM), 141 nobody reads the output.
    """


@cli.command()
@remote.manifest_files
@click.option("--routing", type=FILES, required=True, help="Routing file; artifact roots are relative to it.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="Output format: a table, or a Kubernetes List with the status of all TaskRuns.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True,
              help="Format of logs on standard error.")  # fmt: skip
@click.option("--max-parallel", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="the number of cores", help="Maximum number of concurrent tasks.")  # fmt: skip
@click.option("--fail-fast", is_flag=True, help="Start no more tasks after a failure.")
@click.option("--show-xcoms", is_flag=True, help="Print the XComs of all tasks below the table.")
@click.option("--workload", type=FILES, help="Run an ExecuteTask workload of Airflow (JSON) instead.")
@click.option(
    "--execution-api-url", help="With --workload: URL of Airflow's Execution API, such as http://HOST/execution/."
)
@click.option("--log-file", type=FILES, help="With --workload: append the task log to this file, as JSON lines.")
def run(
    files: tuple[str, ...],
    recursive: bool,
    routing: Path,
    output: str,
    log_format: str,
    max_parallel: int,
    fail_fast: bool,
    show_xcoms: bool,
    workload: Path | None,
    execution_api_url: str | None,
    log_file: Path | None,
) -> None:
    """Run TaskRuns on this machine, in dependency order; independent tasks run concurrently.

    What is decided is decided as on a cluster: retries, waits, and the status.

    Connections and variables come from the Secrets and ConfigMaps in the same files, then from the environment
    (AIRFLOW_CONN_*, AIRFLOW_VAR_*). Ctrl-C ends the runtime cleanly; a second one at once.
    """
    if (workload is None) == (not files):
        raise click.UsageError("give either -f FILE or --workload FILE")
    if workload is not None:
        if execution_api_url is None:
            raise click.UsageError("--workload needs --execution-api-url")
        sys.exit(_run_workload(workload, execution_api_url, routing, log_file, log_format))

    from polypod_cli import manifests, plan, report

    loaded = manifests.load(files, recursive=recursive, besides=str(routing), all_tasks=True)
    read = read_routing(str(routing))
    planned = plan.plan(loaded, read)
    # a second of imports (FastAPI, SQLAlchemy), for which a mistake in a file need not wait
    from polypod_cli.local import LocalRun, LogOptions

    local = LocalRun(loaded, read, LogOptions(log_format, _colors()), max_parallel, fail_fast)
    finished = local.run(planned)
    text = report.as_list(finished) if output == "json" else report.as_table(finished)
    if show_xcoms and output == "table":
        text += "\n\n" + report.xcoms(local.xcoms)
    try:
        click.echo(text)
    except BrokenPipeError:
        # as of `polypod run | head`: the exit code is about the tasks
        pass
    if local.interrupted:
        sys.exit(exit_code(local.interrupted))
    done = all(task_run.status is not None and task_run.status.phase == "Succeeded" for task_run in finished)
    sys.exit(0 if done else EXIT_FAILED)


def _run_workload(workload: Path, url: str, routing: Path, log_file: Path | None, log_format: str) -> int:
    from polypod_bridge.main import run_workload

    if log_file is not None:
        check_file(str(log_file))
    file = str(log_file) if log_file is not None else None
    return run_workload(str(workload), url, str(routing), file, log_format, _colors())


def _colors() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


@cli.command()
@remote.manifest_files
@click.option("--routing", type=FILES, help="Also check that every TaskRun has an artifact.")
@click.option("--server", is_flag=True, help="Also validate on the cluster (server-side dry run).")
@remote.on_cluster
def validate(
    files: tuple[str, ...], recursive: bool, routing: Path | None, server: bool, context: str | None,
    namespace: str | None,
) -> None:  # fmt: skip
    """Validate TaskRuns; errors name file and line."""
    from polypod_cli import manifests, order, plan, pod_templates

    if not files:
        raise click.UsageError("give -f FILE")
    loaded = manifests.load(files, recursive=recursive, besides=str(routing or ""), whole=not server)
    queues = read_routing(str(routing)) if routing is not None else None
    problems = list(pod_templates.problems(loaded, queues))
    if problems:
        raise UserError(Reason.INVALID_CONFIG, "\n".join(problems))
    for line in order.missing(loaded.ordered):
        click.echo(f"{line}; it must be on the cluster already, or be applied", err=True)
    if server:
        cluster = remote.connect(context, namespace)
        for document in loaded.documents:
            cluster.apply(document.value, dry_run=True)
    if queues is not None:
        for planned in plan.plan(loaded, queues):
            name = planned.item.task_run.metadata.name
            where = planned.item.document.where()
            unlisted = "" if planned.command.listed is not None else "; it lists no tasks, so taskId was not checked"
            click.echo(f"{where}: {name}: ok, {planned.coordinator_name} runs {planned.command.artifact}{unlisted}")
        return
    for item in loaded.task_runs:
        click.echo(f"{item.document.where()}: {item.task_run.metadata.name}: ok")


@cli.group()
def bundle() -> None:
    """Pack, inspect and verify artifacts."""


@bundle.command()
@click.argument("artifact", type=FILES)
@click.option("--source", is_flag=True, help="Print the embedded source file instead.")
def inspect(artifact: Path, source: bool) -> None:
    """Show the contents of an executable bundle, a jar or a TypeScript bundle."""
    from polypod_cli import bundles

    bundles.inspect(artifact, source)


@bundle.command()
@click.argument("artifacts", type=FILES, nargs=-1, required=True)
def verify(artifacts: tuple[Path, ...]) -> None:
    """Verify the trailer, digests and manifest of artifacts."""
    from polypod_cli import bundles

    bundles.verify(artifacts)


@bundle.command()
@click.argument("executable", type=FILES)
@click.option("--manifest", type=FILES, required=True, help="airflow-metadata.yaml (Executable Bundle Spec 1.0).")
@click.option("--source", type=FILES, help="Primary source file to embed.")
@click.option("-o", "--output", type=FILES, required=True, help="Output file.")
def pack(executable: Path, manifest: Path, source: Path | None, output: Path) -> None:
    """Create an executable bundle from a stripped native program in any language."""
    from polypod_cli import bundles

    bundles.pack(executable, manifest, source, output)


@cli.group()
def routing() -> None:
    """Generate a routing."""


@routing.command("from-airflow")
@click.argument("config", type=FILES, required=False)
def from_airflow(config: Path | None) -> None:
    """Print the routing for the [sdk] configuration of Airflow 3.3 or 3.4.

    CONFIG is an airflow.cfg; the variables AIRFLOW__SDK__COORDINATORS, AIRFLOW__SDK__QUEUE_TO_COORDINATOR and so on
    win over it. What cannot be carried over stands in comments at the top.
    """
    from polypod_cli import from_airflow as source

    click.echo(source.routing_of(source.read(config, os.environ)), nl=False)


for _command in (
    remote.submit,
    remote.logs,
    remote.wait,
    remote.cancel,
    remote.describe,
    remote.top,
    remote.completion,
):
    cli.add_command(_command)


def run_command() -> int:
    """Run the command of `sys.argv`; return its exit code. A mistake of the user is one message."""
    try:
        try:
            cli.main()
        except UserError as error:
            click.echo(f"polypod: {error.message}", err=True)
            return EXIT_USER_ERROR
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except OSError as error:
        what = error.filename or "the output cannot be written"
        with suppress(OSError):
            click.echo(f"polypod: {what}: {error.strerror or error}", err=True)
        return EXIT_USER_ERROR
    return 0
