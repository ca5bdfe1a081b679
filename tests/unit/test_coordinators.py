"""The coordinators: what is chosen, and why everything else was not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from polypod_bridge.attempt import find_command
from polypod_bridge.process.local import LocalHost
from polypod_coordinators.artifacts import typescript_bundle as tsb
from polypod_coordinators.artifacts.search import Rejected, walk
from polypod_coordinators.coordinator import Command, Wanted, create
from polypod_coordinators.java import class_file_java
from polypod_core.errors import UserError
from support.artifacts import bundle, make_jar, manifest, minified, unnamed
from support.paths import EXECUTABLE_CLASSPATH, GO_ROOT, JAVA_CLASSPATH, JAVA_ROOT, NODE_CLASSPATH, TYPESCRIPT_ROOT


def choose(classpath: str, dag_id: str, **kwargs: Any) -> Command:
    return find_command(create("test", classpath, kwargs), Wanted(dag_id), LocalHost(), {})


def refused(call: Callable[[], Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


# Executable bundles.


def test_the_bundle_that_holds_the_dag_is_chosen(tmp_path: Path) -> None:
    bundle(tmp_path / "a" / "alpha", "alpha")
    wanted = bundle(tmp_path / "b" / "deep" / "beta", "beta", "gamma")
    command = choose(EXECUTABLE_CLASSPATH, "gamma", executables_root=[str(tmp_path)])
    assert command == Command((str(wanted),), "2026-10-30", str(wanted), native=True, listed=command.listed)
    assert command.listed == {"beta": ["t"], "gamma": ["t"]}


def test_a_miss_lists_every_candidate_with_its_reason(tmp_path: Path) -> None:
    bundle(tmp_path / "other", "other")
    (tmp_path / "README").write_text("hello")
    (tmp_path / "README").chmod(0o755)
    flipped = bundle(tmp_path / "flipped", "dag")
    raw = bytearray(flipped.read_bytes())
    raw[0] ^= 1
    flipped.write_bytes(raw)
    (tmp_path / "broken_link").symlink_to("nowhere")
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    # one that is damaged was meant
    assert error.reason == "InvalidArtifact"
    for line in (
        "other: its Dags are ['other']",
        "README: no bundle trailer",
        "flipped: binary_sha256 mismatch",
        "broken_link: this link cannot be followed",
    ):
        assert line in error.message


def test_two_bundles_for_one_dag_are_an_error(tmp_path: Path) -> None:
    bundle(tmp_path / "one", "dag")
    bundle(tmp_path / "two", "dag")
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    assert error.reason == "ArtifactAmbiguous"
    assert "/one" in error.message
    assert "/two" in error.message


def test_an_unknown_schema_version_names_those_known(tmp_path: Path) -> None:
    bundle(tmp_path / "new", "dag", version="2031-01-01")
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    assert error.reason == "UnknownSchemaVersion"
    assert "'2031-01-01'; known here: 2026-06-16, 2026-10-30" in error.message


@pytest.mark.parametrize("named", [True, False])
def test_several_of_unknown_schema_versions_are_said_to_be_that(tmp_path: Path, named: bool) -> None:
    dags = ["dag"] if named else []
    for version in ("2031-01-01", "2032-01-01"):
        bundle(tmp_path / version, *dags, version=version)
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    assert error.reason == "UnknownSchemaVersion"
    assert "2 executable bundles" in error.message
    for line in ("/2031-01-01: '2031-01-01'", "/2032-01-01: '2032-01-01'", "known here: 2026-06-16, 2026-10-30"):
        assert line in error.message


def test_what_may_not_be_read_or_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    bundle(tmp_path / "other", "other")
    (tmp_path / "link").symlink_to("nowhere")
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    assert error.reason == "ArtifactNotFound"


@pytest.mark.parametrize("form", ["executable", "script", "jar"])
def test_a_damaged_artifact_is_an_invalid_one_in_every_language(tmp_path: Path, form: str) -> None:
    path, classpath, kwargs = artifact(form, tmp_path, "dag")
    raw = bytearray(path.read_bytes())
    path.write_bytes(
        b"//# airflowMetadata=%%%\n" if form == "script" else raw[:-30] if form == "jar" else b"x" + raw[1:]
    )
    error = refused(lambda: find_command(create("c", classpath, kwargs), Wanted("dag"), LocalHost(), {}))
    assert error.reason == "InvalidArtifact", error.message
    assert path.name in error.message


def test_what_has_a_mistake_is_told_although_another_fits(tmp_path: Path) -> None:
    good = bundle(tmp_path / "pipeline-v1", "dag")
    changed = bundle(tmp_path / "pipeline-v2", "dag")
    changed.write_bytes(b"x" + changed.read_bytes()[1:])
    (tmp_path / "pipeline-v3").write_bytes(b"\x7fELF" + b"half of it")
    bundle(tmp_path / "pipeline-v4", "dag", version="2031-01-01")
    bundle(tmp_path / "other", "other dag")
    (tmp_path / "README").write_text("hello")
    command = choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)])
    assert command.argv == (str(good),)
    told = {Path(item.path).name: item.why for item in command.passed_over}
    assert sorted(told) == ["pipeline-v2", "pipeline-v3", "pipeline-v4"]
    assert "binary_sha256 mismatch" in told["pipeline-v2"]
    assert "copied in part" in told["pipeline-v3"]
    assert "'2031-01-01' is unknown" in told["pipeline-v4"]


def test_a_miss_among_ten_thousand_files_names_the_mistake_first(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"file-{number}").write_text("x")
    flipped = bundle(tmp_path / "pipeline", "dag")
    flipped.write_bytes(b"x" + flipped.read_bytes()[1:])
    error = refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]))
    lines = error.message.splitlines()
    assert "pipeline: binary_sha256 mismatch" in lines[1]
    assert lines[-1] == "  - and 291 more"
    assert len(error.message) < 2500


def test_links_are_followed_and_cycles_end(tmp_path: Path) -> None:
    wanted = bundle(tmp_path / "store" / "v1" / "pipeline", "dag")
    root = tmp_path / "root"
    root.mkdir()
    (root / "relative").symlink_to("../store/v1/pipeline")
    (root / "cycle").symlink_to(root)
    (root / "loop").symlink_to("loop")
    (root / "again").symlink_to(wanted.parent)
    # one file of two names is one candidate, under the first of them
    first = choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(root)])
    assert first.argv == (str(root / "again" / "pipeline"),)
    (root / "again").unlink()
    assert choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(root)]).argv == (str(root / "relative"),)


def test_an_absolute_link_starts_at_the_roots_own_file_system(tmp_path: Path) -> None:
    container = tmp_path / "container"
    bundle(container / "data" / "pipeline", "dag")
    (container / "opt").mkdir()
    (container / "opt" / "link").symlink_to("/data/pipeline")
    fs_root = os.open(container, os.O_PATH | os.O_DIRECTORY)
    fd = os.open(container / "opt", os.O_RDONLY | os.O_DIRECTORY)
    from polypod_coordinators.artifacts.search import ArtifactRoot

    rejected: list[Rejected] = []
    found = []
    for candidate in walk([ArtifactRoot("/opt", fd, fs_root)], lambda name: True, rejected):
        opened = candidate.open()
        found.append((candidate.path, os.fstat(opened).st_size > 0))
        os.close(opened)
    assert (found, rejected) == ([("/opt/link", True)], [])
    os.close(fd)
    os.close(fs_root)


def test_a_folder_that_may_not_be_read_is_said_so_and_the_rest_is_searched() -> None:
    with tempfile.TemporaryDirectory() as name:
        _search_beside_a_locked_folder(Path(name))


def _search_beside_a_locked_folder(tmp_path: Path) -> None:
    bundle(tmp_path / "a" / "one", "dag")
    locked = tmp_path / "locked"
    locked.mkdir()
    tmp_path.chmod(0o755)
    as_root = os.geteuid() == 0
    # nobody may look into it: for root there is no such thing, so it becomes somebody else
    locked.chmod(0o711 if as_root else 0o311)
    rejected: list[Rejected] = []
    with LocalHost().open_roots("root", [str(tmp_path)]) as roots:
        if as_root:
            os.seteuid(65534)
        try:
            seen = [candidate.path for candidate in walk(roots, lambda name: True, rejected)]
        finally:
            if as_root:
                os.seteuid(0)
            locked.chmod(0o755)
    assert seen == [str(tmp_path / "a" / "one")]
    assert [str(item) for item in rejected] == [f"{locked}: it cannot be read: Permission denied"]


def test_ten_thousand_files_are_searched(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"file-{number}").touch()
    bundle(tmp_path / "z-bundle", "dag")
    assert choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]).artifact.endswith("z-bundle")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    bundle(tmp_path / "a" / "b" / "c" / "pipeline", "dag")
    (tmp_path / "link").symlink_to("a/b")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)])
        refused(lambda: choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path), "/no/such/folder"]))
    assert len(os.listdir("/proc/self/fd")) == before


# What the SDKs 1.0.0 pack, and what Airflow 3.4 says of it.

FORMS = ["executable", "script", "script-sources", "jar", "jar-digest"]


def artifact(form: str, folder: Path, name: str) -> tuple[Path, str, dict[str, Any]]:
    """Make an artifact without Dag ids; return it with its coordinator's class path and kwargs."""
    if form == "executable":
        return unnamed(folder / name), EXECUTABLE_CLASSPATH, {"executables_root": [str(folder)]}
    if form.startswith("script"):
        path = folder / f"{name}.min.mjs"
        published = b"//# airflowMetadata=" + base64.b64encode(manifest("x")) + b"\n"
        path.write_bytes(minified(published, identifiers=False, sources=form.endswith("sources")))
        return path, NODE_CLASSPATH, {"bundles_root": [str(folder)]}
    path = make_jar(folder / f"{name}.jar", f"Main{name}", "2026-10-30", "d" if form.endswith("digest") else None)
    return path, JAVA_CLASSPATH, {"jars_root": [str(folder)]}


