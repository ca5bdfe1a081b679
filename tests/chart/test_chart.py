"""The chart without a cluster: what it renders, refuses and names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from cluster.programs import CACHE
from polypod_airflow.checks import RIGHTS
from polypod_execution_api.metrics import Metrics as ApiMetrics
from polypod_execution_api.sizes import Sizes
from polypod_operator.serve.metrics import Metrics
from prometheus_client import generate_latest
from sqlalchemy import create_engine
from support.paths import ROOT

pytestmark = pytest.mark.needs("promtool")

CHART = ROOT / "charts" / "polypod"
PROMTOOL = str(CACHE / "promtool/usr/bin/promtool")
HELM = Path(sys.executable).with_name("helm")
EVERYTHING: dict[str, Any] = {
    "hello": {"enabled": True},
    "registry": "registry.example/team",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "pull"}],
    "extraLabels": {"team": "data"},
    "extraAnnotations": {"example.com/owner": "data"},
    "operator": {
        "replicas": 2, "podDisruptionBudget": {"enabled": True}, "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "serviceAccountAnnotations": {"a": "b"},
    },
    "executionApi": {"replicas": 2, "postgresql": {"existingSecret": "db"}, "serviceAccountAnnotations": {"a": "b"}},
    "routing": {
        "coordinators": {"x": {"classpath": "a.b.C", "image": "y"}}, "queue_to_coordinator": {"q": "x"},
        "queue_to_image": {"q": "z"}, "queue_limits": {"q": 5}, "queue_overrides": {"q": {}}, "default_coordinator": "x",
    },
    "logs": {"url": "s3://bucket/{namespace}", "existingSecret": "keys"},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}], "tasks": {"enabled": True, "egress": [{}]}},
    "metrics": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")},
}  # fmt: skip
SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "namespaces": {"namespaces": ["a", "b"], "networkPolicy": {"tasks": {"enabled": True}}},
    "airflow": {
        "executionApi": {"mode": "airflow", "airflow": {"url": "http://airflow.airflow.svc:8080/execution/"}},
        "airflow": {
            "namespace": "airflow-tasks",
            "serviceAccounts": [
                {"namespace": "airflow", "name": "airflow-scheduler"}, {"namespace": "airflow", "name": "airflow-api-server"},
            ],
        },
    },
    "lean": {
        "crds": {"install": False}, "rbac": {"create": False}, "hello": {"enabled": False},
        "networkPolicy": {"enabled": False}, "routing": {"create": False, "name": "mine"},
        "executionApi": {"persistence": {"enabled": False}},
    },
}  # fmt: skip
OTHERS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose schemas are not Kubernetes' own."""


def helm(*arguments: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [str(HELM), *arguments, "--namespace", "polypod-system", "-f", "-"]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False)


def rendered(values: dict[str, Any], version: str = "1.36.0") -> list[dict[str, Any]]:
    done = helm("template", "polypod", str(CHART), f"--kube-version={version}", values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=SETS[name])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.29.0", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", SETS)
def test_what_is_rendered_is_what_kubernetes_knows(name: str, version: str) -> None:
    documents = rendered(SETS[name], version)
    assert len(documents) > 3
    for document in documents:
        if document["kind"] not in OTHERS:
            kubernetes_validate.validate(document, version, strict=True)


def test_logs_go_to_one_place() -> None:
    [operator] = [
        item for item in rendered(EVERYTHING) if item["kind"] == "Deployment" and "operator" in item["metadata"]["name"]
    ]
    arguments = operator["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--log-url=s3://bucket/{namespace}", "--log-secret=keys"} <= set(arguments)
    done = helm("template", "polypod", str(CHART), values={"logs": {"url": "s3://b", "persistentVolumeClaim": "c"}})
    assert "logs.url and logs.persistentVolumeClaim exclude each other" in done.stderr


