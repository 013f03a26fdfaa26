"""Revocations: by id or by certificate, in whatever spelling an operator pastes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey
from hauberk.identity.revocation import NO_REVOCATIONS, Revocations
from tests.core.refusal import refuses

ME = "spiffe://example.org/ns/prod/sa/me"
OTHER = "spiffe://example.org/ns/prod/sa/other"


def test_an_id_is_revoked_with_every_certificate_of_it_and_nobody_else_is() -> None:
    revoked = Revocations.of([ME])
    for serial in ("", "1", "ab"):
        with refuses("HBK-206"):
            revoked.refuse(ME, serial)
        revoked.refuse(OTHER, serial)
    for close in (ME + "2", ME[:-1], ME + "/x", ME.upper()):
        assert not revoked.covers(close, "1")


def test_a_certificate_is_revoked_alone() -> None:
    revoked = Revocations.of(serials=["ab"])
    with refuses("HBK-206"):
        revoked.refuse(ME, "ab")
    revoked.refuse(ME, "ac")
    NO_REVOCATIONS.refuse(ME, "ab")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**159 - 1))
def test_every_spelling_of_a_serial_number_revokes_the_certificate(serial: int) -> None:
    plain = f"{serial:x}"
    even = plain if len(plain) % 2 == 0 else f"0{plain}"
    colons = ":".join(even[at : at + 2] for at in range(0, len(even), 2))
    for text in (plain, even, f"00{even}", f"0x{plain}", f"0X{even}", colons, f" {plain}\n"):
        for spelled in (text, text.upper()):
            assert Revocations.of(serials=[spelled]).covers(ME, plain), spelled


def test_the_serial_of_an_issued_certificate_is_covered() -> None:
    clock = ManualClock()
    ca = CertificateAuthority.create("example.org", clock=clock)
    for _ in range(40):  # one in sixteen has an odd number of digits
        svid = ca.issue(WorkloadKey.generate().request(None), SpiffeId.parse(ME), clock=clock)
        printed = f"{int(svid.serial, 16):040X}"  # as openssl pads it
        assert Revocations.of(serials=[printed]).covers(ME, svid.serial)


@pytest.mark.parametrize(
    "serial", ["", " ", "xyz", "0", "0x", "-1", "1.5", "ab cd", "a" * 65, "٣", "0x0x1", "+1", "1_0"]
)
def test_what_is_no_serial_number_is_refused_rather_than_revoking_nothing(serial: str) -> None:
    with refuses("HBK-215"):
        Revocations.of(serials=[serial])


@pytest.mark.parametrize("spiffe_id", ["", "me", "https://example.org/", ME + "/", ME.upper(), "spiffe://a b/"])
def test_what_is_no_spiffe_id_is_refused_rather_than_revoking_nobody(spiffe_id: str) -> None:
    with refuses("HBK-201"):
        Revocations.of([ME, spiffe_id])
