"""Serving a runtime in its own schema version: what a later version added is left out for an older one."""

from __future__ import annotations

import msgspec
from msgspec import UNSET
from polypod_core.schema_versions import V2026_10_30

from polypod_bridge.comm.answers import Answer, PreviousTIResult, StartupDetails


def downgrade(answer: Answer, version: str) -> Answer:
    """Return the message in the shape that `version` has."""
    if version >= V2026_10_30:
        return answer
    if isinstance(answer, PreviousTIResult) and answer.task_instance is not None:
        older = {k: v for k, v in answer.task_instance.items() if k not in ("region_id", "region_index")}
        return PreviousTIResult(task_instance=older)
    if not isinstance(answer, StartupDetails):
        return answer
    context = msgspec.structs.replace(
        answer.ti_context,
        arg_bindings=UNSET,
        loop=UNSET,
        first_task_reschedule_start_date=UNSET,
        multi_team=UNSET,
    )
    return msgspec.structs.replace(
        answer,
        ti=msgspec.structs.replace(answer.ti, region_id=UNSET, region_index=UNSET),
        ti_context=context,
        bundle_info=msgspec.structs.replace(answer.bundle_info, version_data=UNSET),
    )


def undelivered_arguments(details: StartupDetails, version: str) -> int:
    """Count the arguments of the task that a runtime of `version` cannot be given."""
    bindings = details.ti_context.arg_bindings
    return len(bindings) if bindings and version < V2026_10_30 else 0
