"""The Secrets with Polypod's certificates: read by every operator, made and renewed by the one that leads.

Two, so that the Execution API need not see the authority's key: one with what servers show (`tls.crt`, `tls.key`,
`ca.crt`; cert-manager's form), one with the authority. The chart makes them, empty.
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

from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.serve.certificates import Certificates, Pair, renewed, split

log = logging.getLogger("polypod.operator")
_LOOK_AFTER, _LOOK_SOON = 60.0, 1.0


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
        if settings.authority and self._leads():
            kept = await self._read(settings.authority)
            authorities = split(_text(kept, "ca.crt"), _text(kept, "ca.key"))
            known = Certificates(authorities, _pair(shown, "tls.crt", "tls.key"))
            wanted = renewed(known, settings.names, datetime.now(UTC))
            if wanted != known:
                assert wanted.server is not None
                # the authority first: what was signed by one that is not kept would be useless
                data = {"ca.crt": wanted.trusted, "ca.key": "".join(pair.key for pair in wanted.authorities)}
                await self._write(kept, data)
                served = {
                    "tls.crt": wanted.server.certificate, "tls.key": wanted.server.key, "ca.crt": wanted.trusted,
                }  # fmt: skip
                await self._write(shown, served)
                log.info("certificates renewed")
                shown = await self._read(settings.secret)
        self._use(_text(shown, "tls.crt"), _text(shown, "tls.key"), _text(shown, "ca.crt"))

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

    async def _read(self, name: str) -> dict[str, Any]:
        return await self._api.call("GET", f"/api/v1/namespaces/{self._settings.namespace}/secrets/{name}")

    async def _write(self, before: dict[str, Any], data: dict[str, str]) -> None:
        """Write a Secret, if nobody else has since it was read."""
        metadata = before["metadata"]
        encoded = {key: b64encode(text.encode()).decode() for key, text in data.items()}
        path = f"/api/v1/namespaces/{self._settings.namespace}/secrets/{metadata['name']}"
        await self._api.call("PUT", path, {**before, "data": encoded})


def _text(secret: dict[str, Any], key: str) -> str:
    try:
        return b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _pair(secret: dict[str, Any], certificate: str, key: str) -> Pair | None:
    pair = Pair(_text(secret, certificate), _text(secret, key))
    return pair if pair.certificate and pair.key else None
