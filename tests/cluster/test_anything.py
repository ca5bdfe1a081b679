"""Whatever the CRD admits, a status says what became of it: TaskRuns that are generated from the CRD's own schema."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polypod_crds import crd
from support.sizes import SIZES
from support.waiting import wait_until

from cluster.api import Api
from cluster.lab import task_run
from cluster.spoilt import ROUTING, Operator

pytestmark = [pytest.mark.needs("api-server"), pytest.mark.generated]

Raw = dict[str, Any]
SPEC: Raw = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
BATCH = 50
STRINGS = ["", "a", "task-1", "A_b.c", "golang", "nowhere", "😀", "ü" * 60, "a" * 250, "a" * 63 + ".b", "-", "..", "\u202e",
           "30s", "0s", "1h30m", "8784h", "10", "http://a:1/x/", "/a", "/", "2026-11-21T00:00:00Z",
           "2026-11-21T00:00:00.123456789+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "return_value",
           "2026-10-25t02:30:00z", "2026-10-25T02:30:60Z", "2026-10-25T02:30:00,5Z", "2026-10-25T02:30:00+99:99"]  # fmt: skip
NUMBERS = [0, 1, -1, 7, 1000, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, 1.5, 1e300]
POD: list[Raw] = [
    {"spec": {"nodeSelector": {"a": "b"}}},
    {"spec": {"containers": [{"name": "task", "env": [{"name": "A", "value": "b"}]}]}},
    {"spec": {"containers": [{"name": "task", "resources": {"limits": {"memory": "1Gi", "cpu": 1}}}]}},
    {"spec": {"tolerations": [{"operator": "Exists"}], "priorityClassName": "none"}},
    {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
    {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d" * 1000}}},
]


class Generator:
    """Makes specs of what a schema admits, and now and then of what it does not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def spec(self) -> Raw:
        """Return a spec that is good but for a few fields, which are anything."""
        base: Raw = task_run("x", "t")["spec"]
        names = self._random.sample(sorted(SPEC["properties"]), self._random.randint(1, 4))
        return {**base, **{name: self._value(SPEC["properties"][name], 0, name) for name in names}}

    def _value(self, schema: Raw, depth: int, name: str = "") -> Any:
        pick = self._random
        if "enum" in schema:
            return pick.choice(schema["enum"])
        kind = schema.get("type")
        if name == "podTemplate" and pick.random() < 0.5:
            return pick.choice(POD)
        if "properties" in schema:
            required = schema.get("required", [])
            chosen = [key for key in schema["properties"] if key in required or pick.random() < 0.4]
            return {key: self._value(schema["properties"][key], depth + 1) for key in chosen}
        if kind == "array":
            size = pick.choice([0, 1, 2, min(8, schema.get("maxItems", 8))])
            return [self._value(schema["items"], depth + 1) for _ in range(size)]
        if kind == "string":
            return pick.choice(STRINGS)
        if kind in ("integer", "number"):
            bounds = [schema[key] for key in ("minimum", "maximum") if key in schema]
            return pick.choice([*bounds, *NUMBERS] if kind == "number" else [*bounds, *bounds, *NUMBERS[:9]])
        if kind == "boolean":
            return pick.random() < 0.5
        return self._json(0, whole=kind == "object")

    def _json(self, depth: int, whole: bool = False) -> Any:
        pick = self._random
        if whole or (depth < 4 and pick.random() < 0.3):
            return {pick.choice(STRINGS): self._json(depth + 1) for _ in range(pick.randint(0, 4))}
        if depth < 4 and pick.random() < 0.2:
            return [self._json(depth + 1) for _ in range(pick.randint(0, 4))]
        return pick.choice([None, True, *STRINGS, *NUMBERS])


