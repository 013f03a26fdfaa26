"""Details are bounded, JSON, and hold no secrets; and whatever they are, the entry is not lost."""

import datetime as dt
import decimal
import enum
import ipaddress
import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.records.details import BOUNDS, Bounds, kept_details, kept_line, kept_text
from hauberk.records.secrets import SECRET, hide, secret_name

PASSWORD = "Tr0ub4dor&3-hunter2"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = (
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqG\n"
    "-----END EC PRIVATE KEY-----"
)
WIDE = "".join(chr(ord(char) + 0xFEE0) for char in "password")  # the same letters, of another width

SECRET_NAMES = (
    "password", "Passwd", "PASSWORD", "user_password", "newPassword", "passphrase", "pwd", "secret", "client-secret",
    "token", "accessToken", "csrf_token", "authorization", "Proxy-Authorization", "api_key", "apiKey", "X-API-Key",
    "x api key", "cookie", "set-cookie", "Set_Cookie", "cookies", "private_key", "privateKey", "credit card",
    "CreditCardNumber", "card_number", "cvv", "cvc", "pan", "PIN", "otp", "ssn", "credentials", "sessionId", "session",
    "auth", "jwt", "bearer", WIDE, "pass\u00adword" + "s", "access_key", "signing-key",
)  # fmt: skip
OTHER_NAMES = (
    "user", "resource", "reason", "author", "authority", "key", "keyboard", "panel", "spinning", "company", "monkey",
    "passed", "compass", "fields", "count", "path", "description", "expanded", "shipping",
)  # fmt: skip

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20), st.decimals(), st.uuids(),
    st.datetimes(), st.timedeltas(), st.just(object()), st.just(print), st.complex_numbers(),
    st.text(st.characters(categories=["Cs", "Cc", "Lo"])),
)  # fmt: skip
keys = st.one_of(st.text(), st.integers(), st.none(), st.binary(max_size=8), st.tuples(st.integers()))
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(keys, inner), st.frozensets(st.integers())
    ),
    max_leaves=15,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def values(value: object) -> int:
    if isinstance(value, dict):
        return sum(1 + values(one) for one in value.values())
    return sum(1 + values(one) for one in value) if isinstance(value, list) else 0


@given(st.dictionaries(keys, anything))
def test_whatever_they_are_they_become_bounded_json_and_the_given_ones_do_not_change(given: dict[str, object]) -> None:
    before = repr(given)
    bounds = Bounds(depth=3, values=20, text=30, size=600)
    kept = kept_details(given, bounds)
    encoded = msgspec.json.encode(kept.data)
    assert json.loads(encoded) == kept.data
    assert depth(kept.data) <= bounds.depth + 1
    assert values(kept.data) <= bounds.values + 2 * (bounds.depth + 2)  # and a mark at each level that was cut
    assert len(encoded) <= 2 * bounds.size + 6 * 128 + 100
    assert repr(given) == before


numbers = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), numbers, max_size=8))
def test_small_plain_ones_stay_as_they_are(given: dict[str, object]) -> None:
    plain = {name: value for name, value in given.items() if not secret_name(name) and hide(name)[1] == 0}
    kept = kept_details(plain)
    assert kept.data == plain
    assert (kept.cut, kept.hidden) == (0, 0)


@given(st.text(max_size=3_000), st.integers(0, 200))
def test_a_text_is_cut_and_marked_or_stays(text: str, limit: int) -> None:
    kept, cut, hidden = kept_text(text, limit)
    assert len(kept) <= limit + len("[cut]")
    if len(text) <= limit and not hidden:
        assert (kept, cut) == (text, 0)
    elif len(text) > limit + 1_024:
        assert cut == 1
        assert kept.endswith("[cut]")


def test_what_is_cut_is_marked_and_counted() -> None:
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"in": deep}
    kept = kept_details(
        {"long": "x" * 5_000, "many": list(range(1_000)), "deep": deep, "raw": b"abc", "what": object()}
    )
    assert kept.data["long"] == "x" * BOUNDS.text + "[cut]"
    many = kept.data["many"]
    assert isinstance(many, list)
    assert many[-1] == "[more]"
    assert "[more]" in kept.data
    assert kept.cut >= 3


def test_a_cycle_ends_at_the_bound() -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert kept_details(loop).cut == 1


