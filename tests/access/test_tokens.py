"""Tokens as values: what is signed comes back, and nothing else does."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.access import Rules
from modelyard.access.keys import SigningKey
from modelyard.access.roles import ROLES, at_least, covers, model_of, parse_patterns
from modelyard.access.rules import CLOCK_SKEW_S
from modelyard.access.tokens import Claims, Identity, Unauthorized, bearer, issue, parse_duration, parse_name, verify
from modelyard.errors import InvalidInput, Refused
from modelyard.settings import Role

from .issuer import issuing

KEY = SigningKey.generate()
RULES = Rules((KEY.public,), ("gone",))
WORD = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789._-", min_size=1, max_size=12)
NAME = st.builds(lambda first, rest: first + rest, st.sampled_from("abcXYZ019"), st.text("abc012._@+-", max_size=20))
PATTERN = st.builds(lambda name, star: name + "*" * star, WORD, st.booleans())


def claims(role: Role = "caller", models: tuple[str, ...] = ("*",), id_: str = "id", expires: int = 0) -> Claims:
    now = int(time.time())
    return Claims(id_, "someone", role, models, now, expires or now + 600)


@given(NAME, st.sampled_from(ROLES), st.lists(PATTERN, min_size=1, max_size=4), st.integers(60, 10**8))
def test_what_is_signed_comes_back(name: str, role: Role, models: list[str], lifetime_s: int) -> None:
    patterns = parse_patterns(models)
    now = int(time.time())
    token = issue(Claims("1", parse_name(name), role, patterns, now, now + lifetime_s), KEY)
    assert verify(bearer(f"Bearer {token}"), RULES) == Identity(name, role, patterns)


@given(st.data())
def test_no_other_text_counts(data: st.DataObject) -> None:
    token = issue(claims(), KEY)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + data.draw(st.sampled_from("abc.-_=AZ09 é")) + token[at + 1 :]
    if _bytes(changed) != _bytes(token):
        with pytest.raises(Unauthorized) as caught:
            verify(changed, RULES)
        assert changed not in str(caught.value)


def _bytes(token: str) -> object:
    """What a token's letters stand for: the last one of a part has bits that mean nothing."""
    try:
        return [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
    except ValueError:
        return token


def _signed(header: dict[str, object], payload: dict[str, object], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "", "not valid"),
        (lambda: _signed({"alg": "none", "kid": KEY.public.kid}, {"iss": "modelyard", "role": "admin"}), "not valid"),
        (lambda: jwt.encode({"iss": "modelyard"}, "x" * 40, "HS256", {"kid": KEY.public.kid}), "not valid"),
        (lambda: issue(claims(), SigningKey.generate()), "nobody who is known"),
        (lambda: jwt.encode({"iss": "modelyard"}, KEY.private, "EdDSA", {"kid": KEY.public.kid}), "not valid"),
        (lambda: issue(claims(id_="gone"), KEY), "revoked"),
        (lambda: issue(claims(expires=int(time.time()) - CLOCK_SKEW_S - 1), KEY), "expired"),
    ],
    ids=["empty", "unsigned", "symmetric", "another key", "without expiry", "revoked", "expired"],
)
def test_what_is_refused(make: Callable[[], str], said: str) -> None:
    with pytest.raises(Unauthorized, match=said):
        verify(make(), RULES)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc"])
def test_no_token(header: str | None) -> None:
    with pytest.raises(Unauthorized, match="this needs a token"):
        bearer(header)


def test_roles_include_those_before_them() -> None:
    assert at_least("caller") == ("caller", "deployer", "admin")
    Identity("a", "admin", ("*",)).require(at_least("viewer"), "digits:v1.0.0")
    with pytest.raises(Refused, match="is viewer, and this needs caller or deployer or admin"):
        Identity("a", "viewer", ("*",)).require(at_least("caller"))
    with pytest.raises(Refused, match="not good for 'digits:staging'"):
        Identity("a", "admin", ("faces",)).require(at_least("viewer"), "digits:staging")


@given(WORD, st.data())
def test_patterns_cover_names_and_their_beginnings(name: str, data: st.DataObject) -> None:
    beginning = name[: data.draw(st.integers(0, len(name)))]
    assert covers((f"{beginning}*",), name)
    assert covers((name,), model_of(f"{name}:v1.0.0"))
    assert not covers((f"{name}x*", f"{name}x", f"x{name}", beginning), name) or beginning == name


def test_a_task_is_covered_as_a_whole() -> None:
    assert covers(("task:*",), model_of("task:semantic-search"))
    assert not covers(("task",), model_of("task:semantic-search"))


@pytest.mark.parametrize("text", ["", "*a", "a*b", "a b", "a:v1", "a,b", "é", "a**"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_patterns([text])


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("15m", 900)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "30", "d", "3651d", "-1d", "1.5h", "999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match="write 30d, 12h or 15m"):
        parse_duration(text)


def test_an_issuers_tokens_are_checked_with_its_key() -> None:
    with issuing() as issuer:
        rules = Rules(issuer=issuer.issuer)

        def check(token: str) -> Identity:
            return verify(token, rules, issuers_key=lambda _: issuer.key.public_key())

        assert check(issuer.token(["staff", "ml"], ("a", "b*"))) == Identity("ana@example", "deployer", ("a", "b*"))
        with pytest.raises(Refused, match="has no role here"):
            check(issuer.token(["guests"]))
        for bad in ({"aud": "else"}, {"iss": "modelyard"}, {"exp": 1}):
            with pytest.raises(Unauthorized):
                check(issuer.token(["staff"], **bad))
