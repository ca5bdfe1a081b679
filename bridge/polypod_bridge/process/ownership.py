"""Whose connection is this? /proc knows: the peer's socket must be open in a process of the runtime's tree."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from polypod_bridge.process.base import Address


def canonical(host: str) -> str:
    """Return an address in plain IPv4 form: a dual-stack JVM shows `::ffff:127.0.0.1`, the same peer."""
    for prefix in ("::ffff:", "::"):
        rest = host[len(prefix) :]
        if host.startswith(prefix) and rest.count(".") == 3:
            return rest
    return host


def socket_inode(peer: Address, local: Address, pid: int | str = "self") -> str | None:
    """Return the inode of the socket whose own address is `peer` and whose remote one is `local`."""
    own, remote = _hex(peer), _hex(local)
    wanted = {(own, remote), (_MAPPED + own, _MAPPED + remote)}
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if (fields[1], fields[2]) in wanted:
                        return fields[9]
        except OSError:
            continue
    return None


_MAPPED = "0000000000000000FFFF0000"


def _hex(address: Address) -> str:
    packed = socket.inet_aton(canonical(address[0]))
    return f"{packed[::-1].hex().upper()}:{address[1]:04X}"


def holds_socket(pid: int, inode: str) -> bool:
    """Tell whether the process has the socket open."""
    wanted = f"socket:[{inode}]"
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(entry.path) == wanted:
                    return True
            except OSError:
                continue
    except OSError:
        return False
    return False


def tree(root: int) -> Iterator[int]:
    """Yield `root`, then every other living process that descends from it or is in its session."""
    yield root
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # the command's name is in parentheses and may hold anything, ')' included
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)], sessions[int(name)] = int(fields[1]), int(fields[3])
    for pid in parents:
        ancestor, steps = pid, 0
        while ancestor in parents and ancestor != root and steps < 4096:
            ancestor, steps = parents[ancestor], steps + 1
        if pid != root and (ancestor == root or sessions[pid] == root):
            yield pid


def owned_by_tree(peer: Address, local: Address, root: int) -> bool:
    """Tell whether the connection from `peer` to our `local` belongs to the tree of `root`."""
    inode = socket_inode(peer, local)
    return inode is not None and any(holds_socket(pid, inode) for pid in tree(root))
