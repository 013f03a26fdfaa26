"""Policies and calls for hypothesis, over small sets of values that meet each other often; short ways to write both."""

import random

from hypothesis import strategies as st

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.policy.engine import Engine
from hauberk.policy.model import Action, AuthorizationPolicy, Condition, Operation, PeerAuthentication, Rule, Source
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet

TARGET = Workload("prod", "pay", {"app": "pay", "tier": "back"})
ALIASES = ("old.org", "sub-old.org")
PRINCIPALS = [
    "cluster.local/ns/prod/sa/a",
    "example.org/ns/prod/sa/b",
    "old.org/ns/prod/sa/a",
    "other.org/ns/prod/sa/a",
    "*old.org/ns/prod/sa/a",
    "exa*/ns/dev/sa/a",
    "*",
    "*/sa/a",
    "example.org/*",
    "*/ns/prod/sa/b",
    "example.org/ns/prod/sa/*",
    "b",
]
NAMESPACES = ["prod", "dev", "pr*", "*", "*o*", "x", "prod/sa"]
ACCOUNTS = ["a", "prod/b", "dev/a", "b"]
DOMAINS = ["other.org", "*.org", "old*", "*", "nowhere"]
LOCAL_DOMAINS = ["example.org", "old.org"]
PATHS = ["/", "/api", "/api/*", "/api/{*}", "/api/{*}/x", "/api/{**}", "*/x", "*", "/api/{**}/x", "/a*c*", "*/x*"]
PATHS += ["/{*}/1"]
METHODS = ["GET", "POST", "*", "PO*", "*ET"]
BLOCKS = ["10.0.0.0/8", "10.0.0.1", "192.168.1.7/24", "2001:db8::/32", "0.0.0.0/0"]
HOSTS = ["a.com", "*.com", "a.*", "*", "A.com:80"]
USERS = ["*", "https://iss/alice", "https://iss/*", "*/alice", "*ice", "https*", "*iss/alice", "iss/al*", "alice"]
TEXTS = ["a", "*", "b*", "*b"]
PEERS = [
    "",
    "uid:0",
    "spiffe://example.org/ns/prod/sa/a",
    "spiffe://example.org/ns/prod/sa/b",
    "spiffe://old.org/ns/prod/sa/a",
    "spiffe://sub-old.org/ns/prod/sa/a",
    "spiffe://other.org/ns/prod/sa/a",
    "spiffe://example.org/ns/dev/sa/a",
    "spiffe://example.org/ns/dev/sa/x/ns/prod/sa/a",
    "spiffe://example.org/ns/prod2/sa/ab",
    "spiffe://example.org/other/shape",
]
CLAIMS: list[dict[str, object]] = [
    {},
    {"aud": "a", "azp": "bb", "groups": ["a", "bb"], "scope": "a bb"},
    {"aud": ["b", "a"], "azp": 1, "groups": "a bb", "a": {"b": "a"}, "scope": ["a", 2]},
]


GATEWAYS = ({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},)


def some(values: list[str], least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=2, unique=True).map(tuple)


def few(fields: dict[str, list[str]]) -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    """One or two fields with values: with more of them nothing would ever match."""
    pair = st.sampled_from(sorted(fields)).flatmap(lambda name: st.tuples(st.just(name), some(fields[name], 1)))
    return st.lists(pair, min_size=1, max_size=2).map(dict)


def both(fields: dict[str, list[str]]) -> dict[str, list[str]]:
    return {**fields, **{f"not_{name}": values for name, values in fields.items()}}


ANYBODY = {
    "ip_blocks": BLOCKS,
    "remote_ip_blocks": BLOCKS,
    "request_principals": USERS,
    "trust_domains": DOMAINS + LOCAL_DOMAINS,
}
NAMED = both({"principals": PRINCIPALS, "namespaces": NAMESPACES, **ANYBODY})
ACCOUNT = both({"service_accounts": ACCOUNTS, **ANYBODY})
OPERATION = both({"methods": METHODS, "paths": PATHS, "hosts": HOSTS, "ports": ["80", "443", "8080"]})
KEYS = {
    "request.headers[x-team]": TEXTS,
    "source.principal": PRINCIPALS,
    "source.namespace": NAMESPACES,
    "source.serviceAccount": ACCOUNTS,
    "source.trustDomain": DOMAINS + LOCAL_DOMAINS,
    "source.ip": BLOCKS,
    "remote.ip": BLOCKS,
    "request.auth.principal": USERS,
    "request.auth.audiences": TEXTS,
    "request.auth.presenter": TEXTS,
    "request.auth.claims[groups]": TEXTS,
    "request.auth.claims[a][b]": TEXTS,
    "request.auth.claims[scope]": TEXTS,
    "destination.ip": BLOCKS,
    "destination.port": ["80", "443"],
    "connection.sni": ["a.com", "*.com", "a*", "*"],
}


def sources() -> st.SearchStrategy[Source]:
    return st.one_of(few(NAMED), few(ACCOUNT)).map(lambda fields: Source(**fields))


def operations() -> st.SearchStrategy[Operation]:
    return few(OPERATION).map(lambda fields: Operation(**fields))


