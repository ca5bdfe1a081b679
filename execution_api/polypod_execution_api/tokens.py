"""Tokens: each is for one task instance, signed, and ends. The claims are those of Airflow's own."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass

import jwt
from polypod_core.pod_tokens import problem_of

AUDIENCE = "polypod-execution-api"
ALGORITHM = "HS256"
MIN_SECRET = 32
"""Bytes that a signing secret needs at the least (RFC 7518, §3.2)."""


class InvalidToken(Exception):
    """The token is not one of ours, or has ended."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Whom a token is for, and until when (seconds since the epoch)."""

    ti_id: uuid.UUID
    issued_at: float
    expires_at: float

    def is_old(self, now: float) -> bool:
        """Tell whether less than a fifth of its time is left."""
        return self.expires_at - now < 0.2 * (self.expires_at - self.issued_at)


class TokenSigner:
    """Issues and checks tokens with one secret."""

    def __init__(self, secret: bytes, valid_for: float = 3600.0) -> None:
        """Keep the secret.

        Args:
            valid_for: seconds that a token is good for; it is renewed while its task runs.

        Raises:
            ValueError: the secret is too short.
        """
        if len(secret) < MIN_SECRET:
            raise ValueError(f"the signing secret has {len(secret)} bytes; it needs {MIN_SECRET}")
        self._secret = secret
        self._valid_for = valid_for

    def issue(self, ti_id: uuid.UUID) -> str:
        """Return a token for one task instance."""
        # whole seconds: that is how they are checked
        now = int(time.time())
        claims = {
            "sub": str(ti_id),
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + math.ceil(self._valid_for),
            "scope": "execution",
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def check(self, token: str) -> Claims:
        """Return what a token says.

        Raises:
            InvalidToken: a wrong signature, audience or form, or it has ended.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["sub", "exp", "iat"], "verify_iat": False},
            )
            return Claims(uuid.UUID(claims["sub"]), float(claims["iat"]), float(claims["exp"]))
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # by its kind only: its text may quote the token
            raise InvalidToken(problem_of(error)) from None


def is_own(token: str) -> bool:
    """Tell whether a token claims to be of our own making; whether it is, `TokenSigner.check` tells."""
    try:
        return bool(jwt.get_unverified_header(token).get("alg") == ALGORITHM)
    except jwt.PyJWTError:
        return True
