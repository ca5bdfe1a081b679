"""The programs of a Kubernetes node, built from Go modules once for each version and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

GO = Path(__file__).parent / "go"
CACHE = Path(os.environ.get("POLYPOD_CACHE", Path.home() / ".cache" / "polypod"))
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"


@dataclass(frozen=True, slots=True)
class Program:
    """One `go build`: the module's folder, what to build there, and the names it gives."""

    module: str
    packages: tuple[str, ...]
    gives: tuple[str, ...]
    data: tuple[str, str] | None = None
    """A module, and a folder of it that is kept beside, as `data`."""


CONTROL_PLANE = (Program("kubernetes", (".",), ("kubernetes",)), Program("etcd", (".",), ("etcd",)))
CRANE = Program("crane", ("github.com/google/go-containerregistry/cmd/crane",), ("crane",))
S3 = Program("versitygw", ("github.com/versity/versitygw/cmd/versitygw",), ("versitygw",))
"""An S3 server over a folder."""
KWOK = Program("kwok", ("sigs.k8s.io/kwok/cmd/kwok",), ("kwok",))
"""A kubelet that runs nothing, for thousands of pods; for the benchmarks."""
ARGO = Program(
    "argo",
    ("github.com/argoproj/argo-workflows/v4/cmd/workflow-controller",),
    ("workflow-controller",),
    ("github.com/argoproj/argo-workflows/v4", "manifests/base/crds/full"),
)
"""The controller of Argo Workflows, with its CRDs; for the benchmarks."""
TEKTON = Program(
    "tekton",
    ("github.com/tektoncd/pipeline/cmd/controller",),
    ("controller",),
    ("github.com/tektoncd/pipeline", "config"),
)
"""Tekton's controller, with its CRDs and settings; for the benchmarks."""
POD_SECURITY = Program(
    "podsecurity", (".",), ("podsecurity",), ("k8s.io/pod-security-admission", "test/testdata/restricted")
)
"""What Pod Security admission itself says of a pod, with the pods that it is tested with."""
NODE = (
    Program(
        "containerd",
        tuple(f"{_CONTAINERD}/{name}" for name in ("containerd", "ctr", "containerd-shim-runc-v2")),
        ("containerd", "ctr", "containerd-shim-runc-v2"),
    ),
    Program("coredns", (".",), ("coredns",)),
    CRANE,
    Program("pause", (".",), ("pause",)),
)


def build(programs: tuple[Program, ...]) -> Path:
    """Return the folder that holds the programs; build what is missing, and say so while it goes on.

    Raises:
        RuntimeError: Go is missing, or a build failed; the message has its last lines.
    """
    folder = CACHE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        made = CACHE / f"cluster-{program.module}-{_key(program)}"
        if not made.exists():
            _build(program, made)
        for name in program.gives:
            _link(folder / name, made / name)
    if CONTROL_PLANE[0] in programs:
        for name in KUBERNETES:
            _link(folder / name, folder / "kubernetes")
    return folder


def data_of(program: Program) -> Path:
    """Return the folder that is kept beside a program that was built."""
    build((program,))
    return CACHE / f"cluster-{program.module}-{_key(program)}" / "data"


def _link(link: Path, target: Path) -> None:
    # the name appears at once or not at all: another run may be looking at it
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f"{link.name}.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(link)


def _key(program: Program) -> str:
    digest = hashlib.sha256(repr(program).encode() + _version_flags(program).encode())
    for path in sorted((GO / program.module).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _version_flags(program: Program) -> str:
    """Return what tells Kubernetes its own version, as its release build does."""
    if program.module != "kubernetes":
        return ""
    found = re.search(r"k8s.io/kubernetes v(1)\.(\d+)\.(\d+)", (GO / program.module / "go.mod").read_text())
    assert found is not None, "go.mod does not require k8s.io/kubernetes"
    major, minor, patch = found.groups()
    values = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())


def _build(program: Program, made: Path) -> None:
    if shutil.which("go") is None:
        raise RuntimeError(
            "'go' is missing: the cluster's programs are built with Go 1.26 (Debian: apt install golang)"
        )
    print(f"building {', '.join(program.gives)} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    part = made.with_name(f"{made.name}.{os.getpid()}")
    part.mkdir(parents=True)
    output = f"{part}/{program.module}" if program.packages == (".",) else f"{part}/"
    flags = f"-ldflags=-s -w {_version_flags(program)}"
    command = ["go", "build", "-trimpath", flags, "-o", output, *program.packages]
    process = subprocess.Popen(
        command,
        cwd=GO / program.module,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while True:
        try:
            said, _ = process.communicate(timeout=30)
            break
        except subprocess.TimeoutExpired:
            print(f"  … still building, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if process.returncode != 0:
        shutil.rmtree(part)
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")
    if program.data is not None:
        module, folder = program.data
        listed = ["go", "list", "-m", "-f", "{{.Dir}}", module]
        found = subprocess.run(listed, cwd=GO / program.module, check=True, capture_output=True, text=True)
        shutil.copytree(Path(found.stdout.strip()) / folder, part / "data")
    try:
        part.rename(made)
    except OSError:
        # another run was faster
        shutil.rmtree(part)
    print(f"  built in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
