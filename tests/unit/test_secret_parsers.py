"""What reads something secret besides connections: its errors quote nothing of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_bridge.api.client import ExecutionApiClient
from polypod_bridge.comm.requests import ApiCall
from polypod_bridge.config import ExecutionApiConfig, NotAWorkload, parse_workload
from polypod_cli import from_airflow
from polypod_core.documents import load_all
from polypod_core.errors import UserError
from polypod_core.pod_tokens import ClusterKeys
from polypod_core.pod_tokens import InvalidToken as InvalidPodToken
from polypod_execution_api.database import DatabaseUrlError, connect
from polypod_execution_api.tokens import InvalidToken, TokenSigner

SECRET = "s3cr3tpw9Z7"
DIGITS = "739739739739739739739739"

KUBECONFIG = """
current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
clusters: [{{name: k, cluster: {{server: http://127.0.0.1}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
"""
SECRET_YAML = "apiVersion: v1\nkind: {kind}\nmetadata: {{name: s}}\nstringData:\n  AIRFLOW_VAR_V: {value}\n"
SECRET_JSON = '{{"kind": "Secret", "stringData": {{"AIRFLOW_VAR_V": {value}}}}}'

DATABASES = [
    f"postgresql://user:{SECRET}/db",
    f"postgresql://user:{SECRET[:3]}@{SECRET}@host/db",
    f"postgresql:///user:{SECRET}@host/db",
    f"mysql+{SECRET}://host/db",
    f"{SECRET}://host/db",
    f"postgresql:{SECRET}@host/db",
]
KEY = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
TOKENS = [
    SECRET,
    f"{SECRET}.{SECRET}.{SECRET}",
    f"{SECRET}\n{SECRET}",
    f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.x",
    f"é{SECRET}",
]
MANIFESTS = [
    f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  {SECRET}: a\n  {SECRET}: b\n",
    f'{{"kind": "Secret", "stringData": {{"{SECRET}": "a", "{SECRET}": "b"}}}}',
    *(SECRET_YAML.format(kind=kind, value=value) for kind in ("Secret", "Sercet0") for value in (
        f"!{SECRET}", f"!!int {SECRET}", f"*{SECRET}", f"%{SECRET}", f"@{SECRET}", f"{{{SECRET}", f"'{SECRET}",
        f'"\\q{SECRET}"', f"&{SECRET} &{SECRET} x", f"{{? [{SECRET}] : x}}", f"a: {SECRET}: b", f"!<{SECRET}> x",
        DIGITS, f"{DIGITS}.{DIGITS}", f"{{1.{DIGITS}: x}}", f"1e{DIGITS}")),
    *(SECRET_JSON.format(value=value) for value in (SECRET, DIGITS, f"{DIGITS}.5", f'"\\q{SECRET}"', f'"{SECRET}',
                                                   f'"\\ud800{SECRET}"', f"1e{DIGITS}")),
]  # fmt: skip


def told(error: BaseException) -> str:
    """Return an error as a traceback and by itself; what `from None` suppresses is in neither."""
    return "".join(traceback.format_exception(error)) + str(error)


def is_told(part: str, text: str) -> bool:
    return any(part[at : at + 6] in text for at in range(len(part) - 5))


@pytest.mark.parametrize("url", DATABASES)
def test_a_database_url(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        connect(url)
    assert "postgresql://USER:PASSWORD@HOST:PORT/NAME" in str(caught.value)
    assert caught.value.__context__ is None
    assert not is_told(SECRET, str(caught.value))


@pytest.mark.parametrize("begin", ["/", "?", "#", "12/", "12?", "12#", "a://"])
def test_a_database_urls_password_is_read_whole(begin: str) -> None:
    url = connect(f"postgresql://user:{begin}{SECRET}@host/db").url
    assert (url.password, url.host, url.database) == (begin + SECRET, "host", "db")


def test_a_database_never_quotes_what_tasks_have_stored(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/db")
    with engine.connect() as opened, pytest.raises(Exception, match="no such table") as caught:
        opened.exec_driver_sql("INSERT INTO variables VALUES (?)", (SECRET,))
    assert not is_told(SECRET, str(caught.value))
    engine.dispose()


@pytest.mark.parametrize("token", TOKENS)
def test_a_token(token: str) -> None:
    issued = jwt.encode({"sub": SECRET, "iat": 1, "exp": 1 << 40, "aud": "polypod-execution-api"}, b"0" * 32)
    for shown in (token, issued):
        with pytest.raises(InvalidToken) as caught:
            TokenSigner(b"0" * 32).check(shown)
        assert not is_told(SECRET, told(caught.value))
        with pytest.raises(InvalidPodToken) as of_pod:
            ClusterKeys({"issuer": "x"}, {"keys": [KEY]}).check(shown)
        assert not is_told(SECRET, told(of_pod.value))


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_that_no_header_can_hold_is_not_sent(token: str) -> None:
    client = ExecutionApiClient(ExecutionApiConfig(url="http://127.0.0.1:1/", retries=1, timeout=1.0), token)
    with pytest.raises(Exception, match="refused") as caught:
        client.call(ApiCall("GET", "x"))
    assert not is_told(SECRET, told(caught.value))


@pytest.mark.parametrize("form", ["!{}", "*{}", "{{{}", "'{}", "'{} {0}'", "[{}]", "%{}"])
def test_a_kubeconfig(tmp_path: Path, form: str) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.format(token=form.replace("{}", "{0}").format(SECRET)))
    with pytest.raises(ConnectionProblem, match="kubeconfig") as caught:
        connection(str(file))
    assert not is_told(SECRET, told(caught.value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it is not a mapping"),
        ("{}", "it has no current-context"),
        ("current-context: c", "it has no context named 'c'"),
        ("current-context: c\ncontexts: [{name: c, context: {}}]", "its context has no cluster"),
        ("a: [", "line 1: not valid YAML"),
    ],
)
def test_a_kubeconfig_that_is_not_complete_says_what_is_missing(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(ConnectionProblem) as caught:
        connection(str(file))
    assert words in str(caught.value)


@pytest.mark.parametrize("text", MANIFESTS)
def test_a_manifest_with_a_secret(text: str) -> None:
    errors = []
    try:
        load_all(text.encode(), "file")
    except UserError as error:
        errors.append(told(error))
    assert not any(is_told(SECRET, found) or is_told(DIGITS, found) for found in errors)


@pytest.mark.parametrize("text", ["{}\n[core]\n", "[core]\n{}\n", "\ufeff[core]\n{}\n"])
def test_an_airflow_cfg(tmp_path: Path, text: str) -> None:
    file = tmp_path / "airflow.cfg"
    file.write_text(text.format(SECRET))
    with pytest.raises(UserError, match=r"airflow\.cfg:[12]: not an airflow\.cfg") as caught:
        from_airflow.read(file, {})
    assert not is_told(SECRET, told(caught.value))
    file.write_text("\ufeff[core]\nx = 1\n")
    from_airflow.read(file, {})


def test_a_workload() -> None:
    made: list[Callable[[str], bytes]] = [
        lambda secret: f'{{"token": {secret}}}'.encode(),
        lambda secret: f'{{"token": ["{secret}"]}}'.encode(),
        lambda secret: f'{{"token": "{secret}'.encode() + b'\xff"}',
        lambda secret: b'{"token": ' + b"[" * 5000,
        lambda secret: f'"{secret}"'.encode(),
    ]
    for broken in made:
        with pytest.raises(NotAWorkload) as caught:
            parse_workload(broken(SECRET))
        assert caught.value.__context__ is None
        assert not is_told(SECRET, str(caught.value))
