"""Fixtures: the smallest real things."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster.node import sweep
from hypothesis import settings
from support import evidence, marks, owner, report, sizes
from support.airflow import Airflow
from support.api import Store, make_store
from support.bridge import Bridge
from support.paths import AIRFLOWS

# a busy machine is no failure; a failing example is printed so that it can be played again
settings.register_profile("polypod", deadline=None, print_blob=True)
settings.load_profile("polypod")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write the results to this file, as JSON")
    parser.addoption("--needs", action="store_true", help="print the make targets that the tests need, and run none")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the random tests, so that it can be printed and given again."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = random.SystemRandom().randrange(1 << 32)
    if not hasattr(config, "workerinput"):
        if not owner.within():
            sweep()
            owner.sweep()
        config.stash[FOLDER] = owner.begin()
        if config.option.basetemp is None:
            # short, for the sockets below it; of a run's own, as pytest empties it
            config.option.basetemp = tempfile.mkdtemp(prefix="")
    file = config.getoption("results")
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(report.Reporter(file))


GROUPS = pytest.StashKey[Path]()
FOLDER = pytest.StashKey[Path | None]()
GREEN = pytest.StashKey[bool]()
TOOK = pytest.StashKey[dict[str, float]]()
LEFT = pytest.StashKey[int]()
"""How many tests are left to `make test-all`."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> marks.Groups:
    """Have tests that share something run in one process."""
    return marks.Groups(config, log, config.stash[GROUPS])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process where to write down the groups."""
    if GROUPS not in node.config.stash:
        node.config.stash[GROUPS] = Path(tempfile.mkdtemp(prefix="polypod-tests-")) / "groups.json"
        node.config.stash[TOOK] = marks.last_durations()
    node.workerinput["groups"] = str(node.config.stash[GROUPS])
    node.workerinput["took"] = node.config.stash[TOOK]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Report how many tests were left out; keep the temporary folder of a failed run until the next one."""
    session.config.stash[GREEN] = exitstatus == 0
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left"] = session.config.stash.get(LEFT, 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    if GROUPS in config.stash:
        shutil.rmtree(config.stash[GROUPS].parent, ignore_errors=True)
    if config.stash.get(GREEN, False):
        owner.end(config.stash.get(FOLDER, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the longest groups first; leave out what is for `make test-all`, and what needs things that are missing."""
    for item in items:
        marks.check(item)
    left = [] if sizes.ALL else [item for item in items if marks.is_for_all_only(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    config.stash[LEFT] = len(left)
    worker = getattr(config, "workerinput", None)
    marks.longest_first(items, marks.last_durations() if worker is None else worker["took"])
    marks.skip_what_is_missing(items)
    report.say_group(items)
    if worker is not None:
        file = Path(worker["groups"])
        part = file.with_name(worker["workerid"])
        part.write_text(json.dumps({item.nodeid: marks.group_of(item) for item in items}))
        part.replace(file)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not session.config.getoption("needs"):
        return None
    needs = {need for item in session.items for need in marks.needs_of(item)}
    print("needs:", *sorted({marks.NEEDS[need] for need in needs}))
    return True


def pytest_report_header(config: pytest.Config) -> str:
    return f"replay random tests with --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(pytest_report_header(terminalreporter.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what there is to see, while the test's fixtures are still there."""
    made = yield
    if made.failed and made.when != "teardown":
        # the limit is for the test and not for what is shown of it
        getattr(item, "cancel_timeout", lambda: None)()
        made.sections += evidence.of(item)
    return made


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