def conditions() -> st.SearchStrategy[Condition]:
    return st.sampled_from(sorted(KEYS)).flatmap(
        lambda key: st.one_of(
            st.builds(Condition, st.just(key), some(KEYS[key], 1), some(KEYS[key])),
            st.builds(Condition, st.just(key), st.just(()), some(KEYS[key], 1)),
        )
    )


def rules() -> st.SearchStrategy[Rule]:
    """Rules with one part, two or three: the more there are, the less they match."""
    parts = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (2, 0, 0), (0, 2, 0), (1, 0, 1), (1, 1, 1)])
    return parts.flatmap(
        lambda sizes: st.builds(
            Rule,
            st.lists(sources(), min_size=sizes[0], max_size=sizes[0]).map(tuple),
            st.lists(operations(), min_size=sizes[1], max_size=sizes[1]).map(tuple),
            st.lists(conditions(), min_size=sizes[2], max_size=sizes[2]).map(tuple),
        )
    )


def policies() -> st.SearchStrategy[AuthorizationPolicy]:
    return st.builds(
        AuthorizationPolicy,
        name=st.integers(0, 9).map(lambda number: f"p{number}"),
        namespace=st.sampled_from(["prod", "prod", "dev", "hauberk-system"]),
        action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY, Action.AUDIT]),
        rules=st.lists(rules(), max_size=3).map(tuple),
        selector=st.sampled_from([None, None, {}, {"app": "pay"}, {"app": "pay", "tier": "back"}, {"app": "other"}]),
        target_refs=st.sampled_from(
            [(), (), (), ({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},)]
        ),
        dry_run=st.sampled_from([False, False, False, True]),
    )


def peer_authentications() -> st.SearchStrategy[PeerAuthentication]:
    modes = st.sampled_from(["UNSET", "STRICT", "PERMISSIVE", "DISABLE"])
    return st.builds(
        lambda selector, ports, **fields: PeerAuthentication(
            selector=selector, ports=ports if selector else {}, **fields
        ),
        name=st.integers(0, 9).map(lambda number: f"p{number}"),
        namespace=st.sampled_from(["prod", "dev", "hauberk-system"]),
        selector=st.sampled_from([None, {}, {"app": "pay"}, {"tier": "back"}, {"app": "other"}]),
        mode=modes,
        ports=st.dictionaries(st.sampled_from([80, 443]), modes, max_size=2),
    )


def workload(name: str) -> Principal:
    return Principal(Kind.WORKLOAD, name) if name else ANONYMOUS


def person(claims: dict[str, object], name: str) -> Principal:
    return Principal(Kind.USER, name, claims) if name else ANONYMOUS


def _calls(*, tcp: bool) -> list[Call]:
    """Return 400 calls, the same in every run. Deciding one is cheap, so a set of policies is asked about many."""
    pick = random.Random(7 + tcp).choice  # noqa: S311  # no secret
    paths = ["/", "/api", "/api/", "/api/1", "/api/1/x", "/api/x/x", "/other", "/a*c*", "/z/x*", "/é/1", "/x"]
    users = ["", "https://iss/alice", "https://iss/bob", "https://iss/x/alice", "iss/alice", "/alice"]
    ips = ["", "10.0.0.1", "192.168.1.9", "2001:db8::1", "::ffff:10.0.0.1", "unix"]
    return [
        Call(
            peer=workload(pick(PEERS)),
            user=person(pick(CLAIMS), pick(users)),
            method="" if tcp else pick(["GET", "POST", "PUT"]),
            path="" if tcp else pick(paths),
            host="" if tcp else pick(["", "a.com", "A.COM:80", "b.com"]),
            port=pick([0, 80, 443]),
            address=Address(pick(ips), 1, pick([None, "10.0.0.1", "8.8.8.8"])),
            headers=Headers(pick([[], [(b"x-team", b"")], [(b"x-team", b"a")], [(b"x-team", b"bb")]])),
            destination_ip=pick(["", "10.0.0.1"]),
            sni=pick(["", "a.com", "b.com"]),
            target=TARGET,
        )
        for _ in range(400)
    ]


HTTP_CALLS = _calls(tcp=False)
TCP_CALLS = _calls(tcp=True)


def calls(*, tcp: bool) -> st.SearchStrategy[list[Call]]:
    every = TCP_CALLS if tcp else HTTP_CALLS
    return st.integers(0, 7).map(lambda at: every[at::8])


def policy(spec: str, *, name: str = "p", namespace: str = "prod", extra: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}{extra}}}\nspec: {spec}\n---\n"
    )


def engine_of(text: str, target: Workload = TARGET, *, default: bool = False, aliases: tuple[str, ...] = ()) -> Engine:
    base = PolicySet.default(aliases=aliases) if default else PolicySet.of((), aliases=aliases)
    return Engine(base.with_documents(parse_documents(text)), target)


def allowed(engine: Engine, method: str = "GET", path: str = "/", peer: str = "", **more: object) -> bool:
    call = Call(peer=workload(peer), method=method, path=path, target=engine.target, **more)  # type: ignore[arg-type]
    return engine.decide(call).verdict is Verdict.ALLOW
