"""Deciding: 100,000 distinct calls, half of them misses, half about the last rule; beside casbin and cedarpy."""

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Literal

from bench.harness import Progress, Row, at_least, at_most, interleave, spread
from hauberk.core.call import Call, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.model import AuthorizationPolicy, Operation, Rule, Source
from hauberk.policy.set import PolicySet

SIZES = (10, 100, 1_000, 10_000)
CALLS = 100_000
PORTION = 1_000
PEER_CALLS = 5  # the peers take milliseconds for one
ROUNDS = 5
Shape = Literal["each", "one", "any"]
TARGET = Workload("production", "payments", {"app": "payments"})
MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act
"""


def subject(number: int) -> str:
    return f"ns/n{number % 50}/sa/s{number}"


def path_of(number: int) -> str:
    return f"/api/v{number}/*" if number % 2 else f"/api/r{number}"


def method_of(number: int) -> str:
    return "GET" if number % 2 else "POST"


def policies(size: int, shape: Shape = "each") -> PolicySet:
    """One rule per service: exact principal, one method, and a prefix or an exact path in turn.

    With `one` every rule is about the same caller, with `any` no rule names a caller: then paths and methods alone tell
    the rules apart.
    """
    documents = []
    for base in range(0, size, 500):
        rules = tuple(
            Rule(
                () if shape == "any" else (Source(principals=(f"cluster.local/{subject(at * (shape == 'each'))}",)),),
                (Operation(methods=(method_of(at),), paths=(path_of(at),)),),
            )
            for at in range(base, min(size, base + 500))
        )
        documents.append(AuthorizationPolicy(namespace="production", name=f"p{base}", rules=rules))
    return PolicySet.default().with_documents(documents)


def peers(size: int, shape: Shape) -> list[Principal]:
    """Return one principal per connection, as a server makes them; under `one` they are all the same caller."""
    names = [subject(at if shape == "each" else 0) for at in range(size)]
    return [Principal(Kind.WORKLOAD, f"spiffe://example.org/{name}") for name in names]


def calls(callers: list[Principal], numbers: range) -> list[Call]:
    """Return distinct calls; half are about the last rule, half about any, and of both half match nothing."""
    found, size = [], len(callers)
    for number in numbers:
        rule = size - 1 if number % 2 == 0 else (number * 7919) % size
        hit = (number // 2) % 2
        path = path_of(rule).replace("*", str(number)) if hit else f"/nothing/{number}"
        found.append(Call(peer=callers[rule], method=method_of(rule), path=path, target=TARGET, id=str(number)))
    return found


def deciding(engine: Engine, callers: list[Principal]) -> Callable[[], float]:
    """Return a case: seconds per decision, over `CALLS` calls of which no two are equal.

    Calls are made in portions between the timings, as a server makes one before it asks about it: so neither a memo of
    whole calls nor a processor cache full of someone else's calls plays a part.
    """

    def case() -> float:
        decide, took, allowed = engine.decide, 0.0, 0
        gc.disable()
        for first in range(0, CALLS, PORTION):
            some = calls(callers, range(first, first + PORTION))
            started = time.perf_counter()
            decisions = [decide(call) for call in some]
            took += time.perf_counter() - started
            allowed += sum(decision.verdict is Verdict.ALLOW for decision in decisions)
        gc.enable()
        if allowed != CALLS // 2:
            raise RuntimeError(f"{allowed} of {CALLS} allowed")
        return took / CALLS

    return case


def _casbin(size: int) -> Callable[[], float]:
    import casbin  # noqa: PLC0415  # a peer that only this bench needs

    model = casbin.Enforcer.new_model(text=MODEL)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies([[subject(at), path_of(at), method_of(at)] for at in range(size)])
    last = size - 1

    def case() -> float:
        started = time.perf_counter()
        for number in range(PEER_CALLS):
            enforcer.enforce(subject(last), f"/nothing/{number}", method_of(last))
        return (time.perf_counter() - started) / PEER_CALLS

    return case


def _cedar(size: int) -> Callable[[], float]:
    import cedarpy  # noqa: PLC0415  # a peer that only this bench needs

    text = cedarpy.PolicySet.from_str(
        "\n".join(
            f'permit(principal == S::"{subject(at)}", action == Action::"{method_of(at)}",'
            f' resource == P::"{path_of(at)}");'
            for at in range(size)
        )
    )
    last = size - 1

    def case() -> float:
        started = time.perf_counter()
        for number in range(PEER_CALLS):
            request = {
                "principal": f'S::"{subject(last)}"',
                "action": f'Action::"{method_of(last)}"',
                "resource": f'P::"/nothing/{number}"',
                "context": {},
            }
            if cedarpy.is_authorized(request, text, []).diagnostics.errors:
                raise RuntimeError("cedarpy did not decide")
        return (time.perf_counter() - started) / PEER_CALLS

    return case


def _memory(size: int) -> float:
    """Bytes per rule that a compiled set keeps."""
    chosen = policies(size)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    engine = Engine(chosen, TARGET)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del engine
    return (after - before) / size


def run(progress: Progress) -> list[Row]:
    """Measure ours at every size and the peers at the largest."""
    cases: dict[str, Callable[[], float]] = {}
    compiling = []
    for size in SIZES:
        progress(f"compiling {size} rules")
        chosen = policies(size)
        for _ in range(3 if size == SIZES[-1] else 1):
            gc.collect()
            started = time.perf_counter()
            engine = Engine(chosen, TARGET)
            compiling.append(time.perf_counter() - started)
        cases[f"ours.{size}"] = deciding(engine, peers(size, "each"))
    largest = SIZES[-1]
    for shape in ("one", "any"):
        cases[shape] = deciding(Engine(policies(largest, shape), TARGET), peers(largest, shape))
    progress(f"peers with {largest} rules")
    cases["casbin"], cases["cedarpy"] = _casbin(largest), _cedar(largest)
    found = interleave(cases, ROUNDS)
    small, large = found["ours.10"], found[f"ours.{largest}"]
    compiled = spread(compiling[-3:])
    return [
        at_most("policy.decide.10", small.median * 1e6, 1.0, "us", small.note("s")),
        at_most(f"policy.decide.{largest}", large.median * 1e6, 2.0, "us", large.note("s")),
        at_most("policy.growth", large.median / small.median, 3.0, "x", f"10 to {largest} rules"),
        at_most("policy.decide.one_caller", found["one"].median * 1e6, 2.0, "us", f"all {largest} rules about one"),
        at_most("policy.decide.any_caller", found["any"].median * 1e6, 2.0, "us", f"{largest} rules that name nobody"),
        at_least("policy.casbin", found["casbin"].median / large.median, 5_000, note=f"at {largest} rules, a miss"),
        at_least("policy.cedarpy", found["cedarpy"].median / large.median, 3_000, note=f"parsed once; {largest} rules"),
        at_most("policy.compile", compiled.median, 1.5, "s", f"{largest} rules; {compiled.note('s')}"),
        Row("policy.memory", _memory(1_000), "B/rule", note="1,000 rules"),
        *(Row(f"policy.decide.{size}", found[f"ours.{size}"].median * 1e6, "us") for size in SIZES[1:-1]),
    ]