CHOICES = {
    "imagePullPolicy": "Never", "operator.logLevel": "warning", "operator.logFormat": "plain", "tasks.logLevel": "DEBUG",
    "tasks.logFormat": "console", "executionApi.mode": "standalone", "executionApi.airflow.url": "http://zz-airflow/execution/",
    "logs.url": "s3://zz-logs/", "operator.replicas": 7001, "executionApi.replicas": 1,
}  # fmt: skip
"""Values of which the schema allows only some."""
EXCLUDING = (
    {"logs.persistentVolumeClaim": "", "executionApi.postgresql.existingSecret": "", "executionApi.persistence.existingClaim": "", "routing.name": ""},
    {"logs.url": "", "logs.existingSecret": "", "executionApi.replicas": 7002},
    {"logs.persistentVolumeClaim": "", "executionApi.postgresql.existingSecret": ""},
    {"logs.persistentVolumeClaim": "", "executionApi.mode": "airflow", "executionApi.postgresql.existingSecret": "", "operator.image.tag": "",
     "airflow.serviceAccounts": [{"namespace": "zz", "name": "zz"}]},
)  # fmt: skip
"""Values that exclude others: each set is rendered."""


def leaves(values: dict[str, Any], *path: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *path, key)
        else:
            yield ".".join((*path, key)), value


def distinct(path: str, default: Any, number: int) -> Any:
    """Return a value that nothing else in the objects has."""
    if isinstance(default, bool) or not isinstance(default, str | int):
        return True if path.endswith("enabled") else default
    if path in CHOICES:
        return CHOICES[path]
    if isinstance(default, int):
        return 7000 + number
    units = {"cpu": "m", "memory": "Mi", "size": "Mi", "interval": "s"}
    unit = units.get(path.rpartition(".")[2])
    return f"{7000 + number}{unit}" if unit else f"zz{number}zz"


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, key = path.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    return made


def test_no_value_is_ignored() -> None:
    """Each text and number of values.yaml, set to something of its own, is somewhere in what is rendered."""
    defaults = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    flat = {path: distinct(path, default, number) for number, (path, default) in enumerate(defaults.items())}
    flat["metrics.dashboard.labels.grafana_dashboard"] = "zz-dashboard"
    found: set[str] = set()
    for excluding in EXCLUDING:
        chosen = {**flat, **excluding}
        done = helm("template", "polypod", str(CHART), values=nested(chosen))
        assert done.returncode == 0, done.stderr
        found |= {path for path, value in chosen.items() if value not in ("", None) and str(value) in done.stdout}
    looked_for = {path for path, value in flat.items() if isinstance(value, str | int) and not isinstance(value, bool)}
    assert looked_for <= found, looked_for - found


def test_task_pods_pull_the_bridge_with_the_charts_secrets() -> None:
    [operator] = [
        item for item in rendered(EVERYTHING) if item["kind"] == "Deployment" and "operator" in item["metadata"]["name"]
    ]
    assert "--bridge-pull-secret=pull" in operator["spec"]["template"]["spec"]["containers"][0]["args"]


def test_an_older_kubernetes_is_refused() -> None:
    done = helm("template", "polypod", str(CHART), "--kube-version=1.28.9", values={})
    assert "1.29" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"operator": {"replica": 2}}, "operator: Additional property replica is not allowed"),
        ({"operater": {}}, "Additional property operater is not allowed"),
        ({"operator": {"replicas": "two"}}, "operator.replicas"),
        ({"executionApi": {"mode": "both"}}, "executionApi.mode"),
        ({"executionApi": {"mode": "airflow"}}, "executionApi.airflow.url is needed"),
        ({"executionApi": {"replicas": 2}}, "needs PostgreSQL"),
        ({"namespaces": "a"}, "namespaces"),
        (
            {"airflow": {"serviceAccounts": [{"namespace": "a", "name": "b"}]}},
            "airflow.serviceAccounts needs airflow.namespace",
        ),
    ],
)
def test_a_mistake_in_the_values_is_refused(values: dict[str, Any], said: str) -> None:
    done = helm("template", "polypod", str(CHART), values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_what_is_generated_is_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "charts"))
    import generate

    for path, text in generate.generated().items():
        assert path.read_text() == text, f"{path} differs: run `make generated`"


