"""The Secrets with Polypod's certificates: read by every operator, made and renewed by the one that leads.

Two, so that the Execution API need not see the authority's key: one with what servers show (`tls.crt`, `tls.key`,
`ca.crt`; cert-manager's form), one with the authority. The chart makes them, empty.

Task pods hold the authority's certificate in their configuration, and trust no other one for as long as they run. So
an authority that is lost from its Secret, or replaced there, is put back from memory: every operator remembers it.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import ssl
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polypod_core.server_certificate import ServerCertificate

from polypod_operator.kube.api import MANAGER, ApiError, KubernetesApi
from polypod_operator.serve.certificates import Certificates, Pair, joined, renewed, split

log = logging.getLogger("polypod.operator")
_APPLY = "application/apply-patch+yaml"
_LOOK_AFTER, _LOOK_SOON = 20.0, 1.0


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What TLS is made of.

    Attributes:
        namespace: where the Secrets are.
        secret: the one with what servers show.
        authority: the one with the authority; empty if somebody else (cert-manager) makes the certificates.
        names: the DNS names of our services.
    """

    namespace: str
    secret: str
    authority: str
    names: tuple[str, ...]


class Tls:
    """Keeps up with the Secrets, and has the server and the pods use what is in them."""

    def __init__(
        self, api: KubernetesApi, settings: TlsSettings, leads: Callable[[], bool], trusted: Callable[[str], None]
    ) -> None:
        """Prepare.

        Args:
            leads: tells whether it is for us to make and renew.
            trusted: told what bridges are to trust, PEM, when that changes.
        """
        self._api, self._settings, self._leads, self._trusted = api, settings, leads, trusted
        self.certificate = ServerCertificate()
        self.ready = asyncio.Event()
        self._shown: tuple[str, str, str] | None = None
        self._authorities: tuple[Pair, ...] = ()
        self._metadata: dict[str, dict[str, Any]] = {}

    async def keep(self) -> None:
        """Look at the Secrets for ever."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                log.warning("the certificates' Secrets cannot be used: %s", error)
            await asyncio.sleep(_LOOK_AFTER if self.ready.is_set() else _LOOK_SOON)

    async def look(self) -> None:
        """Renew what is due if we lead, and use what there is.

        Raises:
            ApiError: a Secret cannot be read or written.
        """
        settings = self._settings
        shown = await self._read(settings.secret)
        if settings.authority:
            kept = await self._read(settings.authority)
            found = split(_text(kept, "ca.crt"), _text(kept, "ca.key"))
            if self._leads():
                shown = await self._renew(kept, found, shown)
            elif found:
                self._authorities = joined(self._authorities, found)
        self._use(_text(shown, "tls.crt"), _text(shown, "tls.key"), _text(shown, "ca.crt"))

    async def _renew(self, kept: dict[str, Any], found: tuple[Pair, ...], shown: dict[str, Any]) -> dict[str, Any]:
        """Write what is due, or was lost; return the Secret with what servers show as it is then."""
        settings, before = self._settings, self._authorities
        known = Certificates(joined(before, found), _pair(shown, "tls.crt", "tls.key"), _text(shown, "ca.crt"))
        wanted = renewed(known, settings.names, datetime.now(UTC))
        assert wanted.server is not None
        if before and not set(before) <= set(found):
            log.warning("Secret %s/%s does not hold the CA that task pods trust any more; put back",
                        settings.namespace, settings.authority)  # fmt: skip
        if wanted.authorities != found:
            # the authority first: what was signed by one that is not kept would be useless
            keys = "".join(pair.key for pair in wanted.authorities)
            certificates = "".join(pair.certificate for pair in wanted.authorities)
            await self._write(kept, settings.authority, {"ca.crt": certificates, "ca.key": keys})
        self._authorities = wanted.authorities
        served = {"tls.crt": wanted.server.certificate, "tls.key": wanted.server.key, "ca.crt": wanted.trusted}
        if any(_text(shown, key) != text for key, text in served.items()):
            await self._write(shown, settings.secret, served)
            log.info("certificates renewed")
            return await self._read(settings.secret)
        return shown

    def _use(self, certificate: str, key: str, authority: str) -> None:
        if (certificate, key, authority) == self._shown or not (certificate and key and authority):
            return
        try:
            # the ssl module reads certificates from files only
            with tempfile.TemporaryDirectory(prefix="polypod-operator-") as folder:
                file = Path(folder) / "pair.pem"
                file.touch(mode=0o600)
                file.write_text(certificate + key)
                self.certificate.load(file)
        except (OSError, ssl.SSLError) as error:
            log.error("Secret %s/%s: tls.crt and tls.key cannot be used: %s", self._settings.namespace,
                      self._settings.secret, error)  # fmt: skip
            return
        self._shown = (certificate, key, authority)
        self._trusted(authority)
        self.ready.set()

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self._settings.namespace}/secrets/{name}"

    async def _read(self, name: str) -> dict[str, Any]:
        """Return a Secret; empty if it is gone and for us to make."""
        try:
            found = await self._api.call("GET", self._path(name))
        except ApiError as error:
            if error.status != 404 or not self._settings.authority:
                raise
            return {}
        metadata = found["metadata"]
        # helm adopts what it finds by these
        kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        self._metadata[name] = kept
        return found

    async def _write(self, before: dict[str, Any], name: str, data: dict[str, str]) -> None:
        """Write a Secret, if nobody else has since it was read."""
        encoded = {key: b64encode(text.encode()).decode() for key, text in data.items()}
        if before:
            await self._api.call("PUT", self._path(name), {**before, "data": encoded})
            return
        # an apply: unlike `create`, the right to it can be restricted to a name
        metadata = {"name": name, "namespace": self._settings.namespace, **self._metadata.get(name, {})}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
        params = {"fieldManager": MANAGER}
        await self._api.call("PATCH", self._path(name), body, params=params, content_type=_APPLY)
        log.warning("Secret %s/%s did not exist; created it", self._settings.namespace, name)


def _text(secret: dict[str, Any], key: str) -> str:
    try:
        return b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _pair(secret: dict[str, Any], certificate: str, key: str) -> Pair | None:
    pair = Pair(_text(secret, certificate), _text(secret, key))
    return pair if pair.certificate and pair.key else None