def test_well_known_types_are_told_and_others_only_named() -> None:
    class Order:
        def __str__(self) -> str:
            return PASSWORD

        __repr__ = __str__

    class Colour(enum.Enum):
        RED = "red"

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError

    told = kept_details({
        "when": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "id": uuid.UUID(int=1), "sum": decimal.Decimal("1.50"),
        "from": ipaddress.ip_address("10.0.0.1"), "file": Path("/a/b"), "colour": Colour.RED, "text": Text("abc"),
        "took": dt.timedelta(seconds=1.5), "order": Order(), "raw": b"12345", "huge": 10**100, "endless": 1 << 100_000,
        "nan": math.nan, "set": {1}, "more": range(3),
    })  # fmt: skip
    assert told.data == {
        "when": "2026-01-02T03:04:05+00:00", "id": str(uuid.UUID(int=1)), "sum": "1.50", "from": "10.0.0.1",
        "file": "/a/b", "colour": "red", "text": "abc", "took": 1.5, "order": "[Order]", "raw": "[5 bytes]",
        "huge": str(10**100), "endless": "[100001 bits]", "nan": "nan", "set": [1], "more": "[range]",
    }  # fmt: skip


def test_a_mapping_that_fails_half_way_keeps_what_was_read() -> None:
    class Broken(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            if name == "b":
                raise OSError(PASSWORD)
            return 1

        def __iter__(self) -> Iterator[str]:
            return iter("abc")

        def __len__(self) -> int:
            return 3

    class Worse(dict[str, object]):
        def items(self) -> NoReturn:
            raise ValueError(PASSWORD)

    kept = kept_details({"broken": Broken(), "worse": Worse(a=1)})
    assert kept.data == {"broken": {"a": 1, "[unreadable]": "OSError"}, "worse": {"[unreadable]": "ValueError"}}
    assert kept.cut == 2


def test_what_is_no_mapping_at_all_loses_nothing_else() -> None:
    class Undecided(dict[str, object]):
        def __bool__(self) -> bool:
            raise ValueError(PASSWORD)

    assert kept_details("text").data == {"[unreadable]": "AttributeError"}  # type: ignore[arg-type]  # on purpose
    assert kept_details(Undecided(a=1)).data == {"a": 1}
    assert kept_details({"value": 3, "Value": [1], "name": None}).data == {"value": 3, "Value": [1], "name": None}


def test_no_key_takes_the_place_of_another() -> None:
    long = "k" * 200
    kept = kept_details({long + "1": 1, long + "2": 2, 3: 3, "3": 4})  # type: ignore[dict-item]  # keys of any type
    assert sorted(str(value) for value in kept.data.values()) == ["1", "2", "3", "4"]


# secrets


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_value_under_the_name_of_a_secret_is_replaced_wherever_it_stands(name: str) -> None:
    for one in (
        {name: PASSWORD},
        {"deep": [{"er": {name: {"nested": PASSWORD}}}]},
        {"headers": [(name, PASSWORD), ("accept", "text/html")]},
        {"headers": [[name.encode(), PASSWORD.encode()]]},
        {name.encode(): PASSWORD},
        {name: [PASSWORD]},
        {"fields": [{"name": name, "value": PASSWORD}, {"value": "x", "name": "other"}]},
        {"tags": {"Value": PASSWORD, "Key": name}},
    ):
        kept = kept_details(one)  # type: ignore[arg-type]  # keys of any type
        assert PASSWORD not in str(kept.data)
        assert SECRET in str(kept.data)
        assert kept.hidden == 1


@pytest.mark.parametrize(
    "given",
    [
        {"api": {"key": PASSWORD}}, {"x": {"api": {"key": PASSWORD}}}, {"api": [{"key": PASSWORD}]},
        {"card": {"Number": PASSWORD}}, {"Private": {"KEY": PASSWORD}}, {"api": {"name": "key", "value": PASSWORD}},
        {"api": [("key", PASSWORD)]}, {"ssh": {b"key": PASSWORD}},
    ],
)  # fmt: skip
def test_a_name_that_is_a_secret_only_with_the_one_above_it_hides_too(given: dict[str, object]) -> None:
    kept = kept_details(given)
    assert PASSWORD not in str(kept.data)
    assert kept.hidden == 1


def test_the_same_names_apart_hide_nothing() -> None:
    given = {"api": {"version": 3}, "key": "value", "deep": {"er": {"key": "value"}}, "card": {"kind": "debit"}}
    assert kept_details(given).data == given


@pytest.mark.parametrize(
    "name",
    [
        "p\u0430ssword", "P\u0410SSWORD", "t\u03bfken", "\u0455\u0435\u0441ret", "p\u00e0ssw\u00f6rd", "p@ssw0rd",
        "pas\u200bsword", "\u0440in", "\u212aey_secret",
    ],
)  # fmt: skip
def test_a_name_in_letters_that_look_like_it_is_that_name(name: str) -> None:
    assert kept_details({name: PASSWORD}).data == {name: SECRET}


@pytest.mark.parametrize("text", [f"my password is {PASSWORD}", f"p\u0430ssword={PASSWORD}"])
def test_what_no_name_and_no_shape_tells_is_not_recognised(text: str) -> None:
    """The end of what is promised, as the documentation says it."""
    assert kept_details({"note": text}).data == {"note": text}


def test_an_id_stays_on_its_line() -> None:
    assert kept_line("a\nb\u202ec", 100) == r"a\nb\u202ec"
    assert kept_line("plain", 100) == "plain"
    assert kept_line("\n" * 100, 100).startswith(r"\n")
    assert len(kept_line("\n" * 100, 100)) <= 105


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_names_hide_nothing(name: str) -> None:
    assert kept_details({name: "value"}).data == {name: "value"}


def test_what_tells_nothing_about_a_secret_stays() -> None:
    given = {"password": None, "has_token": True, "max_tokens": 4096, "tokens_used": 17}
    assert kept_details(given).data == given
    assert kept_details({"pin": 1234, "tokens": ["abc"]}).data == {"pin": SECRET, "tokens": SECRET}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"sent {JWT} along", f"sent {SECRET} along"),
        (f'{{"id":"{JWT}"}}', f'{{"id":"{SECRET}"}}'),
        (f"key:\n{PEM}\nend", f"key:\n{SECRET}\nend"),
        ("-----BEGIN PRIVATE KEY-----\nMHcCAQEE", SECRET),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: {SECRET}"),
        ("sent Bearer abcdef0123456789", f"sent Bearer {SECRET}"),
        ("sent bearer abcdefghijklmnopqrstuvwxyz", f"sent bearer {SECRET}"),
        ("Cookie: id=1; theme=dark\nAccept: */*", f"Cookie: {SECRET}\nAccept: */*"),
        (f"password={PASSWORD}", f"password={SECRET}"),
        (f"/login?user=x&password={PASSWORD}&next=/", None),
        (f'{{"user": "x", "password": "{PASSWORD}"}}', f'{{"user": "x", "password": {SECRET}}}'),
        (f'{{"a": "{{\\"api_key\\": \\"{PASSWORD}\\"}}"}}', None),
        (f"{{'client_secret': '{PASSWORD}'}}", f"{{'client_secret': {SECRET}}}"),
        (f"postgres://app:{PASSWORD}@db/shop", f"postgres://app:{SECRET}@db/shop"),
        ("AKIAIOSFODNN7EXAMPLE is used", f"{SECRET} is used"),
        ("ghp_" + "a1B2" * 9, SECRET),
    ],
)
def test_what_looks_like_a_secret_within_a_text_is_replaced(text: str, kept: str | None) -> None:
    found, hidden = hide(text)
    assert hidden >= 1
    assert PASSWORD not in found
    assert "MHcCAQEE" not in found
    assert kept is None or found == kept
    assert hide(found)[0] == found


