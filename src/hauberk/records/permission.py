"""Who may do what to which stream: the same policies that decide requests.

Each attempt is a call, as `Call.action` describes it, so an AuthorizationPolicy for the service that holds the store
says everything:

```
method   read | append | subscribe | decrypt        on the path of the stream, /streams/order-17
         erase | hold                               on /subjects
         archive | prune | restore                  on /records/retention
from     the peer: a workload's SPIFFE id
when     request.auth.*: the user; source.ip: where the request came from
```

Many streams at once are asked about by their pattern, `/streams/order-*`, and then one by one: whoever may not read the
pattern is denied, and of what it covers only the streams that may be read are shown. `paths: ["/streams/*"]` allows
both. Without a policy that allows it nothing is allowed. Every denial is recorded before the caller learns of it.

Whoever is no longer who it was is denied whatever policies say: the proof of each principal ends with its certificate,
`proof.detail["expires"]`, and a runtime as the authorizer refuses those that are revoked.

Answers are kept per actor, verb and path until other policies are in force: an authorizer that can change has an
attribute `moment`, another object whenever it has; one that cannot has a `digest`; any other is asked each time.
"""

from collections.abc import Mapping
from concurrent.futures import Future

import msgspec

from hauberk.core.call import HERE, NOWHERE, Address, Call, Workload
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.decision import Decision, Layer, Verdict
from hauberk.core.event import Event, Receipt
from hauberk.core.ids import uuid7
from hauberk.core.ports import Authorizer, Recorder
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.crypto.keyring import Pseudonyms
from hauberk.records.streams import DENIED

