"""The command `polypod-operator`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kopf
import msgspec
from polypod_bridge.config import airflow_settings

from polypod_operator.control.controller import Controller
from polypod_operator.control.handlers import Addresses, Operator, register
from polypod_operator.control.history import ExecutionApiHistory, NoHistory
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.pods.log_storage import LogSettings
from polypod_operator.pods.pod import BRIDGE_RESOURCES, Settings
from polypod_operator.serve.metrics import Metrics
from polypod_operator.serve.tls import TlsSettings

OLDEST = 29
"""Kubernetes 1.29 is the first whose native sidecars are on by default."""
IMAGE_VOLUMES = 35
"""Kubernetes 1.35 is the first whose image volumes are on by default."""
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until SIGTERM; return the exit code."""
    options = _parse(arguments)
    kopf.configure(log_format=kopf.LogFormat.JSON if options.log_format == "json" else kopf.LogFormat.FULL)
    logging.getLogger("polypod").setLevel(options.log_level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        connection = connect()
        minor = asyncio.run(_server_version(connection))
    except (kopf.LoginError, ApiError, OSError) as error:
        print(f"polypod-operator: the Kubernetes API cannot be used: {error}", file=sys.stderr)
        return 1
    if minor < OLDEST:
        print(
            f"polypod-operator: this is Kubernetes 1.{minor}; native sidecars need 1.{OLDEST} or later", file=sys.stderr
        )
        return 2
    settings = Settings(
        bridge_image=options.bridge_image,
        execution_api=options.execution_api_url,
        image_volumes=minor >= IMAGE_VOLUMES if options.image_volumes == "auto" else options.image_volumes == "yes",
        logging_level=options.task_log_level,
        log_format=options.task_log_format,
        bridge_pull_policy=options.bridge_pull_policy,
        bridge_pull_secrets=options.bridge_pull_secret,
        bridge_resources=options.bridge_resources,
        outcome_url=options.outcome_url,
        log=_log(options),
        airflow=airflow_settings(os.environ),
    )
    metrics = Metrics()
    token_file = options.execution_api_token_file
    history = ExecutionApiHistory(options.execution_api_url, token_file) if token_file is not None else NoHistory()
    api = KubernetesApi(connection, metrics.called)
    metrics.clock_skew.set_function(lambda: api.clock.skew)
    # the API server's time, which objects carry: this node's may be minutes off
    controller = Controller(api, settings, options.namespace, metrics, api.clock.now, history=history)
    registry = kopf.OperatorRegistry()
    addresses = Addresses(options.outcome_address, options.metrics_address, options.health_address)
    tls = _tls(options)
    # in a pod, what was there before us under this name has ended, and we may lead at once
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}_{secrets.token_hex(4)}"
    operator = Operator(controller, (options.routing_namespace, options.routing_name), options.lease, identity, tls)
    register(registry, operator, addresses, connection.server)

    # what is here now stays; and thousands of TaskRuns must not be searched for cycles at each few hundred new objects
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # kopf names itself after its user, and a numeric one need not have a name
    os.environ.setdefault("USER", "polypod")
    kopf.run(
        registry=registry,
        clusterwide=not options.namespace,
        namespaces=options.namespace,
        standalone=True,
    )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="polypod-operator", description="Run TaskRuns as pods.")
    add = parser.add_argument
    add("--bridge-image", required=True, help="image of the bridge (sidecar)")
    add("--bridge-pull-policy", choices=["Always", "IfNotPresent", "Never"], help="pull policy of that image")
    add(
        "--bridge-pull-secret",
        action="append",
        default=[],
        help="pull secret for that image, in each TaskRun's namespace; can be repeated",
    )
    add(
        "--bridge-resources",
        type=_resources,
        default=BRIDGE_RESOURCES,
        help="resource requests and limits of the bridge, as JSON",
    )
    add("--execution-api-url", required=True, help="URL of the default Execution API")
    add(
        "--execution-api-token-file",
        type=Path,
        help="file with a token for the standalone Execution API (audience polypod), to look up final states of "
        "tasks whose TaskRuns were deleted",
    )
    add("--namespace", action="append", default=[], help="namespace to watch; can be repeated (default: all)")
    add("--routing-name", default="polypod-routing", help="name of the routing ConfigMap")
    add(
        "--routing-namespace",
        default=_own_namespace(),
        help="namespace of the routing ConfigMap (default: the operator's)",
    )
    add(
        "--image-volumes",
        choices=["auto", "yes", "no"],
        default="auto",
        help="mount artifact images as volumes instead of copying",
    )
    add("--task-log-level", default="INFO", help="log level for runtimes")
    add("--task-log-format", choices=["json", "console"], default="json", help="log format of the bridge")
    add("--log-url", default="", help="storage for task logs, such as s3://bucket/logs/{namespace}")
    add("--log-secret", help="Secret with the storage options, in each TaskRun's namespace")
    add("--log-claim", help="PersistentVolumeClaim for task logs, in each TaskRun's namespace")
    add("--lease", type=_lease, help="NAMESPACE/NAME of the Lease for leader election")
    add(
        "--tls-secret", help="Secret with the server certificate, in the namespace of the routing (default: plain HTTP)"
    )
    add(
        "--tls-authority",
        default="",
        help="Secret with the CA that issues certificates (default: certificates are provided)",
    )
    add("--tls-name", action="append", default=[], help="DNS name for the server certificate; can be repeated")
    add("--log-format", choices=["json", "plain"], default="json", help="log format of the operator")
    add("--log-level", default="INFO", help="log level of the operator")
    add("--outcome-url", default="", help="URL where bridges send outcomes (of --outcome-address)")
    add("--outcome-address", default="", help="HOST:PORT for outcomes of bridges (/outcomes)")
    add("--metrics-address", default="", help="HOST:PORT for Prometheus metrics (/metrics)")
    add("--health-address", default="", help="HOST:PORT for probes (/healthz, /readyz)")
    options = parser.parse_args(arguments)
    if options.log_claim and options.log_url:
        parser.error("--log-url and --log-claim exclude each other")
    return options


def _log(options: argparse.Namespace) -> LogSettings | None:
    if not (options.log_url or options.log_claim):
        return None
    return LogSettings(options.log_url, options.log_secret, options.log_claim)


def _tls(options: argparse.Namespace) -> TlsSettings | None:
    if not options.tls_secret:
        return None
    return TlsSettings(options.routing_namespace, options.tls_secret, options.tls_authority, tuple(options.tls_name))


def _resources(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, str | int | float]])
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a container's resources as JSON: {error}") from None


def _lease(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return namespace, name


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return os.environ.get("POLYPOD_NAMESPACE", "polypod-system")


def connect() -> kopf.ConnectionInfo:
    """Return how to reach the cluster: as its service account, or by KUBECONFIG.

    Raises:
        kopf.LoginError: neither is here.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("found neither a service account nor a kubeconfig; set KUBECONFIG")
    return found


async def _server_version(connection: kopf.ConnectionInfo) -> int:
    api = KubernetesApi(connection)
    await api.open()
    try:
        answer = await api.call("GET", "/version")
        return int("".join(letter for letter in answer["minor"] if letter.isdecimal()) or 0)
    finally:
        await api.close()


if __name__ == "__main__":
    sys.exit(main())
