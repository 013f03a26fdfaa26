"""The three kinds of policy as frozen values, field for field what Istio's API calls them (security.istio.io/v1).

`FIELDS` ties YAML names to attributes; parser, exporter, compiler and linter all read it, so a field cannot exist for
one and not for another.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_PORTS: Mapping[int, str] = MappingProxyType({})
Values = tuple[str, ...]


class Action(StrEnum):
    """What a matching rule means."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call comes from; fields are ANDed, values of a field ORed, `not_` fields are NOT(OR)."""

    principals: Values = ()
    not_principals: Values = ()
    request_principals: Values = ()
    not_request_principals: Values = ()
    namespaces: Values = ()
    not_namespaces: Values = ()
    service_accounts: Values = ()
    not_service_accounts: Values = ()
    trust_domains: Values = ()
    not_trust_domains: Values = ()
    ip_blocks: Values = ()
    not_ip_blocks: Values = ()
    remote_ip_blocks: Values = ()
    not_remote_ip_blocks: Values = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a call does."""

    hosts: Values = ()
    not_hosts: Values = ()
    ports: Values = ()
    not_ports: Values = ()
    methods: Values = ()
    not_methods: Values = ()
    paths: Values = ()
    not_paths: Values = ()


class Condition(msgspec.Struct, frozen=True):
    """A further condition: one of `values`, none of `not_values`."""

    key: str
    values: Values = ()
    not_values: Values = ()


class Rule(msgspec.Struct, frozen=True):
    """(OR over sources) AND (OR over operations) AND (AND over conditions); what is missing is true."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()
    line: int = 0


class Place(msgspec.Struct, frozen=True):
    """Where a document was written."""

    file: str = ""
    line: int = 0


NOWHERE = Place()


class AuthorizationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what.

    Args:
        namespace: whose workloads it is about; the root namespace means all.
        name: unique in its namespace and kind.
        action: what a match means.
        rules: ORed; none at all never match.
        selector: labels a workload must have, None for every workload.
        target_refs: gateways it is about; such a policy selects no workload.
        dry_run: evaluated, never enforced.
        place: where it was written.
    """

    namespace: str
    name: str
    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    selector: Mapping[str, str] | None = None
    target_refs: tuple[Mapping[str, str], ...] = ()
    dry_run: bool = False
    place: Place = NOWHERE
    kind: str = "AuthorizationPolicy"


class PeerAuthentication(msgspec.Struct, frozen=True, kw_only=True):
    """Whether mutual TLS is needed.

    Args:
        mode: STRICT, PERMISSIVE, DISABLE or UNSET (inherit).
        ports: modes of single workload ports.
    """

    namespace: str
    name: str
    selector: Mapping[str, str] | None = None
    mode: str = "UNSET"
    ports: Mapping[int, str] = _NO_PORTS
    place: Place = NOWHERE
    kind: str = "PeerAuthentication"


class RequestAuthentication(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens are accepted. Parsed and kept; verified from the release that brings tokens.

    Args:
        jwt_rules: as written, validated.
    """

    namespace: str
    name: str
    selector: Mapping[str, str] | None = None
    target_refs: tuple[Mapping[str, str], ...] = ()
    jwt_rules: tuple[Mapping[str, object], ...] = ()
    place: Place = NOWHERE
    kind: str = "RequestAuthentication"


Document = AuthorizationPolicy | PeerAuthentication | RequestAuthentication


def camel(attribute: str) -> str:
    """Return the YAML name of an attribute: `not_ip_blocks` is `notIpBlocks`."""
    first, *rest = attribute.split("_")
    return first + "".join(part.capitalize() for part in rest)


SOURCE_FIELDS: Mapping[str, str] = {camel(name): name for name in Source.__struct_fields__}
OPERATION_FIELDS: Mapping[str, str] = {camel(name): name for name in Operation.__struct_fields__}


def rule_id(policy: AuthorizationPolicy, index: int) -> str:
    """Return Istio's name of a rule, `ns[NS]-policy[NAME]-rule[I]`."""
    return f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{index}]"


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a workload with these labels is selected."""
    return not selector or all(labels.get(name) == value for name, value in selector.items())


def to_data(document: Document) -> dict[str, object]:
    """Return a document as the plain data of its YAML form, defaults left out."""
    spec: dict[str, object] = {}
    if document.selector is not None:
        spec["selector"] = {"matchLabels": dict(document.selector)}
    metadata: dict[str, object] = {"name": document.name, "namespace": document.namespace}
    if isinstance(document, PeerAuthentication):
        if document.mode != "UNSET":
            spec["mtls"] = {"mode": document.mode}
        if document.ports:
            spec["portLevelMtls"] = {str(port): {"mode": mode} for port, mode in sorted(document.ports.items())}
    else:
        if document.target_refs:
            spec["targetRefs"] = [dict(ref) for ref in document.target_refs]
        if isinstance(document, RequestAuthentication):
            spec["jwtRules"] = [dict(rule) for rule in document.jwt_rules]
        else:
            spec["action"] = document.action.value
            if document.rules:
                spec["rules"] = [_rule_data(rule) for rule in document.rules]
            if document.dry_run:
                metadata["annotations"] = {"istio.io/dry-run": "true"}
    return {"apiVersion": "security.istio.io/v1", "kind": document.kind, "metadata": metadata, "spec": spec}


def _rule_data(rule: Rule) -> dict[str, object]:
    data: dict[str, object] = {}
    if rule.sources:
        data["from"] = [{"source": _set_fields(source, SOURCE_FIELDS)} for source in rule.sources]
    if rule.operations:
        data["to"] = [{"operation": _set_fields(operation, OPERATION_FIELDS)} for operation in rule.operations]
    if rule.conditions:
        data["when"] = [_condition_data(condition) for condition in rule.conditions]
    return data


def _set_fields(part: Source | Operation, fields: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: list(values) for name, attribute in fields.items() if (values := getattr(part, attribute))}


def _condition_data(condition: Condition) -> dict[str, object]:
    data: dict[str, object] = {"key": condition.key}
    if condition.values:
        data["values"] = list(condition.values)
    if condition.not_values:
        data["notValues"] = list(condition.not_values)
    return data