@pytest.mark.parametrize("form", FORMS)
def test_the_only_artifact_is_taken_although_it_names_no_dags(tmp_path: Path, form: str) -> None:
    path, classpath, kwargs = artifact(form, tmp_path, "one")
    assert choose(classpath, "any", **kwargs).artifact == str(path)


@pytest.mark.parametrize("form", FORMS)
def test_several_that_name_no_dags_are_an_error_that_says_how_to_choose(tmp_path: Path, form: str) -> None:
    _, classpath, kwargs = artifact(form, tmp_path, "one")
    artifact(form, tmp_path, "two")
    error = refused(lambda: choose(classpath, "any", **kwargs))
    assert error.reason == "ArtifactAmbiguous"
    assert "queue_overrides.QUEUE.kwargs" in error.message or "set main_class to choose one" in error.message


def test_an_artifact_that_names_the_dag_goes_before_one_that_names_none(tmp_path: Path) -> None:
    unnamed(tmp_path / "a")
    wanted = bundle(tmp_path / "b", "dag")
    assert choose(EXECUTABLE_CLASSPATH, "dag", executables_root=[str(tmp_path)]).artifact == str(wanted)
    assert choose(EXECUTABLE_CLASSPATH, "other", executables_root=[str(tmp_path)]).artifact == str(tmp_path / "a")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("known", ["root", "bundle"])
