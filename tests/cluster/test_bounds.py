"""Both sides of every bound and rule of the CRD: whatever is stored, the operator can write a status to, and it can end.

Nothing is started: the calls are the operator's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from polypod_core.kinds import task_run_path
from polypod_crds import crd
from polypod_crds.taskrun import Attempt, StoredLog, TaskRunStatus
from polypod_operator.control.statuses import dump
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.model import conditions

from cluster.api import Api
from cluster.lab import task_run

pytestmark = pytest.mark.needs("api-server")

Raw = dict[str, Any]
SPEC: Raw = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MERGE = "application/merge-patch+json"
TIMES = [
    "2026-10-25T02:30:00Z", "2026-10-25t02:30:00z", "2026-10-25T02:30:00", "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-02-30T00:00:00Z", "2026-10-25T24:00:00Z",
    "2026-10-25T02:30:60Z", "2026-10-25T02:30:00,5Z", "2026-10-25T02:30:00+14:00", "2026-10-25T02:30:00+99:99",
]  # fmt: skip
DURATIONS = ["0s", "0ms", "0.0s", "1ms", "0.000000001ms", "1h1h1h", "8784h", "8784h0.001s", "8783h59m60s", "999999999999h",
             "1", "1d", "-1s", "1.5.5s", ".5s", "9" * 300 + "h"]  # fmt: skip
IDS = [".", "..", "...", "a b", "ü", "e\u0301", "\u0661", "a/b", "a\nb", "\u200b", "_", "-", "😀"]
NAMES = ["A", "a.", "-a", "a-", "a..b", "a_b", "a" * 253, "ü"]
URLS = ["http://", "http:///x", "http://a", "https://[::1]:1/x", "http://[", "ftp://a", "HTTP://a", "http://a b/"]
PATHS = ["/", "a", "/a:b", "//", "/" + "a" * 1023, ""]
PLAIN: Raw = {"url": "http://a/", "logicalDate": TIMES[0], "start": TIMES[0], "end": TIMES[0], "mountPath": "/a"}
SPECIAL: dict[str, list[str]] = {
    **dict.fromkeys(("logicalDate", "start", "end"), TIMES),
    **dict.fromkeys(("delay", "maxDelay", "pending", "startup", "execution"), DURATIONS),
    **dict.fromkeys(("dagId", "taskId"), IDS), "runId": [*IDS, "a~:+@ b"],
    **dict.fromkeys(("name", "persistentVolumeClaim"), NAMES), "url": URLS, "mountPath": PATHS, "path": PATHS,
}  # fmt: skip
BOTH_SIDES: list[Raw] = [
    {"executionApi": {"url": "http://a/", "tokenSecretRef": {"name": "a", "key": "b"}}},
    {"executionApi": {"url": "http://a/", "tokenSecretRef": {"name": "a", "key": "b"}},
     "workloadSecretRef": {"name": "a", "key": "b"}},
    {"dependsOn": [{"taskId": "t"}]}, {"dependsOn": [{"taskId": "u"}, {"taskId": "u"}]},
    {"arguments": [{"name": "a", "fromXCom": {"taskId": "t"}}]}, {"arguments": [{"name": "a"}, {"name": "a", "value": 1}]},
    {"arguments": [{"name": "a", "value": None}]}, {"arguments": [{"name": "a", "value": 1, "fromXCom": {"taskId": "u"}}]},
    {"artifacts": {}}, {"artifacts": {"image": "a", "persistentVolumeClaim": "b"}}, {"variablesFrom": [{}]},
    {"variablesFrom": [{"secretRef": {"name": "a"}, "configMapRef": {"name": "a"}}]},
    {"dataInterval": {"start": "2026-10-25T02:30:00+01:00", "end": "2026-10-25T01:30:00Z"}},
    {"dataInterval": {"start": "2026-10-25T02:30:00Z", "end": "2026-10-25T02:30:00+01:00"}},
    {"dataInterval": {"start": "2026-10-25t02:30:00z", "end": "2026-10-26T02:30:00Z"}},
]  # fmt: skip


def plain(schema: Raw, name: str = "", index: int = 0) -> Any:
    """Return the least that a schema takes."""
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema:
        found = {key: plain(schema["properties"][key], key, index) for key in schema.get("required", ())}
        if "fromXCom" in schema["properties"]:
            found["value"] = 1
        if "configMapRef" in schema["properties"]:
            found["secretRef"] = {"name": "a"}
        if "persistentVolumeClaim" in schema["properties"]:
            found["image"] = "a"
        return found
    if kind == "string":
        text = PLAIN.get(name, "1s" if name in ("delay", "maxDelay", "pending", "startup", "execution") else "a")
        return text if text != "a" else f"a{index}"
    return {"integer": 1, "boolean": True, "array": [], "object": {}}.get(str(kind), {})


def bounds(schema: Raw, name: str = "") -> Iterator[Any]:
    """Yield values on both sides of a schema's bounds."""
    kind = schema.get("type")
    yield from schema.get("enum", ())
    if kind == "string":
        yield from SPECIAL.get(name, ())
        least, most = schema.get("minLength", 0), schema.get("maxLength", 1000)
        for length in {max(least - 1, 0), least, most, most + 1}:
            yield from (letter * length for letter in "aü😀")
    elif kind == "integer":
        low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
        yield from (low - 1, low, high, high + 1)
    elif kind == "array":
        most = schema.get("maxItems", 10)
        for count in (0, 1, most, most + 1):
            yield [plain(schema["items"], name, index) for index in range(count)]
        yield from ([{**plain(schema["items"]), **part}] for part in parts(schema["items"]))
    elif "properties" in schema:
        yield from ({**plain(schema), **part} for part in parts(schema))


