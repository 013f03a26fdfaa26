"""Where a request ends and for whom it is meant is said once and plainly, or the request is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.limits import Limits
from hauberk.edge.framing import Head, check_framing
from hauberk.errors import EdgeError

HOST = (b"host", b"server")
Fields = list[tuple[bytes, bytes]]
LIMITS = Limits()


def head_of(*fields: tuple[bytes, bytes], limits: Limits = LIMITS, version: str = "1.1") -> Head:
    return check_framing([HOST, *fields], limits, http_version=version)


def refusal(headers: Fields, *, limits: Limits = LIMITS, version: str = "1.1") -> str:
    with pytest.raises(EdgeError) as refused:
        check_framing(headers, limits, http_version=version)
    return refused.value.code


def length(value: bytes) -> tuple[bytes, bytes]:
    return b"content-length", value


def coding(value: bytes) -> tuple[bytes, bytes]:
    return b"transfer-encoding", value


@pytest.mark.parametrize(
    "fields",
    [
        [length(b"5"), length(b"5")],
        [length(b"5"), length(b"6")],
        [length(b"5, 5")],
        [length(b"5,6")],
        [length(b"+5")],
        [length(b"-5")],
        [length(b"0x5")],
        [length(b"5.0")],
        [length(b"5e1")],
        [length(b" 5")],
        [length(b"5 ")],
        [length(b"5\t")],
        [length(b"")],
        [length(b"five")],
        [length(b"\xd9\xa5")],
        [length(b"9" * 16)],
        [length(b"5"), coding(b"chunked")],
        [coding(b"chunked"), length(b"5")],
        [coding(b"chunked"), length(b"0")],
        [coding(b"chunked"), coding(b"chunked")],
        [coding(b"chunked"), coding(b"identity")],
        [coding(b"gzip, chunked")],
        [coding(b"chunked, chunked")],
        [coding(b"chunked, identity")],
        [coding(b"identity")],
        [coding(b"gzip")],
        [coding(b"xchunked")],
        [coding(b"chunked ")],
        [coding(b" chunked")],
        [coding(b"\tchunked")],
        [coding(b'"chunked"')],
        [coding(b"chunked;q=1")],
        [coding(b"")],
    ],
)
def test_a_body_of_unclear_length_is_refused(fields: Fields) -> None:
    assert refusal([HOST, *fields]) == "HBK-405"


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
def test_a_transfer_coding_exists_in_one_version_only(version: str) -> None:
    assert refusal([HOST, coding(b"chunked")], version=version) == "HBK-405"


def test_plain_framing_is_understood() -> None:
    assert (head_of().length, head_of().body) == (None, False)
    assert (head_of(length(b"0")).length, head_of(length(b"0")).body) == (0, False)
    assert (head_of(length(b"5")).length, head_of(length(b"5")).body) == (5, True)
    assert (head_of(coding(b"chunked")).length, head_of(coding(b"chunked")).body) == (None, True)
    assert head_of(coding(b"Chunked")).body
    assert head_of(version="2").body


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"a b",
        b"a/b",
        b"a/../x",
        b"a@b",
        b"user:pass@a",
        b"a,b",
        b"a:b",
        b"a:",
        b"a:123456",
        b"a:80:80",
        b"a?x",
        b"a#x",
        b"a\\b",
        b"a%2fb",
        b"a\xc3\xa9",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[g::1]",
        b"a;b",
        b"<a>",
        b'"a"',
    ],
)
def test_a_malformed_host_is_refused(value: bytes) -> None:
    assert refusal([(b"host", value)]) == "HBK-401"


@pytest.mark.parametrize(
    "value", [b"server", b"a_b", b"a.b-c:8443", b"10.0.0.1", b"10.0.0.1:80", b"[::1]", b"[2001:db8::1]:443"]
)
def test_a_plain_host_is_kept_as_sent(value: bytes) -> None:
    assert check_framing([(b"host", value)], LIMITS).host == value.decode()


def test_there_is_one_host() -> None:
    assert refusal([]) == "HBK-405"
    assert refusal([HOST, HOST]) == "HBK-405"
    assert refusal([HOST, (b"host", b"other")]) == "HBK-405"
    assert refusal([HOST, HOST], version="1.0") == "HBK-405"
    assert check_framing([], LIMITS, http_version="1.0").host == ""


@pytest.mark.parametrize("byte", [*range(9), *range(0x0A, 0x20), 0x7F])
def test_a_control_byte_in_a_value_is_refused(byte: int) -> None:
    assert refusal([HOST, (b"x-a", b"b%cc" % byte)]) == "HBK-401"
    assert refusal([HOST, (b"x-a", b"b\r\n%cc" % byte)]) == "HBK-401"


def test_tabs_and_bytes_beyond_ascii_in_a_value_are_fine() -> None:
    assert head_of((b"x-a", b"b\tc"), (b"x-b", "caf\u00e9".encode()), (b"x-c", b"\xff")).length is None


@pytest.mark.parametrize(
    "name", [b"", b"x a", b"x:a", b"x(a", b"x/a", b"x\x00a", b"x\na", b"\xc3\xa9", b"x\ta", b"x@", b'"x"']
)
def test_a_field_name_that_is_no_token_is_refused(name: bytes) -> None:
    assert refusal([HOST, (name, b"1")]) == "HBK-401"


@pytest.mark.parametrize("name", [b"x_ a", b"x_\x00", b"x_\r\nx", b"_:"])
def test_an_underscore_excuses_nothing_else_in_a_name(name: bytes) -> None:
    assert refusal([HOST, (name, b"1")]) == "HBK-401"


def test_a_name_with_an_underscore_is_no_reason_to_refuse() -> None:
    assert head_of((b"x_forwarded_for", b"1")).host == "server"


def test_the_number_of_fields_is_bounded() -> None:
    limits = Limits(header_count=10)
    assert head_of(*[(b"x-a", b"1")] * 9, limits=limits).host == "server"
    assert refusal([HOST, *[(b"x-a", b"1")] * 10], limits=limits) == "HBK-403"


def test_the_size_of_all_fields_together_is_bounded() -> None:
    limits = Limits(header_bytes=100)
    assert head_of((b"x-a", b"1" * 79), limits=limits).host == "server"  # 100 bytes
    assert refusal([HOST, (b"x-a", b"1" * 80)], limits=limits) == "HBK-403"
    assert refusal([HOST, *[(b"x-a", b"")] * 20], limits=limits) == "HBK-403"


def test_an_announced_body_is_bounded() -> None:
    limits = Limits(body_bytes=10)
    assert head_of(length(b"10"), limits=limits).length == 10
    assert refusal([HOST, length(b"11")], limits=limits) == "HBK-404"
    assert refusal([HOST, length(b"9" * 15)], limits=limits) == "HBK-404"


NAMES = st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"x-a", b"x_a", b"accept"]) | st.binary(
    max_size=4
)
VALUES = st.sampled_from([b"5", b"5", b"chunked", b"gzip, chunked", b"server", b"a:80", b""]) | st.binary(max_size=4)


@settings(max_examples=300)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sampled_from(["1.0", "1.1", "2"]))
def test_whatever_is_accepted_is_unambiguous(headers: Fields, version: str) -> None:
    try:
        head = check_framing(headers, LIMITS, http_version=version)
    except EdgeError:
        return
    said = {wanted: [value for name, value in headers if name == wanted] for wanted in (b"host", b"content-length")}
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    assert len(said[b"host"]) == 1 or (version == "1.0" and not said[b"host"])
    assert len(said[b"content-length"]) + len(codings) <= 1
    assert [coding.lower() for coding in codings] in ([], [b"chunked"])
    assert head.length == (int(said[b"content-length"][0]) if said[b"content-length"] else None)
    assert not any(set(value) & {0, 10, 13} for _, value in headers)
