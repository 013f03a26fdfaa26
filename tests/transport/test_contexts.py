"""TLS contexts: what they negotiate, whom they talk to, and what they do when the material changes under them."""

import ssl
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey, fingerprint
from hauberk.errors import TransportError
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.revocation import Revocations
from hauberk.transport.connection import connection_info, vouched_for
from hauberk.transport.contexts import Profile, bootstrap_context, client_context, server_context
from hauberk.transport.handshake import PeerRefused
from tests.transport.parties import CA, DOMAIN, ROOTS, Pair, forger, issued, named, outsider, source

SIX = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
}
SHOP = source("shop")


def refusal(pair: Pair) -> PeerRefused:
    with pytest.raises(PeerRefused) as caught:
        pair.shake()
    return caught.value


def serial(tls: ssl.SSLObject) -> str:
    peer = connection_info(tls).peer
    assert peer is not None
    return peer.serial


# what is negotiated


def test_inside_the_mesh_both_ends_speak_tls_1_3_and_know_each_other() -> None:
    pair = Pair(server_context(source("shop")), client_context(source("front"), named("shop"))).shake()
    assert pair.say() == b"hello"
    seen, called = connection_info(pair.server), connection_info(pair.client)
    assert (seen.version, called.version) == ("TLSv1.3", "TLSv1.3")
    assert seen.cipher.startswith("TLS_")
    assert seen.peer is not None
    assert seen.peer.spiffe_id == named("front")
    assert called.peer is not None
    assert called.peer.spiffe_id == named("shop")
    assert pair.server.compression() is None
    if sys.version_info < (3, 15):
        assert seen.group is None


def test_the_server_name_a_caller_asks_for_is_known_to_the_server() -> None:
    pair = Pair(
        server_context(source("shop")), client_context(source("front"), named("shop")), name="Shop.test"
    ).shake()
    assert connection_info(pair.server).sni == "shop.test"
    silent = Pair(server_context(source("shop")), client_context(source("front"), named("shop")), name=None).shake()
    assert connection_info(silent.server).sni == ""


@pytest.mark.parametrize("profile", ["internal", "modern"])
def test_a_caller_that_stops_at_tls_1_2_is_turned_away(profile: Profile) -> None:
    reasons: list[str] = []
    server = server_context(source("shop"), profile=profile, on_failure=reasons.append)
    with pytest.raises(ssl.SSLError):
        Pair(server, outsider(maximum_version=ssl.TLSVersion.TLSv1_2)).shake()
    assert reasons == ["unsupported protocol"]


def test_the_same_caller_gets_in_where_the_edge_says_intermediate() -> None:
    server = server_context(source("shop"), profile="intermediate", require_client=False)
    pair = Pair(server, outsider(maximum_version=ssl.TLSVersion.TLSv1_2)).shake()
    assert connection_info(pair.server).version == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_below_tls_1_2_gets_in_anywhere() -> None:
    server = server_context(source("shop"), profile="intermediate", require_client=False)
    old = outsider(minimum_version=ssl.TLSVersion.MINIMUM_SUPPORTED)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        Pair(server, old).shake()


def test_intermediate_offers_exactly_six_suites_of_tls_1_2() -> None:
    context = server_context(source("shop"), profile="intermediate").fresh()
    offered = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"}
    assert offered == SIX


