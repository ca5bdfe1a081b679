"""What an attempt is about: known before it starts, and never changed."""

from __future__ import annotations

import msgspec

from polypod_bridge.comm import answers as a


class Identity(msgspec.Struct, frozen=True):
    """Host and user that run the task, reported to the Execution API."""

    hostname: str
    unixname: str


class Assignment(msgspec.Struct, frozen=True):
    """A task, and the runtime that is to run it.

    Attributes:
        schema_version: the supervisor schema that the artifact speaks.
        whole_bits: the size of the whole numbers that the runtime can hold.
        exits_on_second_sigterm: a second SIGTERM has the runtime exit (a JVM's shutdown hooks run in the first).
        token_end: when the workload's token expires, in seconds since 1970; 0 if that is not known.
    """

    ti: a.TaskInstance
    bundle_info: a.BundleInfo
    identity: Identity
    schema_version: str
    dag_rel_path: str = ""
    sentry_integration: str = ""
    whole_bits: int = 64
    exits_on_second_sigterm: bool = False
    token_end: float = 0.0
