"""The Java coordinator: runs the main class that the jars under its roots declare."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from polypod_coordinators.artifacts import jar
from polypod_coordinators.artifacts.search import ArtifactRoot, Rejected, describe, walk
from polypod_coordinators.comm.versions import resolve_version
from polypod_coordinators.coordinator import DEFAULT_STARTUP_TIMEOUT, Command, check_roots
from polypod_coordinators.errors import UserError
from polypod_coordinators.supervisor.reasons import Reason


@dataclass(frozen=True, slots=True)
class _Jar:
    path: str
    manifest: jar.JarManifest

    def __str__(self) -> str:
        main = self.manifest.main_class or "none"
        version = self.manifest.schema_version or "none"
        return f"{self.path}: Main-Class {main}, Airflow-Supervisor-Schema-Version {version}"


class JavaCoordinator(msgspec.Struct, kw_only=True, frozen=True):
    """Runs a JVM task: every jar under the roots is on the class path, sorted.

    Attributes:
        jars_root: folders to look through, recursively.
        java_executable: the `java` command.
        jvm_args: arguments of the JVM, such as `-Xmx512m`.
        main_class: the class to run; if empty, the one that a jar's manifest names.
        task_startup_timeout: seconds that the runtime has to connect.
    """

    jars_root: list[str]
    java_executable: str = "java"
    jvm_args: list[str] = []
    main_class: str = ""
    task_startup_timeout: float = DEFAULT_STARTUP_TIMEOUT

    def roots(self) -> tuple[str, list[str]]:
        return check_roots("jars_root", self.jars_root)

    def command(self, dag_id: str, roots: list[ArtifactRoot]) -> Command:
        rejected: list[Rejected] = []
        jars = _read_jars(roots, rejected)
        where = ", ".join(root.path for root in roots)
        seen = [Rejected(item.path, str(item).partition(": ")[2]) for item in jars] + rejected
        main_class = self.main_class or _only(jars, "main_class", "Main-Class", where)
        if main_class is None:
            raise UserError(
                Reason.ARTIFACT_NOT_FOUND,
                f"no jar in {where} has a Main-Class in its manifest, and main_class is not set; {describe(seen)}",
            )
        version = _only(jars, "schema_version", "Airflow-Supervisor-Schema-Version", where)
        if version is None:
            raise UserError(
                Reason.ARTIFACT_NOT_FOUND,
                f"no jar in {where} has Airflow-Supervisor-Schema-Version in its manifest (the SDK's own jar has it; "
                f"keep it when repackaging); {describe(seen)}",
            )
        holder = next(item.path for item in jars if item.manifest.schema_version == version)
        version = resolve_version(version, f"jar {holder}")
        class_path = ":".join(sorted(item.path for item in jars))
        argv = (self.java_executable, "-classpath", class_path, *self.jvm_args, main_class)
        main_jar = next((item.path for item in jars if item.manifest.main_class == main_class), jars[0].path)
        return Command(argv, version, main_jar)


def _read_jars(roots: list[ArtifactRoot], rejected: list[Rejected]) -> list[_Jar]:
    jars: list[_Jar] = []
    for candidate in walk(roots, lambda name: name.endswith(".jar"), rejected):
        try:
            fd = candidate.open()
            try:
                jars.append(_Jar(candidate.path, jar.read(fd)))
            finally:
                os.close(fd)
        except OSError as error:
            rejected.append(Rejected(candidate.path, f"it cannot be read: {error.strerror}"))
        except jar.JarError as error:
            rejected.append(Rejected(candidate.path, str(error)))
    return jars


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
