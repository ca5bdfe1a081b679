"""How the API server is reached: from a pod by its service account, else by a kubeconfig."""

from __future__ import annotations

import base64
import os
import re
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ONE_LINE = re.compile(r"[!-~]+")


class ConnectionProblem(Exception):
    """There is no way to an API server; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is, and who we are to it.

    Attributes:
        token_file: a file with the token, which somebody else renews.
        of_pod: this process is in a pod of that cluster.
        missing: why there is no way to an API server; each call fails with it.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False, default=None)
    token: str = field(repr=False, default="")
    token_file: Path | None = None
    namespace: str = "default"
    of_pod: bool = False
    missing: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that say who we are.

        Raises:
            ConnectionProblem: there is no way to an API server.
            OSError: the token cannot be read.
        """
        if self.missing:
            raise ConnectionProblem(self.missing)
        token = self.token_file.read_text("ascii", "replace").strip() if self.token_file is not None else self.token
        # httpx would quote any other in its error
        return {"Authorization": f"Bearer {token}"} if token and _ONE_LINE.fullmatch(token) else {}


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
        try:
            return Connection(
                f"https://{name}:{port}",
                ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
                token_file=ACCOUNT / "token",
                namespace=(ACCOUNT / "namespace").read_text().strip(),
                of_pod=True,
            )
        except OSError as error:
            raise ConnectionProblem(f"the pod's service account in {ACCOUNT}: {error}") from None
    file = Path(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    try:
        document = yaml.safe_load(file.read_text())
        return _of(document, file.parent)
    except _Incomplete as error:
        raise ConnectionProblem(f"kubeconfig {file}: {error}") from None
    except OSError as error:
        message = f"no service account of a pod, and kubeconfig {file}: {error.strerror}"
        raise ConnectionProblem(message) from None
    except yaml.YAMLError as error:
        # its line is not quoted, as it may be that of a token
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConnectionProblem(f"kubeconfig {file}{where}: not valid YAML") from None
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise ConnectionProblem(f"kubeconfig {file}: not complete: {type(error).__name__}") from None


class _Incomplete(Exception):
    """What is missing or not supported, in our own words."""


def _of(document: Any, folder: Path) -> Connection:
    if not isinstance(document, dict):
        raise _Incomplete("it is not a mapping")

    def named(kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = next(
            (item.get(kind) for item in document.get(f"{kind}s") or () if item.get("name") == name), None
        )
        if not isinstance(found, dict):
            raise _Incomplete(f"it has no {kind} named {name!r}")
        return found

    def given(place: dict[str, Any], field: str, of: str) -> str:
        if not isinstance(place.get(field), str):
            raise _Incomplete(f"{of} has no {field}")
        return str(place[field])

    context = named("context", given(document, "current-context", "it"))
    cluster = named("cluster", given(context, "cluster", "its context"))
    user = named("user", given(context, "user", "its context"))
    server = given(cluster, "server", "its cluster")
    if "exec" in user or "auth-provider" in user:
        raise _Incomplete("users with exec or auth-provider are not supported; use a token or a client certificate")
    tls = None
    if server.startswith("https:"):
        authority = _text(cluster, "certificate-authority", folder)
        tls = ssl.create_default_context(cadata=authority or None)
        if cluster.get("insecure-skip-tls-verify"):
            raise _Incomplete("insecure-skip-tls-verify is not supported; give the certificate-authority")
        certificate, key = _text(user, "client-certificate", folder), _text(user, "client-key", folder)
        if certificate:
            with tempfile.TemporaryDirectory(prefix="polypod-airflow-") as private:
                pair = Path(private) / "pair.pem"
                pair.touch(mode=0o600)
                pair.write_text(f"{certificate}\n{key}")
                tls.load_cert_chain(pair)
    token_file, token = user.get("tokenFile"), user.get("token") or ""
    if not isinstance(token, str) or (token and not _ONE_LINE.fullmatch(token)):
        raise _Incomplete("its user's token is not one word in ASCII")
    return Connection(
        server.rstrip("/"), tls, token,
        folder / token_file if token_file else None, context.get("namespace") or "default",
    )  # fmt: skip


def _text(given: dict[str, Any], name: str, folder: Path) -> str:
    """Return what is in a field, or in the file that it names."""
    if given.get(f"{name}-data"):
        return base64.b64decode(given[f"{name}-data"]).decode()
    return (folder / given[name]).read_text() if given.get(name) else ""