@pytest.mark.parametrize(
    "text",
    [
        "the token is expired", "basic training", "max_tokens: 4096", "GET /orders/17 HTTP/1.1", "keyboard: us",
        "password reset requested", "digest authentication failed", "see https://example.org/a:b", "10:15:30", "",
    ],
)  # fmt: skip
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert hide(text) == (text, 0)


@pytest.mark.parametrize("at", range(1_950, 2_010, 7))
def test_a_cut_through_a_secret_does_not_save_it(at: int) -> None:
    text = "x" * at + " " + JWT + " " + "y" * 2_000
    kept, cut, _ = kept_text(text, BOUNDS.text)
    assert cut == 1
    assert "eyJzdWIi" not in kept


@pytest.mark.parametrize(
    "text",
    [
        "password" * 8_000, "://a:" * 12_000, "eyJ" * 20_000, "eyJ-" * 15_000, ".eyJaaaaa" * 7_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000, 'token="' + "\\" * 60_000, "cookie:" * 8_000, "bearer " * 8_000,
        "authorization: \r" * 4_000, "key='" * 12_000,
    ],
)  # fmt: skip
def test_no_text_keeps_the_patterns_busy(text: str) -> None:
    started = time.perf_counter()
    kept_text(text, 100_000)
    kept_details({"text": text})
    assert time.perf_counter() - started < 5  # a pattern that backtracks would take hours
