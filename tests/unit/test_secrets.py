"""secrets.py: connections and variables from the environment and from mounted folders."""

from __future__ import annotations

import json
import subprocess
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polypod_bridge.comm import messages as m
from polypod_bridge.secrets import ConnectionFormatError, SecretStore, parse_connection
from support.paths import AIRFLOWS, airflow_venv

CONNECTIONS = {
    "plain": "postgres://user:pass@host.example:5432/schema",
    "normalised": "postgresql://host",
    "quoted": "my-conn-type://us%40er:p%2Fa%3As@host/sch%20ema?a=1&b=x%20y",
    "extra": 'aws://?__extra__=%7B%22region%22%3A+%22eu%22%7D',
    "extra and more": "aws://?__extra__=%7B%22region%22%3A+%22eu%22%7D&other=1",
    "protocol": "http://https://host.example:8080/path",
    "only type": "http://",
    "json": json.dumps({"conn_type": "mysql", "host": "h", "login": "l", "password": "p", "port": 3306,
                        "schema": "s", "extra": {"a": {"b": 1}}}),
    "json, extra as text": json.dumps({"conn_type": "x", "extra": '{"a": 1}'}),
    "json, port as text": json.dumps({"conn_type": "x", "port": "12"}),
}  # fmt: skip


@pytest.mark.needs("airflow")
def test_connections_are_read_as_airflow_reads_them() -> None:
    script = (
        "import json, sys\nfrom airflow.sdk.definitions.connection import Connection\n"
        "for name, text in json.load(sys.stdin).items():\n"
        "    c = Connection.from_json(text, conn_id='c') if text.startswith('{') else Connection.from_uri(text, conn_id='c')\n"
        "    print('=' + json.dumps([name, c.conn_type, c.host, c.schema, c.login, c.password, c.port, c.extra]))\n"
    )
    done = subprocess.run(
        [str(airflow_venv(AIRFLOWS[-1]) / "bin/python"), "-c", script],
        input=json.dumps(CONNECTIONS),
        capture_output=True,
        text=True,
        check=False,
    )
    theirs = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("=")]
    assert len(theirs) == len(CONNECTIONS), done.stderr[-2000:]

    def loose(value: Any) -> Any:
        # an absent part is None here and may be "" there; an extra is compared as what it means
        if isinstance(value, str) and value.startswith("{"):
            return json.loads(value)
        return value or None

    for name, *fields in theirs:
        ours = parse_connection("c", CONNECTIONS[name], "KEY")
        seen = [ours.conn_type, ours.host, ours.schema, ours.login, ours.password, ours.port, ours.extra]
        assert [loose(value) for value in seen] == [loose(value) for value in fields], name


@pytest.mark.parametrize("text", ["", "no uri s3cret", "{broken s3cret", '{"port": "s3cret"}', "x://h:s3cret/"])
def test_what_cannot_be_read_is_explained_without_showing_it(text: str) -> None:
    with pytest.raises(ConnectionFormatError) as caught:
        parse_connection("c", text, "AIRFLOW_CONN_C")
    assert "AIRFLOW_CONN_C" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"conn_type": "x", "user": "me"}',
            "field `user` is unknown (did you mean `login`?); a connection has conn_type,",
        ),
        ('{"conn_type": "x", "s3cret": "me"}', "field 2 is unknown; a connection has conn_type, host, schema, login"),
        ('{"conn_type": "x", "port": "s3cret"}', "`port` is not a number"),
        ('{"conn_type": "x", "port": 123456789}', "`port` is not a number from 0 to 65535"),
        ('{"conn_type": "x", "password": 5}', "`password` is a number; it must be a string or null"),
        ('{"conn_type": "x" "password": "s3cret"}', "starts with '{' and is not a JSON object"),
        (
            '{"uri": "http://user:s3cret/x@host"}',
            "`uri`: not a connection URI (type://login:password@host:port/schema)",
        ),
        (
            "http://https://user:s3cretpw9/x@host",
            "its port is not a number from 0 to 65535; in a login or password, write",
        ),
        ("http://user:s3cret[pw9@host", "its host cannot be read; in a login or password, write `/`,"),
    ],
)
def test_a_mistake_names_the_field_and_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(ConnectionFormatError) as caught:
        parse_connection("c", text, "AIRFLOW_CONN_C")
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("form", ["{}", '{{"uri": "{}"}}'], ids=["uri", "json"])
@pytest.mark.parametrize("password", ["/s3cret", "?s3cret", "#s3cret", "12/s3cret", "12?s3cret", "12#s3cret", "pa://s3cret",
                                      "s3c\\tret", "s3cret\\nx://u:p", "p@s3cret/x", "p@?s3cret", "12?s3cret=", "p@?s3cret="])  # fmt: skip
