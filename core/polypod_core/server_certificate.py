"""A server's certificate that can be replaced while connections are being accepted."""

from __future__ import annotations

import os
import ssl


class ServerCertificate:
    """Shows new connections the certificate that was loaded last.

    OpenSSL's contexts may not change while a handshake uses them: a certificate and its key are set one after the
    other, and a handshake between the two fails or crashes the process. So each certificate gets a context of its
    own, and a handshake chooses one at its start.
    """

    def __init__(self) -> None:
        """Prepare; handshakes fail until a certificate is loaded."""
        self.context = _server_context()
        """What a server is to use."""
        self.context.sni_callback = self._choose
        self._loaded: ssl.SSLContext | None = None

    def load(self, certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> None:
        """Show a certificate from now on.

        Args:
            certificate: file of the chain, PEM.
            key: file of the private key, PEM; without it, the key is in the certificate's file.

        Raises:
            OSError: a file cannot be read.
            ssl.SSLError: they are no certificate and key, or do not match; the last certificate stays in use.
        """
        context = _server_context()
        context.load_cert_chain(certificate, key)
        self._loaded = context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        # called for every handshake, also if the client names no server
        if self._loaded is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._loaded
        return None


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
