"""masking.py and encodings.py: a secret is found in whatever form encoders give it, and nothing else is blanked."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from polypod_bridge.logs.masking import Masker

# Hypothesis also draws words that it finds in our sources, and "airflow" is no secret, as in Airflow
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=5, max_size=24).filter(
    lambda text: len(text.strip()) >= 5 and "airflow" not in map(str.lower, (text.strip(), *text.splitlines()))
)
ENCODERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json, ASCII (Python, Jackson with escapes)": lambda text: json.dumps(text)[1:-1],
    "json, UTF-8 (JavaScript, Jackson)": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json of msgspec": lambda text: msgspec.json.encode(text).decode()[1:-1],
    "json of Go, which escapes HTML": lambda text: _go(json.dumps(text, ensure_ascii=False)[1:-1]),
    "json in json": lambda text: json.dumps(json.dumps(text))[1:-1][2:-2],
    "json in json in json": lambda text: json.dumps(json.dumps(json.dumps(text)))[1:-1][6:-6],
    "upper-case escapes": lambda text: "".join(c if c.isascii() and c.isalnum() else _u(c).upper().replace("U", "u") for c in text),
    "url": lambda text: quote(text, safe=""),
    "url, lower case": lambda text: "".join(c if c.isascii() and c.isalnum() else quote(c, safe="").lower() for c in text),
    "url, slashes kept": quote,
    "form": quote_plus,
    "html": html.escape,
    "backslashes (a shell, a regular expression)": lambda text: "".join(c if c.isalnum() else f"\\{c}" for c in text),
    "bytes of Python": lambda text: repr(text.encode())[2:-1],
    "repr of Python": lambda text: repr(text)[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
}  # fmt: skip


def _go(text: str) -> str:
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _u(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))


def masked(secret: str, text: str) -> str:
    masker = Masker()
    masker.add(secret)
    return masker.text(text)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=list(ENCODERS))
@given(secret=SECRETS)
def test_a_secret_is_found_in_every_encoding(encoder: Callable[[str], str], secret: str) -> None:
    assume(not any(part in "before=;after" for part in (secret.strip(), *secret.splitlines()) if len(part) >= 5))
    encoded = encoder(secret)
    left = masked(secret, f"before={encoded};after")
    assert left.startswith("before=")
    assert left.endswith(";after")
    if encoder not in (ENCODERS["base64"], ENCODERS["base64 for URLs"]):
        assert left.replace("\\", "") == "before=***;after"
        return
    # of base64 a few characters at the edges also hold what is beside the secret
    inner = encoded.rstrip("=")[1:-2]
    if len(inner) >= 12:
        assert inner not in left


@given(secret=st.text("abcdefghij-_!$", min_size=8, max_size=24), user=st.text("xyz0", min_size=1, max_size=5))
def test_basic_authentication_hides_the_password(secret: str, user: str) -> None:
    header = base64.b64encode(f"{user}:{secret}".encode()).decode()
    left = masked(secret, f"Authorization: Basic {header}").rpartition(" ")[2]
    # what is left holds the user and a few bits at the edges
    assert "***" in left
    assert len(left.replace("***", "")) <= (len(user) + 1) * 4 / 3 + 6


@given(text=st.text(), secret=SECRETS)
def test_what_does_not_hold_the_secret_is_left_as_it_is(text: str, secret: str) -> None:
    forms = [encode(secret).lower() for encode in ENCODERS.values()]
    forms += [secret.strip().lower(), "eyj", *(line.lower() for line in secret.splitlines() if len(line) >= 5)]
    if not any(form in text.lower() for form in forms):
        assert masked(secret, text) == text


@pytest.mark.parametrize(
    "text",
    [
        "SurveyJob started",
        "eyJob",
        "see KeyJar.open",
        "eyJ",
        "eyJabc.def",
        "file eyJhbGciOi",
        "monkeyJuice.extract.now",
    ],
)
def test_what_only_begins_like_a_token_is_left_as_it_is(text: str) -> None:
    assert Masker().text(text) == text


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.",
        "eyJhbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp.48V1_ALb6US0.5eym8TW_c8Su.XFBoMYUZodet",
    ],
)
def test_a_token_is_hidden_by_its_shape(token: str) -> None:
    assert Masker().text(f"got {token} from x") == "got eyJ*** from x"
    assert Masker().text(f'{{"token":"{token}"}}') == '{"token":"eyJ***"}'


def test_a_long_secret_is_found_too() -> None:
    secret = "".join(f"line {number} & more\n" for number in range(2000))
    for encode in (str, lambda text: json.dumps(text)[1:-1], lambda text: quote(text, safe="")):
        assert masked(secret, f"<{encode(secret)}>") == "<***>"


@pytest.mark.parametrize("size", range(13))
def test_a_text_that_somebody_has_cut_ends_with_no_part_of_a_secret(size: int) -> None:
    masker = Masker()
    masker.add("s3cr3tpw9xyz")
    shown = masker.cut_text("xxxx " + "s3cr3tpw9xyz"[:size])
    assert shown == ("xxxx ***" if size >= 5 else "xxxx " + "s3cr3tpw9xyz"[:size])
    assert masker.cut_text("the end") == "the end"


@given(st.text("ab", min_size=5, max_size=12), st.text("abx", max_size=12), st.integers(0, 11))
def test_no_text_ends_with_a_longer_part_of_a_secret_than_tells(secret: str, before: str, size: int) -> None:
    masker = Masker()
    masker.add(secret)
    shown = masker.cut_text(before + secret[:size])
    assert not any(shown.endswith(secret[:left]) for left in range(5, len(secret) + 1))


def test_a_long_text_and_a_long_secret_take_no_time() -> None:
    masker = Masker()
    masker.add("a" * 100_000 + "b")
    assert masker.cut_text("x" + "a" * 60_000) == "x***"
    assert masker.cut_text("a" * 60_000 + "x") == "a" * 60_000 + "x"