def test_the_artifact_that_airflow_names_is_followed_and_nothing_is_searched(
    tmp_path: Path, form: str, known: str
) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    path, classpath, kwargs = artifact(form, tmp_path / "v1", "one")
    artifact(form, tmp_path / "v2", "two")
    (tmp_path / "latest").symlink_to("v1")
    root = {key: [str(tmp_path)] for key in kwargs}
    bundles = {"handlers": str(tmp_path)} if known == "bundle" else {}
    wanted = Wanted("any", rel_path=f"latest/{path.name}", bundle="handlers")
    coordinator = create("c", classpath, {} if known == "bundle" else root)
    command = find_command(coordinator, wanted, LocalHost(), bundles)
    assert command.artifact == str(tmp_path / "latest" / path.name)
    assert str(tmp_path / "latest" / path.name) in " ".join(command.argv)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rel_path", ["../outside", "/etc/passwd", "a/../../b", "no/such/file", "folder", ".", "link"])
def test_a_path_that_leads_nowhere_or_out_is_refused(tmp_path: Path, form: str, rel_path: str) -> None:
    _, classpath, kwargs = artifact(form, tmp_path, "one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("link")
    error = refused(
        lambda: find_command(create("c", classpath, kwargs), Wanted("d", rel_path=rel_path), LocalHost(), {})
    )
    assert repr(rel_path) in error.message


@pytest.mark.parametrize("form", ["executable", "script", "jar"])
def test_a_native_dag_runs_its_own_file(tmp_path: Path, form: str) -> None:
    path, classpath, _ = artifact(form, tmp_path, "one")
    artifact(form, tmp_path, "two")
    wanted = Wanted("any", own_bundle="dags", dag_rel_path=path.name)
    assert find_command(create("c", classpath, {}), wanted, LocalHost(), {"dags": str(tmp_path)}).artifact == str(path)
    python = Wanted("any", own_bundle="dags", dag_rel_path="dag.py")
    assert refused(lambda: find_command(create("c", classpath, {}), python, LocalHost(), {"dags": str(tmp_path)}))


def test_a_dag_bundle_that_is_not_known_is_named_with_what_to_do() -> None:
    coordinator = create("c", NODE_CLASSPATH, {"task_handler_bundle_name": "scripts"})
    error = refused(lambda: find_command(coordinator, Wanted("d"), LocalHost(), {"script": "/x"}))
    assert error.reason == "InvalidRouting"
    assert "Dag bundle 'scripts' is not in the routing's dag_bundles; did you mean 'script'?" in error.message
    assert "add dag_bundles.scripts with the path, image or persistent_volume_claim" in error.message
    nowhere = refused(lambda: find_command(create("c", NODE_CLASSPATH, {}), Wanted("d"), LocalHost(), {}))
    assert "bundles_root" in nowhere.message
    assert "task_handler_bundle_name" in nowhere.message


def test_a_jar_that_is_marked_goes_before_dependencies_with_a_main_class(tmp_path: Path) -> None:
    make_jar(tmp_path / "lib.jar", "some.Tool")
    make_jar(tmp_path / "tasks.jar", "tasks.Main", "2026-10-30", digest="abc")
    assert choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)]).argv[-1] == "tasks.Main"


