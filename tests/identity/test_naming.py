"""Short names: what people write in code, and that none of it leads out of where it seems to point."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError
from hauberk.identity.naming import resolve
from tests.core.refusal import refuses

OWN = SpiffeId.service("example.org", "prod", "orders")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("payments", "spiffe://example.org/ns/prod/sa/payments"),
        ("billing/payments", "spiffe://example.org/ns/billing/sa/payments"),
        ("spiffe://partner.org/ns/a/sa/b", "spiffe://partner.org/ns/a/sa/b"),
        ("spiffe://partner.org/anything", "spiffe://partner.org/anything"),
    ],
)
def test_a_name_means_one_id(name: str, meant: str) -> None:
    assert str(resolve(name, OWN)) == meant
    assert resolve(SpiffeId.parse(meant), OWN) == SpiffeId.parse(meant)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/payments",
        "billing/",
        "a/b/c",
        "a/sa/b/ns/c",
        "../payments",
        "..",
        "a b",
        "payments\n",
        "payments:443",
        "https://payments/",
        "spiffe:payments",
        "spiffe://",
        "pay%6dents",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with refuses("HBK-201"):
        resolve(name, OWN)


def test_a_caller_without_namespace_has_to_say_which() -> None:
    nobody = SpiffeId.parse("spiffe://example.org/me")
    with refuses("HBK-201"):
        resolve("payments", nobody)
    assert resolve("billing/payments", nobody).namespace == "billing"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab./-:%\n "), max_size=20))
def test_a_short_name_never_leaves_the_trust_domain_or_the_form_of_a_service(name: str) -> None:
    try:
        meant = resolve(name, OWN)
    except IdentityError as refused:
        assert refused.code == "HBK-201"  # noqa: PT017  # one of two outcomes
    else:
        home, _, account = name.rpartition("/")
        assert (meant.trust_domain, meant.namespace, meant.account) == ("example.org", home or "prod", account)
