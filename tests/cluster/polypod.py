"""Polypod on a cluster: our images, the language images of the tests and the demo, and the chart with the real helm."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import images, programs
from cluster.node import Node

ROOT = Path(__file__).resolve().parents[2]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
TARGETS = ("operator", "bridge", "api")
OWN = (*TARGETS, "hello")
CHART = ROOT / "charts" / "polypod"
NAMESPACE = "polypod-system"


def own_images() -> dict[str, Path]:
    """Build our own images with buildah; `make image-files` has collected what goes into them."""
    built = {}
    for target in TARGETS:
        folder = f"build/image/{ARCH}/{target}"
        files = {folder: ROOT / folder}
        if target == "bridge":
            launcher = f"launcher/dist/polypod-launcher-{ARCH}"
            files[launcher] = ROOT / launcher
        built[target] = _python_image(f"polypod-{target}", _dockerfile(target), files, target)
    hello = ROOT / "examples/hello/go/dist/hello"
    return {**built, "hello": language_image("polypod-hello", {"opt/app/bin/hello": hello})}


def on_our_base(name: str, lines: str, files: Mapping[str, Path]) -> Path:
    """Build an image of the tests on the Dockerfile's own stage `base`: Python with its bytecode."""
    return _python_image(name, f"{_dockerfile()}\nFROM base AS {name}\n{lines}", files, name)


def _python_image(name: str, dockerfile: str, files: Mapping[str, Path], target: str) -> Path:
    script = "images/compile_stdlib.py"
    return images.build(name, dockerfile, {script: ROOT / script, **files}, target=target, base=images.python_base())


def _dockerfile(target: str = "") -> str:
    """Return our Dockerfile without the other targets, whose files are not in the context."""
    parts = re.split(r"(?m)^(?=FROM )", (ROOT / "Dockerfile").read_text())
    return "".join(part for part in parts if not any(f" AS {name}\n" in part for name in TARGETS if name != target))


def s3_image() -> Path:
    """Build the image of an S3 server over a folder."""
    binary = (programs.build((programs.S3,)) / "versitygw").resolve()
    return language_image("versitygw", {"usr/bin/versitygw": binary}, "/usr/bin")


def language_image(name: str, files: Mapping[str, Path], path: str = "") -> Path:
    """Build an image that holds these files and nothing else: no shell, no Python."""
    lines = ["FROM scratch", *(f"COPY {target} /{target}" for target in files)]
    if path:
        lines.append(f"ENV PATH={path}")
    # a numeric user, so that the kubelet can tell that it is not root
    lines.append("USER 65532:65532")
    return images.build(name, "\n".join(lines) + "\n", files)


def jre() -> Path:
    """Return a folder with a JRE as small as jlink makes it, and the libraries that it needs."""
    java = shutil.which("java")
    assert java is not None
    home = _jdk_with_modules()
    made = images.STORE / f"jre-{home.name}"
    with images.alone():
        if made.exists():
            return made
        with tempfile.TemporaryDirectory(dir=images.STORE) as folder:
            target = Path(folder) / "root"
            modules = "java.base,java.logging,java.sql,java.naming,java.management,java.net.http,jdk.unsupported"
            subprocess.run(
                [str(home / "bin" / "jlink"), "--add-modules", modules, "--strip-debug", "--no-header-files",
                 "--no-man-pages", "--generate-cds-archive", "--output", str(target / "opt" / "java")],
                check=True, capture_output=True,
            )  # fmt: skip
            binaries = [target / "opt/java/bin/java", *(target / "opt/java/lib").rglob("*.so")]
            _add_libraries(binaries, target)
            target.rename(made)
    return made


def _jdk_with_modules() -> Path:
    """Return a JDK that jlink can take from; one that has no `jmods` folder can link its own run-time image."""
    candidates = [Path(path).resolve().parents[1] for path in [shutil.which("javac") or ""] if path]
    candidates += sorted(Path("/usr/lib/jvm").glob("*"))
    for home in candidates:
        if (home / "jmods").is_dir() and (home / "bin" / "jlink").exists():
            return home.resolve()
    raise RuntimeError(
        "no JDK with a 'jmods' folder is here; install one (Debian: apt install openjdk-17-jdk-headless)"
    )


