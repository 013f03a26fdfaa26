"""A path that is accepted means one thing to everybody; whatever could mean two is refused."""

import posixpath
import re
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.edge.canonical import canonical_path
from hauberk.errors import EdgeError

HOSTILE = [
    b"",
    b"*",
    b"admin",
    b"http://server/admin",
    b"//",
    b"//admin",
    b"/admin//",
    b"/a//b",
    b"///",
    b"/.",
    b"/..",
    b"/./",
    b"/../",
    b"/a/.",
    b"/a/..",
    b"/a/./b",
    b"/a/../admin",
    b"/public/../../admin",
    b"/%2e",
    b"/%2e%2e/",
    b"/%2E%2E/admin",
    b"/a/%2e%2e/admin",
    b"/a/.%2e/admin",
    b"/a/%2e./admin",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a/..%2fadmin",
    b"/a%5cb",
    b"/a%5Cb",
    b"/a\\b",
    b"/a/..\\admin",
    b"/%252e%252e/admin",
    b"/a%252fb",
    b"/a%25",
    b"/a%2525",
    b"/;/admin",
    b"/admin;",
    b"/admin;x=y",
    b"/..;/admin",
    b"/a/..;/admin",
    b"/a%3bx",
    b"/a%3Bx/..",
    b"/a%00",
    b"/a%00.html",
    b"/%00/admin",
    b"/a\x00b",
    b"/a%0a",
    b"/a%0d%0aSet-Cookie:x",
    b"/a\nb",
    b"/a\rb",
    b"/a%09",
    b"/a\tb",
    b"/a%1f",
    b"/a%7f",
    b"/a\x7f",
    b"/a b",
    b"/a\x0bb",
    b"/a?b",
    b"/a%3fb",
    b"/a%3Fb",
    b"/a#b",
    b"/a%23b",
    b"/%61dmin",
    b"/%41",
    b"/%7e",
    b"/%5fx",
    b"/a%2db",
    b"/%30",
    b"/a%",
    b"/a%2",
    b"/a%zz",
    b"/a%u002f",
    b"/a%%32%66",
    b"/%c0%ae%c0%ae/",
    b"/%c0%af",
    b"/%c1%9c",
    b"/%e0%80%af",
    b"/%f0%80%80%af",
    b"/%ff",
    b"/%80",
    b"/%c3",
    b"/%c3%28",
    b"/%ed%a0%80",
    b"/%f4%90%80%80",
    b"/\xc3\xa9",
    b"/\xff",
    b"/a\xc0\xaf",
    b"/%c2%80",
    b"/%c2%85admin",
    b"/a%c2%9f",
    b"/a%e2%80%a8b",
    b"/a%e2%80%a9b",
    b'/a"b',
    b"/a<b>",
    b"/a[b]",
    b"/a^b",
    b"/a`b",
    b"/a{b}",
    b"/a|b",
]
BENIGN = {
    b"/": "/",
    b"/api": "/api",
    b"/api/": "/api/",
    b"/api/payments/p-1": "/api/payments/p-1",
    b"/.well-known/jwks.json": "/.well-known/jwks.json",
    b"/a.b/c..d": "/a.b/c..d",
    b"/...": "/...",
    b"/~user/_x-1": "/~user/_x-1",
    b"/a!$&'()*+,=:@": "/a!$&'()*+,=:@",
    b"/@me/+1": "/@me/+1",
    b"/pkg.Service/Method": "/pkg.Service/Method",
    b"/a%20b": "/a b",
    b"/caf%C3%A9": "/caf\u00e9",
    b"/caf%c3%a9/men%c3%bc": "/caf\u00e9/men\u00fc",
    b"/%E6%97%A5%E6%9C%AC": "/\u65e5\u672c",
    b"/%F0%9F%94%92": "/\U0001f512",
    b"/a%22b": '/a"b',
    b"/a%7Bb%7D": "/a{b}",
    b"/a%2A": "/a*",
    b"/a%C2%A0": "/a\u00a0",
}
PIECES = [
    b"/",
    b"//",
    b".",
    b"..",
    b"%",
    b";",
    b"\\",
    b"%2e",
    b"%2f",
    b"%5c",
    b"%25",
    b"%00",
    b"%c3%a9",
    b"a",
    b"Z",
    b"~",
]
_wild = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(lambda them: b"/" + b"".join(them))
_tame = (
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5)
    .map(lambda parts: "/" + "/".join(parts))
    .map(lambda text: quote(text, safe="/!$&'()*+,=:@~").encode())
)


@pytest.mark.parametrize("raw", HOSTILE)
def test_a_path_with_more_than_one_reading_is_refused(raw: bytes) -> None:
    with pytest.raises(EdgeError) as refused:
        canonical_path(raw)
    assert refused.value.code == "HBK-402"


def test_the_table_of_hostile_paths_is_long_and_has_no_duplicates() -> None:
    assert len(HOSTILE) == len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("raw", BENIGN)
def test_an_ordinary_path_is_accepted_and_decoded_once(raw: bytes) -> None:
    assert canonical_path(raw) == BENIGN[raw]


@settings(max_examples=400)
@given(_wild | _tame)
def test_what_is_accepted_has_one_decoding_and_no_normaliser_changes_it(raw: bytes) -> None:
    try:
        path = canonical_path(raw)
    except EdgeError:
        return
    assert path == unquote_to_bytes(raw).decode("utf-8")
    assert path == unquote(raw.decode("ascii"))  # what uvicorn gives an application
    assert path == unquote(unquote(path))
    assert posixpath.normpath(path) == (path.rstrip("/") or "/")
    assert path == re.sub(r"\\", "/", path)
    assert path == path.split(";")[0].split("?")[0].split("#")[0]
    assert len(path.splitlines()) == 1
    assert "\x00" not in path
    assert canonical_path(quote(path, safe="/!$&'()*+,=:@~").encode()) == path


@settings(max_examples=200)
@given(_tame)
def test_a_properly_quoted_path_is_refused_only_for_a_reason(raw: bytes) -> None:
    path = unquote(raw.decode("ascii"))
    reasons = [
        "//" in path,
        any(segment in {".", ".."} for segment in path.split("/")),
        any(sign in path for sign in "\\%;?#"),
        any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 or sign in "\u2028\u2029" for sign in path),
    ]
    if any(reasons):
        with pytest.raises(EdgeError):
            canonical_path(raw)
    else:
        assert canonical_path(raw) == path


def test_a_long_path_costs_no_more_than_its_length() -> None:
    for raw in (b"/" + b"a/" * 100_000 + b"%", b"/" + b"a." * 100_000 + b";", b"/" + b"%c3%a9" * 50_000 + b"\\"):
        with pytest.raises(EdgeError):
            canonical_path(raw)  # a pattern that backtracks would take longer than the suite may
