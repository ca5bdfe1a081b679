"""Fixtures: the smallest real things."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hypothesis import settings
from support.airflow import Airflow
from support.api import Store, make_store
from support.bridge import Bridge
from support.groups import Groups, group_of, place
from support.paths import AIRFLOWS, missing

# a busy machine is no failure; a failing example is printed so that it can be played again
settings.register_profile("polypod", deadline=None, print_blob=True)
settings.load_profile("polypod")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the random tests, so that it can be printed and given again."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = random.SystemRandom().randrange(1 << 32)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Have tests that share a cluster run in one process."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest groups first; skip what needs things that are not built here, except with CI=true."""
    for item in items:
        if not {"airflow", "airflow_33", "airflow_34"}.isdisjoint(getattr(item, "fixturenames", ())):
            assert group_of(item.nodeid) == "airflow", f"{item.nodeid}: add its file to AIRFLOW in support/groups.py"
    items.sort(key=lambda item: place(item.nodeid))
    if os.environ.get("CI") == "true":
        return
    for marker in ("airflow", "built"):
        command = missing(marker)
        if command:
            for item in items:
                if item.get_closest_marker(marker) is not None:
                    item.add_marker(pytest.mark.skip(reason=f"run `{command}` first"))


def pytest_report_header(config: pytest.Config) -> str:
    return f"replay random tests with --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(pytest_report_header(terminalreporter.config))


@pytest.fixture(autouse=True)
def no_bridge_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    Bridge.end_all()


def _airflow(home: Path, version: str) -> Iterator[Airflow]:
    made = Airflow(home, version)
    try:
        made.start()
        made.ask(
            "secrets",
            connections={"conformance_db": "postgres://user:s3cr3t-pa55@db.example:5432/sales?token=extra-t0ken-value"},
            variables={"conformance_in": "a variable", **{f"conformance_{n}": f"value {n}" for n in range(20)}},
        )
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def airflow_33(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A real Airflow 3.3 with its api-server."""
    yield from _airflow(tmp_path_factory.mktemp("airflow") / "home", "3.3")


@pytest.fixture(scope="session")
def airflow_34(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A real Airflow 3.4 with its api-server."""
    yield from _airflow(tmp_path_factory.mktemp("airflow") / "home", "3.4")


@pytest.fixture(scope="session", params=AIRFLOWS)
def airflow(request: pytest.FixtureRequest) -> Airflow:
    """Both, one after the other."""
    made: Airflow = request.getfixturevalue(f"airflow_{request.param.replace('.', '')}")
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Our Execution API on an empty SQLite database."""
    made = make_store(tmp_path)
    with made.server:
        yield made
    made.engine.dispose()


@pytest.fixture
def filled(store: Store) -> Store:
    """The same, with what the conformance tasks read."""
    store.connection(
        "conformance_db",
        conn_type="postgres",
        host="db.example",
        schema="sales",
        login="user",
        password="s3cr3t-pa55",
        port=5432,
        extra='{"token": "extra-t0ken-value"}',
    )
    store.variable("conformance_in", "a variable")
    for number in range(20):
        store.variable(f"conformance_{number}", f"value {number}")
    return store
