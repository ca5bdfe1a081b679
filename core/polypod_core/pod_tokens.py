"""Which pod a projected service account token is bound to: checked against the cluster's own keys, without a call.

The token has the audience `polypod` and is mounted into the bridge alone. The Execution API and the operator take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

AUDIENCE = "polypod"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
"""Where an API server publishes its issuer and its keys."""
ALGORITHMS = ("RS256", "ES256", "EdDSA")


class InvalidToken(Exception):
    """The message says why."""


class UnknownKey(InvalidToken):
    """The token's key is none of those that we know; it may be a new one."""


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
            UnknownKey: read the keys anew and ask again.
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
            raise InvalidToken(str(error)) from None
        except (KeyError, TypeError):
            raise InvalidToken("it is not bound to a pod") from None