def parts(schema: Raw) -> Iterator[Raw]:
    """Yield for each field of an object each of its values, alone."""
    for name, field in schema["properties"].items():
        for value in bounds(field, name):
            yield {name: value}


CASES: list[Raw] = [*parts(SPEC), *BOTH_SIDES]


def longest() -> TaskRunStatus:
    """Return a status as long as one that the operator writes may become."""
    long = "ü" * conditions.MAX_MESSAGE
    log = StoredLog(url="s3://" + "a" * 1000, reader_image="bridge:1")
    attempts = [
        Attempt(number=number, state="failed", reason="TaskFailed", message=long, pod_name="p" * 253, pod_uid="u",
                image="i" * 200, create_time=NOW, start_time=NOW, finish_time=NOW, cpu_seconds=0.1, log=log)
        for number in range(1, 21)
    ]  # fmt: skip
    status = TaskRunStatus(
        phase="Failed", state="failed", reason="TaskFailed", message=long, tries=20, attempts=attempts
    )
    for kind in ("Routed", "Started", "Complete", "Succeeded"):
        conditions.put(status, kind, "False", "TaskFailed", long, NOW, 1)
    return status


async def written(kubernetes: KubernetesApi, name: str) -> str:
    """Write statuses to a stored TaskRun, and cancel it; return what the API server has refused."""
    path = task_run_path("default", name)
    version = (await kubernetes.call("GET", path))["metadata"]["resourceVersion"]
    for what, status in (("first", TaskRunStatus(reason="PodStarting")), ("longest", longest())):
        try:
            answer = await kubernetes.patch_status(path, version, dump(status))
            if what == "first":
                # in between, as the generation may matter to a rule
                body: Raw = {"spec": {"suspend": True, "ttlSecondsAfterFinished": 5}}
                await kubernetes.call("PATCH", path, body, content_type=MERGE)
                answer = await kubernetes.call("PATCH", path, {"spec": {"cancel": True}}, content_type=MERGE)
            version = answer["metadata"]["resourceVersion"]
        except ApiError as error:
            return f"{what}: {error}"
    return ""


async def each(cases: list[Raw], do: Callable[[int, Raw], Awaitable[None]]) -> None:
    limit = asyncio.Semaphore(8)

    async def one(index: int, case: Raw) -> None:
        async with limit:
            await do(index, case)

    await asyncio.gather(*(one(index, case) for index, case in enumerate(cases)))


def shown(case: Raw) -> str:
    return json.dumps(case)[:120]


async def run_all(api: Api, cases: list[Raw]) -> tuple[int, list[str]]:
    """Create TaskRuns and write to those that are stored; return how many these are, and what was refused."""
    stored: set[int] = set()
    refused: list[str] = []
    kubernetes = KubernetesApi(api.connection())

    async def create(index: int, case: Raw) -> None:
        document = task_run(f"bound-{index}", "t")
        document["spec"] = {**document["spec"], **case}
        try:
            await kubernetes.call("POST", task_run_path("default", ""), document)
            stored.add(index)
        except ApiError as error:
            if error.status not in (400, 413, 422, 500):
                raise

    async def write(index: int, case: Raw) -> None:
        problem = await written(kubernetes, f"bound-{index}") if index in stored else ""
        if problem:
            refused.append(f"{shown(case)}: {problem}")

    await kubernetes.open()
    try:
        await each(cases, create)
        await each(cases, write)
    finally:
        await kubernetes.close()
    return len(stored), refused


def test_what_the_crd_admits_can_be_written_to_and_ended(api: Api) -> None:
    stored, refused = asyncio.run(run_all(api, CASES))
    assert refused == []
    assert len(CASES) / 4 < stored < len(CASES), "values of both sides"
