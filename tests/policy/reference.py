"""A naive reading of the rules: documents and a call in, verdict out. Shares no code with the compiled form.

Identities are matched by the regular expressions that Istio itself writes into Envoy's configuration, value by value.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping

from hauberk.core.call import Call, Workload
from hauberk.policy.model import Action, AuthorizationPolicy, Condition, Operation, PeerAuthentication, Rule, Source
from hauberk.policy.set import PolicySet

HTTP_FIELDS = {"hosts", "methods", "paths", "request_principals"}
Match = Callable[[str], bool]


def string(pattern: str, value: str) -> bool:
    if pattern == "*":
        return value != ""
    if pattern[0] == "*":
        return value.endswith(pattern[1:])
    if pattern[-1] == "*":
        return value.startswith(pattern[:-1])
    return pattern == value


def present(pattern: str, value: str | None) -> bool:
    return value is not None and (pattern == "*" or string(pattern, value))


def path(pattern: str, value: str) -> bool:
    if "{" not in pattern:
        return string(pattern, value)
    regex = re.escape(pattern).replace(re.escape("{**}"), ".*").replace(re.escape("{*}"), "[^/]+")
    return re.fullmatch(regex, value, re.DOTALL) is not None


def local_names(policies: PolicySet) -> list[str]:
    return [policies.trust_domain, *policies.aliases]


def covers(pattern: str, domain: str) -> bool:
    return bool(re.fullmatch(re.escape(pattern).replace(re.escape("*"), ".*"), domain))


def spellings(value: str, policies: PolicySet) -> list[str]:
    domain, *rest = value.split("/")
    local = local_names(policies)
    if len(rest) != 4 or domain == "*":
        return [value]
    if domain != "cluster.local" and not any(covers(domain, name) for name in local):
        return [value]
    as_written = [value] if domain.startswith("*") else []
    return as_written + ["/".join([name, *rest]) for name in local if not as_written or not covers(domain, name)]


def principal(value: str, peer: str, policies: PolicySet) -> bool:
    if not peer.startswith("spiffe://"):
        return False
    return any(string(spelling, peer[len("spiffe://") :]) for spelling in spellings(value, policies))


def namespace(value: str, peer: str) -> bool:
    regex = ".*/ns/" + re.escape(value).replace(re.escape("*"), ".*") + "/.*"
    return re.fullmatch(regex, peer, re.DOTALL) is not None


def account(value: str, peer: str, home: str) -> bool:
    space, _, name = value.rpartition("/")
    space = space or home
    return re.fullmatch(rf"spiffe://.+/ns/{re.escape(space)}/(.+/|)sa/{re.escape(name)}(/.+)?", peer) is not None


def domain(value: str, peer: str, policies: PolicySet) -> bool:
    if value == "*":
        return peer.startswith("spiffe://")
    names = local_names(policies) if value in local_names(policies) else [value]
    return any(
        re.fullmatch(f"spiffe://{re.escape(name).replace(re.escape('*'), '[^/]*')}/.*", peer) is not None
        for name in names
    )


def inside(value: str, address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found in ipaddress.ip_network(value, strict=False)


def request_principal(value: str, user: str) -> bool:
    issuer, _, subject = user.rpartition("/")
    if not issuer or not subject:
        return False
    if value == "*":
        return True
    want_issuer, slash, want_subject = value.rpartition("/")
    if not slash and value.startswith("*"):
        return subject.endswith(value[1:])
    if not slash:
        return value.endswith("*") and issuer.startswith(value[:-1])
    if value.startswith("*"):
        return issuer.endswith(want_issuer[1:]) and subject == want_subject
    return issuer == want_issuer and string(want_subject, subject)


def claim(names: list[str], call: Call) -> list[str]:
    found: object = call.user.claims
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found.split() if names[-1] in {"scope", "permission"} else [found]
    return [one for one in found if isinstance(one, str)] if isinstance(found, list | tuple) else []


def wanted(values: tuple[str, ...], refused: tuple[str, ...], match: Match) -> bool:
    positive = not values or any(match(value) for value in values)
    return positive and not any(match(value) for value in refused)


def peer_matches(policy: AuthorizationPolicy, policies: PolicySet, call: Call) -> Mapping[str, Match]:
    peer = call.peer.id if call.peer.id.startswith("spiffe://") else ""
    forwarded = call.address.forwarded or call.address.ip
    return {
        "principals": lambda v: principal(v, peer, policies),
        "namespaces": lambda v: namespace(v, peer),
        "service_accounts": lambda v: account(v, peer, policy.namespace),
        "trust_domains": lambda v: domain(v, peer, policies),
        "ip_blocks": lambda v: inside(v, call.address.ip),
        "remote_ip_blocks": lambda v: inside(v, forwarded),
        "request_principals": lambda v: request_principal(v, call.user.id),
    }


def operation_matches(call: Call) -> Mapping[str, Match]:
    return {
        "hosts": lambda v: string(v.lower(), call.host.lower()),
        "ports": lambda v: int(v) == call.port,
        "methods": lambda v: string(v, call.method),
        "paths": lambda v: path(v, call.path),
    }


def part(it: Source | Operation, matches: Mapping[str, Match], *, http: bool) -> bool:
    return all(
        wanted(getattr(it, name), getattr(it, f"not_{name}"), match)
        for name, match in matches.items()
        if http or name not in HTTP_FIELDS
    )


def condition(it: Condition, call: Call, policy: AuthorizationPolicy, policies: PolicySet) -> bool:
    key = it.key
    of_peer = peer_matches(policy, policies, call)
    if key.startswith("request.headers["):
        found = call.headers.get(key[len("request.headers[") : -1])
        return wanted(it.values, it.not_values, lambda v: present(v, found))
    if key.startswith("request.auth.") and key != "request.auth.principal":
        names = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(key)
        texts = claim(names or re.findall(r"\[([^\]]+)\]", key), call)
        return wanted(it.values, it.not_values, lambda v: any(string(v, text) for text in texts))
    match: Match = {
        "source.principal": of_peer["principals"],
        "source.namespace": of_peer["namespaces"],
        "source.serviceAccount": of_peer["service_accounts"],
        "source.trustDomain": of_peer["trust_domains"],
        "source.ip": of_peer["ip_blocks"],
        "remote.ip": of_peer["remote_ip_blocks"],
        "request.auth.principal": of_peer["request_principals"],
        "destination.port": lambda v: int(v) == call.port,
        "destination.ip": lambda v: inside(v, call.destination_ip),
        "connection.sni": lambda v: string(v, call.sni),
    }[key]
    return wanted(it.values, it.not_values, match)


def uses_http(rule: Rule) -> bool:
    parts = (*rule.sources, *rule.operations)
    fields = any(getattr(it, name) for it in parts for name in it.__struct_fields__ if base(name) in HTTP_FIELDS)
    return fields or any(it.key.startswith("request.") for it in rule.conditions)


def base(name: str) -> str:
    return name.removeprefix("not_")


def matches(rule: Rule, call: Call, policy: AuthorizationPolicy, policies: PolicySet) -> bool:
    """On a connection without HTTP, a rule that looks at HTTP is no ALLOW rule, and a DENY goes on without looking."""
    http = call.method != ""
    if not http and policy.action is Action.ALLOW and uses_http(rule):
        return False
    of_peer, of_operation = peer_matches(policy, policies, call), operation_matches(call)
    return (
        (not rule.sources or any(part(it, of_peer, http=http) for it in rule.sources))
        and (not rule.operations or any(part(it, of_operation, http=http) for it in rule.operations))
        and all(
            condition(it, call, policy, policies) for it in rule.conditions if http or not it.key.startswith("request.")
        )
    )


def selected(policies: PolicySet, target: Workload) -> list[AuthorizationPolicy]:
    return [
        it
        for it in policies.documents
        if isinstance(it, AuthorizationPolicy)
        and it.namespace in {policies.root_namespace, target.namespace}
        and not it.target_refs
        and all(target.labels.get(name) == value for name, value in (it.selector or {}).items())
    ]


def decide(policies: PolicySet, target: Workload, call: Call) -> bool:
    """Return whether the call is allowed."""
    mine = [it for it in selected(policies, target) if not it.dry_run]
    for it in mine:
        if it.action is Action.DENY and any(matches(rule, call, it, policies) for rule in it.rules):
            return False
    allowing = [it for it in mine if it.action is Action.ALLOW]
    return not allowing or any(matches(rule, call, it, policies) for it in allowing for rule in it.rules)


def audits(policies: PolicySet, target: Workload, call: Call) -> set[str]:
    """Return the rules of AUDIT policies and of dry runs that match."""
    return {
        f"ns[{it.namespace}]-policy[{it.name}]-rule[{at}]"
        for it in selected(policies, target)
        if it.dry_run or it.action is Action.AUDIT
        for at, rule in enumerate(it.rules)
        if matches(rule, call, it, policies)
    }


def mode(policies: PolicySet, target: Workload, port: int) -> str:
    """Return the effective mode of mutual TLS of a port; the first document of a scope is the oldest."""
    found = [it for it in policies.documents if isinstance(it, PeerAuthentication)]
    mesh = [it for it in found if it.namespace == policies.root_namespace and not it.selector]
    space = [it for it in found if it.namespace == target.namespace != policies.root_namespace and not it.selector]
    own = [
        it
        for it in found
        if it.selector
        and it.namespace == target.namespace != policies.root_namespace
        and all(target.labels.get(name) == value for name, value in it.selector.items())
    ]
    answer = "PERMISSIVE"
    for scope in (mesh, space, own):
        if scope and scope[0].mode != "UNSET":
            answer = scope[0].mode
    special = own[0].ports.get(port, "UNSET") if own else "UNSET"
    return answer if special == "UNSET" else special
