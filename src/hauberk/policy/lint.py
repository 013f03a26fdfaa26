"""What is valid, and still not what its author meant. Each check is one small function from a document to findings.

Errors are documents that are wider than they look; `hauberk policy apply` refuses them without `--force`.
"""

from collections.abc import Callable, Iterator, Sequence

import yaml

from hauberk.core.call import Workload
from hauberk.core.finding import Finding, Severity
from hauberk.policy.model import (
    OPERATION_FIELDS,
    SOURCE_FIELDS,
    Action,
    AuthorizationPolicy,
    Document,
    PeerAuthentication,
    Rule,
    selects,
    to_data,
)
from hauberk.policy.set import ROOT_NAMESPACE

Check = Callable[[AuthorizationPolicy], Iterator[Finding]]
_ISTIO_ROOT = "istio-system"
_PRESENCE = frozenset({"hosts", "methods", "paths", "principals", "request_principals"})
_ADDRESSES = frozenset({"ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks"})
_ADDRESS_KEYS = frozenset({"source.ip", "remote.ip"})
_IDENTITY_KEYS = (
    "source.principal",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.",
)
_HTTP = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")
_NO_WILDCARDS = frozenset(
    {
        "ports", "ip_blocks", "remote_ip_blocks", "service_accounts", "source.ip", "remote.ip", "destination.ip",
        "destination.port", "source.serviceAccount",
    }
)  # fmt: skip
_INFIX = frozenset({"namespaces", "source.namespace"})  # where every * stands for anything


def lint(
    documents: Sequence[Document],
    *,
    workloads: Sequence[Workload] | None = None,
    root_namespace: str = ROOT_NAMESPACE,
) -> tuple[Finding, ...]:
    """Return what is suspicious, in the order of the documents.

    Args:
        documents: from `parse_documents`.
        workloads: who is registered; None skips the check for policies that select nobody.
        root_namespace: whose policies apply to every workload.
    """
    found: list[Finding] = []
    for document in documents:
        if isinstance(document, AuthorizationPolicy):
            for check in _CHECKS:
                found.extend(check(document))
        elif isinstance(document, PeerAuthentication):
            found.extend(_permissive(document, root_namespace))
        found.extend(_foreign_root(document, root_namespace))
        if workloads is not None:
            found.extend(_selects_nobody(document, workloads, root_namespace))
    return tuple(found)


def _finding(
    document: Document, rule: str, severity: Severity, message: str, *, field: str = "", line: int = 0, fix: str = ""
) -> Finding:
    return Finding(
        source="lint",
        rule=rule,
        severity=severity,
        message=message,
        file=document.place.file,
        line=line or document.place.line,
        field=field,
        subject=f"{document.namespace}/{document.name}",
        fix=fix,
    )


def _is_from_only(rule: Rule) -> bool:
    return bool(rule.sources) and not rule.operations and not rule.conditions


def _is_to_only(rule: Rule) -> bool:
    return bool(rule.operations) and not rule.sources and not rule.conditions


_SPLIT = {
    Action.ALLOW: (
        Severity.ERROR,
        "rules are ORed: this source may do anything, and anybody may do this operation; one rule was meant",
    ),
    Action.DENY: (
        Severity.WARNING,
        "rules are ORed: this source is denied everything, and everybody is denied this operation",
    ),
}