_EXPIRED = Decision(Verdict.DENY, Layer.IDENTITY, "HBK-300", reason="the proof of the caller's identity has expired")
KEPT = 8_192  # answers in memory, a few hundred bytes each
TYPE = "records.denied"


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf something is done, and as part of what.

    Args:
        peer: the workload, or local process, that does it.
        user: the person it is done for.
        address: where the request came from; recorded as a pseudonym.
        session: the person's session; recorded as a pseudonym.
        correlation: id of the activity this is part of.
        causation: id of the event or call that led to this.
    """

    peer: Principal = ANONYMOUS
    user: Principal = ANONYMOUS
    address: Address = NOWHERE
    session: str = ""
    correlation: str = ""
    causation: str = ""

    @classmethod
    def of(cls, actor: "Context | Principal | Call") -> "Context":
        """Return the context of a principal, or of a call: who makes it, from where, and the call as the cause."""
        if isinstance(actor, Context):
            return actor
        if isinstance(actor, Principal):
            return cls(user=actor) if actor.kind is Kind.USER else cls(peer=actor)
        return cls(
            peer=actor.peer, user=actor.user, address=actor.address, correlation=actor.parent or actor.id,
            causation=actor.id,
        )  # fmt: skip

    def name(self, pseudonyms: Pseudonyms) -> str:
        """Return who this is in the clear part of the record: the person as a pseudonym, else the peer."""
        person = self.user if self.user.kind is Kind.USER else self.peer
        return pseudonyms.of("user", person.id) if person.kind is Kind.USER else person.id


Actor = Context | Principal | Call


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


_claims = msgspec.json.Encoder(order="deterministic", enc_hook=_plain).encode


def _everybody(who: Context) -> tuple[Principal, ...]:
    return who.peer, *who.peer.via, who.user, *who.user.via


def _ended(expires: object, now: float) -> bool:
    """Tell whether a time is over; what is there and is no time is."""
    return expires is not None and not (isinstance(expires, int | float) and now < expires)


class Permission:
    """Asks the policies, remembers their answers, records their denials. Thread-safe.

    Args:
        policy: decides.
        recorder: where denials go; folds them.
        pseudonyms: how people and addresses appear there.
        target: the workload whose policies these are.
        clock: time source.
        kept: answers in memory.
    """

    def __init__(
        self,
        policy: Authorizer,
        recorder: Recorder,
        pseudonyms: Pseudonyms,
        *,
        target: Workload = HERE,
        clock: Clock = SYSTEM_CLOCK,
        kept: int = KEPT,
    ) -> None:
        self.pseudonyms = pseudonyms
        self.recorder = recorder
        self.clock = clock
        self._policy = policy
        self._target = target
        self._kept = kept
        self._known: tuple[object, dict[object, Decision]] = (None, {})  # exchanged as a whole

    @property
    def moment(self) -> object:
        """Something else whenever other policies are in force; None where that cannot be known."""
        found: object = getattr(self._policy, "moment", None)
        return found if found is not None else getattr(self._policy, "digest", None)

    def decide(self, who: Context, verb: str, path: str) -> Decision:
        """Return the answer of the policies in force, or a refusal of who is not proven any more."""
        if self.expired(who):
            return _EXPIRED
        moment = self.moment  # read first: an answer may be newer than it, and is then asked for again, never older
        key = self._key(who, verb, path) if moment is not None else None
        if key is None:
            return self._policy.decide(self._call(who, verb, path))
        at, known = self._known
        if at != moment:
            known = {}
            self._known = (moment, known)
        answer = known.get(key)
        if answer is None:
            answer = self._policy.decide(self._call(who, verb, path))
            if len(known) >= self._kept:
                known.clear()
            known[key] = answer
        return answer

    def _call(self, who: Context, verb: str, path: str) -> Call:
        return Call(
            peer=who.peer, user=who.user, method=verb, path=path, target=self._target, address=who.address,
            time=self.clock.time(),
        )  # fmt: skip

    @staticmethod
    def _key(who: Context, verb: str, path: str) -> object:
        """Return everything a policy can look at; None when it cannot be compared."""
        try:
            claims = _claims(who.user.claims) if who.user.claims else b""
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        chain = tuple((one.kind, one.id, str(one.proof.detail.get("serial", ""))) for one in _everybody(who))
        return len(who.peer.via), chain, claims, who.address, verb, path

    def expired(self, who: Context) -> bool:
        """Tell whether the proof of anybody in it has ended."""
        now: float | None = None
        for one in _everybody(who):
            if one.proof.detail:
                now = self.clock.time() if now is None else now
                if _ended(one.proof.detail.get("expires"), now):
                    return True
        return False

    def allows(self, who: Context, verb: str, path: str) -> bool:
        """Tell whether it is allowed; for what is left out or hidden without a word."""
        return self.decide(who, verb, path).verdict is Verdict.ALLOW

    def enforce(self, who: Context, verb: str, path: str) -> Decision:
        """Return the answer if it is yes.

        Raises:
            Denied: HBK-300, once that is recorded.
        """
        decision = self.decide(who, verb, path)
        if decision.verdict is not Verdict.ALLOW:
            self.record(who, verb, path, decision).result()
            decision.enforce()
        return decision

    def record(self, who: Context, verb: str, path: str, decision: Decision) -> "Future[Receipt]":
        """Record a denial."""
        event = self.event(TYPE, DENIED, who, data={"verb": verb, "path": path, "reason": decision.reason})
        denied = msgspec.structs.replace(
            event, outcome="deny", code=decision.code or "HBK-300", rule=decision.rule or "",
            digest=decision.basis.digest,
        )  # fmt: skip
        return self.recorder.submit(denied)

    def event(
        self,
        kind: str,
        stream: str,
        who: Context,
        *,
        data: Mapping[str, object],
        id: bytes | None = None,  # noqa: A002  # the event's own word
    ) -> Event:
        """Return an event with everything filled in that is known about whoever does it."""
        now = self.clock.time_ns()
        pseudonym = self.pseudonyms.of
        return Event(
            id=uuid7(now_ns=now) if id is None else id, type=kind, stream=stream, time_ns=now,
            actor=who.name(self.pseudonyms), address=pseudonym("address", who.address.forwarded or who.address.ip),
            session=pseudonym("session", who.session), correlation=who.correlation, causation=who.causation, data=data,
        )  # fmt: skip
