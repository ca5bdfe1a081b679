"""JSON as it is kept: exactly what the task sent, or a refusal. Python's own json takes NaN, which is no JSON."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from polypod_execution_api.access import fail


class _ExactRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_exact"):
            try:
                self._exact = json.loads(await self.body(), parse_constant=_refuse)
            except RecursionError:
                fail(422, "invalid_request", "the body is nested too deeply")
            except _NoJson as error:
                fail(422, "invalid_request", str(error))
        return self._exact


class _NoJson(Exception):
    pass


def _refuse(word: str) -> NoReturn:
    raise _NoJson(f"{word} is not a number that JSON can represent")


class ExactRoute(APIRoute):
    """A route whose body must be JSON, word by word."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def exact(request: Request) -> Any:
            scope: Scope = request.scope
            receive: Receive = request.receive
            return await handler(_ExactRequest(scope, receive))

        return exact


def dumps(value: Any) -> str:
    """Return the JSON text of a value that came as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
