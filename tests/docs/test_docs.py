"""Every example in README and docs is run: commands, manifests, routings and programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from polypod_cli import manifests
from polypod_coordinators.artifacts import metadata
from polypod_core.routing import parse_routing
from polypod_operator.pods import security
from support.paths import CONFORMANCE, JAVA_ROOT, ROOT

pytestmark = pytest.mark.needs("conformance", "examples", "airflow")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (f"{page.relative_to(ROOT)}-{number}", match[1], match[2])
    for page in PAGES
    for number, match in enumerate(re.finditer(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.S | re.M))
]


def blocks(kind: str) -> list[object]:
    return [pytest.param(text, id=name) for name, found, text in BLOCKS if found == kind]


def run(command: list[str] | str, cwd: Path, path: str = "") -> None:
    environ = {**os.environ, "PATH": f"{path}{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command,
        cwd=cwd,
        shell=isinstance(command, str),
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_no_block_is_left_out() -> None:
    assert {kind for _, kind, _ in BLOCKS} <= {"console", "yaml", "go", "java", "ts", "text"}


@pytest.mark.parametrize("text", blocks("console"))
def test_commands(text: str, tmp_path: Path) -> None:
    # as in the checkout, but what a command leaves in the current folder is not left there
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    for line in text.splitlines():
        assert line.startswith("$ "), line
        command = line[2:].partition("  #")[0].strip()
        if not command.startswith("make "):  # those two are what CI and this very run are
            run(command, tmp_path)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_manifests(text: str, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(text))
    if "coordinators" in documents[0]:
        parse_routing(documents[0], "docs")
    elif set(documents[0]) <= set(yaml.safe_load((ROOT / "charts/polypod/values.yaml").read_text())):
        (tmp_path / "values.yaml").write_text(text)
        helm = str(Path(sys.executable).with_name("helm"))
        run([helm, "template", "polypod", str(ROOT / "charts/polypod"), "-f", str(tmp_path / "values.yaml")], tmp_path)
    elif "airflow_bundle_metadata_version" in documents[0]:
        metadata.parse(text.encode())
    else:
        path = tmp_path / "taskruns.yaml"
        path.write_text(text)
        assert manifests.load([str(path)]).task_runs


@pytest.mark.parametrize("text", blocks("go"))
def test_go(text: str, tmp_path: Path) -> None:
    if not text.startswith("package"):
        assert text.strip() in (ROOT / "examples/sales/go/main.go").read_text()
        return
    (tmp_path / "main.go").write_text(text)
    for name in ("go.mod", "go.sum"):
        content = (CONFORMANCE / "go" / name).read_text()
        (tmp_path / name).write_text(content.replace("../../go", str(ROOT / "sdks/go")))
    run(["go", "build", "-o", "program", "."], tmp_path)


@pytest.mark.parametrize("text", blocks("java"))
def test_java(text: str, tmp_path: Path) -> None:
    (tmp_path / "Greeting.java").write_text(text)
    class_path = ":".join(str(jar) for jar in JAVA_ROOT.glob("*.jar"))
    run(["javac", "-cp", class_path, "-d", str(tmp_path), "Greeting.java"], tmp_path)


@pytest.mark.parametrize("text", blocks("ts"))
def test_typescript(text: str, tmp_path: Path) -> None:
    project = CONFORMANCE / "typescript"
    (tmp_path / "main.ts").write_text(text)
    (tmp_path / "node_modules").symlink_to(project / "node_modules")
    run(["node_modules/.bin/airflow-ts-pack", "main.ts"], tmp_path, path=f"{project}/node_modules/node/bin:")


def test_the_page_of_reasons_is_what_the_code_says() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    from generate_reasons import rendered

    assert (ROOT / "docs/reasons.md").read_text() == rendered(), "run `make generated`"


def test_the_taskruns_reference_is_what_the_crd_says() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    from generate_reference import rendered

    assert (ROOT / "docs/taskrun.md").read_text() == rendered(), "run `make generated`"


def test_what_a_coordinator_may_allow_is_told() -> None:
    page = (ROOT / "docs/cluster.md").read_text()
    volumes = set(security.OTHER_VOLUMES)
    assert [name for name in security.ALLOWANCES if f"`{name}`" not in page and name not in volumes] == []


def test_the_table_of_values_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from generate_values import rendered

    assert (ROOT / "docs/values.md").read_text() == rendered(), "run `make generated`"


def test_the_schema_of_the_messages_is_that_of_the_code() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    from generate_messages import rendered

    assert (ROOT / "docs/messages.schema.json").read_text() == rendered(), "run `make generated`"
    names = {kind["$ref"].rpartition("/")[2] for kind in json.loads(rendered())["$defs"]["ToSupervisor"]["oneOf"]}
    # what the page says of a message can be looked up
    told = set(re.findall(r"^\| ([A-Z]\w+)", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE))
    assert told <= names


def test_the_site_is_built_without_a_broken_link_and_fetches_nothing(tmp_path: Path) -> None:
    run([str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(tmp_path)], ROOT)
    pages = sorted(tmp_path.rglob("*.html"))
    sources = {page.stem for page in PAGES[1:]} | {"results", "chart"}
    assert sources <= {page.stem for page in pages}
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"([^\"]+)\"|<link[^>]+href=\"([^\"]+)\"", text)
        for target in ("".join(pair) for pair in loaded):
            assert not target.startswith(("http:", "https:", "//")), f"{page.name} fetches {target}"
            # of the site, or of the page's folder
            place = tmp_path / target[1:] if target.startswith("/") else page.parent / target
            assert Path(str(place).partition("?")[0]).exists() or target.startswith("data:"), (page.name, target)


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs/decisions"
    listed = re.findall(r"\]\((0[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(page.name for page in folder.glob("0*.md"))


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_for_developers_names_is_there(page: str) -> None:
    """A path may begin at the root, or below the package that the section is about."""
    packages = [ROOT, ROOT / "bridge/polypod_bridge", ROOT / "operator/polypod_operator", ROOT / "core/polypod_core",
                ROOT / "coordinators/polypod_coordinators", ROOT / "bridge/polypod_bridge/comm",
                ROOT / "operator/polypod_operator/decide", ROOT / "tests/unit"]  # fmt: skip
    named = re.findall(r"`((?:[\w.-]+/)*[\w-]+(?:\.(?:py|toml|md)|/))`", (ROOT / page).read_text())
    assert len(named) > 4
    assert [path for path in named if not any((package / path).exists() for package in packages)] == []