def test_a_password_that_would_be_taken_for_something_else_is_refused(password: str, form: str) -> None:
    text = form.format(f"postgres://user:{password}@host:5432/db")
    with pytest.raises(ConnectionFormatError) as caught:
        parse_connection("c", text if form != "{}" else text.encode().decode("unicode_escape"), "AIRFLOW_CONN_C")
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/path?email=a%40b.example",
        "http://host/path@x?email=a@b.example",
        "http://https://host:1/",
        "a_b+c.d-e://u:p@host/db",
        "s3://k:v@/b%40c",
    ],
)
def test_what_airflow_reads_and_nobody_can_mistake_is_read(text: str) -> None:
    assert parse_connection("c", text, "AIRFLOW_CONN_C").conn_type


@pytest.mark.parametrize("port", ["5_432", "٣", "+5", " 5", "5.0", "-1"])
def test_a_port_is_written_in_digits(port: str) -> None:
    with pytest.raises(ConnectionFormatError, match="`port` is not a number"):
        parse_connection("c", json.dumps({"conn_type": "x", "port": port}), "AIRFLOW_CONN_C")


SIGNS = "QZX789ß"
"""Characters that no error has of its own; a part of a secret with one of them is recognised."""
SECRETS = st.text(SIGNS + "/:@#?[]%{}\"\\&=' \t\n\r\N{FULLWIDTH COLON}\N{ACCOUNT OF}", min_size=6, max_size=20)


