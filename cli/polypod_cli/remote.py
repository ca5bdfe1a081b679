"""The commands for TaskRuns on a cluster, also as `kubectl polypod …`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from polypod_core.kinds import Key

from polypod_cli.following import follow_all, has_finished, phase

if TYPE_CHECKING:
    from polypod_cli.cluster import Cluster

Raw = dict[str, Any]
EXIT_FAILED, EXIT_TIMEOUT = 1, 3
_REDRAW = 2.0
"""Seconds, of `top`: ages grow although nothing changes."""


def on_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which cluster and namespace."""
    for option in (
        click.option("--context", help="Kubeconfig context (default: the current context)."),
        click.option("-n", "--namespace", help="Namespace (default: that of the context)."),
    ):
        command = option(command)
    return command


def output(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text",
                        show_default=True, help="Output format.")(command)  # fmt: skip


def connect(context: str | None, namespace: str | None) -> Cluster:
    # imported late: it takes a quarter of a second, which `polypod run` does not need
    from polypod_cli.cluster import Cluster

    return Cluster(context, namespace)


def manifest_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where its manifests are."""
    for option in (
        click.option("-R", "--recursive", is_flag=True, help="Read the folders within folders, too."),
        click.option("-f", "--filename", "files", multiple=True, metavar="FILE",
                     help="File with TaskRuns and the Secrets and ConfigMaps that they use, a folder of such files, or "
                     "- for standard input; can be repeated."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@manifest_files
@click.option(
    "--wait", "waits", is_flag=True, help="Wait until all TaskRuns finish; exit code 1 if any did not succeed."
)
@click.option("--timeout", type=float, help="With --wait: timeout in seconds; exit code 3.")
@output
@on_cluster
def submit(
    files: tuple[str, ...], recursive: bool, waits: bool, timeout: float | None, output: str, context: str | None,
    namespace: str | None,
) -> None:  # fmt: skip
    """Validate and apply TaskRuns, with the Secrets and ConfigMaps in the same files."""
    from polypod_cli import manifests

    if not files:
        raise click.UsageError("give -f FILE")
    loaded = manifests.load(files, recursive=recursive, whole=False)
    cluster = connect(context, namespace)
    # what TaskRuns use goes before them
    documents = sorted(loaded.documents, key=lambda item: bool(item.value["kind"] == "TaskRun"))
    made = [cluster.apply(document.value) for document in documents]
    runs = [item for item in made if item["kind"] == "TaskRun"]
    if waits:
        keys = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in runs]
        sys.exit(_wait(cluster, keys, timeout, output))
    _print([_said(item, _submitted(item)) for item in runs], runs, output)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--timeout", type=float, help="Timeout in seconds; exit code 3.")
@output
@on_cluster
def wait(
    names: tuple[str, ...], timeout: float | None, output: str, context: str | None, namespace: str | None
) -> None:
    """Wait until TaskRuns finish; exit code 1 if any did not succeed."""
    cluster = connect(context, namespace)
    sys.exit(_wait(cluster, [(cluster.namespace, name) for name in names], timeout, output))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@on_cluster
def cancel(names: tuple[str, ...], context: str | None, namespace: str | None) -> None:
    """Cancel TaskRuns: their tasks get SIGTERM and are not retried."""
    cluster = connect(context, namespace)
    for name in names:
        ended = cluster.cancel(name)
        if ended is None:
            click.echo(f"{cluster.namespace}/{name} is being cancelled")
        else:
            click.echo(_said(ended, f"has already ended, and stays as it is: {phase(ended)}"))


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the TaskRun finishes, over all attempts.")
@click.option("--attempt", type=int, help="Attempt number (default: the last).")
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option("--printed", is_flag=True, help="Show the output of the runtime instead of the task log.")
@on_cluster
def logs(
    name: str, follow: bool, attempt: int | None, log_format: str, printed: bool, context: str | None,
    namespace: str | None,
) -> None:  # fmt: skip
    """Show a task's log."""
    from polypod_cli.show_log import show

    show(connect(context, namespace), name, attempt, follow=follow, log_format=log_format, printed=printed)


@click.command()
@click.argument("name")
@output
@on_cluster
def describe(name: str, output: str, context: str | None, namespace: str | None) -> None:
    """Show the timeline of a TaskRun and the duration of each step."""
    from polypod_cli import timeline

    cluster = connect(context, namespace)
    run = cluster.get(name)
    status = run.get("status") or {}
    names = [item["podName"] for item in status.get("attempts") or () if item.get("podName")]
    pods = {pod["metadata"]["name"]: pod for pod in map(cluster.pod, names) if pod is not None}
    events = [event for pod in pods.values() for event in cluster.events(pod["metadata"]["uid"])]
    head = [
        f"{cluster.namespace}/{name}: {phase(run)}" + (f", {status['reason']}" if status.get("reason") else ""),
        f"Dag {run['spec']['dagId']}, task {run['spec']['taskId']}, run {run['spec']['runId']}",
        *([status["message"]] if status.get("message") else []),
        "",
    ]
    _print([*head, timeline.as_text(timeline.moments(run, pods, events))], [run], output)


