"""`polypod logs`: the log of a TaskRun's attempts, from their pods or from where it is kept, each line once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec
from polypod_core.errors import UserError
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES

from polypod_cli import pod_log, stored_log
from polypod_cli.following import has_finished, phase
from polypod_cli.pod_log import PodGone, patiently, statuses, written

if TYPE_CHECKING:
    from polypod_cli.cluster import Cluster

Raw = dict[str, Any]
_SILENT = 3.0
"""Seconds of waiting before it is said what for."""
_KEPT = "; the chart's value `logs` has logs kept"


def show(cluster: Cluster, name: str, wanted: int | None, *, follow: bool, log_format: str, printed: bool) -> None:
    """Print a log.

    Args:
        wanted: the number of the attempt; by default the last, and with `follow` all from now on.
        printed: what the runtime has printed, instead of the task's log.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    render, waiting = _renderer(log_format, printed), _Waiting()
    shown = 0
    run = cluster.get(name)
    while True:
        attempts = (run.get("status") or {}).get("attempts") or []
        chosen = _choose(attempts, wanted, shown, follow)
        if chosen is not None:
            pod = patiently(partial(cluster.pod, chosen["podName"]))
            if follow and pod is not None and not _begun(pod, _container(printed)):
                waiting.say(run)
                time.sleep(pod_log.PAUSE)
                run = patiently(lambda: cluster.get(name))
                continue
            _print(
                _lines(cluster, run, chosen, pod, follow=follow, printed=printed, goes_on=follow and wanted is None),
                render,
            )
            shown = chosen["number"]
            if not follow or wanted is not None:
                return
        elif not follow or (has_finished(run) and (wanted is not None or not shown)):
            raise UserError(Reason.INVALID_CONFIG, _no_attempt(run, attempts, wanted))
        if has_finished(run) and (chosen is None or chosen is attempts[-1]):
            return
        waiting.say(run)
        time.sleep(pod_log.PAUSE)
        run = patiently(lambda: cluster.get(name))


class _Waiting:
    """Says on standard error what a log that is followed waits for, once it has waited for it for some seconds."""

    def __init__(self) -> None:
        self._what, self._since, self._told = "", 0.0, False

    def say(self, run: Raw) -> None:
        """Take note of what a TaskRun waits for now."""
        what, now = f"{phase(run)}{_why(run)}", time.monotonic()
        if what != self._what:
            self._what, self._since, self._told = what, now, False
        elif not self._told and now - self._since > _SILENT:
            self._told = True
            click.echo(f"{run['metadata']['namespace']}/{run['metadata']['name']} is {what}", err=True)


def _print(lines: Generator[bytes], render: Callable[[bytes], bytes]) -> None:
    # what reads them may have a pod to remove, also if nobody reads the output any more
    with closing(lines):
        for line in lines:
            sys.stdout.buffer.write(render(line))
            sys.stdout.buffer.flush()


def _lines(
    cluster: Cluster, run: Raw, attempt: Raw, pod: Raw | None, *, follow: bool, printed: bool, goes_on: bool
) -> Generator[bytes]:
    """Yield the lines of an attempt; say on standard error which are gone.

    Args:
        pod: as it was before anything is read.
        goes_on: whether other attempts may follow, so that a log that is gone is no error.
    """
    shown = 0
    try:
        if pod is None:
            raise PodGone
        for line in pod_log.lines(cluster, attempt["podName"], _container(printed), follow=follow):
            shown += 1
            yield line
    except PodGone:
        yield from _of_a_pod_that_is_gone(cluster, run, attempt, shown, printed=printed, goes_on=goes_on)
        return
    if printed:
        return
    # without `follow`, lines that came while we read are not missing
    last = patiently(partial(cluster.pod, attempt["podName"])) if follow else pod
    gone = written(last, "bridge") - shown
    if gone > 0:
        click.echo(
            f"{gone} of {gone + shown} lines of attempt {attempt['number']} are no longer in the pod's log: the "
            "kubelet has rotated it (containerLogMaxSize); the chart's value `logs` has logs kept whole",
            err=True,
        )


def _of_a_pod_that_is_gone(
    cluster: Cluster, run: Raw, attempt: Raw, shown: int, *, printed: bool, goes_on: bool
) -> Generator[bytes]:
    """Yield what is kept elsewhere, after the lines that were shown already."""
    number, what = attempt["number"], "what it printed" if printed else "its log"
    if not printed:
        # where it is kept may have been written since
        run = patiently(lambda: cluster.get(run["metadata"]["name"])) if shown else run
        attempts = (run.get("status") or {}).get("attempts") or []
        attempt = next((item for item in attempts if item["number"] == number), attempt)
        if attempt.get("log"):
            yield from stored_log.read(cluster, run, attempt, skip=shown)
            return
    rest = f"what came after line {shown} of {what}" if shown else what
    message = f"the pod of attempt {number}, {attempt['podName']}, is gone, and {rest} with it"
    message += "" if printed else _KEPT
    if not goes_on and not shown:
        raise UserError(Reason.INVALID_CONFIG, message)
    click.echo(message, err=True)


def _container(printed: bool) -> str:
    return "task" if printed else "bridge"


def _no_attempt(run: Raw, attempts: Sequence[Raw], wanted: int | None) -> str:
    metadata = run["metadata"]
    where = f"TaskRun {metadata['namespace']}/{metadata['name']}"
    if wanted is not None and attempts:
        return f"{where} has no attempt {wanted}; it has {', '.join(str(item['number']) for item in attempts)}"
    return f"{where} has no log: no attempt has a pod; it is {phase(run)}{_why(run)}"


def _why(run: Raw) -> str:
    status = run.get("status") or {}
    why = ": ".join(part for part in (status.get("reason"), status.get("message")) if part)
    return f" ({why})" if why else ""


def _choose(attempts: Sequence[Raw], wanted: int | None, shown: int, follow: bool) -> Raw | None:
    if wanted is not None:
        return next((item for item in attempts if item["number"] == wanted and item.get("podName")), None)
    new = [item for item in attempts if item["number"] > shown and item.get("podName")]
    if not new:
        return None
    return new[0] if follow else new[-1]


def _begun(pod: Raw, container: str) -> bool:
    """Tell whether a container has a log, or will never have one."""
    if (pod.get("status") or {}).get("phase") in FINISHED_PHASES:
        return True
    return any(
        item["name"] == container and "waiting" not in (item.get("state") or {"waiting": {}}) for item in statuses(pod)
    )


def _renderer(log_format: str, printed: bool) -> Callable[[bytes], bytes]:
    if printed or log_format == "json":
        return lambda line: line + b"\n"
    from polypod_bridge.logs.render import console

    render = console(sys.stdout.isatty())

    def shown(line: bytes) -> bytes:
        try:
            event = msgspec.json.decode(line)
            return render({**event, "timestamp": datetime.fromisoformat(event["timestamp"])})
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
            # not the log's: what the bridge itself printed
            return line + b"\n"

    return shown
