"""A port of 127.0.0.1 that leads into a network namespace: the only door between a test cluster and its machine."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys

_CLONE_NEWNET = 0x40000000


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(accepted, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Serve: arguments are the listener's descriptor, the namespace's path, and the address in there."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    host, _, port = sys.argv[3].partition(":")
    # a socket stays in the namespace that it was made in: only connections to come are made in the other one
    namespace = os.open(sys.argv[2], os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {sys.argv[2]}")
    asyncio.run(_serve(listener, host, int(port)))


if __name__ == "__main__":
    main()
