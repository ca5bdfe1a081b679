"""The Java coordinator: runs the main class that the jars under its roots declare."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec
from polypod_core.errors import UserError, nearest
from polypod_core.reasons import Reason
from polypod_core.schema_versions import resolve_version

from polypod_coordinators.artifacts import jar
from polypod_coordinators.artifacts.search import (
    ArtifactRoot,
    Candidate,
    Rank,
    Rejected,
    describe,
    named,
    walk,
    why_none,
)
from polypod_coordinators.coordinator import DEFAULT_STARTUP_TIMEOUT, Command, check_roots

SLF4J_PROVIDER = "dev.polypod.sdk.internal.Slf4jProvider"
PROPERTIES = {
    # told which provider to take, SLF4J prints that it was told, if it may
    SLF4J_PROVIDER: (f"-Dslf4j.provider={SLF4J_PROVIDER}", "-Dslf4j.internal.verbosity=WARN"),
    "org.springframework.boot.logging.LoggingSystem": ("-Dorg.springframework.boot.logging.LoggingSystem=none",),
}
"""Class on the class path → the properties that it needs, so that a Logback beside the SDK does not take the logs over.

Without `slf4j.provider` (SLF4J 2.0.9 and later), SLF4J uses the first provider on the class path. If Logback is on the
class path, Spring Boot fails to start with any other provider, unless its own logging setup is turned off. `jvm_args`
come later on the command line, so they override these.
"""


@dataclass(frozen=True, slots=True)
class _Jar:
    path: str
    manifest: jar.JarManifest
    file: tuple[int, int]
    """Device and inode: a jar may have two names."""

    def __str__(self) -> str:
        main = self.manifest.main_class or "none"
        version = self.manifest.schema_version or "none"
        return f"{self.path}: Main-Class {main}, Airflow-Supervisor-Schema-Version {version}"


class JavaCoordinator(msgspec.Struct, kw_only=True, frozen=True):
    """Runs a JVM task: every jar under the roots is on the class path: root by root, sorted within each.

    Attributes:
        jars_root: folders to look through, recursively.
        java_executable: the `java` command.
        jvm_args: arguments of the JVM, such as `-Xmx512m`.
        main_class: the class to run; if empty, the one that a jar's manifest names.
        task_handler_bundle_name: the Dag bundle that holds the jars, in place of folders.
        task_startup_timeout: seconds that the runtime has to connect.
    """

    jars_root: list[str] = []
    task_handler_bundle_name: str | None = None
    java_executable: str = "java"
    jvm_args: list[str] = []
    main_class: str = ""
    task_startup_timeout: float = DEFAULT_STARTUP_TIMEOUT

    def roots(self) -> tuple[str, list[str]]:
        return check_roots("jars_root", self.jars_root)

    def runs_dag_file(self, rel_path: str) -> bool:
        return rel_path.endswith(".jar")

    def command(self, dag_id: str, roots: list[ArtifactRoot], rel_path: str = "") -> Command:
        rejected: list[Rejected] = []
        jars = _read_jars(roots, rejected, self.main_class)
        where = ", ".join(root.path for root in roots)
        seen = [Rejected(item.path, str(item).partition(": ")[2]) for item in jars] + rejected
        first = _jar_at(roots, rel_path) if rel_path else None
        main_class = _main_class_of(first, jars) if first is not None else self.main_class or _main_class(jars, where)
        if main_class is None:
            raise UserError(
                why_none(rejected),
                f"no jar in {where} has a Main-Class in its manifest, and main_class is not set; {describe(seen)}",
            )
        mains = {item.manifest.main_class for item in jars}
        known = self.main_class in mains or any(self.main_class in item.manifest.classes for item in jars)
        if first is None and self.main_class and not known:
            hint = nearest(self.main_class, [name for name in mains if name])
            raise UserError(why_none(rejected), f"main_class {self.main_class!r} is in no jar in {where}{hint}")
        if first is None and self.main_class:
            _only_one_holds(self.main_class, jars)
        version = first.manifest.schema_version if first is not None else None
        version = version or _only(jars, "schema_version", "Airflow-Supervisor-Schema-Version", where)
        if version is None:
            raise UserError(
                why_none(rejected),
                f"no jar in {where} has Airflow-Supervisor-Schema-Version in its manifest (the SDK's own jar has it; "
                f"keep it when repackaging); {describe(seen)}",
            )
        holder = next((item.path for item in jars if item.manifest.schema_version == version), where)
        version = resolve_version(version, f"jar {holder}")
        # the classes of the jar that Airflow has named are to win over those of the same name elsewhere
        paths = [first.path] if first is not None else []
        paths += [item.path for item in jars if first is None or item.file != first.file]
        classes = frozenset[str]().union(*(item.manifest.classes for item in jars))
        held = [texts for name, texts in PROPERTIES.items() if SLF4J_PROVIDER in classes and name in classes]
        properties = [text for texts in held for text in texts]
        argv = (self.java_executable, "-classpath", _class_path(paths), *properties, *self.jvm_args, main_class)
        main_jar = first or next((item for item in jars if item.manifest.main_class == main_class), None)
        artifact = main_jar.path if main_jar is not None else jars[0].path
        # a list is that of the main class which it stands beside
        listed = main_jar.manifest.tasks if main_jar is not None else None
        passed_over = tuple(item for item in rejected if item.mistaken)
        # the JVM's shutdown hooks are to run, whatever the task does at the first SIGTERM
        return Command(argv, version, artifact, listed=listed, passed_over=passed_over, exits_on_second_sigterm=True)


def _class_path(paths: list[str]) -> str:
    """Return the class path.

    Raises:
        UserError: a path cannot be in one.
    """
    for path in paths:
        if ":" in path:
            message = f"{path!r} cannot be on a class path, where a colon ends an entry; rename the folder or the jar"
            raise UserError(Reason.INVALID_ARTIFACT, message)
    return ":".join(paths)


def _jar_at(roots: list[ArtifactRoot], rel_path: str) -> _Jar:
    with named(roots, rel_path) as candidate:
        try:
            return _read_jar(candidate)
        except (OSError, jar.JarError) as error:
            raise UserError(Reason.INVALID_ARTIFACT, f"{candidate.path} cannot be used as jar: {error}") from None


def _read_jar(candidate: Candidate, main_class: str = "") -> _Jar:
    fd = candidate.open()
    try:
        status = os.fstat(fd)
        wanted = [*PROPERTIES, *([main_class] if main_class else [])]
        return _Jar(candidate.path, jar.read(fd, wanted), (status.st_dev, status.st_ino))
    finally:
        os.close(fd)


def _main_class_of(first: _Jar, jars: list[_Jar]) -> str:
    """Return the main class of the jar that Airflow has named.

    Raises:
        UserError: its manifest sets none, or another jar's sets the same: the JVM would load whichever comes first.
    """
    main_class = first.manifest.main_class
    if main_class is None:
        raise UserError(Reason.INVALID_ARTIFACT, f"{first.path}: its manifest sets no Main-Class")
    same = [item.path for item in jars if item.manifest.main_class == main_class and item.file != first.file]
    if same:
        listed = "\n".join(f"  - {path}" for path in [first.path, *same])
        raise UserError(Reason.ARTIFACT_AMBIGUOUS, f"jars that set Main-Class {main_class}; keep one:\n{listed}")
    return main_class


def _main_class(jars: list[_Jar], where: str) -> str | None:
    # what is marked holds task handlers; a dependency may have a main class as well
    marked = [item for item in jars if item.manifest.cache_digest and item.manifest.main_class]
    main_class = _only(marked or jars, "main_class", "Main-Class", where)
    same = [item for item in marked or jars if main_class is not None and item.manifest.main_class == main_class]
    if len(same) > 1:
        # the JVM would take whichever comes first
        listed = "\n".join(f"  - {item}" for item in same)
        raise UserError(Reason.ARTIFACT_AMBIGUOUS, f"jars that set Main-Class {main_class}; keep one:\n{listed}")
    return main_class


def _read_jars(roots: list[ArtifactRoot], rejected: list[Rejected], main_class: str = "") -> list[_Jar]:
    jars: list[_Jar] = []
    for candidate in walk(roots, lambda name: name.endswith(".jar"), rejected):
        try:
            jars.append(_read_jar(candidate, main_class))
        except OSError as error:
            rejected.append(Rejected(candidate.path, f"it cannot be read: {error.strerror}", Rank.MISTAKE))
        except jar.JarError as error:
            rejected.append(Rejected(candidate.path, str(error), error.rank))
    return jars


def _only_one_holds(main_class: str, jars: list[_Jar]) -> None:
    """Check that a class is in one jar.

    Raises:
        UserError: it is in several, such as two versions of one jar: the JVM would take whichever comes first.
    """
    holders = [item for item in jars if main_class in item.manifest.classes]
    holders = holders or [item for item in jars if item.manifest.main_class == main_class]
    if len(holders) > 1:
        listed = "\n".join(f"  - {item}" for item in holders)
        raise UserError(Reason.ARTIFACT_AMBIGUOUS, f"jars that hold main_class {main_class}; keep one:\n{listed}")


def _only(jars: list[_Jar], attribute: str, header: str, where: str) -> str | None:
    """Return the one value that the jars' manifests give for `attribute`, None if none does."""
    values = sorted({value for item in jars if (value := getattr(item.manifest, attribute))})
    if len(values) > 1:
        listed = "\n".join(f"  - {item}" for item in jars if getattr(item.manifest, attribute))
        hint = "; set main_class to choose one" if attribute == "main_class" else ""
        raise UserError(
            Reason.ARTIFACT_AMBIGUOUS,
            f"the jars in {where} give {len(values)} different values for {header}: "
            f"{', '.join(values)}{hint}:\n{listed}",
        )
    return values[0] if values else None


def class_file_java(command: Command) -> int | None:
    """Return the Java version that the command's main class was compiled for, None if that cannot be told.

    A class file's major version is 44 more than its Java version (JVM Specification, §4.1).
    """
    import zipfile

    entry = command.argv[-1].replace(".", "/") + ".class"
    class_path = command.argv[command.argv.index("-classpath") + 1]
    for path in class_path.split(":"):
        try:
            with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
                head = file.read(8)
        except (OSError, KeyError, zipfile.BadZipFile):
            continue
        if head[:4] == b"\xca\xfe\xba\xbe":
            return int.from_bytes(head[6:8], "big") - 44
    return None