def test_a_named_jar_whose_main_class_another_sets_is_refused(tmp_path: Path) -> None:
    make_jar(tmp_path / "a.jar", "Main", "2026-10-30")
    make_jar(tmp_path / "b.jar", "Main")
    (tmp_path / "again.jar").symlink_to("a.jar")
    coordinator = create("c", JAVA_CLASSPATH, {"jars_root": [str(tmp_path)]})
    error = refused(lambda: find_command(coordinator, Wanted("x", rel_path="again.jar"), LocalHost(), {}))
    assert "b.jar" in error.message
    (tmp_path / "b.jar").unlink()
    assert find_command(coordinator, Wanted("x", rel_path="again.jar"), LocalHost(), {}).argv[-1] == "Main"


# Jars.


def test_class_path_is_every_jar_sorted(tmp_path: Path) -> None:
    make_jar(tmp_path / "z.jar", version="2026-10-30")
    make_jar(tmp_path / "lib" / "m.jar")
    main = make_jar(tmp_path / "app.jar", main="com.example.Main")
    command = choose(JAVA_CLASSPATH, "any", jars_root=str(tmp_path), jvm_args=["-Xmx1g"], java_executable="/jdk/java")
    jars = [str(main), str(tmp_path / "lib" / "m.jar"), str(tmp_path / "z.jar")]
    assert command.argv == ("/jdk/java", "-classpath", ":".join(jars), "-Xmx1g", "com.example.Main")
    assert command.schema_version == "2026-10-30"


def test_the_class_path_keeps_the_order_of_the_roots(tmp_path: Path) -> None:
    for folder, name in (("z-first", "b.jar"), ("z-first", "a.jar"), ("a-second", "c.jar")):
        (tmp_path / folder).mkdir(exist_ok=True)
        make_jar(tmp_path / folder / name, "Main" if name == "c.jar" else None, "2026-10-30")
    command = choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path / "z-first"), str(tmp_path / "a-second")])
    class_path = command.argv[command.argv.index("-classpath") + 1].split(":")
    assert [Path(path).name for path in class_path] == ["a.jar", "b.jar", "c.jar"]


def test_two_jars_of_one_main_class_are_an_error(tmp_path: Path) -> None:
    for name in ("app-1.9.jar", "app-2.0.jar"):
        make_jar(tmp_path / name, "app.Main", "2026-10-30")
    error = refused(lambda: choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)]))
    assert error.reason == "ArtifactAmbiguous"
    assert "app-1.9.jar" in error.message
    assert "app-2.0.jar" in error.message


@pytest.mark.needs("conformance")
def test_a_main_class_that_is_in_no_jar_is_refused() -> None:
    root = [str(JAVA_ROOT)]
    assert choose(JAVA_CLASSPATH, "dag", jars_root=root, main_class="conformance.Main").argv[-1] == "conformance.Main"
    error = refused(lambda: choose(JAVA_CLASSPATH, "dag", jars_root=root, main_class="conformance.Mian"))
    assert error.reason == "ArtifactNotFound"
    assert "main_class 'conformance.Mian' is in no jar" in error.message
    assert "did you mean 'conformance.Main'?" in error.message


