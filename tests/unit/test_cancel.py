"""`polypod cancel`, against a fake of the API server's client."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from polypod_cli import remote
from polypod_cli.cluster import Cluster


class Fake:
    """The client: one TaskRun, and what is written to it."""

    def __init__(self, status: dict[str, Any] | None) -> None:
        self.run = {"metadata": {"namespace": "ns", "name": "x"}, "spec": {}, **({"status": status} if status else {})}
        self.patches: list[Any] = []

    def get_namespaced_custom_object(self, *names: str) -> dict[str, Any]:
        return self.run

    def patch_namespaced_custom_object(self, *given: Any, **options: Any) -> None:
        self.patches.append(given[-1])


@pytest.mark.parametrize(
    ("status", "said", "patches"),
    [
        (None, "ns/x is being cancelled", 1),
        ({"phase": "Pending"}, "ns/x is being cancelled", 1),
        ({"phase": "Running", "reason": "Running"}, "ns/x is being cancelled", 1),
        ({"phase": "Succeeded", "reason": "TaskSucceeded"},
         "ns/x has already ended, and stays as it is: Succeeded (TaskSucceeded)", 0),
        ({"phase": "Failed", "reason": "TaskFailed", "message": "no"},
         "ns/x has already ended, and stays as it is: Failed (TaskFailed: no)", 0),
    ],
)  # fmt: skip
def test_cancel_changes_nothing_of_what_has_ended(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None, said: str, patches: int
) -> None:
    cluster = Cluster.__new__(Cluster)
    cluster.namespace, fake = "ns", Fake(status)
    cluster._custom = fake
    monkeypatch.setattr(remote, "connect", lambda context, namespace: cluster)
    result = CliRunner().invoke(remote.cancel, ["x"], catch_exceptions=False)
    assert (result.exit_code, result.output) == (0, said + "\n")
    assert len(fake.patches) == patches
