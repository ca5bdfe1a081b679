"""Serving a runtime in its own schema version: what a later version added is left out for an older one."""

from __future__ import annotations

import msgspec

from polypod_coordinators.comm.answers import Answer, StartupDetails
from polypod_coordinators.comm.versions import V2026_10_30


def downgrade(answer: Answer, version: str) -> Answer:
    """Return the message in the shape that `version` has."""
    if version >= V2026_10_30 or not isinstance(answer, StartupDetails):
        return answer
    return msgspec.structs.replace(
        answer,
        ti_context=msgspec.structs.replace(answer.ti_context, arg_bindings=msgspec.UNSET),
        bundle_info=msgspec.structs.replace(answer.bundle_info, version_data=msgspec.UNSET),
    )


def undelivered_arguments(details: StartupDetails, version: str) -> int:
    """Count the arguments of the task that a runtime of `version` cannot be given."""
    bindings = details.ti_context.arg_bindings
    return len(bindings) if bindings and version < V2026_10_30 else 0
