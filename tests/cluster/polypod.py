"""Polypod on a cluster: our images, the language images of the tests and the demo, and the manifests."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import images
from cluster.node import Node

ROOT = Path(__file__).resolve().parents[2]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OWN = ("operator", "bridge", "api")


def own_archives() -> dict[str, Path]:
    """Build our own images with buildah; `make image-files` has collected what goes into them."""
    text = (ROOT / "Dockerfile").read_text()
    base = images.python_base()
    archives = {}
    for target in OWN:
        folder = f"build/image/{ARCH}/{target}"
        files = {folder: ROOT / folder}
        if target == "bridge":
            launcher = f"launcher/dist/polypod-launcher-{ARCH}"
            files[launcher] = ROOT / launcher
        archives[target] = images.build(f"polypod-{target}", _only(text, target), files, target=target, base=base)
    return archives


def _only(text: str, target: str) -> str:
    """Return a Dockerfile without the other targets, whose files are not in the context."""
    parts = re.split(r"(?m)^(?=FROM )", text)
    return "".join(part for part in parts if not any(f" AS {name}\n" in part for name in OWN if name != target))


def language_archive(name: str, files: Mapping[str, Path], path: str = "") -> Path:
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
    if not made.exists():
        images.STORE.mkdir(parents=True, exist_ok=True)
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
    if not made.exists():
        images.STORE.mkdir(parents=True, exist_ok=True)
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


def sales_archives() -> dict[str, Path]:
    """Build the language images of the sales example."""
    node = SALES / "typescript/node_modules/node/bin/node"
    java, javascript = jre(), node_root(node)
    return {
        "sales-jvm": language_archive(
            "sales-jvm", {**_tree(java), "opt/app/jars": SALES / "jvm/target/jars"}, "/opt/java/bin"
        ),
        "sales-go": language_archive("sales-go", {"opt/app/bin/sales": SALES / "go/dist/sales"}),
        "sales-typescript": language_archive(
            "sales-typescript",
            {**_tree(javascript), "opt/app/bundles/bundle.mjs": SALES / "typescript/dist/bundle.mjs"},
            "/usr/bin",
        ),
    }


def _tree(root: Path) -> dict[str, Path]:
    """Return the folders under a root, each by the place that it has in an image."""
    return {path.name: path for path in sorted(root.iterdir())}


@dataclass(frozen=True)
class Installed:
    """What was put onto a cluster: the names of our images there."""

    images: Mapping[str, str]


def install(node: Node) -> Installed:
    """Push our images, apply the CRD and the manifests, and wait until both programs are ready."""
    names = push(node, own_archives())
    node.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "taskruns.yaml"))
    node.kubectl("wait", "--for=condition=Established", "crd/taskruns.polypod.dev", "--timeout=60s")
    node.kubectl("apply", "-f", "-", stdin=manifests(names))
    for deployment in ("polypod-api", "polypod-operator"):
        node.kubectl("-n", "polypod-system", "rollout", "status", f"deployment/{deployment}", "--timeout=180s")
    return Installed(names)


def push(node: Node, archives: Mapping[str, Path]) -> dict[str, str]:
    """Push images; return their names in the cluster."""
    names = {}
    for name, archive in archives.items():
        repository, _, key = archive.stem.rpartition("-")
        names[name] = node.push(archive, f"{repository}:{key}")
    return names


def manifests(names: Mapping[str, str]) -> str:
    """Return the manifests with these images."""
    text = (ROOT / "deploy" / "polypod.yaml").read_text()
    for name, image in names.items():
        text = text.replace(f"polypod-{name}:0.1.0", image)
    return text
