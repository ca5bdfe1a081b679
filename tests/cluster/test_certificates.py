"""The certificates between bridge, Execution API and operator are renewed while tasks run: nobody notices."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from polypod_operator.serve.certificates import (
    AUTHORITY_LIFE,
    SWITCH_BEFORE,
    Certificates,
    Pair,
    make_authority,
    renewed,
    split,
)

from cluster.lab import Lab, Namespace, Raw

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

SHOWN, KEPT = "polypod-tls", "polypod-authority"
SWITCHES_IN = timedelta(seconds=40)


def put(lab: Lab, name: str, data: dict[str, str]) -> None:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    target = ("-n", "polypod-system", "secret", name)
    lab.kubectl("patch", *target, "--type=merge", "-p", json.dumps({"data": encoded}))


def text(secret: Raw, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()


def shown(lab: Lab) -> x509.Certificate:
    secret = lab.get("-n", "polypod-system", "secret", SHOWN)
    return x509.load_pem_x509_certificate(text(secret, "tls.crt").encode())


def served(lab: Lab, authority: Pair) -> bool:
    """Tell whether the Execution API shows a certificate that the authority has signed."""
    target = ("-n", "polypod-system")
    # a kubelet brings a Secret to a pod within a minute or two; at once if something about the pod has changed
    lab.kubectl(*target, "annotate", "pod", "--overwrite", "-l", "app.kubernetes.io/name=polypod-api",
                f"looked-at={datetime.now(UTC).timestamp()}")  # fmt: skip
    program = "import ssl; print(ssl.get_server_certificate(('127.0.0.1', 8080)))"
    seen = lab.kubectl(*target, "exec", "deployment/polypod-api", "--", "python3", "-c", program).stdout
    return signed_by(x509.load_pem_x509_certificate(seen.encode()), authority)


def signed_by(certificate: x509.Certificate, authority: Pair) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.encode()))
    except Exception:
        return False
    return True


def given_variables(namespace: Namespace) -> list[Raw]:
    """Make what the task `slow` reads, and return the field that gives it to a TaskRun."""
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    return [{"configMapRef": {"name": "variables"}}]


def test_the_next_authority_takes_over_while_tasks_run(lab: Lab, namespace: Namespace) -> None:
    now = datetime.now(UTC)
    names = shown(lab).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # an authority in its last year: the next one is trusted already, and signs in a moment
    old = make_authority(now + SWITCHES_IN + SWITCH_BEFORE - AUTHORITY_LIFE)
    new = make_authority(now - timedelta(days=180))
    known = renewed(Certificates((old, new)), names.get_values_for_type(x509.DNSName), now)
    assert known.server is not None
    assert known.authorities == (old, new)
    # an operator that runs would put back what it remembers
    before = lab.operator_pod()
    lab.kubectl("-n", "polypod-system", "scale", "deployment/polypod-operator", "--replicas=0")
    lab.kubectl("-n", "polypod-system", "wait", f"pod/{before}", "--for=delete", "--timeout=120s")
    put(lab, KEPT, {"ca.crt": known.trusted, "ca.key": old.key + new.key})
    put(lab, SHOWN, {"tls.crt": known.server.certificate, "tls.key": known.server.key, "ca.crt": known.trusted})
    namespace.wait(lambda: served(lab, old))
    lab.kubectl("-n", "polypod-system", "scale", "deployment/polypod-operator", "--replicas=1")
    namespace.wait(lambda: (pod := lab.operator_pod()) not in (None, before) and lab.pod_ready(str(pod)))

    variables = given_variables(namespace)
    # what they return, and that they have ended, they tell the Execution API long after it shows another certificate
    names_of = [namespace.run(f"run-{seconds}", "slow", params={"seconds": seconds}, variablesFrom=variables)
                for seconds in (110, 120)]  # fmt: skip
    namespace.wait(lambda: all(namespace.status(name).get("phase") == "Running" for name in names_of))
    assert signed_by(shown(lab), old), "it was too late: the other one signs already"
    namespace.wait(lambda: signed_by(shown(lab), new))
    namespace.wait(lambda: served(lab, new))
    assert {namespace.status(name)["phase"] for name in names_of} == {"Running"}, "nothing was shown"
    found = namespace.finish_all(names_of)
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}
    assert namespace.finish(namespace.run("after", "success"))["state"] == "success"
    # the old one stays trusted to its end
    kept = lab.get("-n", "polypod-system", "secret", KEPT)
    assert split(text(kept, "ca.crt"), text(kept, "ca.key")) == (old, new)


def test_secrets_that_somebody_deletes_are_put_back_and_no_task_notices(lab: Lab, namespace: Namespace) -> None:
    before = {name: lab.get("-n", "polypod-system", "secret", name) for name in (SHOWN, KEPT)}
    run = namespace.run("runs", "slow", params={"seconds": 60}, variablesFrom=given_variables(namespace))
    namespace.running(run)
    lab.kubectl("-n", "polypod-system", "delete", "secret", SHOWN, KEPT)

    def restored(name: str) -> bool:
        found = lab.kubectl("-n", "polypod-system", "get", "secret", name, "-o", "json", "--ignore-not-found").stdout
        return bool(found) and json.loads(found).get("data", {}).get("ca.crt") == before[name]["data"]["ca.crt"]

    namespace.wait(lambda: restored(SHOWN) and restored(KEPT))
    for name, secret in before.items():
        found = lab.get("-n", "polypod-system", "secret", name)
        for field in ("labels", "annotations"):
            assert found["metadata"].get(field) == secret["metadata"].get(field), "helm finds it again"
    assert namespace.finish(run)["state"] == "success"
    assert namespace.finish(namespace.run("after", "success"))["state"] == "success"
