"""certificates.py: over years, whoever trusts what was given to them half a year ago can still connect."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from polypod_operator.serve.certificates import Certificates, Pair, renewed, split

NAMES = ("polypod-api.ns.svc", "polypod-operator.ns.svc")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def accepts(trusted: str, server: Pair, now: datetime) -> bool:
    """Tell whether a client with this trust takes the server's certificate at that time."""
    certificate = x509.load_pem_x509_certificate(server.certificate.encode())
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return False
    for authority in x509.load_pem_x509_certificates(trusted.encode()):
        try:
            certificate.verify_directly_issued_by(authority)
        except Exception:
            continue
        if now < authority.not_valid_after_utc:
            return True
    return False


def test_for_twenty_years_neither_a_long_task_nor_a_late_server_is_refused() -> None:
    history: list[tuple[datetime, Certificates]] = []
    known = Certificates()
    made = 0
    for week in range(20 * 52):
        now = NOW + timedelta(weeks=week)
        after = renewed(known, NAMES, now)
        made += after.server != known.server
        known = after
        history.append((now, known))
        assert len(known.authorities) <= 2
        for back in (1, 4, 13, 26):
            if back <= week:
                earlier = history[week - back][1]
                # a task that started then, and the server's certificate of now
                assert known.server is not None
                assert accepts(earlier.trusted, known.server, now), (week, back)
        if week:
            # a server that has not taken the last renewal over, and a task that starts now
            server = history[week - 1][1].server
            assert server is not None
            assert accepts(known.trusted, server, now), week
    assert 20 * 52 / 9.5 < made < 20 * 52 / 7.5, "each is used for two of its three months"


def test_what_is_good_stays() -> None:
    first = renewed(Certificates(), NAMES, NOW)
    assert renewed(first, NAMES, NOW + timedelta(days=59)) == first
    assert renewed(first, [*NAMES][::-1], NOW) == first
    later = renewed(first, NAMES, NOW + timedelta(days=61))
    assert later.authorities == first.authorities
    assert later.server != first.server


def test_other_names_or_another_authority_make_a_new_certificate() -> None:
    first = renewed(Certificates(), NAMES, NOW)
    assert renewed(first, [*NAMES, "more"], NOW).server != first.server
    other = renewed(Certificates(), NAMES, NOW)
    mixed = renewed(replace(first, server=other.server), NAMES, NOW)
    assert mixed.server not in (first.server, other.server)
    assert mixed.authorities == first.authorities


def test_pairs_survive_being_written_down() -> None:
    pairs = (*renewed(Certificates(), NAMES, NOW).authorities, *renewed(Certificates(), NAMES, NOW).authorities)
    assert split("".join(p.certificate for p in pairs), "".join(p.key for p in pairs)) == pairs
    assert split("", "") == split("no PEM", "at all") == ()


@pytest.mark.parametrize(("name", "good"), [(NAMES[0], True), ("elsewhere.ns.svc", False)])
def test_a_real_handshake(tmp_path: Path, name: str, good: bool) -> None:
    known = renewed(Certificates(), NAMES, datetime.now(UTC))
    assert known.server is not None
    (tmp_path / "pair.pem").write_text(known.server.certificate + known.server.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True):
                    pass
            except (ssl.SSLError, OSError):
                pass

        thread = threading.Thread(target=answer)
        thread.start()
        # strict, as Python 3.13 is by default
        client = ssl.create_default_context(cadata=known.trusted)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        with socket.create_connection(listener.getsockname(), timeout=30) as raw:
            if good:
                client.wrap_socket(raw, server_hostname=name).close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    client.wrap_socket(raw, server_hostname=name)
        thread.join()


def test_a_lost_key_makes_a_new_authority_and_running_tasks_are_served_as_before() -> None:
    """They trust the old one alone, which cannot sign any more; its last certificate is good for two months at least."""
    first = renewed(Certificates(), NAMES, NOW)
    lost = renewed(replace(first, authorities=()), NAMES, NOW)
    assert lost.server == first.server
    assert lost.authorities not in ((), first.authorities)
    assert lost.trusted == first.trusted + lost.authorities[0].certificate
    assert renewed(lost, NAMES, NOW) == lost
    later = renewed(lost, NAMES, NOW + timedelta(days=61))
    assert later.server is not None
    assert later.trusted == lost.authorities[0].certificate
    assert accepts(lost.trusted, later.server, NOW + timedelta(days=61)), "who started meanwhile trusts both"


def test_what_is_no_pair_is_left_out() -> None:
    [one], [other] = (renewed(Certificates(), NAMES, NOW).authorities for _ in range(2))
    garbage = "-----BEGIN X-----\nzzz\n-----END X-----\n"
    assert split(garbage + other.certificate, garbage + other.key) == (other,)
    assert split(one.certificate + other.certificate, other.key + one.key) == ()
    assert split(one.certificate + other.certificate, other.key + other.key) == (other,)
    broken = Certificates((one,), Pair(garbage, garbage), garbage)
    assert renewed(broken, NAMES, NOW).trusted == one.certificate