@click.command()
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True)
@click.option("--all", "finished", is_flag=True, help="Include finished TaskRuns.")
@output
@on_cluster
def top(everywhere: bool, finished: bool, output: str, context: str | None, namespace: str | None) -> None:
    """Show running and waiting TaskRuns: live on a terminal, once in a pipe."""
    cluster = connect(context, namespace)
    if output != "text" or not sys.stdout.isatty():
        items = _sorted(cluster.list(everywhere=everywhere), finished)
        _print(_rows(items, cluster.clock.now()), items, output)
        return
    from polypod_cli.following import Followed

    followed = Followed(cluster, everywhere=everywhere)
    while True:
        items = _sorted(followed.now(), finished)
        click.clear()
        _print(_rows(items, cluster.clock.now()), items, output)
        time.sleep(_REDRAW)


def _sorted(items: Iterable[Raw], finished: bool) -> list[Raw]:
    found = [item for item in items if finished or not has_finished(item)]
    return sorted(found, key=lambda item: (phase(item) != "Running", item["metadata"]["creationTimestamp"]))


COLUMNS = ("NAMESPACE", "NAME", "PHASE", "TASK", "QUEUE", "ATTEMPT", "AGE", "RUNS FOR", "REASON", "POD")


def _rows(items: Sequence[Raw], now: datetime) -> list[str]:
    rows = [COLUMNS]
    for item in items:
        status, spec, metadata = item.get("status") or {}, item["spec"], item["metadata"]
        last = (status.get("attempts") or [{}])[-1]
        rows.append((
            metadata["namespace"], metadata["name"], phase(item), f"{spec['dagId']}.{spec['taskId']}", spec["queue"],
            str(last.get("number", "-")), _age(metadata["creationTimestamp"], now),
            _age(last["startTime"], now) if last.get("startTime") and not last.get("finishTime") else "-",
            status.get("reason") or "-", last.get("podName") or "-",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _age(since: str, now: datetime) -> str:
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _wait(cluster: Cluster, keys: Sequence[Key], timeout: float | None, output: str) -> int:
    """Wait and print each change; return the exit code."""
    give_up = time.monotonic() + timeout if timeout is not None else None
    printed: dict[Key, str] = {}
    ended: dict[Key, Raw] = {}
    for found in follow_all(cluster, keys, until=give_up):
        for key, run in found.items():
            if key in ended:
                continue
            line = _said(run, phase(run))
            if output == "text" and printed.get(key) != line:
                click.echo(line)
            printed[key] = line
            if has_finished(run):
                ended[key] = run
        if len(ended) == len(set(keys)):
            break
    left = ", ".join("/".join(key) for key in keys if key not in ended)
    if left:
        click.echo(f"not finished within {timeout:g} s: {left}", err=True)
        return EXIT_TIMEOUT
    _print([], [ended[key] for key in keys], output)
    return 0 if all(phase(run) == "Succeeded" for run in ended.values()) else EXIT_FAILED


def _submitted(run: Raw) -> str:
    """Return what applying a TaskRun has done: one that has ended does not run again."""
    if not has_finished(run):
        return "submitted"
    return f"has already ended, and does not run again: {phase(run)}; delete it first, or give it another name"


def _said(run: Raw, what: str) -> str:
    status, metadata = run.get("status") or {}, run["metadata"]
    why = ": ".join(part for part in (status.get("reason"), status.get("message")) if part)
    return f"{metadata['namespace']}/{metadata['name']} {what}" + (f" ({why})" if why and what != "submitted" else "")


def _print(text: Sequence[str], items: Sequence[Raw], output: str) -> None:
    if output == "text":
        for line in text:
            click.echo(line)
        return
    shown = items[0] if len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(items)}
    if output == "json":
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        import yaml

        try:
            text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
        except RecursionError:
            # JSON is YAML, too, and its writer is not as deep
            text = json.dumps(shown, ensure_ascii=False) + "\n"
        click.echo(text, nl=False)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print shell completion code, for example: source <(polypod completion bash)."""
    from click.shell_completion import get_completion_class

    from polypod_cli.commands import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "polypod", "_POLYPOD_COMPLETE").source())
