"""What the Execution API remembers of tasks whose TaskRun was deleted: a task that waits for them may then start."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec

_TIMEOUT = aiohttp.ClientTimeout(total=3)
_AT_ONCE = 8
"""Questions at once: each holds one of the operator's workers, and most of them must be free for other tenants."""


class HistoryUnavailable(Exception):
    """The Execution API cannot be asked; the message says why."""


class _Answer(msgspec.Struct):
    states: dict[str, str]


class History(Protocol):
    """Knows how tasks have ended, TaskRun or not."""

    async def ended(
        self, namespace: str, dag_id: str, run_id: str, task_ids: tuple[str, ...], authority: str
    ) -> dict[str, str]:
        """Return task → the state that it has ended in; tasks that are not known, or have not ended, are left out.

        Args:
            authority: the certificates to trust, PEM; empty for plain HTTP, or public authorities.

        Raises:
            HistoryUnavailable: ask again later.
        """


class NoHistory:
    """Without an Execution API of ours nothing is remembered."""

    async def ended(
        self, namespace: str, dag_id: str, run_id: str, task_ids: tuple[str, ...], authority: str
    ) -> dict[str, str]:
        """Return nothing."""
        return {}


class ExecutionApiHistory:
    """Asks Polypod's own Execution API, at `POST operator/ended-tasks`."""

    def __init__(self, url: str, token_file: Path) -> None:
        """Prepare.

        Args:
            url: the base URL of the Execution API.
            token_file: our service account token for the audience `polypod`; the kubelet renews it.
        """
        self._url = f"{url.rstrip('/')}/operator/ended-tasks"
        self._token_file = token_file
        self._asking = 0

    async def ended(
        self, namespace: str, dag_id: str, run_id: str, task_ids: tuple[str, ...], authority: str
    ) -> dict[str, str]:
        """Ask; see History."""
        if self._asking >= _AT_ONCE:
            raise HistoryUnavailable("too many lookups at once")
        self._asking += 1
        try:
            return await self._ask(namespace, dag_id, run_id, task_ids, authority)
        finally:
            self._asking -= 1

    async def _ask(
        self, namespace: str, dag_id: str, run_id: str, task_ids: tuple[str, ...], authority: str
    ) -> dict[str, str]:
        context = ssl.create_default_context(cadata=authority) if authority else True
        body = {"namespace": namespace, "dag_id": dag_id, "run_id": run_id, "task_ids": task_ids}
        try:
            token = self._token_file.read_text("ascii").strip()
            # questions are rare; a connection that is kept open would have to follow renewed certificates
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(self._url, json=body, headers={"Authorization": f"Bearer {token}"}, ssl=context) as answer,
            ):
                raw = await answer.read()
                if answer.status != 200:
                    raise HistoryUnavailable(f"it answers {answer.status}: {raw[:200].decode('utf-8', 'replace')}")
                return msgspec.json.decode(raw, type=_Answer).states
        except (OSError, TimeoutError, aiohttp.ClientError, msgspec.MsgspecError) as error:
            raise HistoryUnavailable(f"{type(error).__name__}: {error}") from None
