"""The Secrets and ConfigMaps that stand beside TaskRuns in a file, by the rules of the Kubernetes API."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from polypod_crds.taskrun import Model, ObjectMeta
from pydantic import AfterValidator


def is_key(text: str) -> bool:
    """Tell whether a text may be a key of a Secret or ConfigMap."""
    return bool(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", text)) and text != "." and not text.startswith("..")


def _key(key: str) -> str:
    if not is_key(key):
        raise ValueError("a key has letters, digits, '-', '_' and '.' only, and does not start with '..'")
    return key


def _decoded(text: str) -> str:
    try:
        # what is binary is no connection or variable, but may stand beside one
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise ValueError("not base64; plain text goes to stringData") from None


Key = Annotated[str, AfterValidator(_key)]
Encoded = Annotated[str, AfterValidator(_decoded)]


class _DataObject(Model):
    api_version: Literal["v1"]
    metadata: ObjectMeta
    immutable: bool | None = None


class ConfigMap(_DataObject):
    """A ConfigMap; its binary data cannot be a variable and are left out."""

    kind: Literal["ConfigMap"]
    data: dict[Key, str] | None = None
    binary_data: dict[Key, Any] | None = None

    def texts(self) -> dict[str, str]:
        """Return key → text."""
        return dict(self.data or {})


class Secret(_DataObject):
    """A Secret; `data` holds what was encoded, decoded."""

    kind: Literal["Secret"]
    type: str | None = None
    data: dict[Key, Encoded] | None = None
    string_data: dict[Key, str] | None = None

    def texts(self) -> dict[str, str]:
        """Return key → text; stringData wins, as in the API."""
        return {**(self.data or {}), **(self.string_data or {})}
