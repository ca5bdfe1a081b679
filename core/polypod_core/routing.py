"""The routing: which coordinator runs a queue's tasks, and where its artifacts are.

The routing uses the keys of Airflow's `[sdk]` section, of Airflow 3.3 and 3.4 alike. A routing file is either a
ConfigMap whose data hold YAML or JSON texts, or a plain mapping with the same keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from polypod_core.errors import UserError, nearest
from polypod_core.reasons import Reason


class ArtifactSource(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where jars or bundles come from, if they are not in the language image: another image, or a volume claim."""

    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    persistent_volume_claim: str | None = None
    path: str = ""
    mount_path: str = "/artifacts"

    def __post_init__(self) -> None:
        if (self.image is None) == (self.persistent_volume_claim is None):
            raise ValueError("artifacts needs exactly one of image and persistent_volume_claim")
        if not self.mount_path.startswith("/") or ":" in self.mount_path:
            raise ValueError(f"mount_path {self.mount_path!r} must be absolute and hold no ':'")


class DagBundle(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where a Dag bundle's artifacts are: a folder of the language image, another image, or a volume claim.

    Attributes:
        path: the folder; in an image or volume by default all of it.
        mount_path: where an image or volume appears in the language container.
    """

    path: str = ""
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    persistent_volume_claim: str | None = None
    mount_path: str = "/artifacts"

    def __post_init__(self) -> None:
        if self.is_folder:
            if not self.path:
                raise ValueError("a Dag bundle needs one of path, image and persistent_volume_claim")
        else:
            self.source()

    @property
    def is_folder(self) -> bool:
        return self.image is None and self.persistent_volume_claim is None

    @property
    def folder(self) -> str:
        """Where its artifacts are, as the runtime sees it."""
        return self.path if self.is_folder else self.mount_path

    def source(self) -> ArtifactSource:
        """Return what is to be mounted.

        Raises:
            ValueError: an image and a claim are both given, or the mount path is not absolute.
        """
        return ArtifactSource(
            image=self.image,
            image_pull_policy=self.image_pull_policy,
            persistent_volume_claim=self.persistent_volume_claim,
            path=self.path,
            mount_path=self.mount_path,
        )


class CoordinatorSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One entry of `coordinators`.

    The coordinator itself gets `kwargs` only. The rest is about the pod: its image and settings, for the operator.

    Attributes:
        extra: what other programs read in Airflow's `[sdk] coordinators`; not used here.
        allow: what a pod template may do although the `restricted` Pod Security standard forbids it, such as
            `hostPath`; see `polypod_operator.pods.security`.
    """

    classpath: str
    kwargs: dict[str, Any] = {}
    extra: dict[str, Any] | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[str] = []
    resources: dict[str, Any] = {}
    pod_template: dict[str, Any] = {}
    artifacts: ArtifactSource | None = None
    allow: list[str] = []


class QueueOverride(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one queue changes of its coordinator's entry; what is not set stays."""

    kwargs: dict[str, Any] = {}
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[str] | None = None
    resources: dict[str, Any] | None = None
    pod_template: dict[str, Any] = {}
    artifacts: ArtifactSource | None = None


class Routing(msgspec.Struct, kw_only=True):
    """Which coordinator runs a queue's tasks.

    Attributes:
        dag_bundles: where the artifacts of a Dag bundle are, by its name in Airflow's `dag_bundle_config_list`.
        dag_bundle_to_coordinator: Airflow's key for the Dag processor; no task reads it, so neither do we.
        queue_limits: how many attempts of a queue there may be at once; 0 holds the queue.
    """

    coordinators: dict[str, CoordinatorSpec] = {}
    queue_to_coordinator: dict[str, str] = {}
    dag_bundles: dict[str, DagBundle] = {}
    dag_bundle_to_coordinator: dict[str, str] = {}
    queue_to_image: dict[str, str] = {}
    queue_overrides: dict[str, QueueOverride] = {}
    queue_limits: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    default_coordinator: str | None = None

    def for_queue(self, queue: str, who: str, coordinator: str | None = None) -> tuple[str, CoordinatorSpec]:
        """Return the name and entry of the coordinator for `queue`, with what the queue changes of it.

        The queue's pod template is not in the entry: it is merged, over the entry's, by `pod_templates`.

        Args:
            who: the task (Dag, run and task), for the error.
            coordinator: a coordinator to take in place of the queue's.

        Raises:
            UserError: the queue leads to no coordinator, or there is none of that name.
        """
        name = coordinator or self.queue_to_coordinator.get(queue, self.default_coordinator)
        if name is None:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{who}: queue {queue!r} is not in queue_to_coordinator" + nearest(queue, self.queue_to_coordinator),
            )
        if name not in self.coordinators:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{who}: queue {queue!r}: coordinator {name!r} is not in coordinators"
                + nearest(name, self.coordinators),
            )
        return name, self._overridden(self.coordinators[name], queue)

    def _overridden(self, spec: CoordinatorSpec, queue: str) -> CoordinatorSpec:
        changes: dict[str, Any] = {}
        override = self.queue_overrides.get(queue)
        if override is not None:
            for field in ("image", "image_pull_policy", "image_pull_secrets", "resources", "artifacts"):
                value = getattr(override, field)
                if value is not None:
                    changes[field] = value
            changes["kwargs"] = _override_kwargs(spec.kwargs, override.kwargs)
        if queue in self.queue_to_image:
            changes["image"] = self.queue_to_image[queue]
        return self.with_artifacts(msgspec.structs.replace(spec, **changes) if changes else spec)

    def with_artifacts(self, spec: CoordinatorSpec) -> CoordinatorSpec:
        """Return the entry with the image or volume of its Dag bundle, or with the folder where its own appears."""
        bundle = self.dag_bundles.get(spec.kwargs.get("task_handler_bundle_name", ""))
        if bundle is not None:
            return spec if bundle.is_folder else msgspec.structs.replace(spec, artifacts=bundle.source())
        keyword = ROOT_KEYWORDS.get(spec.classpath.rpartition(".")[2])
        if spec.artifacts is None or keyword is None or _says_where(spec.kwargs):
            return spec
        return msgspec.structs.replace(spec, kwargs={**spec.kwargs, keyword: [spec.artifacts.mount_path]})

    def bundle_folders(self, spec: CoordinatorSpec) -> dict[str, str]:
        """Return the folder of each Dag bundle that a pod of this entry can see."""
        mounted = spec.kwargs.get("task_handler_bundle_name")
        return {name: bundle.folder for name, bundle in self.dag_bundles.items() if bundle.is_folder or name == mounted}

    def pod_templates(self, spec: CoordinatorSpec, queue: str) -> list[dict[str, Any]]:
        """Return the pod templates to merge, in that order."""
        override = self.queue_overrides.get(queue)
        return [template for template in (spec.pod_template, override.pod_template if override else {}) if template]