@pytest.mark.parametrize("suite", sorted(name for name in SIX if "ECDSA" in name))
def test_intermediate_negotiates_each_suite_it_names(suite: str) -> None:
    client = outsider(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(suite)
    pair = Pair(server_context(source("shop"), profile="intermediate", require_client=False), client).shake()
    assert connection_info(pair.server).cipher == suite


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"])
def test_intermediate_refuses_the_suites_it_does_not_name(suite: str) -> None:
    client = outsider(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(suite)
    with pytest.raises(ssl.SSLError):
        Pair(server_context(source("shop"), profile="intermediate", require_client=False), client).shake()


def resumed(server: ssl.SSLContext, client: ssl.SSLContext, first: Pair) -> Pair:
    again = Pair(server, client)
    if first.client.session is not None:
        again.client.session = first.client.session
    return again


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_ticket_is_ever_handed_out(version: ssl.TLSVersion) -> None:
    server = server_context(source("shop"), profile="intermediate", require_client=False)
    first = Pair(server, outsider(maximum_version=version)).shake()
    first.server.write(b"x")  # tickets of TLS 1.3 would travel with it
    first.client.read()
    assert first.client.session is None or not first.client.session.has_ticket


def test_no_session_of_tls_1_3_can_be_resumed() -> None:
    server, client = server_context(source("shop"), profile="intermediate", require_client=False), outsider()
    first = Pair(server, client).shake()
    first.server.write(b"x")
    first.client.read()
    assert not resumed(server, client, first).shake().server.session_reused


def test_a_session_that_tls_1_2_resumes_by_its_number_is_verified_like_any_other(tmp_path: Path) -> None:
    revoked = [Revocations()]
    server = server_context(
        source("shop"),
        profile="intermediate",
        admit=lambda peer: revoked[0].refuse(str(peer.spiffe_id), peer.serial),
    )
    key, svid = issued("front")
    (tmp_path / "pem").write_bytes(key.pem() + svid.pem)
    client = outsider(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.load_cert_chain(tmp_path / "pem")
    first = Pair(server, client).shake()
    again = resumed(server, client, first).shake()
    assert again.server.session_reused
    assert serial(again.server) == svid.serial
    revoked[0] = Revocations.of(serials=[svid.serial])
    assert refusal(resumed(server, client, first)).code == "HBK-206"


def test_the_standard_librarys_own_server_would_have_handed_out_a_ticket(tmp_path: Path) -> None:
    key, svid = issued("shop")
    (tmp_path / "pem").write_bytes(key.pem() + svid.pem)
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.load_cert_chain(tmp_path / "pem")
    first = Pair(plain, outsider()).shake()
    first.server.write(b"x")
    first.client.read()
    assert first.client.session is not None
    assert first.client.session.has_ticket


@pytest.mark.parametrize("profile", ["internal", "modern", "intermediate"])
def test_neither_renegotiation_nor_compression_nor_tickets_are_left_on(profile: Profile) -> None:
    context = server_context(source("shop"), profile=profile).fresh()
    for option in (ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION, ssl.OP_NO_TICKET):
        assert context.options & option
    assert context.num_tickets == 0


# who talks to whom


def test_a_callee_with_another_name_is_refused_by_the_caller() -> None:
    pair = Pair(server_context(source("evil")), client_context(source("front"), named("shop")))
    assert refusal(pair).code == "HBK-103"


def test_a_caller_without_a_certificate_is_refused_inside_the_mesh() -> None:
    reasons: list[str] = []
    with pytest.raises(ssl.SSLError):
        Pair(server_context(source("shop"), on_failure=reasons.append), outsider()).shake()
    assert reasons == ["peer did not return a certificate"]


def test_the_same_caller_is_anonymous_where_none_is_required() -> None:
    pair = Pair(server_context(source("shop"), require_client=False), outsider()).shake()
    assert connection_info(pair.server).peer is None


@pytest.mark.parametrize("profile", ["modern", "intermediate"])
def test_browsers_are_not_asked_for_a_certificate_at_the_edge(profile: Profile) -> None:
    assert server_context(source("shop"), profile=profile, require_client=False).fresh().verify_mode is ssl.CERT_NONE


def test_a_caller_whose_certificate_has_expired_is_refused() -> None:
    past = ManualClock(SHOP.current().svid.not_before - 7200)
    pair = Pair(server_context(source("shop")), client_context(source("front", ttl=60, clock=past), named("shop")))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        pair.shake()


def test_a_caller_of_the_right_name_from_a_rogue_authority_is_refused() -> None:
    rogue = CertificateAuthority.create(DOMAIN)
    pair = Pair(server_context(source("shop")), client_context(source("front", ca=rogue), named("shop")))
    with pytest.raises(ssl.SSLCertVerificationError):
        pair.shake()


def test_a_revoked_caller_is_refused_at_the_handshake() -> None:
    revoked = Revocations.of([str(named("front"))])
    server = server_context(source("shop"), admit=lambda peer: revoked.refuse(str(peer.spiffe_id), peer.serial))
    assert refusal(Pair(server, client_context(source("front"), named("shop")))).code == "HBK-206"


def test_a_revoked_callee_is_refused_at_the_handshake() -> None:
    revoked = Revocations.of([str(named("shop"))])
    client = client_context(
        source("front"), named("shop"), admit=lambda peer: revoked.refuse(str(peer.spiffe_id), peer.serial)
    )
    assert refusal(Pair(server_context(source("shop")), client)).code == "HBK-206"


# two trust domains


PARTNER = forger("partner.test", DOMAIN)  # an authority gone bad: signs names of our domain
BOTH = ROOTS.with_bundle(TrustBundle.of("partner.test", PARTNER.root_der))


def test_the_root_of_another_trusted_domain_cannot_vouch_for_our_names() -> None:
    forged = source("front", ca=PARTNER, bundles=BOTH)
    pair = Pair(server_context(source("shop", bundles=BOTH)), client_context(forged, named("shop")))
    assert refusal(pair).code == "HBK-209"


def test_it_cannot_pretend_to_be_a_callee_of_ours_either() -> None:
    forged = source("shop", ca=PARTNER, bundles=BOTH)
    pair = Pair(server_context(forged), client_context(source("front", bundles=BOTH), named("shop")))
    assert refusal(pair).code == "HBK-209"


def test_one_merged_store_would_have_let_it_in(tmp_path: Path) -> None:
    key, svid = issued("shop")
    (tmp_path / "pem").write_bytes(key.pem() + svid.pem)
    merged = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    merged.load_cert_chain(tmp_path / "pem")
    merged.verify_mode = ssl.CERT_REQUIRED
    merged.load_verify_locations(cadata=CA.root_der + PARTNER.root_der)
    forged = source("front", ca=PARTNER, bundles=BOTH)
    pair = Pair(merged, client_context(forged, named("shop"))).shake()
    assert dict(pair.server.getpeercert() or {})["subjectAltName"] == (("URI", str(named("front"))),)


def test_a_partner_under_its_own_name_is_known_by_it() -> None:
    honest = CertificateAuthority.create("partner.test")
    both = ROOTS.with_bundle(TrustBundle.of("partner.test", honest.root_der))
    guest = source("guest", ca=honest, domain="partner.test", bundles=both)
    pair = Pair(server_context(source("shop", bundles=both)), client_context(guest, named("shop"))).shake()
    peer = connection_info(pair.server).peer
    assert peer is not None
    assert peer.spiffe_id == named("guest", "partner.test")


def test_a_partner_whose_bundle_was_taken_out_is_refused() -> None:
    honest = CertificateAuthority.create("partner.test")
    both = ROOTS.with_bundle(TrustBundle.of("partner.test", honest.root_der))
    guest = source("guest", ca=honest, domain="partner.test", bundles=both)
    shop = source("shop", bundles=both)
    server = server_context(shop)
    Pair(server, client_context(guest, named("shop"))).shake()
    shop.update(bundles=both.without("partner.test"))
    with pytest.raises(ssl.SSLError):
        Pair(server, client_context(guest, named("shop"))).shake()


# rotation


def test_a_renewed_leaf_is_used_by_the_next_handshake_and_disturbs_no_open_connection() -> None:
    shop, front = source("shop"), source("front")
    server, client = server_context(shop), client_context(front, named("shop"))
    before = Pair(server, client).shake()
    for party, name in ((shop, "shop"), (front, "front")):
        key, svid = issued(name)
        party.update(key=key, svid=svid)
    after = Pair(server, client).shake()
    assert before.say(b"still here") == b"still here"
    assert serial(after.server) == front.current().svid.serial != serial(before.server)
    assert serial(after.client) == shop.current().svid.serial != serial(before.client)


def test_during_a_root_rotation_old_and_new_leaves_meet_in_all_combinations() -> None:
    new = CertificateAuthority.create(DOMAIN)
    both = BundleSet(TrustBundle.of(DOMAIN, new.root_der, CA.root_der))
    for server_ca in (CA, new):
        for client_ca in (CA, new):
            server = server_context(source("shop", ca=server_ca, bundles=both))
            Pair(server, client_context(source("front", ca=client_ca, bundles=both), named("shop"))).shake()


def test_a_certificate_of_a_dropped_root_is_refused() -> None:
    new = CertificateAuthority.create(DOMAIN)
    both = BundleSet(TrustBundle.of(DOMAIN, new.root_der, CA.root_der))
    shop = source("shop", ca=new, bundles=both)
    server, late = server_context(shop), client_context(source("front", bundles=both), named("shop"))
    Pair(server, late).shake()
    shop.update(bundles=BundleSet(TrustBundle.of(DOMAIN, new.root_der)))
    with pytest.raises(ssl.SSLError):
        Pair(server, late).shake()


def test_a_key_that_is_not_that_of_the_chain_never_gets_into_a_context() -> None:
    with pytest.raises(TransportError) as caught:
        source("shop").update(key=WorkloadKey.generate())
    assert caught.value.code == "HBK-105"


def test_an_unchanged_source_costs_no_new_context() -> None:
    context = server_context(source("shop"))
    assert context.fresh() is context.fresh()


def test_alpn_is_announced_by_every_later_context() -> None:
    shop = source("shop")
    server, client = server_context(shop), client_context(source("front"), named("shop"))
    server.set_alpn_protocols(["http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    key, svid = issued("shop")
    shop.update(key=key, svid=svid)
    assert Pair(server, client).shake().client.selected_alpn_protocol() == "http/1.1"


def test_a_hundred_rotations_leave_no_descriptor_behind() -> None:
    shop = source("shop")
    server = server_context(shop)
    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    for _ in range(100):
        key, svid = issued("shop")
        shop.update(key=key, svid=svid)
        server.fresh()
    after = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    assert after <= before + 5  # other threads of the test run may open something


# an open connection, looked at again


def test_a_callee_that_was_revoked_hears_nothing_more_on_an_open_connection() -> None:
    revoked = [Revocations()]
    client = client_context(
        source("front"), named("shop"), admit=lambda peer: revoked[0].refuse(str(peer.spiffe_id), peer.serial)
    )
    pair = Pair(server_context(source("shop")), client).shake()
    assert pair.say() == b"hello"
    revoked[0] = Revocations.of([str(named("shop"))])
    with pytest.raises(PeerRefused, match="HBK-206"):
        pair.client.write(b"a secret")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read()


def test_a_callee_whose_root_was_dropped_hears_nothing_more_on_an_open_connection() -> None:
    new = CertificateAuthority.create(DOMAIN)
    front = source("front", bundles=BundleSet(TrustBundle.of(DOMAIN, new.root_der, CA.root_der)))
    stale = Pair(server_context(source("shop", bundles=ROOTS)), client_context(front, named("shop"))).shake()
    assert stale.say() == b"hello"
    front.update(bundles=BundleSet(TrustBundle.of(DOMAIN, new.root_der)))
    with pytest.raises(PeerRefused, match="HBK-209"):
        stale.client.write(b"a secret")


def test_a_bundle_that_only_grew_disturbs_no_open_connection() -> None:
    front = source("front")
    pair = Pair(server_context(source("shop")), client_context(front, named("shop"))).shake()
    front.update(bundles=BundleSet(TrustBundle.of(DOMAIN, CertificateAuthority.create(DOMAIN).root_der, CA.root_der)))
    assert pair.say() == b"hello"


# the first contact


def test_whoever_knows_the_fingerprint_of_the_root_can_make_the_first_contact() -> None:
    server = server_context(source("authority"), require_client=False, send_root=True)
    pair = Pair(server, bootstrap_context(fingerprint(CA.root_der), named("authority"))).shake()
    peer = connection_info(pair.client).peer
    assert peer is not None
    assert peer.spiffe_id == named("authority")


@pytest.mark.parametrize("expected", [fingerprint(PARTNER.root_der), "00" * 32, ""])
def test_any_other_fingerprint_ends_the_first_contact(expected: str) -> None:
    context = server_context(source("authority"), require_client=False, send_root=True)
    assert refusal(Pair(context, bootstrap_context(expected, named("authority")))).code == "HBK-209"


def test_the_right_root_but_another_name_ends_the_first_contact() -> None:
    server = server_context(source("evil"), require_client=False, send_root=True)
    assert refusal(Pair(server, bootstrap_context(fingerprint(CA.root_der), named("authority")))).code == "HBK-103"


def test_a_root_that_only_travels_along_vouches_for_nobody() -> None:
    rogue = CertificateAuthority.create(DOMAIN)
    both = BundleSet(TrustBundle.of(DOMAIN, rogue.root_der, CA.root_der))
    server = server_context(source("authority", ca=rogue, bundles=both), require_client=False, send_root=True)
    assert refusal(Pair(server, bootstrap_context(fingerprint(CA.root_der), named("authority")))).code == "HBK-209"


# what is said about failures


def test_plaintext_on_the_mutual_tls_port_is_reported_as_what_it_is() -> None:
    reasons: list[str] = []
    incoming = ssl.MemoryBIO()
    incoming.write(b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
    server = server_context(source("shop"), on_failure=reasons.append)
    with pytest.raises(ssl.SSLError):
        server.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert reasons == ["http request"]


@given(st.binary(min_size=5, max_size=200))
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_arrive_the_reported_reason_is_constant_words(data: bytes) -> None:
    reasons: list[str] = []
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    incoming.write_eof()
    tls = server_context(SHOP, on_failure=reasons.append).wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError):
        tls.do_handshake()
    assert all(reason.replace(" ", "").isalnum() and len(reason) < 60 for reason in reasons)


def test_the_reason_of_a_refused_peer_says_nothing_the_peer_chose() -> None:
    reasons: list[str] = []
    server = server_context(source("shop", bundles=BOTH), on_failure=reasons.append)
    refusal(Pair(server, client_context(source("front", ca=PARTNER, bundles=BOTH), named("shop"))))
    assert reasons == ["HBK-209 the certificate does not chain to its trust domain"]


# helpers of rotation


def test_a_leaf_is_vouched_for_by_the_root_that_signed_it_and_by_no_other() -> None:
    _, svid = issued("shop")
    assert vouched_for(svid, CA.root_der)
    assert not vouched_for(svid, CertificateAuthority.create(DOMAIN).root_der)
