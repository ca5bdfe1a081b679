"""Whom the operator trusts and who it says it is, by TLS, from what kopf has found of the cluster."""

from __future__ import annotations

import ssl
import tempfile
from base64 import b64decode
from pathlib import Path

import kopf


def context(connection: kopf.ConnectionInfo) -> ssl.SSLContext | bool:
    """Return the TLS context for a connection; False for one without TLS, or that trusts everybody."""
    if not connection.server.startswith("https"):
        return False
    if connection.insecure:
        return False
    authority = connection.ca_data
    data = authority.decode() if isinstance(authority, bytes) else authority
    context = ssl.create_default_context(cafile=connection.ca_path, cadata=b64decode(data).decode() if data else None)
    certificate, key = connection.certificate_path, connection.private_key_path
    if certificate and key:
        context.load_cert_chain(certificate, key)
    elif connection.certificate_data and connection.private_key_data:
        # the ssl module reads certificates from files only
        with tempfile.TemporaryDirectory(prefix="polypod-operator-") as folder:
            for name, content in (("crt", connection.certificate_data), ("key", connection.private_key_data)):
                (Path(folder) / name).touch(mode=0o600)
                (Path(folder) / name).write_bytes(b64decode(content))
            context.load_cert_chain(f"{folder}/crt", f"{folder}/key")
    return context