ROOT_KEYWORDS = {
    "JavaCoordinator": "jars_root",
    "ExecutableCoordinator": "executables_root",
    "NodeCoordinator": "bundles_root",
}
"""The keyword with which each coordinator names folders."""


def _says_where(kwargs: dict[str, Any]) -> bool:
    return any(key.endswith("_root") or key == "task_handler_bundle_name" for key in kwargs)


def _override_kwargs(kwargs: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a coordinator's kwargs with what a queue changes; a folder takes the place of a bundle, and vice versa."""
    moved = _says_where(changes)
    kept = {key: value for key, value in kwargs.items() if not (moved and _says_where({key: value}))}
    return {**kept, **changes}


ROUTING_KEYS = tuple(field.name for field in msgspec.structs.fields(Routing))


def parse_routing(document: Any, where: str) -> Routing:
    """Check a routing document as a whole.

    Args:
        document: the parsed file: a ConfigMap, or a plain mapping.
        where: the file or object, for errors.

    Raises:
        UserError: the message names the key, what was seen and what would be right.
    """
    if not isinstance(document, dict):
        raise UserError(Reason.INVALID_ROUTING, f"{where}: a routing is a mapping, not {type(document).__name__}")
    if document.get("kind") == "ConfigMap":
        document = _config_map(document, where)
    for key in document:
        if key not in ROUTING_KEYS:
            raise UserError(Reason.INVALID_ROUTING, f"{where}: unknown key {key!r}" + nearest(str(key), ROUTING_KEYS))
    document = {**document, "coordinators": _without_names(document.get("coordinators"), where)}
    coordinators = document["coordinators"]
    for name, entry in coordinators.items() if isinstance(coordinators, dict) else ():
        try:
            msgspec.convert(entry, CoordinatorSpec)
        except msgspec.ValidationError as error:
            raise UserError(Reason.INVALID_ROUTING, f"{where}: coordinators.{name}: {error}") from None
    try:
        routing = msgspec.convert({key: value for key, value in document.items() if value is not None}, Routing)
    except msgspec.ValidationError as error:
        raise UserError(Reason.INVALID_ROUTING, f"{where}: {error}") from None
    for key in ("queue_to_coordinator", "dag_bundle_to_coordinator"):
        for entry, name in getattr(routing, key).items():
            if name not in routing.coordinators:
                raise UserError(
                    Reason.INVALID_ROUTING,
                    f"{where}: {key}.{entry} names coordinator {name!r}, which is not in coordinators"
                    + nearest(name, routing.coordinators),
                )
    _check_bundles(routing, where)
    if routing.default_coordinator is not None and routing.default_coordinator not in routing.coordinators:
        raise UserError(
            Reason.INVALID_ROUTING,
            f"{where}: default_coordinator {routing.default_coordinator!r} is not in coordinators"
            + nearest(routing.default_coordinator, routing.coordinators),
        )
    return routing


def _without_names(coordinators: Any, where: str) -> Any:
    """Return the entries without `name`, which older examples of Airflow's have; Airflow ignores it, too."""
    if not isinstance(coordinators, dict):
        return coordinators
    kept = {}
    for key, entry in coordinators.items():
        if isinstance(entry, dict) and "name" in entry:
            import logging

            message = "%s: coordinators.%s.name is ignored: the key %r is the coordinator's name"
            logging.getLogger("polypod.routing").warning(message, where, key, key)
            entry = {field: value for field, value in entry.items() if field != "name"}
        kept[key] = entry
    return kept


def _check_bundles(routing: Routing, where: str) -> None:
    """Check that each Dag bundle that is named is known, and that one thing alone says where artifacts are."""
    entries = [(f"coordinators.{name}", spec.kwargs, spec.artifacts) for name, spec in routing.coordinators.items()]
    entries += [(f"queue_overrides.{queue}", item.kwargs, item.artifacts) for queue, item in
                routing.queue_overrides.items()]  # fmt: skip
    for place, kwargs, artifacts in entries:
        name = kwargs.get("task_handler_bundle_name")
        if name is None:
            continue
        key = f"{where}: {place}.kwargs.task_handler_bundle_name"
        bundle = routing.dag_bundles.get(name) if isinstance(name, str) else None
        if bundle is None:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{key} names Dag bundle {name!r}, which is not in dag_bundles{nearest(str(name), routing.dag_bundles)}"
                f"; add dag_bundles.{name} with the path, image or persistent_volume_claim of its artifacts",
            )
        roots = [keyword for keyword in kwargs if keyword.endswith("_root")]
        if roots:
            raise UserError(Reason.INVALID_ROUTING, f"{key} and {roots[0]} are both set; keep one of them")
        if artifacts is not None:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{key} is set, and {place}.artifacts as well; say in dag_bundles.{name} where they come from",
            )


