"""What a runtime can do wrong (see `rogue.py`), and the outcome: the same as a child, with a launcher, and in a pod."""

from __future__ import annotations

import signal

MISBEHAVIOURS: list[tuple[str, dict[str, str], str, str, str]] = [
    ("never_connects", {}, "failed", "StartupTimeout", "comm and logs"),
    ("connects_once", {}, "failed", "StartupTimeout", "did not connect to comm within"),
    ("connects_thrice", {}, "success", "TaskSucceeded", ""),
    ("exits_before_connecting", {}, "failed", "StartupFailed", "exited with code 9 before it connected"),
    ("connects_and_exits", {}, "failed", "RuntimeExited", "exited with code 1"),
    ("damaged_end", {}, "up_for_retry", "RetryRequested", "cannot parse row"),
    ("unreadable_end", {}, "failed", "ProtocolError", "cannot be understood"),
    ("closes_comm_early", {}, "failed", "NoTerminalState", "without a terminal message"),
    ("closes_comm_early", {"ROGUE_EXIT": "3"}, "failed", "RuntimeExited", "code 3"),
    ("closes_logs_early", {}, "success", "TaskSucceeded", ""),
    ("not_an_array", {}, "failed", "ProtocolError", "not [id, body] in msgpack"),
    ("announces_too_much", {}, "failed", "ProtocolError", "announced a frame of 4294967295 bytes"),
    ("undecodable_body", {}, "success", "TaskSucceeded", ""),
    ("skipped_then_crash", {}, "failed", "RuntimeExited", "code 7 after reporting skipped"),
    ("removed", {}, "removed", "TaskRemoved", ""),
    ("two_terminal_messages", {}, "success", "TaskSucceeded", ""),
    ("malformed_logs", {}, "success", "TaskSucceeded", ""),
    ("many_in_flight", {}, "success", "TaskSucceeded", ""),
    ("kills_itself", {"ROGUE_SIGNAL": str(int(signal.SIGSEGV))}, "failed", "RuntimeKilledBySignal", "SIGSEGV"),
    ("kills_itself", {"ROGUE_SIGNAL": str(int(signal.SIGKILL))}, "failed", "LikelyOutOfMemory", "memory"),
]
"""Behaviour, its environment, and then the state, the reason and a part of the message."""
