"""Errors that a user can act on.

Each names what was wrong, where, what was seen and what would be right; the `reason` is the word that stands in
a TaskRun's status. They are shown as one message, never as a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from polypod_core.reasons import Reason


class UserError(Exception):
    """A mistake in what the user gave: a manifest, a routing, an artifact, an image.

    Attributes:
        reason: why, as one word of the documented enum.
        message: what to tell the person, complete in itself.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        # a file's name need not be UTF-8
        self.message = message.encode("utf-8", "replace").decode()


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest of the known words, or all of them.

    >>> nearest("jar_root", ["jars_root", "jvm_args"])
    "; did you mean 'jars_root'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
