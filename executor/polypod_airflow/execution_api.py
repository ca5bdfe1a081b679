"""Which Execution API the pods of this Airflow call: its own, whatever other Airflows use the same Polypod. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit


def url_for_pods(configured: str, namespace: str) -> str:
    """Return the Execution API's URL as a pod in another namespace reaches it; empty if no pod can reach it.

    Args:
        configured: the URL that Airflow's own workers use.
        namespace: this process's namespace; empty outside a cluster. A Service's name alone means one there, so the
            name gets its namespace. The password of a URL is left out: everybody may read a TaskRun.

    >>> url_for_pods("http://airflow-api-server:8080/execution/", "airflow")
    'http://airflow-api-server.airflow.svc:8080/execution/'
    >>> url_for_pods("http://localhost:8080/execution/", "airflow")
    ''
    """
    try:
        parts = urlsplit(configured)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or _is_local(host):
        return ""
    if ":" in host:
        host = f"[{host}]"
    elif "." not in host and namespace:
        host = f"{host}.{namespace}.svc"
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
