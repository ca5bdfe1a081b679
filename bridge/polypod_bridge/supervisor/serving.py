"""A runtime's request, and the frame that answers it. No I/O."""

from __future__ import annotations

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import frames, requests
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import msgpack_problem
from polypod_bridge.comm.requests import ApiReply, Row
from polypod_bridge.supervisor.actions import Action, Log, Mask, MaskConnection, Send

REFUSED = "GENERIC_ERROR"
"""The type of the error for a request that cannot be understood, or not be answered exactly."""


def failure(kind: str, message: str) -> a.ErrorResponse:
    """Return an error as runtimes get it."""
    return a.ErrorResponse(error=kind, detail={"message": message})


def answer(frame_id: int, body: a.Answer | None, error: a.ErrorResponse | None = None) -> Send:
    """Return the frame that answers a request; an error if the answer does not fit into one."""
    try:
        return Send(frames.encode(frame_id, body, error))
    except frames.FrameError as problem:
        return Send(frames.encode(frame_id, None, failure(REFUSED, str(problem))))


def decoded(frame: frames.Frame) -> m.Message | str:
    """Return a request, or why it cannot be understood."""
    try:
        return m.decode_request(frame.body)
    except m.MessageError as error:
        return str(error)


def interpreted(
    row: Row, message: m.Message, reply: ApiReply | None, problem: str
) -> tuple[a.Answer | None, a.ErrorResponse | None]:
    """Return the answer that a reply of the Execution API becomes, or the error."""
    if reply is None:
        return None, requests.api_error(None, problem)
    return requests.interpret(row, message, reply)


def delivered(
    message: m.Message, body: a.Answer | None, error: a.ErrorResponse | None, frame_id: int | None, whole_bits: int
) -> list[Action]:
    """Return what hands an answer to the runtime: what is secret in it is masked first.

    Args:
        frame_id: the request's; None if it waits for no answer, or cannot hear it any more.
        whole_bits: the size of the whole numbers that the runtime can hold.
    """
    unsendable = msgpack_problem(body, whole_bits)
    if unsendable:
        body, error = None, failure(REFUSED, f"the answer cannot be sent exactly: {unsendable}")
    actions: list[Action] = []
    if error is not None:
        fields = {"request": type(message).__name__, **(error.detail or {})}
        actions.append(Log("error", "API server error", fields))
    if isinstance(body, a.ConnectionResult):
        actions.append(MaskConnection(body.password, body.extra))
    elif isinstance(body, a.VariableResult):
        actions.append(Mask(body.value, body.key))
    if frame_id is not None:
        actions.append(answer(frame_id, body, error))
    return actions
