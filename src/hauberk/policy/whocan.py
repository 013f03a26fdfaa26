"""Who can do something: every identity a policy names, or that is asked about, and every pattern that lets others in.

What a call leaves open (the caller's address, its token) is neither true nor false, so an answer is one of three:
never, under further conditions, always. Nobody who can is missing; who is certain can, whatever the rest is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum

import msgspec

from hauberk.core.call import Call
from hauberk.policy.clause import Clause, Group, Test
from hauberk.policy.engine import NO_ALLOW_POLICY, Engine
from hauberk.policy.explain import clauses_for
from hauberk.policy.model import Action

ANYBODY = "anybody"
_OPEN: dict[str, Callable[[Call], object]] = {
    "pBlocks": lambda call: call.address.ip,
    "source.ip": lambda call: call.address.ip,
    "remote.ip": lambda call: call.address.ip or call.address.forwarded,
    "equestPrincipals": lambda call: call.user.id,
    "request.auth.": lambda call: call.user.id,
    "connection.sni": lambda call: call.sni,
    "destination.ip": lambda call: call.destination_ip,
}


class _Holds(IntEnum):
    NEVER = 0
    PERHAPS = 1
    ALWAYS = 2


class Who(msgspec.Struct, frozen=True):
    """One answer.

    Args:
        who: a SPIFFE id, a pattern as written, or `anybody`.
        rule: the rule that allows it.
        certain: False when further conditions of the call decide, or when a DENY keeps some out.
    """

    who: str
    rule: str
    certain: bool = True


def who_can(engine: Engine, call: Call, *, peers: Iterable[str] = ()) -> tuple[Who, ...]:
    """Return who may make this call; its peer is left open.

    Args:
        engine: of the callee.
        call: method, path, host, port and headers of interest; address, token and server name are open when empty.
        peers: SPIFFE ids to ask about beside those that policies name, such as everybody who is registered.
    """
    clauses = clauses_for(engine, call)
    deny = [clause for clause in clauses if clause.group is Group.DENY]
    allow = [(clause.tests, clause.rule) for clause in clauses if clause.group is Group.ALLOW]
    if not any(policy.action is Action.ALLOW and not policy.dry_run for policy in engine.selected):
        allow = [((), NO_ALLOW_POLICY)]
    named = (one for tests, _ in allow for test in tests for one in _exact(test))
    found = [who for one in dict.fromkeys((*named, *peers)) if (who := _about(one, allow, deny, call)) is not None]
    return tuple(dict.fromkeys((*found, *_patterns(allow, deny, call))))


Allow = Sequence[tuple[tuple[Test, ...], str]]


def _exact(test: Test) -> tuple[str, ...]:
    """The ids a test consists of, or nothing when it takes others too."""
    return () if any("*" in one for one in test.exact_ids) else test.exact_ids


def _about(spiffe_id: str, allow: Allow, deny: Sequence[Clause], call: Call) -> Who | None:
    allowed, rule = max(((_holds(tests, call, spiffe_id), rule) for tests, rule in allow), default=(_Holds.NEVER, ""))
    denied = max((_holds(clause.tests, call, spiffe_id) for clause in deny), default=_Holds.NEVER)
    if allowed is _Holds.NEVER or denied is _Holds.ALWAYS:
        return None
    return Who(spiffe_id, rule, allowed is _Holds.ALWAYS and denied is _Holds.NEVER)


def _patterns(allow: Allow, deny: Sequence[Clause], call: Call) -> Iterator[Who]:
    """Yield what lets in more than the ids it names."""
    denied = max((_holds(clause.tests, call, None) for clause in deny), default=_Holds.NEVER)
    for tests, rule in allow if denied is not _Holds.ALWAYS else ():
        on_id = [test for test in tests if test.on_id is not None]
        held = _holds([test for test in tests if test.on_id is None], call, None)
        if held is not _Holds.NEVER and not any(map(_exact, on_id)):
            certain = held is _Holds.ALWAYS and denied is _Holds.NEVER
            yield Who(" and ".join(map(repr, on_id)) or ANYBODY, rule, certain)


def _holds(tests: Iterable[Test], call: Call, spiffe_id: str | None) -> _Holds:
    """Tell whether tests hold together; without an id, whoever calls."""
    return min((_state(test, call, spiffe_id) for test in tests), default=_Holds.ALWAYS)


def _state(test: Test, call: Call, spiffe_id: str | None) -> _Holds:
    if test.on_id is not None:
        if spiffe_id is None:
            return _Holds.PERHAPS
        return _Holds.ALWAYS if test.on_id(spiffe_id) else _Holds.NEVER
    if any(words in test.field and not read(call) for words, read in _OPEN.items()):
        return _Holds.PERHAPS
    return _Holds.ALWAYS if test.match(call) else _Holds.NEVER
