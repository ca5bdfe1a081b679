"""From Airflow's configuration to a routing: what carries over, and in comments what does not.

Read are `[sdk] coordinators`, `queue_to_coordinator` and `dag_bundle_to_coordinator`, and of 3.4's
`[dag_processor] dag_bundle_config_list` where a bundle's folder is: from `airflow.cfg`, or from the variables
`AIRFLOW__SECTION__OPTION`, which win as they do in Airflow.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from polypod_coordinators.coordinator import CLASS_PATHS, create, keywords
from polypod_core.errors import UserError
from polypod_core.files import read_file
from polypod_core.reasons import Reason
from polypod_core.routing import ROOT_KEYWORDS
from polypod_crds.nesting import DEEPEST, depth

LOCAL_BUNDLE = ".LocalDagBundle"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
_MOST_ROUNDS, _LONGEST = 50, 1 << 20
_T = TypeVar("_T")


class Coordinator(msgspec.Struct):
    """An entry of `[sdk] coordinators`; other keys are ignored, as by Airflow."""

    classpath: str
    kwargs: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


class BundleArguments(msgspec.Struct):
    path: str | None = None


class Bundle(msgspec.Struct):
    """An item of `[dag_processor] dag_bundle_config_list`."""

    name: str
    classpath: str = ""
    kwargs: BundleArguments | None = None


@dataclass(slots=True)
class Settings:
    """What Airflow is configured to, and where each setting stands."""

    coordinators: dict[str, Coordinator] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    dag_bundles: dict[str, str] = field(default_factory=dict)
    bundles: list[Bundle] = field(default_factory=list)


def read(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read Airflow's settings.

    Raises:
        UserError: the file cannot be read, or a value is not what Airflow takes; the message names the key.
    """
    parser = _parsed(config)

    def option(section: str, name: str, kind: type[Any]) -> tuple[str, Any]:
        variable = f"AIRFLOW__{section.upper()}__{name.upper()}"
        where, text = variable, environ.get(variable)
        if text is None:
            where = f"[{section}] {name}"
            try:
                text = parser.get(section, name, fallback=None)
            except configparser.InterpolationError:
                raise _wrong(where, "a '%' in it is part of no %(name)s; write %% for a percent sign") from None
        if text is None or not text.strip():
            return where, kind()
        value = _json(where, _expanded(where, text, environ))
        if not isinstance(value, kind):
            raise _wrong(where, f"it is {type(value).__name__}; Airflow takes {kind.__name__} there")
        return where, value

    where, coordinators = option("sdk", "coordinators", dict)
    where_bundles, bundles = option("dag_processor", "dag_bundle_config_list", list)
    return Settings(
        {name: _checked(f"{where}: {name}", entry, Coordinator) for name, entry in coordinators.items()},
        _names(*option("sdk", "queue_to_coordinator", dict)),
        _names(*option("sdk", "dag_bundle_to_coordinator", dict)),
        [_checked(f"{where_bundles}: item {index}", item, Bundle) for index, item in enumerate(bundles)],
    )


def _parsed(config: Path | None) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    if config is None:
        return parser
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
    return parser


def _expanded(where: str, text: str, environ: Mapping[str, str]) -> str:
    """Return a value with its variables expanded until nothing changes, as Airflow does it; `~` stays.

    Raises:
        UserError: it would never end.
    """
    for _ in range(_MOST_ROUNDS):
        found = _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), text)
        if found == text:
            return text
        text = found
        if len(text) > _LONGEST:
            break
    raise _wrong(where, "its variables contain each other without an end")


def _json(where: str, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _wrong(where, f"it is not JSON: {error}") from None
    if depth(value, DEEPEST) > DEEPEST:
        raise _wrong(where, f"it is nested deeper than {DEEPEST} levels")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _wrong(where, "it has an unpaired surrogate in a text") from None
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number that JSON can represent")


def _names(where: str, mapping: dict[str, Any]) -> dict[str, str]:
    for key, name in mapping.items():
        if not isinstance(name, str):
            raise _wrong(f"{where}: {key}", f"it is {type(name).__name__}; it must be the name of a coordinator")
    return mapping


def _checked(where: str, value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _wrong(where, str(error)) from None


def _wrong(where: str, why: str) -> UserError:
    return UserError(Reason.INVALID_CONFIG, f"{where}: {why}")


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
            # a value of the wrong type is an error here already, with the keyword
            create(name, made["classpath"], made["kwargs"])
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
        lines += ["#", "# Not carried over:", *(f"# - {_on_one_line(note)}" for note in notes)]
    return "\n".join(lines) + "\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _on_one_line(note: str) -> str:
    """Return a note that cannot leave its comment, whatever a key is called."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in note)


def _coordinator(name: str, entry: Coordinator, notes: list[str]) -> dict[str, Any] | None:
    where, classpath = f"coordinators.{name}", entry.classpath
    if classpath not in CLASS_PATHS:
        notes.append(f"{where}: classpath {classpath!r} is none of {', '.join(CLASS_PATHS)}")
        return None
    kind = classpath.rpartition(".")[2]
    kwargs = {}
    for keyword, value in (entry.kwargs or {}).items():
        if keyword in keywords(classpath):
            kwargs[keyword] = value
        else:
            notes.append(f"{where}.kwargs.{keyword}: Polypod has no such keyword")
    if ROOT_KEYWORDS[kind] in kwargs and kwargs.get("task_handler_bundle_name") is not None:
        notes.append(f"{where}.kwargs.{ROOT_KEYWORDS[kind]}: task_handler_bundle_name says where the artifacts are")
        del kwargs[ROOT_KEYWORDS[kind]]
    for key, value in (entry.extra or {}).items():
        notes.append(f"{where}.extra.{key}: {json.dumps(value)}; {_EXTRA.get(key, 'nothing here reads it')}")
    return {"classpath": classpath, "kwargs": kwargs}


_EXTRA = {
    "pod_template_file": "take over what is wanted of it as pod_template",
    "worker_container_repository": "that image holds Airflow and Python; Polypod's holds the language alone: image",
    "worker_container_tag": "as worker_container_repository",
}


def _dag_bundles(coordinators: Mapping[str, Any], settings: Settings, notes: list[str]) -> dict[str, Any]:
    known = {item.name: item for item in settings.bundles}
    # without a name, a coordinator looks into the task's own bundle: which is any of them
    named = [made["kwargs"].get("task_handler_bundle_name") for made in coordinators.values()]
    own = any(name is None and ROOT_KEYWORDS[_kind(made)] not in made["kwargs"]
              for name, made in zip(named, coordinators.values(), strict=True))  # fmt: skip
    wanted = [*dict.fromkeys(name for name in named if name is not None), *(known if own else ())]
    bundles: dict[str, Any] = {}
    for name in dict.fromkeys(wanted):
        item = known.get(name)
        path = item.kwargs.path if item is not None and item.kwargs is not None else None
        if item is not None and item.classpath.endswith(LOCAL_BUNDLE) and path:
            bundles[name] = {"path": path}
            continue
        kind = item.classpath if item is not None else "not in dag_bundle_config_list"
        notes.append(
            f"dag_bundles.{name}: {kind}; add it with the path, image or persistent_volume_claim of its artifacts"
        )
    return bundles


def _kind(made: Mapping[str, Any]) -> str:
    return str(made["classpath"]).rpartition(".")[2]