@pytest.fixture
def operator(api: Api, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(api, tmp_path)
    for document in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "polypod-system"}},
        ROUTING,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "anything"}},
    ):
        if document["kind"] == "ServiceAccount":
            api.kubectl("create", "namespace", "anything")
        api.kubectl("create", "-f", "-", stdin=document)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_whatever_the_crd_admits_gets_a_status_that_says_what_became_of_it(api: Api, operator: Operator) -> None:
    seed = secrets.randbits(32)
    generator = Generator(seed)
    specs = {f"run-{number}": generator.spec() for number in range(SIZES.generated_objects)}
    items = [{**task_run(name, "t"), "spec": spec} for name, spec in specs.items()]
    for index in range(0, SIZES.generated_objects, BATCH):
        part = {"apiVersion": "v1", "kind": "List", "items": items[index : index + BATCH]}
        api.kubectl("-n", "anything", "create", "-f", "-", stdin=part)
    admitted = {item["metadata"]["name"] for item in api.items("taskruns", "-n", "anything")}
    assert len(admitted) > SIZES.generated_objects / 10, (
        f"seed {seed}: the API server has admitted {len(admitted)} alone"
    )

    def without_reason() -> list[Raw]:
        found = api.items("taskruns", "-n", "anything")
        return [item for item in found if not (item.get("status") or {}).get("reason")]

    wait_until(
        lambda: operator.process.poll() is not None or not without_reason(),
        f"seed {seed}: that each TaskRun has a reason",
        limit=300,
        seen=lambda: json.dumps(without_reason())[:3000],
        every=0.5,
    )
    said = operator.log.read_text()
    assert operator.process.poll() is None, said[-3000:]
    # a reason that is true: the operator has failed at none, and could read all of them
    reasons = {item["metadata"]["name"]: item["status"]["reason"] for item in api.items("taskruns", "-n", "anything")}
    assert {"PodStarting", "InvalidRouting"} <= set(reasons.values()), f"seed {seed}: {reasons}"
    failed = {name: specs[name] for name, reason in reasons.items() if reason in ("OperatorFailed", "Unreadable")}
    assert failed == {}, f"seed {seed}: {said[-3000:]}"
    events = [item["reason"] for item in api.items("events", "-n", "anything")]
    assert "Unreadable" not in events, f"seed {seed}"
    assert "OperatorFailed" not in events, f"seed {seed}"
    assert "Traceback" not in said, f"seed {seed}: {said[-3000:]}"


SIZES_OF_SPECS = [999_000, 1_001_000, 1_400_000, 1_500_000, 1_550_000, 1_560_000, 1_565_000, 1_570_000]
"""Around our limit, and up to what etcd takes as one request (1.5 MiB), the status included."""


def test_what_is_stored_gets_a_word_and_can_be_cancelled(api: Api, operator: Operator) -> None:
    api.kubectl("-n", "anything", "delete", "taskruns,pods", "--all", "--wait=true")
    specs: dict[str, Raw] = {f"size-{size}": {"params": {"x": "y" * size}} for size in SIZES_OF_SPECS}
    specs |= {f"time-{index}": {"logicalDate": text} for index, text in enumerate(STRINGS) if "-" in text}
    for name, spec in specs.items():
        api.create(task_run(name, "t", **spec), "anything")
    stored = {item["metadata"]["name"] for item in api.items("taskruns", "-n", "anything")}
    assert {"size-1500000", f"time-{STRINGS.index('2026-10-25t02:30:00z')}"} <= stored

    def without_word() -> list[str]:
        said = {item["involvedObject"]["name"] for item in api.items("events", "-n", "anything")}
        found = api.items("taskruns", "-n", "anything")
        return [
            item["metadata"]["name"]
            for item in found
            if not (item.get("status") or {}).get("reason") and item["metadata"]["name"] not in said
        ]

    wait_until(lambda: not without_word(), "that something is said of each", limit=120, seen=without_word, every=0.5)
    reasons = {
        item["metadata"]["name"]: item.get("status", {}).get("reason")
        for item in api.items("taskruns", "-n", "anything")
    }
    assert reasons["size-1500000"] == "InvalidSpec"
    assert reasons[f"time-{STRINGS.index('2026-10-25t02:30:00z')}"] not in ("InvalidSpec", None)
    for name in stored - {f"size-{size}" for size in SIZES_OF_SPECS if size > 1_500_000}:
        done = api.kubectl("-n", "anything", "patch", "taskrun", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
        assert done.returncode == 0, f"{name}: {done.stderr}"