@st.composite
def connections(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a secret, and a connection in one of its forms that holds it somewhere and is broken somehow."""
    secret = draw(SECRETS)
    pieces = st.sampled_from([secret, "user", "host", "5432", "https", ""])
    uri = draw(st.builds("{}://{}:{}@{}:{}/{}?{}={}".format, pieces, *[pieces] * 7))
    uri = draw(st.sampled_from([uri, f"http://{uri}", uri.replace("@", ""), uri.replace(":", ""), secret]))
    names = st.sampled_from(["conn_type", "host", "login", "password", "port", "schema", "extra", "user", secret])
    values = pieces | st.sampled_from([5, 1.5, True, None, [secret], {secret: secret}, int("789" * 8)])
    fields: dict[str, Any] = draw(st.dictionaries(names, values, max_size=4))
    text = draw(
        st.sampled_from([uri, json.dumps(fields), json.dumps({"uri": uri}), json.dumps({**fields, "uri": uri})])
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from(["", "[", "{", '"', "\\", "@", "://"]))
            + text[at + draw(st.integers(0, 2)) :]
        )
    raw = text.encode()
    at = draw(st.integers(0, len(raw)))
    return secret, draw(st.sampled_from([raw, raw, raw[:at] + b"\xff" + raw[at:]]))


def told(error: BaseException) -> str:
    """Return all that an error may tell: its traceback, and what is kept in it and in its causes and contexts."""
    texts = ["".join(traceback.format_exception(error))]
    ahead: list[BaseException | None] = [error]
    while ahead:
        found = ahead.pop()
        if found is not None:
            texts.append(f"{found} {found.args} {vars(found)}")
            ahead += [found.__cause__, found.__context__]
    return "\n".join(texts)


@pytest.mark.generated
@settings(max_examples=400, deadline=None)
@given(SECRETS)
def test_a_password_in_a_uri_is_exact_or_the_uri_is_refused(password: str) -> None:
    try:
        found = parse_connection("c", f"postgres://user:{password}@host:5432/db", "AIRFLOW_CONN_C")
    except ConnectionFormatError:
        return
    assert (found.login, found.password, found.host) == ("user", unquote(password), "host")
    assert (found.port, found.schema, found.extra) == (5432, "db", None)


@given(connections(), st.booleans())
def test_no_part_of_a_broken_connection_is_told(drawn: tuple[str, bytes], mounted: bool) -> None:
    secret, raw = drawn
    with tempfile.TemporaryDirectory() as folder:
        environ = {}
        if mounted:
            (Path(folder) / "AIRFLOW_CONN_C").write_bytes(raw)
        else:
            environ = {"AIRFLOW_CONN_C": raw.decode("utf-8", "surrogateescape")}
        try:
            SecretStore([folder], environ).answer(m.GetConnection(conn_id="c"))
        except ConnectionFormatError as error:
            everything = told(error)
        else:
            return
    for at in range(len(secret) - 5):
        part = secret[at : at + 6]
        if set(part) & set(SIGNS):
            assert part not in everything
            assert ascii(part)[1:-1] not in everything


@pytest.mark.parametrize("error", [ValueError("s3cr3t"), RecursionError("s3cr3t"), KeyError("s3cr3t")])
def test_no_error_that_nobody_has_thought_of_is_quoted(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> NoReturn:
        raise error

    monkeypatch.setattr("polypod_bridge.secrets._from_uri", fail)
    with pytest.raises(ConnectionFormatError, match="cannot be read") as caught:
        parse_connection("c", "http://h", "AIRFLOW_CONN_C")
    assert "s3cr3t" not in told(caught.value)


def test_binary_data_is_an_error_only_for_who_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "AIRFLOW_VAR_BINARY").write_bytes(b"\xff\xfe")
    (tmp_path / "AIRFLOW_VAR_TEXT").write_text("text")
    store = SecretStore([str(tmp_path)], {})
    for found in (store, SecretStore([], {"AIRFLOW_VAR_BINARY": "\udcff\udcfe"})):
        with pytest.raises(ConnectionFormatError, match="AIRFLOW_VAR_BINARY is not text in UTF-8"):
            found.answer(m.GetVariable(key="binary"))
    assert store.answer(m.GetVariable(key="text")) is not None


def test_folders_come_before_the_environment_and_are_read_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    store = SecretStore([str(first), str(second)], {"AIRFLOW_VAR_KEY": "environment", "AIRFLOW_CONN_C": "http://env"})

    def value() -> Any:
        answer = store.answer(m.GetVariable(key="key"))
        return msgspec.to_builtins(answer)["value"]

    assert value() == "environment"
    (second / "AIRFLOW_VAR_KEY").write_text("second")
    assert value() == "second"
    (first / "AIRFLOW_VAR_KEY").write_text("first")
    assert value() == "first"
    (first / "AIRFLOW_VAR_KEY").write_text("rotated")
    assert value() == "rotated"
    assert msgspec.to_builtins(store.answer(m.GetConnection(conn_id="c")))["host"] == "env"


def test_what_is_not_there_is_left_to_the_api_and_no_path_escapes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "folder").mkdir()
    store = SecretStore([str(tmp_path / "folder")], {})
    for message in (
        m.GetVariable(key="none"),
        m.GetVariable(key="../secret"),
        m.GetVariable(key="a\0b"),
        m.GetDag(dag_id="d"),
    ):
        assert store.answer(message) is None


def test_a_key_that_is_never_found_for_its_name_is_told_with_the_right_one(tmp_path: Path) -> None:
    for name in ("AIRFLOW_VAR_GOOD", "airflow_var_low", "AIRFLOW_VAR_Mixed", "airflow-conn-db", "tls.crt", "..data"):
        (tmp_path / name).write_text("x")
    store = SecretStore([str(tmp_path), str(tmp_path / "none")], {})
    assert store.misnamed() == [
        ("AIRFLOW_VAR_Mixed", "AIRFLOW_VAR_MIXED"),
        ("airflow-conn-db", "AIRFLOW_CONN_DB"),
        ("airflow_var_low", "AIRFLOW_VAR_LOW"),
    ]
    nothing_fits = tmp_path / "whole"
    nothing_fits.mkdir()
    for name in ("warehouse", "..2026_11_29", "..data"):
        (nothing_fits / name).write_text("x")
    assert SecretStore([str(nothing_fits)], {}).misnamed() == [
        ("warehouse", "AIRFLOW_CONN_WAREHOUSE or AIRFLOW_VAR_WAREHOUSE")
    ]
