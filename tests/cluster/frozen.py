"""A link to a server that can be cut silently, as a firewall does that has forgotten a connection."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class Link:
    """Passes bytes on between clients and a server. Connections that are frozen stay open and pass nothing on."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._frozen: set[threading.Event] = set()
        self._open: list[socket.socket] = []
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> int:
        """Cut the connections that are open now; return how many there were. New ones work."""
        found = [event for event in self._frozen if not event.is_set()]
        for event in found:
            event.set()
        return len(found)

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            frozen = threading.Event()
            self._frozen.add(frozen)
            threading.Thread(target=self._pass, args=(client, frozen), daemon=True).start()

    def _pass(self, client: socket.socket, frozen: threading.Event) -> None:
        server = socket.create_connection(self._target)
        self._open += [client, server]
        other = {client: server, server: client}
        while not self._closing.is_set():
            ready, _, _ = select.select([] if frozen.is_set() else list(other), [], [], 0.05)
            for source in ready:
                data = b""
                with contextlib.suppress(OSError):
                    data = source.recv(1 << 16)
                if frozen.is_set():
                    break
                if not data:
                    client.close()
                    server.close()
                    self._frozen.discard(frozen)
                    return
                other[source].sendall(data)
