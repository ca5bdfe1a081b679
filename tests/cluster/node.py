"""A real one-node Kubernetes in a network namespace of its own: nothing of it touches the machine's network.

Entered with nsenter and not with `ip netns exec`, which would hide the cgroup mounts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from support.owner import RUN, start_time
from support.waiting import NotInTime, wait_until

from cluster import images, programs
from cluster.client import Client
from cluster.control_plane import ControlPlane
from cluster.services import Services

ADDRESS = "10.89.0.1"
POD_RANGE = "10.244.0.0/24"
REGISTRY = f"{ADDRESS}:5000"
NODE_NAME = "node-1"
DEBIAN = {
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}


class Node:
    """One cluster of one node, named; its state is in `/tmp/polypod-NAME`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(f"/tmp/polypod-{name}")
        self.namespace = f"polypod-{name}"
        self.enter = ("nsenter", f"--net=/var/run/netns/{self.namespace}")
        self.api = ControlPlane(self.folder, ADDRESS, self.enter)
        self.services: Services = self.api.services
        self.kubeconfig = self.api.kubeconfig
        self.bin = programs.CACHE / "bin"

    # Up.

    def up(self, owner: int | None = None) -> None:
        """Bring it up; return when the node is ready.

        Args:
            owner: the process that the cluster is for. Should it be killed, the next one's `sweep` clears up.

        Raises:
            RuntimeError: not root, or a program is missing and cannot be installed.
            NotReady: a part did not come up.
        """
        check_machine()
        self.bin = programs.build(programs.CONTROL_PLANE + programs.NODE)
        self.folder.mkdir(mode=0o755, exist_ok=True)
        if owner is not None:
            (self.folder / "owner").write_text(f"{owner} {start_time(owner)}")
        self._network()
        self._cgroups("mkdir")
        for folder in ("cni", "certs.d", "registry"):
            (self.folder / folder).mkdir(exist_ok=True)
        self._configure()
        self.start_containerd()
        self.services.start("registry", [*self.enter, str(self.bin / "crane"), "registry", "serve", "--address",
                                         REGISTRY, "--disk", str(self.folder / "registry")])  # fmt: skip
        self.api.start(port=6443)
        self._door()
        self.services.wait("kube-apiserver", self.api.ready)
        self._import_pause()
        config = f"--kubeconfig={self.api.inner_kubeconfig}"
        pki = self.folder / "pki"
        self._start(
            "kube-controller-manager", config, "--leader-elect=false",
            f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={pki}/server.crt",
            "--use-service-account-credentials=false", "--concurrent-gc-syncs=5",
            "--node-monitor-grace-period=20s",
        )  # fmt: skip
        self._start("kube-scheduler", config, "--leader-elect=false")
        self._start("kube-proxy", config, f"--hostname-override={NODE_NAME}", "--proxy-mode=nftables",
                    f"--cluster-cidr={POD_RANGE}", "--conntrack-max-per-core=0",
                    "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")  # fmt: skip
        self.services.start("coredns", [*self.enter, str(self.bin / "coredns"), "-conf", f"{self.folder}/Corefile"])
        self.start_kubelet()
        self.services.wait("kubelet", self._node_ready)

    def start_containerd(self) -> None:
        # its shim is looked up on PATH
        path = f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.services.start(
            "containerd",
            [*self.enter, str(self.bin / "containerd"), "-c", f"{self.folder}/containerd.toml"],
            env={"PATH": path},
        )
        self.services.wait("containerd", lambda: self.ctr("version").returncode == 0)

    def start_kubelet(self) -> None:
        self._start("kubelet", f"--kubeconfig={self.api.inner_kubeconfig}", f"--config={self.folder}/kubelet.yaml",
                    f"--root-dir={self.folder}/k", f"--hostname-override={NODE_NAME}",
                    f"--node-ip={ADDRESS}")  # fmt: skip

    def _start(self, name: str, *arguments: str) -> None:
        self.services.start(name, [*self.enter, str(self.bin / name), *arguments])

    def _network(self) -> None:
        _run("ip", "netns", "add", self.namespace)
        for command in (
            ("ip", "link", "set", "lo", "up"),
            # of type bridge, as not every kernel has the dummy driver
            ("ip", "link", "add", "node0", "type", "bridge"),
            ("ip", "addr", "add", f"{ADDRESS}/24", "dev", "node0"),
            ("ip", "link", "set", "node0", "up"),
            # a default route to nowhere: programs want one, and no packet may leave
            ("ip", "route", "add", "default", "dev", "node0"),
            ("sysctl", "-qw", "net.ipv4.ip_forward=1"),
        ):
            _run(*self.enter, *command)

    def _door(self) -> None:
        """Open a port of 127.0.0.1 that leads to the API server, and name it in the kubeconfig."""
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            fd = listener.fileno()
            script = str(Path(__file__).with_name("forward.py"))
            self.services.start("door", [sys.executable, "-I", script, str(fd), f"/var/run/netns/{self.namespace}",
                                         f"{ADDRESS}:6443"], pass_fds=[fd])  # fmt: skip
            self.api.write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{listener.getsockname()[1]}")

    def _cgroups(self, action: str) -> None:
        roots = [Path("/sys/fs/cgroup")]
        if not (roots[0] / "cgroup.controllers").exists():
            roots = [path for path in roots[0].iterdir() if path.is_dir() and not path.is_symlink()]
        for root in roots:
            top = root / self.namespace
            if action == "mkdir":
                top.mkdir(exist_ok=True)
                # of a new cpuset group, nothing may run in it before it has processors and memory
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if root.name == "cpuset" and (root / name).exists():
                        (top / name).write_text((root / name).read_text())
            else:
                for folder, _, _ in os.walk(top, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:
                        pass

    def _configure(self) -> None:
        d = self.folder
        hosts = d / "certs.d" / REGISTRY
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n')
        (d / "containerd.toml").write_text(_CONTAINERD.format(d=d))
        (d / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(d)))
        (d / "kubelet.yaml").write_text(json.dumps(_kubelet(d, f"/{self.namespace}")))
        (d / "Corefile").write_text(
            f".:53 {{\n  bind {ADDRESS}\n  errors\n  kubernetes cluster.local {{\n"
            f"    kubeconfig {self.api.inner_kubeconfig}\n  }}\n}}\n"
        )

    def _import_pause(self) -> None:
        pause = (self.bin / "pause").resolve()
        layout = images.build("pause", 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n', {"pause": pause})
        archive = self.folder / "pause.tar"
        _run("tar", "-cf", str(archive), "-C", str(layout), ".")
        done = self.ctr("images", "import", "--index-name", "localhost/pause:1", str(archive))
        if done.returncode != 0:
            raise RuntimeError(f"the pause image cannot be imported: {done.stderr}")

    def _node_ready(self) -> bool:
        if not self.client.has("node", NODE_NAME) or not self.client.has("serviceaccount", "default"):
            return False
        conditions = self.client.get("node", NODE_NAME)["status"].get("conditions", ())
        return any((item["type"], item["status"]) == ("Ready", "True") for item in conditions)

    # In use.

    @functools.cached_property
    def client(self) -> Client:
        return Client(self.kubeconfig)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl on the cluster."""
        command = [str(self.bin / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done

    def ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client."""
        command = [str(self.bin / "ctr"), "-a", f"{self.folder}/containerd.sock", "-n", "k8s.io", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def push(self, layout: Path, image: str) -> str:
        """Push an image, an OCI layout, to the cluster's registry; return the name that pods use."""
        name = f"{REGISTRY}/{image}"
        _run(*self.enter, str(self.bin / "crane"), "push", "--insecure", str(layout), name)
        return name

    def pids_of(self, pod: str, namespace: str, container: str) -> list[int]:
        """Return the process, on this machine, that is PID 1 of a pod's running container."""
        if not self.client.has("-n", namespace, "pod", pod):
            return []
        raw = self.client.get("-n", namespace, "pod", pod)["status"]
        statuses = [*(raw.get("initContainerStatuses") or ()), *(raw.get("containerStatuses") or ())]
        ids = [item.get("containerID", "").rpartition("/")[2] for item in statuses if item["name"] == container]
        rows = [line.split() for line in self.ctr("tasks", "ls").stdout.splitlines()[1:]]
        return [int(row[1]) for row in rows if row[0] in ids and row[2] == "RUNNING"]

    def kill(self, pid: int) -> None:
        """End a container's process, as if the machine had."""
        os.kill(pid, signal.SIGKILL)

    # Down.

    def down(self) -> None:
        """End everything that belongs to it, and leave nothing: processes, mounts, namespaces, cgroups, files."""
        # first what would restart things; SIGKILL, as no state is kept
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "kubelet"):
            self.services.stop(name, signal.SIGKILL)
        for shim in self._shims():
            # a shim ends its containers with it
            for child in _descendants(shim):
                _kill(child, signal.SIGKILL)
        if self.services.pid("containerd") is not None:
            with contextlib.suppress(NotInTime):
                wait_until(self._delete_containers, "that no container is left", limit=20)
        for name in self.services.names():
            self.services.stop(name, signal.SIGKILL)
        for shim in self._shims():
            _kill(shim, signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)
        self._cgroups("rmdir")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _delete_containers(self) -> bool:
        tasks = self.ctr("tasks", "ls", "-q").stdout.split()
        for task in tasks:
            self.ctr("tasks", "delete", "--force", task)
        return not tasks

    def _shims(self) -> list[int]:
        wanted = f"{self.folder}/containerd.sock"
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[0].endswith(b"containerd-shim-runc-v2") and wanted.encode() in arguments:
                found.append(int(path.parent.name))
        return found


def sweep() -> list[str]:
    """Bring down what runs that were killed have left; return the clusters' names.

    It comes before `owner.sweep`, which would take away the parents of the containers, by which they are found.
    """
    swept = []
    for path in Path("/tmp").glob("polypod-*/owner"):
        try:
            pid, started = path.read_text().split()
            mine = path.stat().st_uid == os.geteuid()
        except (OSError, ValueError):
            continue
        if mine and start_time(int(pid)) != started:
            node = Node(path.parent.name.removeprefix("polypod-"))
            node.down()
            swept.append(f"cluster {node.name}")
    return swept


def check_machine() -> None:
    """Install what Debian has and is missing.

    Raises:
        RuntimeError: not root, or something is missing and there is no apt-get.
    """
    if os.geteuid() != 0:
        raise RuntimeError("a node needs root (containers, network namespaces); without it only the API server runs")
    missing = [package for what, package in DEBIAN.items() if shutil.which(what) is None]
    if not missing:
        return
    print(f"installing {' '.join(missing)} …", file=sys.stderr, flush=True)
    # a service that a package starts is not the run's
    kept = {name: value for name, value in os.environ.items() if name not in (RUN, "TMPDIR")}
    environ = {**kept, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "-o", "DPkg::Lock::Timeout=600", "install", "-y", "-qq", *missing],
    ):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"please install {' '.join(missing)}; {' '.join(command)} failed:\n{done.stderr[-1000:]}"
            )


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _kill(pid: int, number: int) -> None:
    if start_time(pid) is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _cni(folder: Path) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "dataDir": f"{folder}/cni-ipam",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _kubelet(folder: Path, cgroup: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "imageServiceEndpoint": f"unix://{folder}/containerd.sock",
        "podLogsDir": f"{folder}/pod-logs",
        "enforceNodeAllocatable": [],
        "resolvConf": "",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "evictionHard": {"memory.available": "100Mi"},
        "imageMaximumGCAge": "0s",
        "maxPods": 200,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }


_CONTAINERD = """version = 3
root = "{d}/c"
state = "{d}/s"
[grpc]
  address = "{d}/containerd.sock"
[ttrpc]
  address = "{d}/containerd.sock.ttrpc"
# its socket is one for the whole machine, and two nodes would meet there
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/pause:1"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{d}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  # the machine may lack CAP_SYS_RESOURCE, without which no score can be lowered
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{d}/cni"
"""