def node_root(binary: Path) -> Path:
    """Return a folder with Node and the libraries that it needs."""
    made = images.STORE / f"node-{binary.stat().st_size}-{int(binary.stat().st_mtime)}"
    with images.alone():
        if made.exists():
            return made
        with tempfile.TemporaryDirectory(dir=images.STORE) as folder:
            target = Path(folder) / "root"
            (target / "usr/bin").mkdir(parents=True)
            shutil.copy2(binary, target / "usr/bin/node")
            _add_libraries([binary], target)
            target.rename(made)
    return made


def _add_libraries(binaries: list[Path], target: Path) -> None:
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(?:=> )?(/\S+) \(0x", listed):
            place = target / library.lstrip("/")
            if not place.exists() and not str(place).startswith(str(target / "opt")) and "/opt/java/" not in library:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(library).resolve(), place)


SALES = ROOT / "examples" / "sales"


def sales_images() -> dict[str, Path]:
    """Build the language images of the sales example."""
    node = SALES / "typescript/node_modules/node/bin/node"
    java, javascript = jre(), node_root(node)
    return {
        "sales-jvm": language_image(
            "sales-jvm", {**tree(java), "opt/app/jars": SALES / "jvm/target/jars"}, "/opt/java/bin"
        ),
        "sales-go": language_image("sales-go", {"opt/app/bin/sales": SALES / "go/dist/sales"}),
        "sales-typescript": language_image(
            "sales-typescript",
            {**tree(javascript), "opt/app/bundles/bundle.mjs": SALES / "typescript/dist/bundle.mjs"},
            "/usr/bin",
        ),
    }


def tree(root: Path) -> dict[str, Path]:
    """Return the folders under a root, each by the place that it has in an image."""
    return {path.name: path for path in sorted(root.iterdir())}


def image_values(names: Mapping[str, str]) -> dict[str, Any]:
    """Return the chart's values that have it take our images under these names."""
    where = {"operator": "operator", "bridge": "bridge", "api": "executionApi", "hello": "hello"}
    found: dict[str, Any] = {}
    for name, key in where.items():
        repository, _, tag = names[name].rpartition(":")
        found[key] = {"image": {"repository": repository, "tag": tag}}
    return found


class Helm:
    """The real helm, on one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def __call__(self, *arguments: str, values: Mapping[str, Any] | None = None, check: bool = True) -> str:
        """Run helm in our namespace; return what it prints.

        Raises:
            RuntimeError: it failed.
        """
        command = [str(Path(sys.executable).with_name("helm")), *arguments, "--namespace", NAMESPACE]
        command += ["-f", "-"] if values is not None else []
        with tempfile.TemporaryDirectory(prefix="polypod-helm-") as folder:
            # nothing of the user's, and nothing is left behind
            own = {f"HELM_{part}_HOME": folder for part in ("CACHE", "CONFIG", "DATA")}
            done = subprocess.run(
                command,
                env={**os.environ, **own, "KUBECONFIG": str(self._kubeconfig)},
                input=json.dumps(values) if values is not None else None,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        if check and done.returncode != 0:
            raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout + done.stderr

    def install(self, values: Mapping[str, Any]) -> None:
        """Install the chart, or upgrade it, and wait until all is ready."""
        self("upgrade", "--install", "polypod", str(CHART), "--wait", "--timeout=240s", values=values)


def push(node: Node, layouts: Mapping[str, Path]) -> dict[str, str]:
    """Push images to a node's registry; return their names there."""
    return {name: node.push(layout, image_name(layout)) for name, layout in layouts.items()}


def push_to(registry: str, layouts: Mapping[str, Path]) -> dict[str, str]:
    """Push images to a registry that an existing cluster pulls from; return their names there.

    Raises:
        RuntimeError: there is no registry.
    """
    if not registry:
        raise RuntimeError("set POLYPOD_TEST_REGISTRY to a registry that the cluster can pull from, host:port/path")
    crane = programs.build((programs.CRANE,)) / "crane"
    names = {}
    for name, layout in layouts.items():
        names[name] = f"{registry}/{image_name(layout)}"
        subprocess.run([str(crane), "push", "--insecure", str(layout), names[name]], check=True, capture_output=True)
    return names


def image_name(layout: Path) -> str:
    repository, _, key = layout.name.rpartition("-")
    return f"{repository}:{key}"
