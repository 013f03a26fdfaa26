"""A decision: what a guard answered, on what ground. It has no truth value, so it cannot be ignored by accident."""

from enum import StrEnum
from typing import NoReturn

import msgspec

from hauberk.errors import Denied


class Verdict(StrEnum):
    """Yes or no. Audit-only matches never change it."""

    ALLOW = "allow"
    DENY = "deny"


class Layer(StrEnum):
    """The layers of defence, in the order a call meets them."""

    TRANSPORT = "transport"
    IDENTITY = "identity"
    POLICY = "policy"
    EDGE = "edge"
    RESILIENCE = "resilience"
    DATA = "data"
    RECORDS = "records"
    COORDINATION = "coordination"
    DETECTION = "detection"
    POSTURE = "posture"


class Basis(msgspec.Struct, frozen=True):
    """What a decision was taken on.

    Args:
        digest: SHA-256 hex of the policy set's content; empty when no policy was consulted.
        revision: number of the feed resource the set came from, 0 when local.
    """

    digest: str = ""
    revision: int = 0


NO_BASIS = Basis()


class Decision(msgspec.Struct, frozen=True):
    """What a guard answered.

    Args:
        verdict: allow or deny.
        layer: who answered.
        code: `HBK-###` for a denial, empty for an allow.
        rule: `ns[NS]-policy[NAME]-rule[I]`, limit class ...; None when no rule matched.
        basis: what it was taken on.
        reason: for operators, never for callers.
        audits: rules of AUDIT and dry-run policies that matched too.
    """

    verdict: Verdict
    layer: Layer
    code: str = ""
    rule: str | None = None
    basis: Basis = NO_BASIS
    reason: str = ""
    audits: tuple[str, ...] = ()

    def enforce(self) -> None:
        """Return if allowed.

        Raises:
            Denied: with this decision's code, rule and reason.
        """
        if self.verdict is not Verdict.ALLOW:
            raise Denied(self.code or "HBK-300", self.reason, rule=self.rule, layer=self.layer.value)

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision has no truth value: call .enforce(), or compare .verdict")
