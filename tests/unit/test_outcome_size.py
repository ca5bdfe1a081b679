"""outcome.py: an outcome fits into a termination message."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from polypod_core.outcome import MAX_SIZE, Outcome, decode, encode


@given(st.text(max_size=20_000))
def test_a_termination_message_fits_and_is_whole(message: str) -> None:
    message = message.encode("utf-8", "replace").decode()
    outcome = Outcome(state="failed", reason="TaskFailed", message=message, exit_code=1, reported=True)
    raw = encode(outcome)
    assert len(raw) <= MAX_SIZE
    back = decode(raw)
    assert (back.state, back.reason, back.exit_code, back.reported) == ("failed", "TaskFailed", 1, True)
    assert back.message == message or message.startswith(back.message.removesuffix("…"))


def test_a_message_that_fits_is_not_cut() -> None:
    outcome = Outcome(state="success", reason="r", message="m" * 3000)
    assert decode(encode(outcome)) == outcome
    assert msgspec.json.decode(encode(outcome))["message"] == "m" * 3000
