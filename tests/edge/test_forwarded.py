"""Only a trusted hop may say who called it, and from where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.edge.forwarded import drop_claims, is_claim

CLAIMS = [
    "Forwarded",
    "Via",
    "Proxy",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Client-Cert",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "WL-Proxy-Client-IP",
    "X-Host",
    "X-Original-URL",
    "X-Original-Host",
    "X-Original-Method",
    "X-Original-Forwarded-For",
    "X-Rewrite-URL",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Remote-User",
    "X-Remote-Group",
    "Remote-User",
    "X-Envoy-Original-Path",
    "X-Envoy-External-Address",
    "X-SSL-Client-Cert",
    "SSL-Client-Verify",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Client-Cert-DN",
    "X-ARR-ClientCert",
    "X-Auth-Request-Email",
    "X-WEBAUTH-USER",
    "X-MS-CLIENT-PRINCIPAL-ID",
    "X-Goog-Authenticated-User-Email",
    "X-Amzn-Mtls-Clientcert",
    "X-Amzn-Oidc-Identity",
    "X-Hauberk-Peer",
    "Forwarded-For",
    "X-Client-DN",
    "X-Client-Verify",
    "X-TLS-Client-Subject",
    "X-MTLS-Client-San",
    "Tailscale-User-Login",
    "CF-Access-Jwt-Assertion",
    "CF-Access-Authenticated-User-Email",
    "CF-Connecting-O2O",
    "X-Script-Name",
    "Script-Name",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-ARR-SSL",
    "X-ARR-LOG-ID",
    "X-Goog-Iap-Jwt-Assertion",
    "X-Amz-Cf-Id",
    "X-User",
    "X-User-Id",
    "X-Authenticated-User",
    "X-Authenticated-Email",
    "X-Authenticated-UserId",
    "X-Webauth-Email",
    "X-Remote-Addr",
]
HARMLESS = [
    "Host",
    "Accept",
    "Authorization",
    "Content-Type",
    "Content-Length",
    "Cookie",
    "Traceparent",
    "X-Request-Id",
    "X-Api-Key",
    "X-Team",
    "X-CSRF-Token",
    "Sec-Fetch-Site",
    "Referer",
    "Range",
    "User-Agent",
    "Proxy-Authorization",
    "X-Robots-Tag",
    "Forward",
    "X-User-Agent",
    "X-Amz-Date",
    "X-Amzn-Trace-Id",
    "CF-Ray",
    "X-Client-Version",
    "Script",
    "Viable",
]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_dropped_with_dashes_and_with_underscores(name: str) -> None:
    lower = name.lower().encode()
    for spelling in {lower, lower.replace(b"-", b"_"), lower.replace(b"-", b"_", 1)}:
        assert drop_claims([(b"host", b"a"), (spelling, b"127.0.0.1"), (b"accept", b"*/*")]) == [
            (b"host", b"a"),
            (b"accept", b"*/*"),
        ]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_claims_nothing_is_kept(name: str) -> None:
    headers = [(name.lower().encode(), b"1")]
    assert drop_claims(headers) == headers


def test_any_name_with_an_underscore_is_dropped() -> None:
    assert drop_claims([(b"x_team", b"1"), (b"content_length", b"5"), (b"_", b"")]) == []


@given(st.lists(st.tuples(st.sampled_from([*CLAIMS, *HARMLESS]).map(lambda name: name.lower().encode()), st.binary())))
def test_what_is_left_is_in_order_complete_and_without_claims(headers: list[tuple[bytes, bytes]]) -> None:
    left = list(drop_claims(headers))
    assert left == [field for field in headers if not is_claim(field[0])]
