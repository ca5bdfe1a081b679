"""The supervisor schema versions known here, and the refusal of any other.

A runtime declares the version that it was built against and is served in that version. A version that is not known
is refused before the runtime starts.
"""

from __future__ import annotations

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

V2026_06_16 = "2026-06-16"
V2026_10_30 = "2026-10-30"
VERSIONS = (V2026_06_16, V2026_10_30)
"""The versions spoken here, oldest first."""


def resolve_version(version: object, where: str) -> str:
    """Return `version` if it is known.

    Args:
        version: what the artifact declares.
        where: the artifact, for the error.

    Raises:
        UserError: it is not known; the message names those that are.
    """
    if isinstance(version, str) and version in VERSIONS:
        return version
    raise UserError(
        Reason.UNKNOWN_SCHEMA_VERSION,
        f"{where} speaks supervisor schema version {version!r}; known here: {', '.join(VERSIONS)}",
    )