def test_a_damaged_jar_is_told(tmp_path: Path) -> None:
    make_jar(tmp_path / "app.jar", "app.Main", "2026-10-30")
    whole = make_jar(tmp_path / "library.jar")
    whole.write_bytes(whole.read_bytes()[:-30])
    command = choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)])
    [told] = command.passed_over
    assert told.path.endswith("library.jar")
    assert "not a readable jar" in told.why


@pytest.mark.parametrize(
    ("listed", "main_class", "known"),
    [
        ('{"d":["t","u"]}', "", {"d": ("t", "u")}),
        ("{}", "", {}),
        (None, "", None),
        # the list is not that of another main class
        ('{"d":["t","u"]}', "Dependency", None),
    ],
)
def test_a_jar_lists_the_tasks_of_its_main_class(
    tmp_path: Path, listed: str | None, main_class: str, known: dict[str, tuple[str, ...]] | None
) -> None:
    make_jar(tmp_path / "m.jar", "Main", "2026-10-30", digest="0", tasks=listed)
    make_jar(tmp_path / "a.jar", "Dependency")
    command = choose(JAVA_CLASSPATH, "d", jars_root=[str(tmp_path)], main_class=main_class)
    assert command.listed == known
    assert command.lacks("d", "T") == (known is not None)


@pytest.mark.parametrize("listed", ["", "{", "[]", '{"d":"t"}', '{"d":[1]}', '{"d":{"t":1}}', "[" * 100_000])
def test_a_list_of_tasks_that_is_not_valid_is_named(tmp_path: Path, listed: str) -> None:
    make_jar(tmp_path / "m.jar", "Main", "2026-10-30", tasks=listed)
    error = refused(lambda: choose(JAVA_CLASSPATH, "d", jars_root=[str(tmp_path)]))
    assert "m.jar: Polypod-Tasks in META-INF/MANIFEST.MF is not a JSON object of Dags and their tasks" in error.message


def test_two_main_classes_are_an_error_that_main_class_settles(tmp_path: Path) -> None:
    make_jar(tmp_path / "a.jar", "A", "2026-10-30")
    make_jar(tmp_path / "b.jar", "B", "2026-10-30")
    error = refused(lambda: choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)]))
    assert error.reason == "ArtifactAmbiguous"
    assert "A, B; set main_class to choose one" in error.message
    assert choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)], main_class="B").argv[-1] == "B"


def test_two_jars_that_hold_main_class_are_an_error(tmp_path: Path) -> None:
    for name in ("app-1.9.jar", "app-2.0.jar"):
        with zipfile.ZipFile(make_jar(tmp_path / name, None, "2026-10-30"), "a") as jar:
            jar.writestr("app/Main.class", b"")
    make_jar(tmp_path / "library.jar", "library.Main")
    error = refused(lambda: choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)], main_class="app.Main"))
    assert error.reason == "ArtifactAmbiguous"
    assert "jars that hold main_class app.Main; keep one:" in error.message
    assert "app-1.9.jar" in error.message
    assert "app-2.0.jar" in error.message
    (tmp_path / "app-1.9.jar").unlink()
    command = choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)], main_class="app.Main")
    assert command.argv[-1] == "app.Main"


@pytest.mark.parametrize(("name", "native"), [
    ("pipeline", True), ("pipeline-1.2", True), ("deep/v1.0/pipeline", True), ("pipeline-1.2-linux", True), ("dag.py", False),
    ("dag.PY", False), ("a.b.jar", False), ("x.min.mjs", False), ("dags.zip", False), ("dag.yaml", False), ("", False),
])  # fmt: skip
def test_a_version_at_the_end_of_a_name_is_no_kind_of_file(name: str, native: bool) -> None:
    assert create("c", EXECUTABLE_CLASSPATH, {}).runs_dag_file(name) is native


def test_two_schema_versions_are_an_error(tmp_path: Path) -> None:
    make_jar(tmp_path / "a.jar", "A", "2026-10-30")
    make_jar(tmp_path / "b.jar", None, "2026-06-16")
    error = refused(lambda: choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)]))
    assert "2026-06-16, 2026-10-30" in error.message


