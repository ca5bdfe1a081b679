"""JSON as it is kept: exactly what the task sent, or a refusal. Python's own json takes NaN, which is no JSON."""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from polypod_execution_api.access import fail


class _ExactRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_exact"):
            try:
                body = await self.body()
                # strictly: json.loads takes surrogates in bytes for text
                text = body.decode("utf-8-sig")
                self._exact = json.loads(text, parse_constant=_refuse, parse_float=_exact_float, parse_int=_integer)
                if b"\\u" in body:
                    _require_text(self._exact)
            except UnicodeDecodeError:
                fail(422, "invalid_request", "the body is not UTF-8")
            except RecursionError:
                fail(422, "invalid_request", "the body is nested too deeply")
            except _NoJson as error:
                fail(422, "invalid_request", str(error))
        return self._exact


class _NoJson(Exception):
    pass


def _refuse(word: str) -> NoReturn:
    raise _NoJson(f"{word} is not a number that JSON can represent")


def _exact_float(text: str) -> float:
    number = float(text)
    try:
        is_exact = math.isfinite(number) and Decimal(repr(number)) == Decimal(text)
    except InvalidOperation:
        # its exponent is beyond any that a Decimal has
        is_exact = False
    if not is_exact:
        raise _NoJson(f"the number {text[:80]} does not fit into 64 bits without being rounded; send it as text")
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _NoJson(f"a number of {len(text)} digits is too long; send it as text") from None


def _require_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _NoJson("an unpaired surrogate is not valid text") from None


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
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except TypeError:
        # FastAPI hands over the bytes of a body of another type
        fail(422, "invalid_request", "the body is not JSON; send it with Content-Type: application/json")