def _split(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """A `from`-only rule beside a `to`-only rule: two rules, ORed, where one was meant."""
    runs = _split_runs(policy.rules) if policy.action in _SPLIT else []
    for first, _ in runs:
        severity, message = _SPLIT[policy.action]
        yield _finding(
            policy,
            "split-from-to",
            severity,
            message,
            field=f"spec.rules[{first}]",
            line=policy.rules[first + 1].line,
            fix=_joined(policy, runs),
        )


def _split_runs(rules: Sequence[Rule]) -> list[tuple[int, int]]:
    """Return start and end of every run of one-sided rules that has both sides."""
    sides = [(_is_from_only(rule), _is_to_only(rule)) for rule in rules]
    runs, first = [], 0
    for at in range(len(rules) + 1):
        if at == len(rules) or not any(sides[at]):
            if any(one for one, _ in sides[first:at]) and any(two for _, two in sides[first:at]):
                runs.append((first, at))
            first = at + 1
    return runs


def _joined(policy: AuthorizationPolicy, runs: Sequence[tuple[int, int]]) -> str:
    """The policy as it was probably meant, as YAML: rules that alternate are pairs, any other run is one rule."""
    rules: list[Rule] = []
    done = 0
    for first, end in runs:
        rules += policy.rules[done:first]
        run = policy.rules[first:end]
        pairs = [run[at : at + 2] for at in range(0, len(run), 2)]
        alternate = len({(bool(pair[0].sources), len(pair)) for pair in pairs}) == 1 and all(
            bool(pair[0].sources) is not bool(pair[-1].sources) for pair in pairs
        )
        rules += [_merged(pair) for pair in pairs] if alternate else [_merged(run)]
        done = end
    fields = {name: getattr(policy, name) for name in policy.__struct_fields__}
    whole = AuthorizationPolicy(**{**fields, "rules": (*rules, *policy.rules[done:])})
    return yaml.safe_dump(to_data(whole), sort_keys=False)


def _merged(rules: Sequence[Rule]) -> Rule:
    sources = tuple(source for rule in rules for source in rule.sources)
    operations = tuple(operation for rule in rules for operation in rule.operations)
    return Rule(sources, operations, line=rules[0].line)


def _parts(policy: AuthorizationPolicy) -> Iterator[tuple[Rule, str, str, tuple[str, ...]]]:
    """Yield rule, field path, attribute and values of every field that has some."""
    for at, rule in enumerate(policy.rules):
        for number, source in enumerate(rule.sources):
            for name, attribute in SOURCE_FIELDS.items():
                if values := getattr(source, attribute):
                    yield rule, f"spec.rules[{at}].from[{number}].source.{name}", attribute, values
        for number, operation in enumerate(rule.operations):
            for name, attribute in OPERATION_FIELDS.items():
                if values := getattr(operation, attribute):
                    yield rule, f"spec.rules[{at}].to[{number}].operation.{name}", attribute, values
        for number, condition in enumerate(rule.conditions):
            yield rule, f"spec.rules[{at}].when[{number}]", condition.key, (*condition.values, *condition.not_values)


def _wildcards(policy: AuthorizationPolicy) -> Iterator[Finding]:
    for rule, field, attribute, values in _parts(policy):
        base = attribute.removeprefix("not_")
        if base in _NO_WILDCARDS or base in _INFIX:
            continue
        for value in values:
            if (told := _wildcard(value, base)) is not None:
                yield _finding(policy, told[0], told[1], told[2], field=field, line=rule.line)


def _wildcard(value: str, base: str) -> tuple[str, Severity, str] | None:
    if value == "*":
        if base not in _PRESENCE and not base.startswith("request."):
            return None
        what = base.replace("_", " ") if base in _PRESENCE else base
        empty = ", even empty," if base.startswith("request.headers[") else ""
        return "presence", Severity.INFO, f"'*' asks for {what} to be present{empty} and says nothing about which"
    if value.startswith("*") and value.endswith("*"):
        message = f"{value!r} is a suffix match of the literal {value[1:]!r}, not 'contains'"
        return "contains-wildcard", Severity.ERROR, message
    middle = value[1:] if value.startswith("*") else value.removesuffix("*")
    if "*" in middle and not (base == "paths" and "{" in value):
        return "inner-wildcard", Severity.WARNING, f"the * inside {value!r} is a literal character"
    return None


def _hosts(policy: AuthorizationPolicy) -> Iterator[Finding]:
    for rule, field, attribute, values in _parts(policy):
        if attribute in {"hosts", "not_hosts"}:
            for value in values:
                if ":" not in value and not value.endswith("*") and f"{value}:*" not in values:
                    message = f"a Host with a port does not match {value!r}; write {value + ':*'!r} beside it"
                    yield _finding(policy, "host-without-port", Severity.WARNING, message, field=field, line=rule.line)


def _schemes(policy: AuthorizationPolicy) -> Iterator[Finding]:
    for rule, field, attribute, values in _parts(policy):
        if attribute.removeprefix("not_") in {"principals", "source.principal"}:
            for value in values:
                if value.startswith("spiffe:"):
                    message = "principals are written without spiffe://; this one never matches"
                    yield _finding(policy, "principal-scheme", Severity.ERROR, message, field=field, line=rule.line)


def _tcp_deny(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.action is not Action.DENY:
        return
    message = "on a TCP port the HTTP fields are ignored and this DENY is wider than it looks; name the ports"
    for at, rule in enumerate(policy.rules):
        if any(condition.key == "destination.port" for condition in rule.conditions):
            continue
        elsewhere = any(it.request_principals or it.not_request_principals for it in rule.sources) or any(
            condition.key.startswith("request.") for condition in rule.conditions
        )
        for number, operation in enumerate(rule.operations):
            http = elsewhere or any(getattr(operation, name) for name in _HTTP)
            if http and not (operation.ports or operation.not_ports):
                field = f"spec.rules[{at}].to[{number}].operation"
                yield _finding(policy, "http-in-tcp-deny", Severity.INFO, message, field=field, line=rule.line)
        if elsewhere and not rule.operations:
            field = f"spec.rules[{at}]"
            yield _finding(policy, "http-in-tcp-deny", Severity.INFO, message, field=field, line=rule.line)


def _addresses(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.action is not Action.ALLOW:
        return
    message = "an address is not an identity: anybody who can use it is allowed"
    for at, rule in enumerate(policy.rules):
        if any(condition.key.startswith(_IDENTITY_KEYS) for condition in rule.conditions):
            continue
        for number, source in enumerate(rule.sources):
            used = {name for name in source.__struct_fields__ if getattr(source, name)}
            if used <= _ADDRESSES:
                field = f"spec.rules[{at}].from[{number}].source"
                yield _finding(policy, "address-only", Severity.WARNING, message, field=field, line=rule.line)
        if not rule.sources and any(condition.key in _ADDRESS_KEYS for condition in rule.conditions):
            field = f"spec.rules[{at}].when"
            yield _finding(policy, "address-only", Severity.WARNING, message, field=field, line=rule.line)


def _unreachable(policy: AuthorizationPolicy) -> Iterator[Finding]:
    everything: int | None = None
    seen: dict[bytes | str, int] = {}
    for at, rule in enumerate(policy.rules):
        field = f"spec.rules[{at}]"
        if everything is not None:
            message = f"rule {everything} matches everything, so this one decides nothing"
            yield _finding(policy, "unreachable", Severity.WARNING, message, field=field, line=rule.line)
            continue
        content = repr((rule.sources, rule.operations, rule.conditions))
        if content in seen:
            message = f"the same as rule {seen[content]}"
            yield _finding(policy, "unreachable", Severity.WARNING, message, field=field, line=rule.line)
        seen.setdefault(content, at)
        if not rule.sources and not rule.operations and not rule.conditions:
            everything = at
            if policy.action is Action.ALLOW:
                message = "an empty rule allows everybody everything"
                yield _finding(policy, "allow-all", Severity.WARNING, message, field=field, line=rule.line)


def _contradictions(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """A value that is wanted and refused in the same place: the rule can never match."""
    for at, rule in enumerate(policy.rules):
        parts = [*(("from", it) for it in rule.sources), *(("to", it) for it in rule.operations)]
        for side, part in parts:
            for name in part.__struct_fields__:
                wanted = getattr(part, name)
                refused = getattr(part, f"not_{name}", ())
                if wanted and ("*" in refused or set(wanted) <= set(refused)):
                    message = f"every value of {name} is refused by its not-field, so this never matches"
                    field = f"spec.rules[{at}].{side}"
                    yield _finding(policy, "unreachable", Severity.WARNING, message, field=field, line=rule.line)


def _empty_selector(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.selector is not None and not policy.selector:
        message = "a selector without labels selects every workload, as no selector does"
        yield _finding(policy, "empty-selector", Severity.WARNING, message, field="spec.selector")


def _gateways(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.target_refs:
        yield _finding(
            policy, "gateway-only", Severity.WARNING, "targetRefs select gateways; no workload is protected by this",
            field="spec.targetRefs",
        )  # fmt: skip


def _permissive(document: PeerAuthentication, root_namespace: str) -> Iterator[Finding]:
    modes = {"spec.mtls.mode": document.mode}
    modes.update({f"spec.portLevelMtls.{port}.mode": mode for port, mode in document.ports.items()})
    for field, mode in modes.items():
        if mode in {"PERMISSIVE", "DISABLE"}:
            message = f"{mode} lets callers in without an identity"
            yield _finding(document, "permissive", Severity.WARNING, message, field=field)
    if document.selector and document.namespace == root_namespace:
        message = "in the root namespace a PeerAuthentication with a selector is ignored"
        yield _finding(document, "root-selector", Severity.WARNING, message, field="spec.selector")


def _foreign_root(document: Document, root_namespace: str) -> Iterator[Finding]:
    if document.namespace == _ISTIO_ROOT != root_namespace:
        message = f"{_ISTIO_ROOT} is an ordinary namespace here; policies for the whole mesh belong to {root_namespace}"
        yield _finding(document, "foreign-root", Severity.WARNING, message, field="metadata.namespace")


def _selects_nobody(document: Document, workloads: Sequence[Workload], root_namespace: str) -> Iterator[Finding]:
    if not isinstance(document, PeerAuthentication) and document.target_refs:
        return
    spaces = {document.namespace} if document.namespace != root_namespace else {it.namespace for it in workloads}
    if not any(it.namespace in spaces and selects(document.selector, it.labels) for it in workloads):
        message = "no registered workload is selected"
        yield _finding(document, "selects-nobody", Severity.WARNING, message, field="spec.selector")


_CHECKS: tuple[Check, ...] = (
    _split,
    _wildcards,
    _hosts,
    _schemes,
    _tcp_deny,
    _addresses,
    _unreachable,
    _contradictions,
    _empty_selector,
    _gateways,
)
