"""Events on TaskRuns and on the routing; one that cannot be posted stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.model import events

log = logging.getLogger("polypod.operator")


class Recorder:
    """Posts Events."""

    def __init__(self, api: KubernetesApi, clock: Callable[[], datetime]) -> None:
        self._api, self._clock = api, clock

    async def record(self, about: dict[str, str], warning: bool, reason: str, message: str) -> None:
        """Post an Event.

        Args:
            about: the reference to an object, as `model.events` makes it.
        """
        try:
            await self._api.post_event(events.event(about, warning, reason, message, self._clock()))
        except ApiError as error:
            log.warning("an Event could not be posted: %s", error)
