"""A pod that cannot be made, for a reason that the user can change."""

from __future__ import annotations


class PodError(Exception):
    """The TaskRun's pod cannot be made.

    Attributes:
        reason: one word of the documented enums.
        message: what to tell the person, complete in itself.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
