"""Registration entries: what one may say, and that a process gets only what it is proven to be."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.spiffe import SpiffeId
from hauberk.identity.registration import MAX_TTL, MIN_TTL, RegistrationEntry, choose, matching
from tests.core.refusal import refuses

ORDERS = SpiffeId.service("example.org", "prod", "orders")


def entry(name: str = "orders", *selectors: str, **more: object) -> RegistrationEntry:
    fields = {"name": name, "spiffe_id": ORDERS, "selectors": frozenset(selectors), **more}
    return RegistrationEntry(**fields)  # type: ignore[arg-type]


selectors = st.one_of(
    st.integers(0, 2**32 - 1).map("unix:uid:{}".format),
    st.integers(0, 2**32 - 1).map("unix:gid:{}".format),
    st.from_regex(r"unix:cgroup:/[a-z./-]{0,30}", fullmatch=True),
    st.from_regex(r"systemd:unit:[a-z@-]{1,20}\.service", fullmatch=True),
)
entries = st.builds(
    RegistrationEntry,
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    spiffe_id=st.builds(
        SpiffeId.service, st.just("example.org"), st.sampled_from(["prod", "test"]), st.sampled_from(["a", "b"])
    ),
    selectors=st.frozensets(selectors, max_size=4),
    labels=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    ttl=st.floats(MIN_TTL, MAX_TTL),
)


@settings(max_examples=100, deadline=None)
@given(entries)
def test_every_entry_survives_a_round_trip(made: RegistrationEntry) -> None:
    assert made.validate() is made
    assert RegistrationEntry.decode(made.encode()) == made


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text('{}[]":,namespifd', max_size=60).map(str.encode)))
def test_garbage_is_a_typed_refusal(data: bytes) -> None:
    with refuses("HBK-213"):
        RegistrationEntry.decode(data)


def test_nested_brackets_unknown_fields_and_foreign_ids_are_refused() -> None:
    plain: dict[str, object] = msgspec.json.decode(entry().encode())
    for change, code in (
        ({"admin": True}, "HBK-213"),
        ({"ttl": "1h"}, "HBK-213"),
        ({"selectors": ["unix:path:/usr/bin/python3"]}, "HBK-213"),
        ({"spiffe_id": "spiffe://example.org/me"}, "HBK-201"),
        ({"spiffe_id": "https://example.org/"}, "HBK-201"),
    ):
        with refuses(code):
            RegistrationEntry.decode(msgspec.json.encode(plain | change))
    for data in (b"[" * 100_000, b'{"x":' + b"[" * 100_000):
        with refuses("HBK-213"):
            RegistrationEntry.decode(data)


@pytest.mark.parametrize("name", ["", "Orders", "-orders", "orders-", "a" * 64, "a b", "a/b", "ä", "orders\n", ".."])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with refuses("HBK-213"):
        entry(name).validate()


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "unix:uid:",
        "unix:uid:-1",
        "unix:uid:root",
        "unix:uid:1 ",
        "unix:uid:1\n",
        "unix:uid:٣",
        "unix:uid:12345678901",
        "unix:path:/usr/bin/python3",
        "unix:cgroup:relative",
        "unix:cgroup:/a b",
        "systemd:unit:",
        "systemd:unit:a/b",
        "systemd:unit:a b",
        "docker:label:a",
        "UNIX:uid:1",
    ],
)
def test_a_selector_that_nothing_proves_is_refused(selector: str) -> None:
    with refuses("HBK-213"):
        entry("orders", selector).validate()


@pytest.mark.parametrize("ttl", [0.0, MIN_TTL - 1, MAX_TTL + 1, -1.0, float("inf"), float("nan")])
def test_a_life_out_of_range_is_refused(ttl: float) -> None:
    with refuses("HBK-213"):
        entry(ttl=ttl).validate()


@pytest.mark.parametrize(
    "text", ["spiffe://example.org", "spiffe://example.org/me", "spiffe://example.org/ns/a/sa/b/ns/c/sa/d"]
)
def test_only_service_ids_are_registered(text: str) -> None:
    with refuses("HBK-201"):
        entry(spiffe_id=SpiffeId.parse(text)).validate()


few = st.frozensets(st.sampled_from(["unix:uid:1", "unix:uid:2", "unix:gid:1", "systemd:unit:a.service"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), few), max_size=5, unique_by=lambda pair: pair[0]), few)
def test_a_process_gets_exactly_the_entries_of_which_everything_is_proven(
    pairs: list[tuple[str, frozenset[str]]], proven: frozenset[str]
) -> None:
    found = [entry(name, *wanted) for name, wanted in pairs]
    chosen = matching(found, proven)
    for made in found:
        assert (made in chosen) is (bool(made.selectors) and all(selector in proven for selector in made.selectors))
    sizes = [len(made.selectors) for made in chosen]
    assert sizes == sorted(sizes, reverse=True)
    assert matching(list(reversed(found)), proven) == chosen


def test_an_entry_without_selectors_is_for_tokens_only() -> None:
    with refuses("HBK-205"):
        choose([entry("orders")], frozenset({"unix:uid:0"}))
    with refuses("HBK-205"):
        choose([entry("orders")], frozenset(), "orders")


def test_the_most_specific_entry_is_taken_and_a_named_one_only_if_it_matches() -> None:
    wide, narrow = entry("wide", "unix:uid:7"), entry("narrow", "unix:uid:7", "unix:gid:7")
    other = entry("other", "unix:uid:8")
    everything = [wide, other, narrow]
    assert choose(everything, frozenset({"unix:uid:7", "unix:gid:7"})) is narrow
    assert choose(everything, frozenset({"unix:uid:7", "unix:gid:7"}), "wide") is wide
    assert choose(everything, frozenset({"unix:uid:7"})) is wide
    for proven, name in (
        ({"unix:uid:7"}, "other"),
        ({"unix:uid:7"}, "narrow"),
        ({"unix:uid:7"}, "unknown"),
        ({"unix:uid:9"}, None),
        (set(), None),
    ):
        with refuses("HBK-205"):
            choose(everything, frozenset(proven), name)