def test_a_missing_attribute_lists_every_jar(tmp_path: Path) -> None:
    make_jar(tmp_path / "a.jar", "A")
    (tmp_path / "broken.jar").write_bytes(b"not a zip")
    error = refused(lambda: choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)]))
    assert "a.jar: Main-Class A, Airflow-Supervisor-Schema-Version none" in error.message
    assert "broken.jar: not a readable jar" in error.message


def test_a_jar_swapped_between_two_runs_is_seen(tmp_path: Path) -> None:
    path = make_jar(tmp_path / "app.jar", "Old", "2026-10-30")
    assert choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)]).argv[-1] == "Old"
    make_jar(path, "New", "2026-06-16")
    command = choose(JAVA_CLASSPATH, "x", jars_root=[str(tmp_path)])
    assert (command.argv[-1], command.schema_version) == ("New", "2026-06-16")


@pytest.mark.needs("conformance")
def test_the_java_that_a_jar_needs_is_read_from_its_class_file() -> None:
    assert class_file_java(choose(JAVA_CLASSPATH, "conformance", jars_root=[str(JAVA_ROOT)])) == 11


# TypeScript bundles.


def coming_form(dag: str, flip: str = "") -> bytes:
    """Build upstream's next bundle form, with every section."""
    document = json.loads(manifest(dag))
    document["task_handlers"] = document.pop("dags")
    document["entrypoint_path"] = document.pop("source")
    parts = {"metadata": json.dumps(document).encode(), "source": b"// original", "code": b"console.log(1);\n"}
    pad = len(tsb.HEADER_PREFIX) + 600
    start = pad + 1 + len(tsb.METADATA_PREFIX)
    ranges: dict[str, Any] = {}
    body = b"\n" + tsb.METADATA_PREFIX
    for name, content in parts.items():
        ranges[name] = {"start": f"{start:016x}", "end": f"{start + len(content):016x}",
                        "sha256": hashlib.sha256(content).hexdigest()}  # fmt: skip
        body += (content if name != flip else content[:-1] + b"?") + b"\n"
        start += len(content) + 1
    ranges["sources"] = [{"path": "main.ts", **ranges.pop("source")}]
    return (tsb.HEADER_PREFIX + json.dumps(ranges).encode()).ljust(pad) + body


def test_both_forms_are_read(tmp_path: Path) -> None:
    encoded = base64.b64encode(manifest("published")).decode()
    (tmp_path / "bundle.mjs").write_text(f"//# airflowMetadata={encoded}\nconsole.log(1)\n")
    (tmp_path / "next.min.mjs").write_bytes(coming_form("coming"))
    (tmp_path / "other.mjs").write_text("not a candidate by its name")
    for dag, name in (("published", "bundle.mjs"), ("coming", "next.min.mjs")):
        command = choose(NODE_CLASSPATH, dag, bundles_root=[str(tmp_path)], node_executable="node22")
        assert command.argv == ("node22", str(tmp_path / name))


@pytest.mark.parametrize("section", ["code", "source", "metadata"])
def test_a_section_that_was_changed_is_noticed(tmp_path: Path, section: str) -> None:
    (tmp_path / "next.min.mjs").write_bytes(coming_form("dag", flip=section))
    error = refused(lambda: choose(NODE_CLASSPATH, "dag", bundles_root=[str(tmp_path)]))
    assert f"section {section}" in error.message


@pytest.mark.needs("conformance")
def test_the_real_artifacts_are_read() -> None:
    assert choose(EXECUTABLE_CLASSPATH, "conformance", executables_root=[str(GO_ROOT)]).schema_version == "2026-10-30"
    assert choose(NODE_CLASSPATH, "conformance", bundles_root=[str(TYPESCRIPT_ROOT)]).schema_version == "2026-10-30"


# Configuration.


@pytest.mark.parametrize(
    ("classpath", "kwargs", "message"),
    [
        ("airflow.JavaCoordinator2", {}, "classpath 'airflow.JavaCoordinator2' is not known"),
        (JAVA_CLASSPATH, {"jar_root": ["/x"]}, "has no keyword 'jar_root'; did you mean 'jars_root'?"),
        (JAVA_CLASSPATH, {"jars_root": [1]}, r"Expected `str`, got `int` - at `$.jars_root[0]`"),
        (JAVA_CLASSPATH, {"task_handler_bundle_name": 3}, "$.task_handler_bundle_name"),
        (NODE_CLASSPATH, {"bundles_root": [], "task_startup_timeout": "x"}, "task_startup_timeout"),
    ],
)
def test_a_wrong_coordinator_is_explained(classpath: str, kwargs: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: create("c", classpath, kwargs)).message


