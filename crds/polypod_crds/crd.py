"""The CustomResourceDefinition, generated from the models: `python -m polypod_crds.crd` writes `crds/taskruns.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polypod_core.kinds import GROUP, KIND, PLURAL, VERSION

from polypod_crds.rules import frozen
from polypod_crds.taskrun import TaskRunSpec, TaskRunStatus

PAGE = Path(__file__).parents[1] / "taskruns.yaml"
HEADER = "# Generated from crds/polypod_crds by `make generated`.\n"
COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("State", "string", ".status.state", 0),
    ("Dag", "string", ".spec.dagId", 0),
    ("Task", "string", ".spec.taskId", 0),
    ("Queue", "string", ".spec.queue", 0),
    ("Tries", "integer", ".status.tries", 0),
    ("Reason", "string", ".status.reason", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Run", "string", ".spec.runId", 1),
    ("Coordinator", "string", ".status.coordinator", 1),
    ("Pod", "string", ".status.attempts[-1:].podName", 1),
    ("Node", "string", ".status.attempts[-1:].nodeName", 1),
    ("Message", "string", ".status.message", 1),
)


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition of TaskRun."""
    spec = structural(TaskRunSpec.model_json_schema(by_alias=True))
    spec["x-kubernetes-validations"] += frozen()
    arguments = spec["properties"]["arguments"]
    arguments |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    spec["properties"]["dependsOn"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["taskId"]}
    # of a field that may be anything no CEL rule can speak
    arguments["items"]["oneOf"] = [{"required": ["value"]}, {"required": ["fromXCom"]}]
    arguments["items"]["properties"]["value"]["nullable"] = True
    status = structural(TaskRunStatus.model_json_schema(by_alias=True))
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    root = {
        "type": "object",
        "description": "A TaskRun runs one task of one run, written with one of Airflow's language SDKs, as a pod.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, **({"priority": wide} if wide else {})}
            for name, kind, path, wide in COLUMNS
        ],
        "schema": {"openAPIV3Schema": root},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ptr"],
                "categories": ["polypod"],
            },
            "versions": [version],
        },
    }


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn pydantic's JSON schema into the structural one that Kubernetes wants: no references, no unions."""
    found = _convert(schema, schema.get("$defs", {}))
    assert isinstance(found, dict)
    return found


_KEPT = (
    "type", "format", "description", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "required", "x-kubernetes-validations",
)  # fmt: skip


def _convert(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        # optional fields are simply left out
        [kept] = [option for option in schema["anyOf"] if option.get("type") != "null"]
        outer = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return _convert({**kept, **outer}, definitions)
    result = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if "properties" in schema:
        result["properties"] = {name: _convert(field, definitions) for name, field in schema["properties"].items()}
    elif schema.get("type") == "object" or "type" not in schema:
        # anything: a pod template, params, an argument's value
        result["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        result["items"] = _convert(schema["items"], definitions)
    if result.get("default") in ([], {}, None) or result.get("type") == "object":
        result.pop("default", None)
    if result.get("type") == "integer":
        result["format"] = "int64"
    return result


def rendered() -> str:
    """Return the file's text."""
    import yaml

    return HEADER + yaml.safe_dump(definition(), sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    PAGE.write_text(rendered())
