"""Which pod a projected service account token is bound to: checked against the cluster's own keys, without a call.

The token has the audience `polypod` and is mounted into the bridge alone. The Execution API and the operator take it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

AUDIENCE = "polypod"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
"""Where an API server publishes its issuer and its keys."""
ALGORITHMS = ("RS256", "ES256", "EdDSA")


class InvalidToken(Exception):
    """The message says why, and quotes nothing of the token."""


class UnknownKey(InvalidToken):
    """The token's key is none of those that we know; it may be a new one."""


_PROBLEMS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token has another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks a required claim"),
    (jwt.InvalidAlgorithmError, "the token is signed with an algorithm that is not accepted"),
    (jwt.InvalidSignatureError, "the token's signature is not valid"),
)


def problem_of(error: Exception) -> str:
    """Return what is wrong with a token, from the kind of the error: its text may quote the token.

    >>> problem_of(jwt.InvalidAudienceError("s3cr3t"))
    'the token is for another audience'
    """
    return next((text for kind, text in _PROBLEMS if isinstance(error, kind)), "it is not a valid JSON Web Token")


@dataclass(frozen=True, slots=True)
class PodClaims:
    """Which pod a token is bound to, and the service account that the pod runs as."""

    namespace: str
    name: str
    uid: str
    service_account: str = ""


class ClusterKeys:
    """The keys that a cluster signs service account tokens with."""

    def __init__(self, discovery: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
        """Take over the two documents that the API server publishes."""
        self._issuer = discovery["issuer"]
        self._keys = {str(key.key_id): key for key in jwt.PyJWKSet.from_dict(dict(keys)).keys}

    def check(self, token: str) -> PodClaims:
        """Return the pod that a token is bound to.

        Raises:
            UnknownKey: read the keys again, then ask again.
            InvalidToken: not a token of this cluster, not for us, over, or not bound to a pod.
        """
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise UnknownKey("its key is not one of this cluster")
            claims = jwt.decode(
                token, key, algorithms=list(ALGORITHMS), audience=AUDIENCE, issuer=self._issuer,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )  # fmt: skip
            bound = claims["kubernetes.io"]
            account = bound.get("serviceaccount", {}).get("name", "")
            return PodClaims(bound["namespace"], bound["pod"]["name"], bound["pod"]["uid"], account)
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidToken(problem_of(error)) from None
        except (KeyError, TypeError):
            raise InvalidToken("it is not bound to a pod") from None


_RENEWAL, _PAUSE = 300.0, 5.0
"""Seconds after which known keys are read again, and between two reads for the sake of an unknown one."""


class KeyCache:
    """The cluster's keys as they were read last, and when to read them again. Reads nothing itself.

    Ask `claims`; on None, read both documents, `put` them, and ask again.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin without keys."""
        self._monotonic = monotonic
        self._keys: ClusterKeys | None = None
        self._read = self._renewing = 0.0

    def renew(self) -> bool:
        """Tell whether to read the keys again; if that fails, those that are known still count.

        True for one caller every 5 s at most: while the API server does not answer, the others need not wait for it.
        """
        now = self._monotonic()
        if self._keys is None or now - self._read <= _RENEWAL or now - self._renewing < _PAUSE:
            return False
        self._renewing = now
        return True

    def put(self, discovery: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
        """Take over what the API server publishes at DISCOVERY and KEYS."""
        self._keys = ClusterKeys(discovery, keys)
        self._read = self._monotonic()

    def claims(self, token: str) -> PodClaims | None:
        """Return the pod that a token is bound to; None if the keys have to be read first.

        Raises:
            InvalidToken: also for an unknown key that was looked for a moment ago, so that nobody makes us read
                the keys all the time.
        """
        if self._keys is None:
            return None
        try:
            return self._keys.check(token)
        except UnknownKey:
            if self._monotonic() - self._read < _PAUSE:
                raise
            return None
