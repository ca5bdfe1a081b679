"""The two loopback listeners that a runtime connects to. Bound first of all, before anything heavy is imported."""

from __future__ import annotations

import socket
from collections.abc import Iterable


class Listeners:
    """The comm and the logs listener, on free ports of 127.0.0.1."""

    def __init__(self) -> None:
        self.comm = _listen()
        self.logs = _listen()

    def arguments(self) -> list[str]:
        """Return the flags that tell a runtime where to connect."""
        return [f"--{name}=127.0.0.1:{listener.getsockname()[1]}" for name, listener in self.items()]

    def items(self) -> Iterable[tuple[str, socket.socket]]:
        return (("comm", self.comm), ("logs", self.logs))

    def close(self) -> None:
        for _, listener in self.items():
            listener.close()


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    listener.setblocking(False)
    return listener
