"""The canonical guard: what came in becomes a call with one meaning, and strangers' claims are gone from it."""

from collections.abc import Sequence
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.call import Call, Workload
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.inbound import Inbound
from hauberk.core.limits import Limits
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.edge.canonical import canonical_path
from hauberk.edge.guard import CanonicalRequest
from hauberk.errors import EdgeError

GATEWAY = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/edge/sa/gateway")
SERVICE = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/shop/sa/orders")
FORGED = [(b"x-forwarded-for", b"127.0.0.1"), (b"x_forwarded_for", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")]
HEAD = [(b"host", b"server"), (b"x-team", b"a")]
GUARD = CanonicalRequest(Workload("shop", "server"), Limits(), frozenset({GATEWAY.id}))


def inbound(raw_path: bytes = b"/", headers: Sequence[tuple[bytes, bytes]] = HEAD, **fields: object) -> Inbound:
    plain = Inbound("GET", raw_path, unquote(raw_path.decode("latin-1")), b"", list(headers))
    return msgspec.structs.replace(plain, **fields)


def call_of(request: Inbound, guard: CanonicalRequest = GUARD) -> Call:
    assert guard.check(request) is None
    assert request.call is not None
    return request.call


def refusal(request: Inbound, guard: CanonicalRequest = GUARD) -> Decision:
    decision = guard.check(request)
    assert decision is not None
    assert decision.verdict is Verdict.DENY
    assert decision.layer is Layer.EDGE
    assert request.call is None
    return decision


def test_a_sane_request_becomes_a_call() -> None:
    call = call_of(inbound(b"/caf%C3%A9", peer=SERVICE, port=8443, destination_ip="10.0.0.1", time=7.0))
    assert (call.method, call.path, call.host, call.port) == ("GET", "/caf\u00e9", "server", 8443)
    assert (call.peer, call.destination_ip, call.time) == (SERVICE, "10.0.0.1", 7.0)
    assert call.target == Workload("shop", "server")
    assert call.headers.get("X-Team") == "a"


@pytest.mark.parametrize("peer", [SERVICE, ANONYMOUS, Principal(Kind.LOCAL, "uid:0"), Principal(Kind.USER, GATEWAY.id)])
def test_claims_of_anybody_but_a_trusted_hop_reach_neither_policy_nor_application(peer: Principal) -> None:
    request = inbound(headers=[*HEAD, *FORGED], peer=peer)
    call = call_of(request)
    assert list(request.headers) == HEAD
    assert call.headers.get("x-forwarded-for") is None
    assert call.headers.get("forwarded") is None


def test_claims_of_a_trusted_hop_are_kept() -> None:
    request = inbound(headers=[*HEAD, *FORGED], peer=GATEWAY)
    assert call_of(request).headers.get("x-forwarded-for") == "127.0.0.1"
    assert list(request.headers) == [*HEAD, *FORGED]


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ([b"203.0.113.9"], "203.0.113.9"),
        ([b"10.0.0.1, 203.0.113.9"], "203.0.113.9"),
        ([b"10.0.0.1", b"203.0.113.9 , 2001:db8::1"], "2001:db8::1"),
        ([b"203.0.113.9, unknown"], None),
        ([b"203.0.113.9:4711"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_the_client_is_the_last_address_a_trusted_hop_names(told: list[bytes], client: str | None) -> None:
    claims = [*((b"x-forwarded-for", value) for value in told), (b"via", b"gateway")]
    assert call_of(inbound(headers=[*HEAD, *claims], peer=GATEWAY)).address.forwarded == client
    assert call_of(inbound(headers=[*HEAD, *claims], peer=SERVICE)).address.forwarded is None


def test_claims_of_a_trusted_hop_never_stay_for_a_stranger_who_sends_the_same_bytes() -> None:
    for peer, kept in ((GATEWAY, True), (SERVICE, False), (GATEWAY, True), (ANONYMOUS, False)):
        request = inbound(headers=[*HEAD, *FORGED], peer=peer)
        assert (call_of(request).headers.get("x-forwarded-for") is not None) is kept
        assert ((b"x-forwarded-for", b"127.0.0.1") in request.headers) is kept


def test_what_an_application_does_to_its_headers_is_not_there_for_the_next_request() -> None:
    for headers in (HEAD, [*HEAD, *FORGED]):
        first, second = inbound(headers=headers), inbound(headers=headers)
        call_of(first)
        assert isinstance(first.headers, list)
        first.headers.append((b"x-user", b"alice"))
        call = call_of(second)
        assert call.headers.get("x-user") is None
        assert list(second.headers) == HEAD


def test_an_application_that_would_see_another_path_gets_no_request() -> None:
    assert refusal(inbound(b"/public", path="/admin")).code == "HBK-402"
    assert refusal(inbound(b"/a%2Fb", path="/a/b")).code == "HBK-402"
    assert refusal(inbound(b"/A", path="/a")).code == "HBK-402"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (inbound(b"//admin"), "HBK-402"),
        (inbound(headers=[]), "HBK-405"),
        (inbound(headers=[*HEAD, (b"x-a", b"\x00")]), "HBK-401"),
        (inbound(headers=[*HEAD, (b"content-length", b"1048577")]), "HBK-404"),
        (inbound(headers=[*HEAD, (b"x-a", b"a" * 70_000)]), "HBK-403"),
        (inbound(headers=HEAD * 60), "HBK-403"),
        (inbound(b"/" + b"a" * 8192), "HBK-403"),
        (inbound(query=b"a" * 8192), "HBK-403"),
        (inbound(b"/" + b"a" * 4096, query=b"a" * 4096), "HBK-403"),
    ],
)
def test_each_insanity_has_its_code(request_: Inbound, code: str) -> None:
    assert refusal(request_).code == code


def test_a_body_of_unknown_length_is_said_to_follow() -> None:
    for fields, body in (
        ([], False),
        ([(b"content-length", b"5")], False),
        ([(b"transfer-encoding", b"chunked")], True),
    ):
        request = inbound(headers=[*HEAD, *fields])
        call_of(request)
        assert request.body is body


def test_headers_given_as_lists_are_read_like_pairs() -> None:
    request = inbound()
    request.headers = [[b"host", b"server"], [b"x-forwarded-for", b"1"]]  # type: ignore[list-item]  # some servers do
    call_of(request)
    assert [tuple(field) for field in request.headers] == [(b"host", b"server")]


def test_thousands_of_different_heads_are_told_apart() -> None:
    for number in range(1500):
        name = b"n%d" % number
        request = inbound(headers=[(b"host", name), (b"x-forwarded-for", name), (b"x-team", name)])
        call = call_of(request)
        assert (call.host, call.headers.get("x-team")) == (name.decode(), name.decode())
        assert len(request.headers) == 2


PATHS = st.sampled_from([b"/", b"/a", b"/a/b", b"/a%20b", b"/..", b"//", b"/%2e", b"/a;b", b"/caf%C3%A9"])
FIELDS = st.sampled_from([*HEAD, *FORGED, (b"host", b"other"), (b"content-length", b"5"), (b"x-a", b"\x01")])


@settings(max_examples=200)
@given(PATHS, st.lists(FIELDS, max_size=5), st.sampled_from([GATEWAY, SERVICE, ANONYMOUS]))
def test_a_request_is_refused_or_has_a_canonical_path_and_one_host(
    raw: bytes, fields: list[tuple[bytes, bytes]], peer: Principal
) -> None:
    request = inbound(raw, headers=fields, peer=peer)
    decision = GUARD.check(request)
    if decision is not None:
        assert decision.verdict is Verdict.DENY
        assert request.call is None
        return
    assert request.call is not None
    try:
        assert request.call.path == canonical_path(raw) == request.path
    except EdgeError:
        pytest.fail("a path that is not canonical became a call")
    assert [request.call.host.encode()] == [value for name, value in fields if name == b"host"]
    if peer is not GATEWAY:
        assert not {name for name, _ in request.headers} & {name for name, _ in FORGED}
