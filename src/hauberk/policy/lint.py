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

Check = Callable[[AuthorizationPolicy], Iterator[Finding]]
_ROOTS = frozenset({"hauberk-system", "istio-system"})
_PRESENCE = ("hosts", "methods", "paths", "principals", "request_principals")
_ADDRESSES = frozenset({"ip_blocks", "remote_ip_blocks"})
_HTTP = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")


def lint(documents: Sequence[Document], *, workloads: Sequence[Workload] | None = None) -> tuple[Finding, ...]:
    """Return what is suspicious, in the order of the documents.

    Args:
        documents: from `parse_documents`.
        workloads: who is registered; None skips the check for policies that select nobody.
    """
    found: list[Finding] = []
    for document in documents:
        if isinstance(document, AuthorizationPolicy):
            for check in _CHECKS:
                found.extend(check(document))
        elif isinstance(document, PeerAuthentication):
            found.extend(_permissive(document))
        if workloads:
            found.extend(_selects_nobody(document, workloads))
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


def _split(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """A `from`-only rule beside a `to`-only rule: two rules, ORed, where one was meant."""
    if policy.action is not Action.ALLOW:
        return
    pairs = zip(policy.rules, policy.rules[1:], strict=False)
    for at, (first, second) in enumerate(pairs):
        if (_is_from_only(first) and _is_to_only(second)) or (_is_to_only(first) and _is_from_only(second)):
            yield _finding(
                policy,
                "split-from-to",
                Severity.ERROR,
                "rules are ORed: this source may do anything, and anybody may do this operation; one rule was meant",
                field=f"spec.rules[{at}]",
                line=second.line,
                fix=_joined(policy, at),
            )


def _joined(policy: AuthorizationPolicy, at: int) -> str:
    """The policy with rules `at` and `at + 1` made one, as YAML."""
    first, second = policy.rules[at : at + 2]
    joined = Rule(first.sources or second.sources, first.operations or second.operations, line=first.line)
    rules = (*policy.rules[:at], joined, *policy.rules[at + 2 :])
    fields = {name: getattr(policy, name) for name in policy.__struct_fields__}
    return yaml.safe_dump(to_data(AuthorizationPolicy(**{**fields, "rules": rules})), sort_keys=False)


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
        for value in values:
            if base in {"namespaces", "ports", "ip_blocks", "remote_ip_blocks", "source.namespace"}:
                continue
            if len(value) > 2 and value.startswith("*") and value.endswith("*"):  # noqa: PLR2004  # both ends and something
                message = f"{value!r} is a suffix match of the literal {value[1:]!r}, not 'contains'"
                yield _finding(policy, "contains-wildcard", Severity.ERROR, message, field=field, line=rule.line)
            elif "*" in value.strip("*") and "{" not in value:
                message = f"the * inside {value!r} is a literal character"
                yield _finding(policy, "inner-wildcard", Severity.WARNING, message, field=field, line=rule.line)
            elif value == "*" and base in _PRESENCE:
                message = f"'*' asks for {base.replace('_', ' ')} to be present and says nothing about which"
                yield _finding(policy, "presence", Severity.INFO, message, field=field, line=rule.line)


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
    for at, rule in enumerate(policy.rules):
        for number, operation in enumerate(rule.operations):
            if any(getattr(operation, name) for name in _HTTP) and not (operation.ports or operation.not_ports):
                message = "on a TCP port the HTTP fields are ignored and this DENY denies everything; name the ports"
                field = f"spec.rules[{at}].to[{number}].operation"
                yield _finding(policy, "http-in-tcp-deny", Severity.INFO, message, field=field, line=rule.line)


def _addresses(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.action is not Action.ALLOW:
        return
    for at, rule in enumerate(policy.rules):
        for number, source in enumerate(rule.sources):
            used = {name for name in source.__struct_fields__ if getattr(source, name)}
            if used and used <= _ADDRESSES:
                message = "an address is not an identity: anybody who can use it is allowed"
                field = f"spec.rules[{at}].from[{number}].source"
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
                if wanted and set(wanted) <= set(refused):
                    message = f"every value of {name} is refused by its not-field, so this never matches"
                    field = f"spec.rules[{at}].{side}"
                    yield _finding(policy, "unreachable", Severity.WARNING, message, field=field, line=rule.line)


def _gateways(policy: AuthorizationPolicy) -> Iterator[Finding]:
    if policy.target_refs:
        yield _finding(
            policy, "gateway-only", Severity.WARNING, "targetRefs select gateways; no workload is protected by this",
            field="spec.targetRefs",
        )  # fmt: skip


def _permissive(document: PeerAuthentication) -> Iterator[Finding]:
    modes = {"spec.mtls.mode": document.mode}
    modes.update({f"spec.portLevelMtls.{port}.mode": mode for port, mode in document.ports.items()})
    for field, mode in modes.items():
        if mode in {"PERMISSIVE", "DISABLE"}:
            message = f"{mode} lets callers in without an identity"
            yield _finding(document, "permissive", Severity.WARNING, message, field=field)
    if document.selector and document.namespace in _ROOTS:
        message = "a selector in the root namespace selects nothing outside it"
        yield _finding(document, "root-selector", Severity.WARNING, message, field="spec.selector")


def _selects_nobody(document: Document, workloads: Sequence[Workload]) -> Iterator[Finding]:
    whole_mesh = document.namespace in _ROOTS
    for workload in workloads:
        if (whole_mesh or workload.namespace == document.namespace) and selects(document.selector, workload.labels):
            return
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
    _gateways,
)
