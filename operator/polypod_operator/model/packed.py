"""A TaskRun that only waits, as it is kept: there may be 100,000 of them. Pure.

What tells whether news are news, and what metrics show, is kept as it is; the rest is compressed, and unpacked when the
TaskRun is looked at.
"""

from __future__ import annotations

import sys
import zlib
from datetime import datetime

import msgspec
from polypod_crds.taskrun import TaskRunSpec, TaskRunStatus

from polypod_operator.model.objects import TaskRunObject

_COMMON = (
    b'{"queue":"default","dagId":"","taskId":"","runId":"","retries":0,"priority":0,"dependsOn":[],"arguments":[]}'
    b'{"phase":"Pending","reason":"QueueLimit","message":"queue \'\' is at its limit of ; position  in line","tries":0,'
    b'"conditions":[{"type":"Complete","status":"False","reason":"QueueLimit","message":"","lastTransitionTime":'
    b'"2026-01-01T00:00:00Z","observedGeneration":1},{"type":"Succeeded","status":"Unknown","reason":"QueueLimit",'
    b'"message":"","lastTransitionTime":"","observedGeneration":1},{"type":"Started","status":"False","reason":'
    b'"QueueLimit","message":"","lastTransitionTime":"","observedGeneration":1}],"queuePlace":1,"observedGeneration":1}'
)
"""What most of them have in common, for the compression: another text than this one costs room and nothing else."""


class Packed(msgspec.Struct, frozen=True):
    """A TaskRun, packed.

    Attributes:
        data: what `unpack` needs beside its key.
    """

    uid: str
    resource_version: str
    phase: str
    queue: str
    coordinator: str
    data: bytes


class _Rest(msgspec.Struct, array_like=True):
    generation: int
    created: datetime
    deleting: bool
    spec: str | None
    status: str
    problems: str
    size: int
    whole: bool
    finalizers: list[str]
    digest: int
    altered: bool


def pack(run: TaskRunObject) -> Packed | None:
    """Return a TaskRun packed, None if it would not come out as it went in."""
    packed = _packed(run)
    return packed if unpack(run.key, packed) == run else None


def _packed(run: TaskRunObject) -> Packed:
    spec = run.spec.model_dump_json(by_alias=True, exclude_unset=True) if run.spec is not None else None
    status = run.status.model_dump_json(by_alias=True, exclude_defaults=True)
    rest = _Rest(run.generation, run.created, run.deleting, spec, status, run.problems, run.size, run.whole,
                 list(run.finalizers), run.digest, run.altered)  # fmt: skip
    deflate = zlib.compressobj(1, zdict=_COMMON)
    data = deflate.compress(msgspec.msgpack.encode(rest)) + deflate.flush()
    # names that very many have are kept once
    queue, coordinator = sys.intern(queue_of(run)), sys.intern(coordinator_of(run))
    return Packed(run.uid, run.resource_version, sys.intern(run.status.phase), queue, coordinator, data)


def unpack(key: tuple[str, str], packed: Packed) -> TaskRunObject:
    """Return the TaskRun of that key as it was packed."""
    raw = zlib.decompressobj(zdict=_COMMON).decompress(packed.data)
    rest = msgspec.msgpack.decode(raw, type=_Rest)
    return TaskRunObject(
        namespace=key[0],
        name=key[1],
        uid=packed.uid,
        generation=rest.generation,
        resource_version=packed.resource_version,
        created=rest.created,
        deleting=rest.deleting,
        spec=TaskRunSpec.model_validate_json(rest.spec) if rest.spec is not None else None,
        status=TaskRunStatus.model_validate_json(rest.status),
        problems=rest.problems,
        size=rest.size,
        whole=rest.whole,
        finalizers=rest.finalizers or (),
        digest=rest.digest,
        altered=rest.altered,
    )


def pack_status(status: TaskRunStatus) -> bytes:
    """Return a status in little room."""
    deflate = zlib.compressobj(1, zdict=_COMMON)
    return deflate.compress(status.model_dump_json(by_alias=True, exclude_defaults=True).encode()) + deflate.flush()


def unpack_status(data: bytes) -> TaskRunStatus:
    """Return a status as it was packed."""
    return TaskRunStatus.model_validate_json(zlib.decompressobj(zdict=_COMMON).decompress(data))


def queue_of(run: TaskRunObject) -> str:
    """Return a TaskRun's queue, empty if its spec is not valid."""
    return run.spec.queue if run.spec is not None else ""


def coordinator_of(run: TaskRunObject) -> str:
    """Return the coordinator of its last attempt, empty if there is none."""
    last = run.status.attempts[-1] if run.status.attempts else None
    return (last.coordinator if last is not None else None) or ""