@pytest.mark.parametrize("short", ["JavaCoordinator", "airflow.sdk.coordinators.java.JavaCoordinator"])
def test_airflows_class_paths_are_accepted(short: str) -> None:
    assert create("c", short, {"jars_root": "/one"}).roots() == ("jars_root", ["/one"])


def test_each_bad_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root, why in ((str(tmp_path / "none"), "does not exist"), (str(tmp_path / "file"), "is not a folder")):
        message = refused(partial(choose, JAVA_CLASSPATH, "x", jars_root=[str(tmp_path), root])).message
        assert root in message
        assert why in message
        assert "an existing folder on this machine" in message
        assert "image" not in message.replace(root, "")
    for roots in ([], None, [""]):
        message = refused(partial(choose, JAVA_CLASSPATH, "x", jars_root=roots)).message
        assert "non-empty list" in message


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"jars_root": ["/a\0b"]}, "kwargs.jars_root: no file and no argument can hold a NUL"),
        ({"jars_root": ["/a"], "jvm_args": ["-D\0"]}, "kwargs.jvm_args: no file"),
        (
            {"jars_root": ["/a"], "task_startup_timeout": -1},
            "kwargs.task_startup_timeout: it is -1; it must be more than 0",
        ),
        ({"jars_root": ["/a"], "task_startup_timeout": float("nan")}, "kwargs.task_startup_timeout: it is nan"),
        ({"jars_root": ["/a"], "task_startup_timeout": 1e300}, "kwargs.task_startup_timeout: it is 1e+300"),
    ],
)
def test_a_value_that_can_never_work_is_refused(kwargs: dict[str, Any], words: str) -> None:
    assert words in refused(lambda: create("c", JAVA_CLASSPATH, kwargs)).message


@pytest.mark.parametrize(
    "classpath", ["le.JavaCoordinator", "ava.JavaCoordinator", "coordinators.java.JavaCoordinator", ""]
)
def test_a_part_of_a_class_path_is_none(classpath: str) -> None:
    assert "is not known" in refused(lambda: create("c", classpath, {"jars_root": ["/a"]})).message


def test_a_program_without_its_interpreter_is_not_called_missing(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for command, words in (
        (str(script), "exists, but its interpreter or loader does not"),
        ("/no/such", "does not exist"),
    ):
        error = refused(lambda argv=command: LocalHost().spawn([argv], {}))  # type: ignore[misc]
        assert error.reason == "RuntimeNotFound"
        assert words in error.message


def test_a_jar_that_no_class_path_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    make_jar(tmp_path / "a:b" / "app.jar", "app.Main", "2026-10-30")
    error = refused(lambda: choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)]))
    assert "a:b/app.jar" in error.message
    assert "rename" in error.message


@pytest.mark.needs("conformance")
def test_the_sdk_keeps_the_logs_beside_another_slf4j_provider() -> None:
    argv = choose(JAVA_CLASSPATH, "dag", jars_root=[str(JAVA_ROOT)], jvm_args=["-Dslf4j.provider=mine"]).argv
    ours = argv.index("-Dslf4j.provider=dev.polypod.sdk.internal.Slf4jProvider")
    # what the user sets comes later, and wins
    assert ours < argv.index("-Dslf4j.provider=mine")
    assert not any("springframework" in text for text in argv)


def test_spring_boot_leaves_logging_alone_beside_the_sdk(tmp_path: Path) -> None:
    spring = "org/springframework/boot/logging/LoggingSystem.class"
    make_jar(tmp_path / "app.jar", "app.Main", "2026-10-30")
    with zipfile.ZipFile(tmp_path / "spring-boot.jar", "w") as jar:
        jar.writestr(spring, b"")
    assert not any("-D" in text for text in choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)]).argv)
    with zipfile.ZipFile(tmp_path / "polypod-sdk.jar", "w") as jar:
        jar.writestr("dev/polypod/sdk/internal/Slf4jProvider.class", b"")
    argv = choose(JAVA_CLASSPATH, "dag", jars_root=[str(tmp_path)]).argv
    assert "-Dorg.springframework.boot.logging.LoggingSystem=none" in argv
