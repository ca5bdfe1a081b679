"""What has happened to a TaskRun, in its order: from it and its pods. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Raw = Mapping[str, Any]
_PULLED = re.compile(r'Successfully pulled image "([^"]+)" in (\S+)')
"""A kubelet's words; an image that is on the node already has others."""


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Something that happened."""

    when: datetime
    what: str
    detail: str = ""


def moments(run: Raw, pods: Mapping[str, Raw], events: Sequence[Raw] = ()) -> list[Moment]:
    """Return what happened, earliest first.

    Args:
        pods: by name, as far as they are still there.
        events: of these pods, as far as they are still there: only they tell of images.
    """
    status = run.get("status") or {}
    found = [Moment(_time(run["metadata"]["creationTimestamp"]), "created", f"queue {run['spec'].get('queue')}")]
    for attempt in status.get("attempts") or ():
        name = attempt.get("podName") or ""
        its = [event for event in events if event["involvedObject"].get("name") == name]
        found += _of_attempt(attempt, pods.get(name), its)
    if status.get("finishTime"):
        found.append(Moment(_time(status["finishTime"]), status["phase"].lower(), status.get("reason") or ""))
    # the clocks of nodes have seconds only: what is written first came first
    return sorted(found, key=lambda moment: moment.when.replace(microsecond=0))


def _of_attempt(attempt: Raw, pod: Raw | None, events: Sequence[Raw]) -> Iterator[Moment]:
    number = attempt["number"]
    if attempt.get("createTime"):
        route = f", coordinator {attempt['coordinator']}" if attempt.get("coordinator") else ""
        yield Moment(_time(attempt["createTime"]), f"attempt {number}: pod made", f"{attempt.get('podName')}{route}")
    if pod is not None:
        yield from _of_pod(number, pod, events)
    if attempt.get("startTime"):
        yield Moment(_time(attempt["startTime"]), f"attempt {number}: task started")
    if attempt.get("connectTime"):
        yield Moment(_time(attempt["connectTime"]), f"attempt {number}: runtime connected")
    if attempt.get("finishTime"):
        said = ": ".join(part for part in (attempt.get("reason"), attempt.get("message")) if part)
        yield Moment(_time(attempt["finishTime"]), f"attempt {number}: {attempt['state']}", said)


def _of_pod(number: int, pod: Raw, events: Sequence[Raw]) -> Iterator[Moment]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            node = (pod.get("spec") or {}).get("nodeName", "")
            yield Moment(_time(condition["lastTransitionTime"]), f"attempt {number}: scheduled", node)
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for item in every:
        own = f"{{{item['name']}}}"
        # of what happened in the same second, what is given first came first
        yield from _pulls(number, [event for event in events if own in event["involvedObject"].get("fieldPath", "")])
        state = item.get("state") or {}
        started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
        if started:
            yield Moment(_time(started), f"attempt {number}: container {item['name']} started", item.get("image", ""))
        elif state.get("waiting"):
            waiting = state["waiting"]
            said = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
            yield Moment(datetime.max.replace(tzinfo=UTC), f"attempt {number}: container {item['name']} waits", said)


def _pulls(number: int, events: Iterable[Raw]) -> Iterator[Moment]:
    for event in events:
        pulled = _PULLED.search(event.get("message") or "")
        if event.get("reason") == "Pulled" and pulled is not None and event.get("lastTimestamp"):
            image, took = pulled.groups()
            yield Moment(_time(event["lastTimestamp"]), f"attempt {number}: image pulled in {took}", image)


def as_text(found: Iterable[Moment]) -> str:
    """Return moments as lines, each with the time since the first and since the one before."""
    lines = []
    first = before = None
    for moment in found:
        if moment.when.year == datetime.max.year:
            lines.append(f"{'now':>9}  {'':>8}  {moment.what:<40}  {moment.detail}".rstrip())
            continue
        first, before = first or moment.when, before or moment.when
        since = max(0.0, (moment.when - first).total_seconds())
        step = max(0.0, (moment.when - before).total_seconds())
        lines.append(f"{since:8.1f}s  {f'+{step:.1f}s':>8}  {moment.what:<40}  {moment.detail}".rstrip())
        before = max(before, moment.when)
    return "\n".join(lines)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
