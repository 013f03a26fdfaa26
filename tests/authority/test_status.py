"""What `hauberk status` calls insecure: dangerous settings, and what the policies in force leave open."""

from pathlib import Path
from typing import Any

import pytest

from hauberk.core.call import Call, Headers, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import ANONYMOUS
from hauberk.policy.engine import Engine
from hauberk.policy.parse import parse_documents
from hauberk.policy.posture import weakened
from hauberk.policy.set import PolicySet
from tests.authority.test_authority import ADMIN, ALLOW, opened

ROOT = "hauberk-system"
PEERS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""
NOTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}, annotations: {{istio.io/dry-run: "{dry}"}}}}
spec: {spec}
"""
PEER = "policy: PeerAuthentication"
NO_DENY = "policy: no default deny"
NO_TLS = "policy: no default mutual TLS"


def peers(name: str, spec: str, namespace: str = "prod") -> str:
    return PEERS.format(name=name, namespace=namespace, spec=spec)


def nothing(name: str, spec: str = "{}", namespace: str = ROOT, dry: str = "false") -> str:
    return NOTHING.format(name=name, namespace=namespace, spec=spec, dry=dry)


def of(*texts: str) -> PolicySet:
    """A set of exactly these."""
    return PolicySet.of([document for text in texts for document in parse_documents(text)])


def test_status_names_a_policy_that_weakens_as_long_as_it_is_in_force(tmp_path: Path) -> None:
    setting = "records.insecure_unrecorded"
    settings: dict[str, Any] = {setting: True}
    authority = opened(tmp_path / "state", **settings)
    try:
        assert authority.status()["insecure"] == [setting]
        authority.apply_policies([("a", peers("soft", "{mtls: {mode: PERMISSIVE}}"))], ADMIN, force=True, replace=False)
        told = "policy: PeerAuthentication prod/soft PERMISSIVE"
        assert authority.status()["insecure"] == [setting, told]
        authority.remove_policy("PeerAuthentication", "prod", "soft", ADMIN)
        authority.apply_policies([("b", ALLOW)], ADMIN, force=True, replace=False)
        assert authority.status()["insecure"] == [setting]
        authority.remove_policy("AuthorizationPolicy", ROOT, "allow-nothing", ADMIN)
        assert authority.status()["insecure"] == [setting, NO_DENY]
        authority.remove_policy("PeerAuthentication", ROOT, "default", ADMIN)
        assert authority.status()["insecure"] == [setting, NO_DENY, NO_TLS]
    finally:
        authority.close()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (peers("a", "{mtls: {mode: DISABLE}}"), [f"{PEER} prod/a DISABLE"]),
        (peers("a", "{mtls: {mode: STRICT}}"), []),
        (peers("a", "{}"), []),
        (
            peers(
                "a",
                "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}, "
                "portLevelMtls: {8080: {mode: DISABLE}, 81: {mode: PERMISSIVE}, 82: {mode: STRICT}}}",
            ),
            [f"{PEER} prod/a port 81 PERMISSIVE", f"{PEER} prod/a port 8080 DISABLE"],
        ),
        (peers("default", "{mtls: {mode: PERMISSIVE}}", ROOT), [f"{PEER} {ROOT}/default PERMISSIVE"]),
        (peers("default", "{}", ROOT), [NO_TLS]),
        (nothing("allow-nothing", "{rules: [{}]}"), [NO_DENY]),
        (nothing("allow-nothing", dry="true"), [NO_DENY]),
        (nothing("allow-nothing", "{selector: {matchLabels: {app: x}}}"), [NO_DENY]),
        (nothing("allow-nothing", "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}"), [NO_DENY]),
    ],
)
def test_each_way_to_weaken_the_default_set_is_named(text: str, lines: list[str]) -> None:
    assert list(weakened(PolicySet.default().with_documents(parse_documents(text)))) == lines


def test_the_default_by_another_name_is_as_good() -> None:
    strict = peers("any", "{mtls: {mode: STRICT}}", ROOT)
    assert weakened(of(nothing("other"), strict)) == ()
    assert weakened(of(nothing("elsewhere", namespace="prod"), strict)) == (NO_DENY,)
    assert weakened(of()) == (NO_DENY, NO_TLS)


@pytest.mark.parametrize("text", ["", nothing("a", namespace="prod"), nothing("a", dry="true"), nothing("a")])
def test_the_engine_lets_strangers_in_exactly_where_status_says_so(text: str) -> None:
    policies = of(text) if text else of()
    call = Call(peer=ANONYMOUS, method="GET", path="/", host="", port=0, headers=Headers([]), target=Workload("x", "y"))
    engine = Engine(policies, call.target)
    assert (engine.decide(call).verdict is Verdict.ALLOW) == (NO_DENY in weakened(policies))
    assert (engine.mtls_mode(80) != "STRICT") == (NO_TLS in weakened(policies))
