"""From Airflow's configuration to a routing: what carries over, and in comments what does not.

Read are `[sdk] coordinators`, `queue_to_coordinator` and `dag_bundle_to_coordinator`, and of 3.4's
`[dag_processor] dag_bundle_config_list` where a bundle's folder is: from `airflow.cfg`, or from the variables
`AIRFLOW__SECTION__OPTION`, which win as they do in Airflow.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from polypod_coordinators.coordinator import CLASS_PATHS, keywords
from polypod_core.errors import UserError
from polypod_core.files import read_file
from polypod_core.reasons import Reason
from polypod_core.routing import ROOT_KEYWORDS

LOCAL_BUNDLE = ".LocalDagBundle"


@dataclass(slots=True)
class Settings:
    """What Airflow is configured to, and where each setting stands."""

    coordinators: dict[str, Any] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    dag_bundles: dict[str, str] = field(default_factory=dict)
    bundles: list[dict[str, Any]] = field(default_factory=list)


def read(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read Airflow's settings.

    Raises:
        UserError: the file cannot be read, or a value is not the JSON that it should be; the message names the key.
    """
    parser = configparser.RawConfigParser(strict=False)
    if config is not None:
        try:
            parser.read_string(read_file(str(config)).decode("utf-8-sig"), str(config))
        except UnicodeDecodeError as error:
            raise UserError(Reason.INVALID_CONFIG, f"{config} is not UTF-8: byte {error.start}") from None
        except configparser.MissingSectionHeaderError as error:
            message = f"{config}:{error.lineno}: not an airflow.cfg: no section header such as [core] before this line"
            raise UserError(Reason.INVALID_CONFIG, message) from None
        except configparser.ParsingError as error:
            # the line itself is not shown: it may be that of a password
            line = error.errors[0][0] if error.errors else 1
            message = f"{config}:{line}: not an airflow.cfg: not a line such as name = value"
            raise UserError(Reason.INVALID_CONFIG, message) from None

    def option(section: str, name: str, kind: type[Any]) -> Any:
        variable = f"AIRFLOW__{section.upper()}__{name.upper()}"
        where, text = variable, environ.get(variable)
        if text is None:
            where, text = f"[{section}] {name}", parser.get(section, name, fallback=None)
        if text is None or not text.strip():
            return kind()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(Reason.INVALID_CONFIG, f"{where} is not JSON: {error}") from None
        if not isinstance(value, kind):
            raise UserError(
                Reason.INVALID_CONFIG, f"{where} is {type(value).__name__}; Airflow takes {kind.__name__} there"
            )
        return value

    return Settings(
        option("sdk", "coordinators", dict),
        option("sdk", "queue_to_coordinator", dict),
        option("sdk", "dag_bundle_to_coordinator", dict),
        option("dag_processor", "dag_bundle_config_list", list),
    )


def routing_of(settings: Settings) -> str:
    """Return the routing as YAML.

    Raises:
        UserError: there is no coordinator in the settings.
    """
    if not settings.coordinators:
        raise UserError(
            Reason.INVALID_CONFIG,
            "no [sdk] coordinators found; name airflow.cfg, or set AIRFLOW__SDK__COORDINATORS to the JSON of it",
        )
    notes: list[str] = []
    coordinators = {}
    for name, entry in settings.coordinators.items():
        made = _coordinator(name, entry, notes)
        if made is not None:
            coordinators[name] = made
    document: dict[str, Any] = {"coordinators": coordinators}
    for key, mapping in (
        ("queue_to_coordinator", settings.queues),
        ("dag_bundle_to_coordinator", settings.dag_bundles),
    ):
        kept = {entry: name for entry, name in mapping.items() if name in coordinators}
        notes += [f"{key}.{entry}: coordinator {name!r} is not carried over" for entry, name in mapping.items()
                  if name not in coordinators]  # fmt: skip
        if kept:
            document[key] = kept
    bundles = _dag_bundles(coordinators, settings, notes)
    if bundles:
        document["dag_bundles"] = bundles
    lines = [
        "# From Airflow's configuration. Add to each coordinator the image that holds its language:",
        "#   image: …",
    ]
    if notes:
        lines += ["#", "# Not carried over:", *(f"# - {note}" for note in notes)]
    return "\n".join(lines) + "\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _coordinator(name: str, entry: Any, notes: list[str]) -> dict[str, Any] | None:
    where = f"coordinators.{name}"
    classpath = entry.get("classpath") if isinstance(entry, dict) else None
    if classpath not in CLASS_PATHS:
        notes.append(f"{where}: classpath {classpath!r} is none of {', '.join(CLASS_PATHS)}")
        return None
    kind = classpath.rpartition(".")[2]
    kwargs = {}
    for keyword, value in (entry.get("kwargs") or {}).items():
        if keyword in keywords(classpath):
            kwargs[keyword] = value
        else:
            notes.append(f"{where}.kwargs.{keyword}: Polypod has no such keyword")
    if ROOT_KEYWORDS[kind] in kwargs and kwargs.get("task_handler_bundle_name") is not None:
        notes.append(f"{where}.kwargs.{ROOT_KEYWORDS[kind]}: task_handler_bundle_name says where the artifacts are")
        del kwargs[ROOT_KEYWORDS[kind]]
    for key, value in (entry.get("extra") or {}).items():
        notes.append(f"{where}.extra.{key}: {json.dumps(value)}; {_EXTRA.get(key, 'nothing here reads it')}")
    return {"classpath": classpath, "kwargs": kwargs}


_EXTRA = {
    "pod_template_file": "take over what is wanted of it as pod_template",
    "worker_container_repository": "that image holds Airflow and Python; Polypod's holds the language alone: image",
    "worker_container_tag": "as worker_container_repository",
}


def _dag_bundles(coordinators: Mapping[str, Any], settings: Settings, notes: list[str]) -> dict[str, Any]:
    known = {item.get("name"): item for item in settings.bundles if isinstance(item, dict)}
    # without a name, a coordinator looks into the task's own bundle: which is any of them
    named = [made["kwargs"].get("task_handler_bundle_name") for made in coordinators.values()]
    own = any(name is None and ROOT_KEYWORDS[_kind(made)] not in made["kwargs"]
              for name, made in zip(named, coordinators.values(), strict=True))  # fmt: skip
    wanted = [*dict.fromkeys(name for name in named if name is not None), *(known if own else ())]
    bundles: dict[str, Any] = {}
    for name in dict.fromkeys(wanted):
        item = known.get(name, {})
        path = (item.get("kwargs") or {}).get("path")
        if str(item.get("classpath", "")).endswith(LOCAL_BUNDLE) and path:
            bundles[name] = {"path": path}
            continue
        kind = item.get("classpath", "not in dag_bundle_config_list")
        notes.append(
            f"dag_bundles.{name}: {kind}; add it with the path, image or persistent_volume_claim of its artifacts"
        )
    return bundles


def _kind(made: Mapping[str, Any]) -> str:
    return str(made["classpath"]).rpartition(".")[2]