def test_every_pod_of_ours_is_restricted_and_every_object_has_its_labels() -> None:
    for document in rendered(EVERYTHING):
        kind, metadata = document["kind"], document["metadata"]
        hook = "helm.sh/hook" in (metadata.get("annotations") or {})
        if (
            kind not in {"CustomResourceDefinition", *OTHERS}
            and not hook
            and not metadata["name"].endswith("dashboard")
        ):
            assert metadata["labels"]["team"] == "data", (kind, metadata["name"])
            assert metadata["annotations"]["example.com/owner"] == "data"
        if kind in ("Deployment", "Job", "Pod"):
            spec = document["spec"] if kind == "Pod" else document["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["imagePullSecrets"] == [{"name": "pull"}]
            for container in spec["containers"]:
                assert container["image"].startswith("registry.example/team/polypod-")
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_with_namespaces_nothing_is_for_the_whole_cluster() -> None:
    documents = rendered(SETS["namespaces"])
    kinds = [document["kind"] for document in documents]
    assert not {"ClusterRole", "ClusterRoleBinding"} & set(kinds)
    assert {document["metadata"]["namespace"] for document in documents if document["kind"] == "Role"} == {
        "a", "b", "polypod-system",
    }  # fmt: skip
    [operator] = [document for document in documents if document["metadata"]["name"] == "polypod-operator"
                  and document["kind"] == "Deployment"]  # fmt: skip
    arguments = operator["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [item for item in arguments if item.startswith("--namespace=")] == ["--namespace=a", "--namespace=b"]


def test_two_releases_with_namespaces_of_their_own_share_nothing_but_the_crd() -> None:
    found: list[set[tuple[str, str, str]]] = []
    for team, crds in (("a", True), ("b", False)):
        values = {**SETS["namespaces"], "namespaces": [f"team-{team}"], "crds": {"install": crds}}
        command = [str(HELM), "template", f"polypod-{team}", str(CHART), "--namespace", f"polypod-{team}", "-f", "-"]
        done = subprocess.run(
            command, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        documents = [document for document in yaml.safe_load_all(done.stdout) if document]
        found.append(
            {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in documents}
        )
    assert not found[0] & found[1]


def test_the_crd_stays_when_the_chart_goes() -> None:
    [crd] = [document for document in rendered({}) if document["kind"] == "CustomResourceDefinition"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    original = yaml.safe_load((ROOT / "crds/taskruns.yaml").read_text())
    assert crd["spec"] == original["spec"]


def notes(values: dict[str, Any], folder: Path) -> str:
    """Return what helm prints after an install; `helm template` does not, so the text becomes a template."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates/NOTES.txt").rename(chart / "files/NOTES.txt")
    (chart / "templates/notes.yaml").write_text('notes: {{ tpl (.Files.Get "files/NOTES.txt") . | quote }}\n')
    done = helm("template", "polypod", str(chart), "-s", "templates/notes.yaml", values=values)
    assert done.returncode == 0, done.stderr
    return str(yaml.safe_load(done.stdout)["notes"])


@pytest.mark.parametrize("name", SETS)
def test_whatever_holds_state_is_kept_and_the_notes_name_it(name: str, tmp_path: Path) -> None:
    kept = {
        (item["kind"], item["metadata"]["name"])
        for item in rendered(SETS[name])
        if (item["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
    }
    stateful = {
        (item["kind"], item["metadata"]["name"])
        for item in rendered(SETS[name])
        if item["kind"] in ("PersistentVolumeClaim", "Secret", "CustomResourceDefinition")
    }
    assert kept == stateful
    said = notes(SETS[name], tmp_path)
    page = (ROOT / "docs/operations.md").read_text()
    for kind, called in kept:
        assert called in said
        assert called in page
        if kind != "CustomResourceDefinition":
            assert f"delete {kind.lower()} {called}" in said
    assert "delete crd taskruns.polypod.dev" in said


def test_an_install_reads_nothing_that_it_does_not_make(tmp_path: Path) -> None:
    """Whoever installs it may have no right to list: helm then ends with an error."""
    for file in (CHART / "templates").rglob("*.*"):
        assert "lookup" not in file.read_text(), file.name
    said = notes({}, tmp_path)
    assert "get pvc,secret -l app.kubernetes.io/part-of=polypod" in said


def test_the_labels_and_annotations_of_what_is_kept_are_those_of_all_others() -> None:
    values = {"extraAnnotations": {"example.com/owner": "data", "helm.sh/resource-policy": "delete"}}
    [claim] = [item for item in rendered(values) if item["kind"] == "PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"] == {"example.com/owner": "data", "helm.sh/resource-policy": "keep"}
    assert claim["metadata"]["labels"]["app.kubernetes.io/instance"] == "polypod"


@pytest.mark.parametrize("name", SETS)
def test_helm_test_never_passes_with_nothing_to_run(name: str) -> None:
    pods = [item for item in rendered(SETS[name]) if item["kind"] == "Pod"]
    [hook] = [item for item in pods if item["metadata"]["annotations"]["helm.sh/hook"] == "test"]
    runs = any("selftest" in part for part in hook["spec"]["containers"][0]["command"])
    assert runs == (name == "everything")
    assert runs or hook["metadata"]["name"] == "polypod-test-needs-hello.enabled"


def promtool(folder: Path, rules: dict[str, Any]) -> None:
    """Have Prometheus itself read rules."""
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(rules))
    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_airflow_has_the_rights_that_its_executor_checks_and_no_others() -> None:
    [role] = [
        item
        for item in rendered(SETS["airflow"])
        if item["kind"] == "Role" and item["metadata"]["name"] == "polypod-airflow"
    ]
    assert role["metadata"]["namespace"] == "airflow-tasks"
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert given == set(RIGHTS)


def test_task_pods_do_not_reach_the_metrics_that_name_namespaces() -> None:
    policies = {item["metadata"]["name"]: item for item in rendered({}) if item["kind"] == "NetworkPolicy"}
    [rule] = [rule for rule in policies["polypod-api"]["spec"]["ingress"] if rule["ports"] == [{"port": "metrics"}]]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchExpressions"] == [{"key": "polypod.dev/taskrun-uid", "operator": "DoesNotExist"}]
    chosen = {item["metadata"]["name"]: item for item in rendered(EVERYTHING) if item["kind"] == "NetworkPolicy"}
    [rule] = [rule for rule in chosen["polypod-api"]["spec"]["ingress"] if rule["ports"] == [{"port": "metrics"}]]
    assert rule["from"] == [{"podSelector": {}}]


def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    [rule] = [document for document in rendered(EVERYTHING) if document["kind"] == "PrometheusRule"]
    alerts = rule["spec"]["groups"][0]["rules"]
    assert len(alerts) >= 7
    promtool(tmp_path, rule["spec"])
    # each is explained to whoever is woken by it
    page = (ROOT / "docs/operations.md").read_text()
    assert {alert["alert"] for alert in alerts} == set(re.findall(r"(?m)^\| (Polypod\w+) \|", page))


def test_an_alert_is_raised_when_it_should_be_and_only_then(tmp_path: Path) -> None:
    [rule] = [document for document in rendered(EVERYTHING) if document["kind"] == "PrometheusRule"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))

    def case(series: dict[str, str], raised: dict[str, dict[str, str]]) -> dict[str, Any]:
        names = [alert["alert"] for alert in rule["spec"]["groups"][0]["rules"]]
        severity = {alert["alert"]: alert["labels"] for alert in rule["spec"]["groups"][0]["rules"]}
        said = {alert["alert"]: alert["annotations"] for alert in rule["spec"]["groups"][0]["rules"]}
        expected = []
        for name in names:
            firing = []
            if name in raised:
                labels = {**severity[name], **raised[name]}
                summary = said[name]["summary"]
                for label, value in labels.items():
                    summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
                firing = [{"exp_labels": labels, "exp_annotations": {"summary": summary}}]
            expected.append({"eval_time": "60m", "alertname": name, "exp_alerts": firing})
        values = [{"series": key, "values": value} for key, value in series.items()]
        return {"interval": "1m", "input_series": values, "alert_rule_test": expected}

    fine = {
        'polypod_leading{pod="a"}': "1x60", 'polypod_leading{pod="b"}': "0x60", "polypod_routing_valid": "1x60",
        "polypod_reconcile_errors_total": "0x60",
        'polypod_api_requests_total{verb="create",resource="pods",code="201"}': "0+60x60",
        'polypod_watch_restarts_total{resource="pods",why="closed"}': "0+1x60",
        'polypod_attempts_total{state="success",reason="TaskSucceeded",coordinator="c"}': "0+600x60",
        'polypod_execution_api_namespace_bytes{namespace="team-a"}': "70x60",
        "polypod_execution_api_namespace_limit_bytes": "100x60",
    }  # fmt: skip
    cases = [
        case(fine, {}),
        case({**fine, 'polypod_leading{pod="a"}': "1x20 0x40"}, {"PolypodOperatorDown": {}}),
        case({**fine, 'polypod_operator_state{state="paused",pod="a"}': "0x50 1x10"}, {"PolypodOperatorPaused": {}}),
        case({**fine, "polypod_routing_valid": "1x20 0x40"}, {"PolypodRoutingInvalid": {}}),
        case({**fine, "polypod_reconcile_errors_total": "0+60x60"}, {"PolypodReconcileErrors": {}}),
        case({**fine, "polypod_objects_unreadable_total": "0x50 1x9"}, {"PolypodObjectsUnreadable": {}}),
        case(
            {**fine, 'polypod_api_requests_total{verb="create",resource="pods",code="403"}': "0+1x60"},
            {"PolypodApiRefuses": {"resource": "pods", "code": "403"}},
        ),
        case(
            {**fine, 'polypod_watch_restarts_total{resource="pods",why="failed"}': "0+10x60"},
            {"PolypodWatchesFail": {"resource": "pods"}},
        ),
        case(
            {**fine, 'polypod_execution_api_namespace_bytes{namespace="team-b"}': "90x60"},
            {"PolypodNamespaceNearlyFull": {"namespace": "team-b"}},
        ),
        case(
            {**fine, 'polypod_execution_api_namespace_bytes{namespace="team-b"}': "90x60",
             "polypod_execution_api_namespace_limit_bytes": "0x60"},
            {},
        ),
        case(
            {**fine, 'polypod_attempts_total{state="up_for_retry",reason="NodeLost",coordinator="c"}': "0+10x60"},
            {"PolypodInfrastructureLosses": {"reason": "NodeLost"}},
        ),
        case(
            {**fine, 'polypod_queue_wait_seconds_bucket{queue="q",le="900"}': "0x60",
             'polypod_queue_wait_seconds_bucket{queue="q",le="3600"}': "0+5x60",
             'polypod_queue_wait_seconds_bucket{queue="q",le="+Inf"}': "0+5x60"},
            {"PolypodQueueWaitsLong": {"queue": "q"}},
        ),
    ]  # fmt: skip
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": cases})
    )
    done = subprocess.run([PROMTOOL, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    page = json.loads((CHART / "files/dashboard.json").read_text())
    queries = [target["expr"] for panel in page["panels"] for target in panel["targets"]]
    assert len(queries) > 15
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    promtool(tmp_path, {"groups": [{"name": "panels", "rules": rules}]})
    # what Grafana needs to show a page
    assert page["uid"]
    assert len({panel["id"] for panel in page["panels"]}) == len(queries)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in page["panels"]}
    assert len(places) == len(queries)


def test_every_metric_that_a_page_or_an_alert_names_is_there() -> None:
    metrics = Metrics()
    metrics.depths = lambda: {"q": (1, 0)}
    api = ApiMetrics(Sizes(create_engine("sqlite://")))
    scrape = generate_latest(metrics.registry).decode() + generate_latest(api.registry).decode()
    known = set(re.findall(r"(?m)^# TYPE (\S+)", scrape))
    # a histogram's name, and those of its series
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    named: set[str] = set()
    for page in ("files/alerts.yaml", "files/dashboard.json"):
        found = set(re.findall(r"\b(?:polypod|process)_[a-z_]+", (CHART / page).read_text()))
        assert len(found) > 5
        named |= found
    assert named <= known, named - known
    # and nothing that is counted is left out of sight
    assert {
        name for name in known if name.startswith("polypod_") and not name.endswith(("_bucket", "_sum", "_count"))
    } <= {re.sub(r"_bucket$", "", name) for name in named}
