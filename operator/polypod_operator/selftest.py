"""`helm test`: runs a real TaskRun and waits for its end."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time

import kopf
from polypod_core.kinds import API_VERSION, KIND, task_run_path
from polypod_core.states import FINISHED_PHASES

from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.main import connect


def main() -> int:
    parser = argparse.ArgumentParser(prog="polypod-selftest", description=__doc__)
    parser.add_argument("--namespace", required=True, help="where the TaskRun is made")
    parser.add_argument("--queue", required=True)
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds")
    options = parser.parse_args()
    try:
        return asyncio.run(_run(options.namespace, options.queue, options.timeout))
    except (ApiError, kopf.LoginError) as error:
        print(f"the TaskRun cannot be run: {error}", file=sys.stderr)
        return 1


async def _run(namespace: str, queue: str, timeout: float) -> int:
    api = KubernetesApi(connect())
    await api.open()
    name = f"polypod-test-{secrets.token_hex(3)}"
    spec = {"queue": queue, "dagId": "hello", "taskId": "hello", "runId": name}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    path = task_run_path(namespace, name)
    try:
        made = await api.call("POST", path.rpartition("/")[0], body)
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            status = (await api.call("GET", path)).get("status") or {}
            if status.get("phase") in FINISHED_PHASES:
                break
            await asyncio.sleep(0.5)
        else:
            print(f"TaskRun {namespace}/{name} has not ended within {timeout:.0f} s", file=sys.stderr)
        print(f"TaskRun {namespace}/{name}: {status.get('phase')}, {status.get('reason')} {status.get('message', '')}")
        await api.delete(path, made["metadata"]["uid"])
        return 0 if status.get("phase") == "Succeeded" else 1
    finally:
        await api.close()


if __name__ == "__main__":
    sys.exit(main())
