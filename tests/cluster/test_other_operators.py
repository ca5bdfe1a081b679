"""What the chart makes for other operators, on an API server with their real CRDs: nothing of it is refused or dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from cluster.api import Api

pytestmark = pytest.mark.needs("api-server")

CRDS = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd",
    "github.com/cert-manager/cert-manager@v1.21.2": "deploy/crds",
}
"""Go modules, whose archives have the CRDs, and where."""
VALUES = {
    "tls": {"certManager": {"issuerRef": {"kind": "ClusterIssuer", "name": "internal"}}},
    "metrics": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")},
    "operator": {"replicas": 2},
}
KINDS = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate"}


@pytest.fixture(scope="module")
def theirs(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """The API server with the other operators' CRDs."""
    command = ["go", "mod", "download", "-json", *CRDS]
    folder = tmp_path_factory.mktemp("modules")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=True)
    decoder, text = json.JSONDecoder(), done.stdout
    while text.strip():
        found, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        crds = Path(found["Dir"]) / CRDS[f"{found['Path']}@{found['Version']}"]
        applied = api.kubectl("apply", "--server-side", *(f"-f={path}" for path in sorted(crds.glob("*.yaml"))))
        assert applied.returncode == 0, applied.stderr
    api.wait(lambda: all(api.kubectl("get", kind).returncode == 0 for kind in KINDS))
    return api


def rendered() -> list[dict[str, Any]]:
    helm = str(Path(sys.executable).with_name("helm"))
    command = [helm, "template", "polypod", str(ROOT / "charts/polypod"), "--namespace=default", "-f", "-"]
    done = subprocess.run(command, input=json.dumps(VALUES), capture_output=True, text=True, timeout=60, check=True)
    return [item for item in yaml.safe_load_all(done.stdout) if item and item["kind"] in KINDS]


def test_monitors_alerts_and_certificates_are_what_their_operators_know(theirs: Api) -> None:
    documents = rendered()
    assert {item["kind"] for item in documents} == KINDS
    for document in documents:
        done = theirs.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=document)
        assert done.returncode == 0, done.stderr
        stored = json.loads(theirs.kubectl("get", document["kind"], document["metadata"]["name"], "-o", "json").stdout)
        assert contains(stored["spec"], document["spec"]), (document["spec"], stored["spec"])


def test_a_field_that_is_not_known_there_would_be_refused(theirs: Api) -> None:
    monitor, _ = [item for item in rendered() if item["kind"] == "ServiceMonitor"]
    monitor["spec"]["endpionts"] = []
    done = theirs.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=monitor)
    assert "endpionts" in done.stderr


def contains(stored: Any, wanted: Any) -> bool:
    """Tell whether all that was wanted was stored; defaults may have come to it."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(contains(stored.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(contains, stored, wanted))
    return bool(stored == wanted)
