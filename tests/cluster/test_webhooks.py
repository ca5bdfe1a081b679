"""Admission webhooks that hang or fail: each TaskRun says so, and those of other namespaces start as before."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from polypod_operator.serve.certificates import Certificates, renewed

from cluster.api import Api
from cluster.lab import task_run
from cluster.spoilt import ROUTING, Operator

pytestmark = pytest.mark.needs("api-server")

HELD, FREE = "held", "free"


@pytest.fixture
def operator(api: Api, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(api, tmp_path)
    documents: list[dict[str, Any]] = [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("polypod-system", HELD, FREE)),
        *({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}} for name in (HELD, FREE)),
        ROUTING,
    ]  # fmt: skip
    for document in documents:
        api.kubectl("apply", "-f", "-", stdin=document)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        for namespace in (HELD, FREE):
            api.kubectl("-n", namespace, "delete", "taskruns,pods", "--all", "--wait=true")


@contextmanager
def webhook(api: Api, folder: Path, *, answers: bool) -> Iterator[None]:
    """Have pods of the namespace admitted by a server that takes connections and says nothing, or by none."""
    known = renewed(Certificates(), ["127.0.0.1"], datetime.now(UTC))
    assert known.server is not None
    (folder / "pair.pem").write_text(known.server.certificate + known.server.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not answers:
            listener.close()
        held: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take)
        thread.start()
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hangs"},
            "webhooks": [{
                "name": "hangs.example.com",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}/",
                    "caBundle": base64.b64encode(known.trusted.encode()).decode(),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": HELD}},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 30,
            }],
        }  # fmt: skip
        created = api.kubectl("create", "-f", "-", stdin=configuration)
        assert created.returncode == 0, created.stderr
        try:
            # the API server learns of it a moment later
            time.sleep(2)
            yield
        finally:
            api.kubectl("delete", "validatingwebhookconfiguration", "hangs")
            if answers:
                listener.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
            thread.join(60)


def reasons(api: Api, namespace: str) -> dict[str, str]:
    found = api.items("taskruns", "-n", namespace)
    return {item["metadata"]["name"]: item.get("status", {}).get("reason", "") for item in found}


def pods(api: Api, namespace: str) -> list[str]:
    return [item["metadata"]["name"] for item in api.items("pods", "-n", namespace)]


def create(api: Api, namespace: str, number: int) -> None:
    items = [task_run(f"run-{index}", "t") for index in range(number)]
    done = api.kubectl("-n", namespace, "create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})
    assert done.returncode == 0, done.stderr


def test_a_webhook_that_hangs_holds_its_own_namespace_alone(api: Api, operator: Operator, tmp_path: Path) -> None:
    with webhook(api, tmp_path, answers=True):
        create(api, HELD, 60)
        api.wait(lambda: set(reasons(api, HELD).values()) == {"CreatingPod"})
        assert pods(api, HELD) == []
        began = time.monotonic()
        create(api, FREE, 40)
        api.wait(lambda: len(pods(api, FREE)) == 40)
        # the one would have waited for the other's thirty seconds again and again
        print(f"forty pods of the other namespace were there after {time.monotonic() - began:.1f} s")
        assert pods(api, HELD) == []
        message = api.items("taskruns", "-n", HELD)[0]["status"]["message"]
        # on a busy machine, the webhook does not even shake hands, which the API server tells
        told = 'failed calling webhook "hangs.example.com"'
        assert "an admission webhook for pods may be hanging" in message or told in message
    api.wait(lambda: len(pods(api, HELD)) == 60)
    api.wait(lambda: set(reasons(api, HELD).values()) == {"PodStarting"})
    assert all(item["status"]["tries"] == 1 for item in api.items("taskruns", "-n", HELD))
    assert operator.process.poll() is None


def test_a_webhook_that_is_away_is_named_in_the_status(api: Api, operator: Operator, tmp_path: Path) -> None:
    with webhook(api, tmp_path, answers=False):
        create(api, HELD, 5)
        api.wait(lambda: set(reasons(api, HELD).values()) == {"PodRefused"})
        message = api.items("taskruns", "-n", HELD)[0]["status"]["message"]
        assert "hangs.example.com" in message
        assert "connection refused" in message
    api.wait(lambda: len(pods(api, HELD)) == 5)
