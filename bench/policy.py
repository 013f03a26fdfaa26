"""Deciding: 100,000 distinct calls, half of them misses, half about the last rule; beside casbin and cedarpy."""

import gc
import random
import time
import tracemalloc
from collections.abc import Callable

from bench.harness import Progress, Row, at_least, at_most, interleave
from hauberk.core.call import Call, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.model import AuthorizationPolicy, Operation, Rule, Source
from hauberk.policy.set import PolicySet

SIZES = (10, 100, 1_000, 10_000)
CALLS = 100_000
PEER_CALLS = 5  # the peers take milliseconds for one
ROUNDS = 5
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


def policies(size: int) -> PolicySet:
    """One rule per service: exact principal, one method, and a prefix or an exact path in turn."""
    documents = []
    for base in range(0, size, 500):
        rules = tuple(
            Rule(
                (Source(principals=(f"cluster.local/{subject(at)}",)),),
                (Operation(methods=(method_of(at),), paths=(path_of(at),)),),
            )
            for at in range(base, min(size, base + 500))
        )
        documents.append(AuthorizationPolicy(namespace="production", name=f"p{base}", rules=rules))
    return PolicySet.default().with_documents(documents)


def calls(size: int) -> list[Call]:
    """Distinct calls; half are about the last rule, half about any, and of both half match nothing."""
    found = []
    for number in range(CALLS):
        rule = size - 1 if number % 2 == 0 else (number * 7919) % size
        hit = (number // 2) % 2
        path = path_of(rule).replace("*", str(number)) if hit else f"/nothing/{number}"
        peer = Principal(Kind.WORKLOAD, f"spiffe://example.org/{subject(rule)}")
        found.append(Call(peer=peer, method=method_of(rule), path=path, target=TARGET, id=str(number)))
    random.Random(7).shuffle(found)  # noqa: S311  # the same order in every run
    return found


def deciding(engine: Engine, some: list[Call]) -> Callable[[], float]:
    """Return a case: seconds per decision."""

    def case() -> float:
        decide = engine.decide
        gc.disable()
        started = time.perf_counter()
        for call in some:
            decide(call)
        took = time.perf_counter() - started
        gc.enable()
        return took / len(some)

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

    text = "\n".join(
        f'permit(principal == S::"{subject(at)}", action == A::"{method_of(at)}", resource == P::"{path_of(at)}");'
        for at in range(size)
    )
    last = size - 1

    def case() -> float:
        started = time.perf_counter()
        for number in range(PEER_CALLS):
            request = {
                "principal": f'S::"{subject(last)}"',
                "action": f'A::"{method_of(last)}"',
                "resource": f'P::"/nothing/{number}"',
                "context": {},
            }
            cedarpy.is_authorized(request, text, [])
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
    compile_seconds = 0.0
    for size in SIZES:
        progress(f"compiling {size} rules")
        chosen = policies(size)
        gc.collect()
        started = time.perf_counter()
        engine = Engine(chosen, TARGET)
        compile_seconds = time.perf_counter() - started
        some = calls(size)
        allowed = sum(engine.decide(call).verdict is Verdict.ALLOW for call in some)
        if allowed != CALLS // 2:
            raise RuntimeError(f"{allowed} of {CALLS} allowed")
        cases[f"ours.{size}"] = deciding(engine, some)
    largest = SIZES[-1]
    progress(f"peers with {largest} rules")
    cases["casbin"], cases["cedarpy"] = _casbin(largest), _cedar(largest)
    found = interleave(cases, ROUNDS)
    small, large = found["ours.10"], found[f"ours.{largest}"]
    rows = [
        at_most("policy.decide.10", small.median * 1e6, 1.0, "us", small.note("s")),
        at_most(f"policy.decide.{largest}", large.median * 1e6, 2.0, "us", large.note("s")),
        at_most("policy.growth", large.median / small.median, 3.0, "x", f"10 to {largest} rules"),
        at_least("policy.casbin", found["casbin"].median / large.median, 5_000, note=f"at {largest} rules, a miss"),
        at_least("policy.cedarpy", found["cedarpy"].median / large.median, 3_000, note=f"at {largest} rules, a miss"),
        at_most("policy.compile", compile_seconds, 1.5, "s", f"{largest} rules"),
        Row("policy.memory", _memory(1_000), "B/rule", note="1,000 rules"),
    ]
    rows += [Row(f"policy.decide.{size}", found[f"ours.{size}"].median * 1e6, "us") for size in SIZES[1:-1]]
    return rows
