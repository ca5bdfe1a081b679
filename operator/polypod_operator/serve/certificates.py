"""The certificates of Polypod's own services: an authority, and what it has signed. Pure: PEM and a clock reading in.

An authority is good for five years. A year before its end the next one is made and trusted beside it; half a year later
the next one signs. The older one stays trusted to its end: so neither order of renewal nor a long task matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=5 * 365)
NEXT_BEFORE = timedelta(days=365)
"""How long before an authority's end the next one is made and trusted."""
SWITCH_BEFORE = timedelta(days=182)
"""How long before an authority's end the next one signs."""
SERVER_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
_SKEW = timedelta(minutes=5)
_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n?", re.S)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is kept: the authorities, oldest first, and what the services show.

    Attributes:
        trusted: what callers are to trust, PEM: also an authority whose key is lost, while the server shows what it has
            signed.
    """

    authorities: tuple[Pair, ...] = ()
    server: Pair | None = None
    trusted: str = ""


def renewed(known: Certificates, names: Sequence[str], now: datetime) -> Certificates:
    """Return what is to be kept from now on: the same, if nothing is about to end.

    Args:
        names: the DNS names of the services.
    """
    authorities = tuple(pair for pair in known.authorities if now < _end(pair))
    if not authorities or now >= _end(authorities[-1]) - NEXT_BEFORE:
        authorities = (*authorities, make_authority(now))
    signer = next((pair for pair in authorities if now < _end(pair) - SWITCH_BEFORE), authorities[-1])
    certificates = [pair.certificate for pair in authorities]
    server = known.server
    if server is not None and _is_good(server, names, now):
        if _is_signed(server, signer.certificate):
            return Certificates(authorities, server, "".join(certificates))
        # pods that run may trust none but this one; who else signs is trusted by the time that it is renewed
        lost = [text for text in _BLOCK.findall(known.trusted) if text not in certificates]
        signed = [text for text in lost if _is_signed(server, text) and now < _end_of(text)]
        if signed:
            return Certificates(authorities, server, "".join([*signed, *certificates]))
    return Certificates(authorities, _sign(signer, names, now), "".join(certificates))


def joined(before: tuple[Pair, ...], found: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Return the authorities that were known and those that are found now: what pods trust stays before what is new."""
    return (*before, *(pair for pair in found if pair not in before))


def split(certificates: str, keys: str) -> tuple[Pair, ...]:
    """Return the pairs of two texts with as many PEM blocks each, in the same order, without those that are none."""
    pairs = (Pair(*pair) for pair in zip(_BLOCK.findall(certificates), _BLOCK.findall(keys), strict=False))
    return tuple(pair for pair in pairs if _belong(pair))


def _belong(pair: Pair) -> bool:
    try:
        key = serialization.load_pem_private_key(pair.key.encode(), None)
        return isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == _read(pair).public_key()
    except ValueError:
        return False


def make_authority(now: datetime) -> Pair:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Polypod {now:%Y-%m-%d}")])
    certificate = (
        _base(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _sign(authority: Pair, names: Sequence[str], now: datetime) -> Pair:
    issuer = _read(authority)
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "polypod")])
    certificate = (
        _base(name, issuer.subject, key, now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pair(certificate, key)


def _base(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def _read(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def _end(pair: Pair) -> datetime:
    return _end_of(pair.certificate)


def _end_of(certificate: str) -> datetime:
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def _is_good(server: Pair, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate = _read(server)
    except ValueError:
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName)) == set(names) and now < _end(server) - RENEW_BEFORE


def _is_signed(server: Pair, authority: str) -> bool:
    try:
        _read(server).verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    except Exception:
        return False
    return True
