"""etcd and a kube-apiserver: enough for everything but running pods. Needs no root."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port

from cluster import programs
from cluster.services import Services


@dataclass(frozen=True)
class Reached:
    """Where an API server is, and how to be its administrator."""

    server: str
    authority: str
    token: str

    @classmethod
    def by(cls, kubeconfig: Path) -> Reached:
        """Read one of our own kubeconfigs."""
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        return cls(cluster["server"], cluster["certificate-authority"], config["users"][0]["user"]["token"])


SERVICE_RANGE = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"


class ControlPlane:
    """A Kubernetes API on a loopback port, with its state in `folder`."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", enter: tuple[str, ...] = ()) -> None:
        """Prepare.

        Args:
            address: what the API server binds to.
            enter: the command that starts another one in the cluster's network namespace, if it has one.
        """
        self.folder = folder
        self.address = address
        self.enter = enter
        self.services = Services(folder)
        self.kubeconfig = folder / "kubeconfig"
        self.inner_kubeconfig = folder / "inner.kubeconfig"
        self.audit_log = folder / "log" / "audit.log"

    def start(self, port: int | None = None) -> None:
        """Start etcd and the API server; return when they answer."""
        self.bin = programs.build(programs.CONTROL_PLANE)
        self._port = port if port is not None else free_port()
        etcd_port, peer_port = (2379, 2380) if self.enter else (free_port(), free_port())
        self._etcd = f"http://127.0.0.1:{etcd_port}"
        self._peer = f"http://127.0.0.1:{peer_port}"
        self._write_keys()
        self.start_etcd()
        self.start_api_server()

    def start_etcd(self) -> None:
        self.services.start(
            "etcd",
            [
                *self.enter, str(self.bin / "etcd"), "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync",
                "--listen-client-urls", self._etcd, "--advertise-client-urls", self._etcd,
                "--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer,
                "--initial-cluster", f"default={self._peer}", "--log-level", "warn",
                "--quota-backend-bytes", str(4 << 30),
            ],
        )  # fmt: skip

    def start_api_server(self) -> None:
        pki = self.folder / "pki"
        self.services.start(
            "kube-apiserver",
            [
                *self.enter, str(self.bin / "kube-apiserver"), f"--etcd-servers={self._etcd}",
                f"--secure-port={self._port}", f"--bind-address={self.address}",
                f"--advertise-address={self.address}",
                f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
                f"--service-account-key-file={pki}/accounts.key",
                f"--service-account-signing-key-file={pki}/accounts.key",
                f"--service-account-issuer={ISSUER}", f"--token-auth-file={pki}/tokens.csv",
                "--authorization-mode=RBAC", f"--service-cluster-ip-range={SERVICE_RANGE}",
                "--kubelet-preferred-address-types=InternalIP", "--endpoint-reconciler-type=master-count",
                f"--audit-policy-file={self.folder}/audit.yaml", f"--audit-log-path={self.audit_log}",
                "--shutdown-delay-duration=0s",
            ],
        )  # fmt: skip
        if not self.enter:
            self.services.wait("kube-apiserver", self.ready)

    def ready(self) -> bool:
        """Tell whether the API server answers."""
        reached = Reached.by(self.kubeconfig)
        context = ssl.create_default_context(cafile=reached.authority)
        request = urllib.request.Request(
            f"{reached.server}/readyz", headers={"Authorization": f"Bearer {reached.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End everything and remove the state."""
        for name in ("kube-apiserver", "etcd"):
            self.services.stop(name, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_keys(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._token = secrets.token_urlsafe(24)
        (pki / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                 "kubernetes.default.svc.cluster.local"]  # fmt: skip
        addresses = {"127.0.0.1", SERVICE_IP, self.address}
        subject = ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in sorted(addresses))])
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=polypod-test",
                      "-keyout", f"{pki}/server.key", "-out", f"{pki}/server.crt", "-addext", f"subjectAltName={subject}",
                      "-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign")  # fmt: skip
        self._openssl("genrsa", "-out", f"{pki}/accounts.key", "2048")
        (self.folder / "audit.yaml").write_text(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n"
            '- {level: Metadata, users: ["system:serviceaccount:polypod-system:polypod-operator", '
            '"system:serviceaccount:polypod-system:polypod-api"]}\n'
            # when an object and its pod were made, for bench/burst and bench/peers
            '- {level: Metadata, verbs: [create], resources: [{group: "", resources: [pods]}, '
            "{group: polypod.dev, resources: [taskruns]}, {group: tekton.dev, resources: [taskruns]}, "
            "{group: argoproj.io, resources: [workflows]}]}\n- {level: None}\n"
        )
        self.write_kubeconfig(self.kubeconfig, f"https://{self.address}:{self._port}")
        self.write_kubeconfig(self.inner_kubeconfig, f"https://{self.address}:{self._port}")

    def write_kubeconfig(self, path: Path, server: str) -> None:
        """Write a kubeconfig of the administrator; JSON is YAML too."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "polypod",
                    "cluster": {"server": server, "certificate-authority": str(self.folder / "pki" / "server.crt")},
                }
            ],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "polypod", "context": {"cluster": "polypod", "user": "admin"}}],
            "current-context": "polypod",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
