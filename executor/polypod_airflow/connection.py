"""How the API server is reached: from a pod by its service account, else by a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConnectionProblem(Exception):
    """There is no way to an API server; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is, and who we are to it.

    Attributes:
        token_file: a file with the token, which somebody else renews.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False, default=None)
    token: str = field(repr=False, default="")
    token_file: Path | None = None
    namespace: str = "default"

    def headers(self) -> dict[str, str]:
        """Return the headers that say who we are."""
        token = self.token_file.read_text("ascii").strip() if self.token_file is not None else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def connection(kubeconfig: str = "") -> Connection:
    """Return the way to the API server.

    Args:
        kubeconfig: a file; empty: the pod's service account, or else KUBECONFIG or ~/.kube/config.

    Raises:
        ConnectionProblem: there is none, or it is not complete.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not kubeconfig and host and (ACCOUNT / "token").exists():
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        name = f"[{host}]" if ":" in host else host
        return Connection(
            f"https://{name}:{port}",
            ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
            token_file=ACCOUNT / "token",
            namespace=(ACCOUNT / "namespace").read_text().strip(),
        )
    file = Path(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    try:
        document = yaml.safe_load(file.read_text())
        return _of(document, file.parent)
    except OSError as error:
        message = f"no service account of a pod, and kubeconfig {file}: {error.strerror}"
        raise ConnectionProblem(message) from None
    except (yaml.YAMLError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise ConnectionProblem(f"kubeconfig {file}: not complete: {type(error).__name__} {error}") from None


def _of(document: dict[str, Any], folder: Path) -> Connection:
    def named(kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(item for item in document[f"{kind}s"] if item["name"] == name)[kind]
        return found

    context = named("context", document["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    if "exec" in user or "auth-provider" in user:
        raise ValueError("users with exec or auth-provider are not supported; use a token or a client certificate")
    tls = None
    if cluster["server"].startswith("https:"):
        authority = _text(cluster, "certificate-authority", folder)
        tls = ssl.create_default_context(cadata=authority or None)
        if cluster.get("insecure-skip-tls-verify"):
            raise ValueError("insecure-skip-tls-verify is not supported; give the certificate-authority")
        certificate, key = _text(user, "client-certificate", folder), _text(user, "client-key", folder)
        if certificate:
            with tempfile.TemporaryDirectory(prefix="polypod-airflow-") as private:
                pair = Path(private) / "pair.pem"
                pair.touch(mode=0o600)
                pair.write_text(f"{certificate}\n{key}")
                tls.load_cert_chain(pair)
    token_file = user.get("tokenFile")
    return Connection(
        cluster["server"].rstrip("/"), tls, user.get("token") or "",
        folder / token_file if token_file else None, context.get("namespace") or "default",
    )  # fmt: skip


def _text(given: dict[str, Any], name: str, folder: Path) -> str:
    """Return what is in a field, or in the file that it names."""
    if given.get(f"{name}-data"):
        return base64.b64decode(given[f"{name}-data"]).decode()
    return (folder / given[name]).read_text() if given.get(name) else ""
