"""A naive reading of the rules: documents and a call in, verdict out. Shares no code with the compiled form."""

import fnmatch
import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise

from hauberk.core.call import Call, Workload
from hauberk.policy.model import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from hauberk.policy.set import PolicySet

HTTP_ONLY = "http only"


def string(pattern: str, value: str) -> bool:
    if pattern == "*":
        return value != ""
    if pattern[0] == "*":
        return value.endswith(pattern[1:])
    if pattern[-1] == "*":
        return value.startswith(pattern[:-1])
    return pattern == value


def path(pattern: str, value: str) -> bool:
    if "{" not in pattern:
        return string(pattern, value)
    regex = re.escape(pattern).replace(re.escape("{**}"), ".*").replace(re.escape("{*}"), "[^/]+")
    return re.fullmatch(regex, value, re.DOTALL) is not None


def spellings(value: str, policies: PolicySet) -> list[str]:
    parts = value.split("/")
    local = [policies.trust_domain, *policies.aliases]
    if len(parts) == 5 and parts[0] != "*" and (parts[0] in local or parts[0] == "cluster.local"):
        return ["/".join([name, *parts[1:]]) for name in local]
    return [value]


def principal(value: str, peer: str, policies: PolicySet) -> bool:
    if not peer.startswith("spiffe://"):
        return False
    return any(string(spelling, peer[len("spiffe://") :]) for spelling in spellings(value, policies))


def namespace(value: str, peer: str) -> bool:
    parts = peer.split("/")
    if "*" in value:
        regex = ".*/ns/" + re.escape(value).replace(re.escape("*"), ".*") + "/.*"
        return peer.startswith("spiffe://") and re.fullmatch(regex, peer) is not None
    pairs = pairwise(parts[:-1])
    return peer.startswith("spiffe://") and any(one == "ns" and two == value for one, two in pairs)


def account(value: str, peer: str, home: str) -> bool:
    space, _, name = value.rpartition("/")
    space = space or home
    return re.fullmatch(rf"spiffe://.+/ns/{re.escape(space)}/(.+/|)sa/{re.escape(name)}(/.+)?", peer) is not None


def domain(value: str, peer: str) -> bool:
    if not peer.startswith("spiffe://") or "/" not in peer[9:]:
        return False
    found = peer[9:].split("/", maxsplit=1)[0]
    return fnmatch.fnmatchcase(found, value) if value != "*" else True


def inside(value: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False


def wanted(values: tuple[str, ...], refused: tuple[str, ...], match: Callable[[str], bool]) -> bool:
    positive = not values or any(match(value) for value in values)
    return positive and not any(match(value) for value in refused)


def source(it: Source, call: Call, policy: AuthorizationPolicy, policies: PolicySet) -> bool:
    peer = call.peer.id
    forwarded = call.address.forwarded or call.address.ip
    return (
        wanted(it.principals, it.not_principals, lambda v: principal(v, peer, policies))
        and wanted(it.namespaces, it.not_namespaces, lambda v: namespace(v, peer))
        and wanted(it.service_accounts, it.not_service_accounts, lambda v: account(v, peer, policy.namespace))
        and wanted(it.trust_domains, it.not_trust_domains, lambda v: domain(v, peer))
        and wanted(it.ip_blocks, it.not_ip_blocks, lambda v: inside(v, call.address.ip))
        and wanted(it.remote_ip_blocks, it.not_remote_ip_blocks, lambda v: inside(v, forwarded))
        and wanted(it.request_principals, it.not_request_principals, lambda v: string(v, call.user.id))
    )


def operation(it: Operation, call: Call) -> bool:
    host = call.host.lower()
    return (
        wanted(it.hosts, it.not_hosts, lambda v: string(v.lower(), host))
        and wanted(it.ports, it.not_ports, lambda v: int(v) == call.port)
        and wanted(it.methods, it.not_methods, lambda v: string(v, call.method))
        and wanted(it.paths, it.not_paths, lambda v: path(v, call.path))
    )


def condition(it: Condition, call: Call, policies: PolicySet) -> bool:
    peer, key = call.peer.id, it.key
    if key.startswith("request.headers["):
        found = call.headers.get(key[len("request.headers[") : -1])
        return wanted(it.values, it.not_values, lambda v: found is not None and (v == "*" or string(v, found)))
    match: Callable[[str], bool] = {
        "source.principal": lambda v: principal(v, peer, policies),
        "source.namespace": lambda v: namespace(v, peer),
        "source.ip": lambda v: inside(v, call.address.ip),
        "remote.ip": lambda v: inside(v, call.address.forwarded or call.address.ip),
        "destination.port": lambda v: int(v) == call.port,
        "destination.ip": lambda v: inside(v, call.destination_ip),
        "connection.sni": lambda v: string(v, call.sni),
    }[key]
    return wanted(it.values, it.not_values, match)


def strip_http(rule: Rule) -> Rule | None:
    """The rule without what a TCP connection cannot know; None when there was nothing of that sort."""
    operations = tuple(Operation(ports=it.ports, not_ports=it.not_ports) for it in rule.operations)
    conditions = tuple(it for it in rule.conditions if not it.key.startswith("request."))
    sources = tuple(
        Source(**{name: getattr(it, name) for name in it.__struct_fields__ if "request" not in name})
        for it in rule.sources
    )
    return Rule(sources, operations, conditions)


def uses_http(it: Source | Operation) -> bool:
    http = {"hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths"}
    http |= {"request_principals", "not_request_principals"}
    return any(getattr(it, name) for name in it.__struct_fields__ if name in http)


def matches(rule: Rule, call: Call, policy: AuthorizationPolicy, policies: PolicySet) -> bool:
    if not call.method:
        if policy.action is Action.ALLOW:
            if any(it.key.startswith("request.") for it in rule.conditions):
                return False
            sources = [it for it in rule.sources if not uses_http(it)]
            operations = [it for it in rule.operations if not uses_http(it)]
            if (rule.sources and not sources) or (rule.operations and not operations):
                return False
            rule = Rule(tuple(sources), tuple(operations), rule.conditions)
        else:
            rule = strip_http(rule) or rule
    return (
        (not rule.sources or any(source(it, call, policy, policies) for it in rule.sources))
        and (not rule.operations or any(operation(it, call) for it in rule.operations))
        and all(condition(it, call, policies) for it in rule.conditions)
    )


def decide(policies: PolicySet, target: Workload, call: Call) -> bool:
    """Return whether the call is allowed."""
    mine = [
        it
        for it in policies.documents
        if isinstance(it, AuthorizationPolicy)
        and it.namespace in {policies.root_namespace, target.namespace}
        and not it.target_refs
        and not it.dry_run
        and all(target.labels.get(name) == value for name, value in (it.selector or {}).items())
    ]
    for it in mine:
        if it.action is Action.DENY and any(matches(rule, call, it, policies) for rule in it.rules):
            return False
    allowing = [it for it in mine if it.action is Action.ALLOW]
    return not allowing or any(matches(rule, call, it, policies) for it in allowing for rule in it.rules)
