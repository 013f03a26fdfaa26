"""SPIFFE ids and trust domains: every byte, every length and every shape, as the standard and go-spiffe have them."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.spiffe import MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, parse_trust_domain
from tests.core.refusal import refuses

IN_DOMAIN = set(string.ascii_lowercase + string.digits + "-._")
IN_PATH = IN_DOMAIN | set(string.ascii_uppercase)
CHARACTERS = [chr(code) for code in range(256)]
segments = st.text(sorted(IN_PATH), min_size=1, max_size=20).filter(lambda text: text not in {".", ".."})
domains = st.text(sorted(IN_DOMAIN), min_size=1, max_size=30)


@pytest.mark.parametrize("char", CHARACTERS, ids=ascii)
def test_each_byte_in_a_trust_domain_is_allowed_or_refused_as_the_standard_says(char: str) -> None:
    for name in (char, f"a{char}b", f"{char}b", f"a{char}"):
        if char in IN_DOMAIN:
            assert parse_trust_domain(name) == name
            assert SpiffeId.parse(f"spiffe://{name}/path") == SpiffeId(name, "/path")
        else:
            with refuses("HBK-201"):
                parse_trust_domain(name)
    if char not in IN_DOMAIN | {"/"}:
        with refuses("HBK-201"):
            SpiffeId.parse(f"spiffe://a{char}b/path")


@pytest.mark.parametrize("char", CHARACTERS, ids=ascii)
def test_each_byte_in_a_path_is_allowed_or_refused_as_the_standard_says(char: str) -> None:
    for path in (f"/a{char}b", f"/{char}b", f"/a{char}", f"/{char}/c"):
        text = f"spiffe://example.org{path}"
        if char in IN_PATH - {"."} or (char == "." and path != "/./c") or (char == "/" and path == "/a/b"):
            assert str(SpiffeId.parse(text)) == text
        else:
            with refuses("HBK-201"):
                SpiffeId.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///path",
        "spiffe:path/element",
        "spiffe:/path/element",
        "http://example.org/path",
        "SPIFFE://example.org/path",
        "xspiffe://example.org/path",
        " spiffe://example.org/path",
        "spiffe://example.org/path ",
        "spiffe://example.org/path\n",
        "spiffe://example.org\n",
        "spiffe://example.org/",
        "spiffe://example.org//",
        "spiffe://example.org//path",
        "spiffe://example.org/path/",
        "spiffe://example.org/path//element",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
        "spiffe://example.org/path/./element",
        "spiffe://example.org/path/../element",
        "spiffe://example.org:80/path",
        "spiffe://example.org:/path",
        "spiffe://user@example.org/path",
        "spiffe://user:password@example.org/path",
        "spiffe://example.org/path?query",
        "spiffe://example.org/path#fragment",
        "spiffe://example.org?query",
        "spiffe://Example.org/path",
        "spiffe://example.org/p%61th",
        "spiffe://ex%61mple.org/path",
        "spiffe://example.org/päth",
        "spiffe://exämple.org/path",
        "spiffe://example.org/\u0131",
        "spiffe://example.org/\ud800",
        "spiffe://\udcff",
        "192.168.2.2:6688",
    ],
)
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with refuses("HBK-201"):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "text", ["spiffe://example.org", "spiffe://1.2.3.4/a", "spiffe://_-./...", "spiffe://example.org/..a/a../.a"]
)
def test_unusual_but_valid_ids_are_accepted(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


def test_lengths_are_bounded_to_the_byte() -> None:
    domain = "a" * MAX_TRUST_DOMAIN_BYTES
    assert parse_trust_domain(domain) == domain
    with refuses("HBK-201"):
        parse_trust_domain(domain + "a")
    with refuses("HBK-201"):
        parse_trust_domain("")
    start = "spiffe://example.org/"
    longest = start + "a" * (MAX_ID_BYTES - len(start))
    assert str(SpiffeId.parse(longest)) == longest
    with refuses("HBK-201"):
        SpiffeId.parse(longest + "a")


@settings(max_examples=150, deadline=None)
@given(domains, st.lists(segments, max_size=5))
def test_every_valid_id_survives_a_round_trip(domain: str, path: list[str]) -> None:
    text = f"spiffe://{domain}" + "".join(f"/{segment}" for segment in path)
    parsed = SpiffeId.parse(text)
    assert str(parsed) == text
    assert (parsed.trust_domain, parsed.path) == (domain, text.removeprefix(f"spiffe://{domain}"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("spife:/.ns%a-A\0", max_size=60).map("spiffe://".__add__)))
def test_what_is_accepted_is_written_back_the_same(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except Exception as refused:  # noqa: BLE001  # whatever else is raised fails the next line
        assert getattr(refused, "code", refused) == "HBK-201"  # noqa: PT017  # one of two outcomes
    else:
        assert str(parsed) == text


@settings(max_examples=100, deadline=None)
@given(domains, segments, segments)
def test_a_service_id_gives_its_namespace_and_account_back(domain: str, namespace: str, account: str) -> None:
    made = SpiffeId.service(domain, namespace, account)
    assert (made.trust_domain, made.namespace, made.account) == (domain, namespace, account)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/ns/a",
        "/ns/a/sa",
        "/sa/a/ns/b",
        "/ns/a/sa/b/c",
        "/x/ns/a/sa/b",
        "/ns/a/sa/b/ns/c/sa/d",
        "/ns/a/ns/b/sa/c",
        "/NS/a/sa/b",
    ],
)
def test_a_path_of_another_form_has_no_namespace(path: str) -> None:
    parsed = SpiffeId.parse(f"spiffe://example.org{path}")
    assert (parsed.namespace, parsed.account) == (None, None)


@pytest.mark.parametrize(
    ("namespace", "account"),
    [
        ("", "a"),
        ("a", ""),
        ("a/sa/b/ns/c", "d"),
        ("a", "b/ns/c/sa/d"),
        ("a/b", "c"),
        ("..", "a"),
        ("a", "."),
        ("a%2f", "b"),
        ("a", "b\n"),
    ],
)
def test_a_service_id_cannot_be_talked_into_another_namespace(namespace: str, account: str) -> None:
    with refuses("HBK-201"):
        SpiffeId.service("example.org", namespace, account)
