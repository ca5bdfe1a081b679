"""A server's certificate is replaced while handshakes are under way: each sees a whole one."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from polypod_core.server_certificate import ServerCertificate
from polypod_operator.serve.certificates import Certificates, renewed


def write_pair(folder: Path, name: str) -> str:
    """Write NAME.crt and NAME.key; return the certificate."""
    pair = renewed(Certificates(), ["server.test"], datetime.now(UTC)).server
    assert pair is not None
    (folder / f"{name}.crt").write_text(pair.certificate)
    (folder / f"{name}.key").write_text(pair.key)
    return pair.certificate


@contextmanager
def serving(certificate: ServerCertificate) -> Iterator[tuple[str, int]]:
    loop = asyncio.new_event_loop()

    def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(closed, "127.0.0.1", 0, ssl=certificate.context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_each_handshake_sees_a_whole_certificate(tmp_path: Path) -> None:
    certificates = {write_pair(tmp_path, name).strip() for name in ("a", "b")}
    certificate = ServerCertificate()
    certificate.load(tmp_path / "a.crt", tmp_path / "a.key")
    stop = threading.Event()

    def alternate() -> None:
        while not stop.is_set():
            for name in ("b", "a"):
                certificate.load(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")

    with serving(certificate) as address:
        thread = threading.Thread(target=alternate)
        thread.start()
        try:
            seen = {ssl.get_server_certificate(address).strip() for _ in range(300)}
        finally:
            stop.set()
            thread.join()
    assert seen == certificates


@pytest.mark.parametrize("wrong", ["other.key", "absent.key", "a.crt"])
def test_the_last_certificate_stays_in_use(tmp_path: Path, wrong: str) -> None:
    shown = write_pair(tmp_path, "a")
    write_pair(tmp_path, "other")
    certificate = ServerCertificate()
    certificate.load(tmp_path / "a.crt", tmp_path / "a.key")
    with serving(certificate) as address:
        with pytest.raises((OSError, ssl.SSLError)):
            certificate.load(tmp_path / "other.crt" if wrong == "a.crt" else tmp_path / "a.crt", tmp_path / wrong)
        assert ssl.get_server_certificate(address).strip() == shown.strip()


def test_without_a_certificate_a_handshake_fails() -> None:
    with serving(ServerCertificate()) as address, pytest.raises(ssl.SSLError):
        ssl.get_server_certificate(address)
