"""What needs Airflow's scheduler, triggerer or assets: each endpoint answers with an error that says so."""

from __future__ import annotations

from fastapi import APIRouter

from polypod_execution_api.access import Who, fail
from polypod_execution_api.exact import ExactRoute

router = APIRouter(tags=["Needs Airflow"], route_class=ExactRoute)

ASKING = (
    "asking a person needs Airflow's UI; without Airflow, let the person start the next step: a TaskRun with "
    "spec.suspend true, which they set to false"
)

ENDPOINTS: dict[tuple[str, str], str] = {
    ("POST", "/dag-runs/{dag_id}/{run_id}"): "triggering a Dag run needs Airflow's scheduler",
    ("POST", "/dag-runs/{dag_id}/{run_id}/clear"): "clearing a Dag run needs Airflow's scheduler",
    ("GET", "/assets/{rest:path}"): "assets are kept by Airflow",
    ("GET", "/asset-events/{rest:path}"): "asset events are kept by Airflow",
    ("GET", "/store/asset/{rest:path}"): "assets and their state are kept by Airflow",
    ("PUT", "/store/asset/{rest:path}"): "assets and their state are kept by Airflow",
    ("DELETE", "/store/asset/{rest:path}"): "assets and their state are kept by Airflow",
    ("GET", "/hitlDetails/{rest:path}"): ASKING,
    ("POST", "/hitlDetails/{rest:path}"): ASKING,
    ("PATCH", "/hitlDetails/{rest:path}"): ASKING,
    ("PATCH", "/task-instances/{task_instance_id}/dag-run-note"): "notes of a Dag run are kept by Airflow",
    ("PATCH", "/callbacks/{callback_id}/run"): "callbacks are run by Airflow",
    ("GET", "/connection-tests/{rest:path}"): "connection tests are started by Airflow's UI",
    ("PATCH", "/connection-tests/{rest:path}"): "connection tests are started by Airflow's UI",
}


def _add(method: str, path: str, why: str) -> None:
    def refuse(who: Who) -> None:
        fail(400, "needs_airflow", f"{why}; this is Polypod's own Execution API")

    name = f"refuse_{method.lower()}_{path.strip('/').partition('/')[0]}"
    router.add_api_route(path, refuse, methods=[method], name=name, summary=f"Refused: {why}", status_code=400)


for (_method, _path), _why in ENDPOINTS.items():
    _add(_method, _path, _why)