def _config_map(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a ConfigMap's data with their texts parsed."""
    data = document.get("data")
    if not isinstance(data, dict):
        raise UserError(Reason.INVALID_ROUTING, f"{where}: the ConfigMap has no data")
    return {
        key: load_yaml(value, f"{where}: data.{key}")
        if isinstance(value, str) and key != "default_coordinator"
        else value
        for key, value in data.items()
    }


def load_yaml(text: str | bytes, where: str) -> Any:
    """Parse one YAML (or JSON) document, as kubectl would.

    Raises:
        UserError: it is neither; the message has the line and column.
    """
    from polypod_core.documents import load

    return load(text, where)


def read_routing(path: str) -> Routing:
    """Read a routing file; its roots, and commands that are paths, become absolute, relative to its own folder.

    Raises:
        UserError: it cannot be read or is not valid.
    """
    import os

    from polypod_core.files import read_file

    routing = parse_routing(load_yaml(read_file(path, Reason.INVALID_ROUTING), path), path)
    base = os.path.dirname(os.path.realpath(path))
    resolved = {
        name: msgspec.structs.replace(spec, kwargs=_absolute_roots(spec.kwargs, base))
        for name, spec in routing.coordinators.items()
    }
    bundles = {
        name: msgspec.structs.replace(bundle, path=_absolute(bundle.path, base)) if bundle.is_folder else bundle
        for name, bundle in routing.dag_bundles.items()
    }
    overrides = {
        queue: msgspec.structs.replace(override, kwargs=_absolute_roots(override.kwargs, base))
        for queue, override in routing.queue_overrides.items()
    }
    return msgspec.structs.replace(routing, coordinators=resolved, dag_bundles=bundles, queue_overrides=overrides)


def _absolute(path: str, base: str) -> str:
    import os

    return os.path.join(base, os.path.expanduser(path))


def _absolute_roots(kwargs: dict[str, Any], base: str) -> dict[str, Any]:
    """Return a coordinator's kwargs with its roots, and commands that are paths, relative to the folder `base`."""
    import os

    def absolute(path: Any) -> Any:
        return os.path.join(base, os.path.expanduser(path)) if isinstance(path, str) else path

    resolved = dict(kwargs)
    for key, value in kwargs.items():
        if key.endswith("_root"):
            resolved[key] = [absolute(item) for item in value] if isinstance(value, list) else absolute(value)
        elif key.endswith("_executable") and isinstance(value, str) and "/" in value:
            resolved[key] = absolute(value)
    return resolved
