"""serve/tls.py: the Secrets with the certificates, whatever becomes of them while operators run."""

from __future__ import annotations

import asyncio
import copy
from base64 import b64decode
from collections.abc import Callable
from typing import Any, cast

import pytest
from cryptography import x509
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.serve.tls import Tls, TlsSettings

SETTINGS = TlsSettings("ns", "tls", "authority", ("api.ns.svc",))
META = {"labels": {"app": "polypod"}, "annotations": {"helm.sh/resource-policy": "keep"}, "resourceVersion": "1"}
Secrets = dict[str, dict[str, Any]]


class Fake:
    """An API server that keeps Secrets."""

    def __init__(self) -> None:
        self.secrets: Secrets = {name: {"metadata": {"name": name, **META}} for name in ("tls", "authority")}
        self.writes = 0

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        name = path.rpartition("/")[2]
        if method == "GET":
            if name not in self.secrets:
                raise ApiError(404, "NotFound", name)
            return copy.deepcopy(self.secrets[name])
        assert (method == "PUT") == (name in self.secrets), "an update makes no Secret"
        self.writes += 1
        self.secrets[name] = copy.deepcopy(body)
        return body


def operator(fake: Fake, trusted: list[str], leads: bool = True) -> Tls:
    return Tls(cast(KubernetesApi, fake), SETTINGS, lambda: leads, trusted.append)


def emptied(secrets: Secrets, others: Secrets) -> None:
    for secret in secrets.values():
        secret.pop("data", None)


def deleted(secrets: Secrets, others: Secrets) -> None:
    secrets.clear()


def authority_deleted(secrets: Secrets, others: Secrets) -> None:
    del secrets["authority"]


def replaced(secrets: Secrets, others: Secrets) -> None:
    secrets.update(copy.deepcopy(others))


def garbled(secrets: Secrets, others: Secrets) -> None:
    for secret in secrets.values():
        secret["data"] = dict.fromkeys(secret["data"], "LS0tLS1CRUdJTiBYLS0tLS0KenoKLS0tLS1FTkQgWC0tLS0tCg==")


@pytest.mark.parametrize("change", [emptied, deleted, authority_deleted, replaced, garbled])
@pytest.mark.parametrize("another_leads", [False, True])
def test_the_authority_that_task_pods_trust_is_put_back(
    change: Callable[[Secrets, Secrets], None], another_leads: bool
) -> None:
    async def scenario() -> None:
        fake, elsewhere = Fake(), Fake()
        trusted: list[str] = []
        leader, standby = operator(fake, trusted), operator(fake, trusted, leads=False)
        await operator(elsewhere, []).look()
        await leader.look()
        await standby.look()
        first = copy.deepcopy(fake.secrets)
        change(fake.secrets, elsewhere.secrets)
        if another_leads:
            standby._leads = lambda: True
        await (standby if another_leads else leader).look()
        assert trusted[-1].startswith(trusted[0]), "pods that run trust the first one alone"
        shown, known = (x509.load_pem_x509_certificate(b64decode(found["tls"]["data"][key]))
                        for found, key in ((fake.secrets, "tls.crt"), (first, "ca.crt")))  # fmt: skip
        shown.verify_directly_issued_by(known)
        for name in ("tls", "authority"):
            metadata = fake.secrets[name]["metadata"]
            assert (metadata["labels"], metadata["annotations"]) == (META["labels"], META["annotations"])
        writes = fake.writes
        await (standby if another_leads else leader).look()
        assert fake.writes == writes, "it comes to rest"

    asyncio.run(scenario())
