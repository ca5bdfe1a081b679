"""Our images as they are shipped: whatever a container imports is compiled, so that no start compiles anything."""

from __future__ import annotations

import re

import pytest

from cluster.lab import Lab, Namespace, Raw

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

IMPORT_ALL = """
import importlib, os, pkgutil, sys
for name in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        importlib.import_module(module.name)
os._exit(0)
"""
"""Imports packages whole, also what they import late."""
PACKAGES = {
    # not all of polypod_core: the bridge's image lacks what only the operator's tokens need
    "bridge": ("polypod_coordinators", "polypod_bridge"),
    "operator": ("polypod_core", "polypod_crds", "polypod_operator"),
    "api": ("polypod_core", "polypod_crds", "polypod_execution_api"),
}


def verbose(image: str, packages: tuple[str, ...]) -> Raw:
    """Return a container of an image that says where each module that it imports comes from."""
    return {
        "name": "python",
        "image": image,
        "command": ["python3", "-v", "-sP", "-c", IMPORT_ALL, *packages],
        "securityContext": {
            "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_an_image_imports_nothing_that_is_not_compiled(lab: Lab, namespace: Namespace, name: str) -> None:
    pod = {"restartPolicy": "Never", "containers": [verbose(lab.images[name], PACKAGES[name])]}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
    namespace.wait(lambda: lab.get("-n", namespace.name, "pod", name)["status"]["phase"] in ("Succeeded", "Failed"))
    said = namespace.logs(name, "python")
    assert lab.get("-n", namespace.name, "pod", name)["status"]["phase"] == "Succeeded", said[-3000:]
    code = re.findall(r"^# code object from '?([^'\n]+)", said, re.MULTILINE)
    assert len(code) > 150, "Python has not said where its modules are from"
    assert any(path.startswith("/opt/polypod/") for path in code)
    assert [path for path in code if not path.endswith(".pyc")] == []
