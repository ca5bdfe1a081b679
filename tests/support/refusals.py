"""What a Kubernetes API server says when it does not make a pod, as it says it."""

from __future__ import annotations

import json

from polypod_operator.kube.api import ApiError, _error


def status(code: int, message: str, reason: str = "", causes: list[dict[str, str]] | None = None) -> ApiError:
    """Return the error of a Status object, as the API server sends it."""
    raw = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": {"causes": causes or []}}
    return _error(code, json.dumps(raw).encode(), {})


FIELD = [{"reason": "FieldValueInvalid", "message": "Invalid value", "field": "spec.containers[1].image"}]
ADMISSION = [
    status(422, "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "Invalid",
           [{"message": "no"}]),
    status(413, "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
    status(401, "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
    status(403, "pods \"x\" is forbidden: exceeded quota: q"),
    status(403, "pods is forbidden: User \"x\" cannot create resource \"pods\""),
    status(403, "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\""),
    status(400, "admission webhook \"w\" denied the request: no"),
    status(422, "admission webhook \"w\" denied the request: no", "Invalid", FIELD),
    status(400, "admission webhook \"w\" does not support dry run", "BadRequest"),
    status(500, "Internal error occurred: failed calling webhook \"w\": timeout"),
    status(404, "namespaces \"n\" not found"),
]  # fmt: skip
NOBODY = [status(503, "not now"), ApiError(0, "Unreachable", "no answer")]
FAULTS = [
    status(422, 'Pod "x" is invalid: spec.containers[1].image: Invalid value', "Invalid", FIELD),
    status(400, 'strict decoding error: unknown field "spec.nonsense"', "BadRequest"),
    status(400, 'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal', "BadRequest"),
    status(413, "Request entity too large: limit is 3145728", "RequestEntityTooLarge"),
]
