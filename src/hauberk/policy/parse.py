"""From YAML to documents. What Istio's validation rejects is refused here, with file, line and the field's path.

Nothing is ignored: an unknown field, a number where a string belongs, a repeated key, an alias, a tag or an empty
`from` refuses the whole text, because a rule that lost a field silently is wider than what was meant.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hauberk.policy._jwt import jwt_rule
from hauberk.policy._reader import MAX_NAME, Reader, decimal, documents
from hauberk.policy._values import CHECKS, CONDITION_CHECKS, MAX_PORT, check_key
from hauberk.policy.model import (
    OPERATION_FIELDS,
    SOURCE_FIELDS,
    Action,
    AuthorizationPolicy,
    Condition,
    Document,
    Operation,
    PeerAuthentication,
    Place,
    RequestAuthentication,
    Rule,
    Source,
)

MAX_RULES = 512
MAX_FROM = 512
MAX_PAIRS = 8192  # of a source and an operation, in one policy: each becomes a clause, and a rule may have 512 x 512
MAX_REFS = 16
MAX_LABEL = 63
_VERSIONS = frozenset({"security.istio.io/v1", "security.istio.io/v1beta1"})
_NAMES = {
    "name": re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z"),  # RFC 1123 subdomain
    "namespace": re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"),  # RFC 1123 label
}
_METADATA = frozenset(
    {
        "name", "namespace", "labels", "annotations", "creationTimestamp", "generation", "resourceVersion", "uid",
        "managedFields", "ownerReferences", "selfLink", "finalizers",
    }
)  # fmt: skip
_MODES = frozenset({"UNSET", "DISABLE", "PERMISSIVE", "STRICT"})
_DRY_RUN = "istio.io/dry-run"
_RESERVED = "internal.istio.io/"
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "t": True, "T": True, "1": True}
_BOOLEANS |= {"false": False, "False": False, "FALSE": False, "f": False, "F": False, "0": False}
_TARGETS = frozenset(
    {
        ("", "Service"), ("core", "Service"), ("networking.istio.io", "ServiceEntry"),
        ("gateway.networking.k8s.io", "Gateway"), ("gateway.networking.k8s.io", "GatewayClass"),
    }
)  # fmt: skip


def parse_documents(text: str, *, file: str = "<policy>") -> tuple[Document, ...]:
    """Parse every document of a YAML text.

    Args:
        text: the YAML.
        file: its name, for messages.

    Raises:
        PolicyError: HBK-301 not valid, HBK-302 valid but not enforced here; `context` has file, line and field.
    """
    return tuple(_document(reader) for reader in documents(text, file))


def _document(reader: Reader) -> Document:
    fields = reader.fields({"apiVersion", "kind", "metadata", "spec", "status"}, nulls=True)
    for name in ("apiVersion", "kind", "metadata"):
        if name not in fields:
            raise reader.error("the field is missing", field=name)
    if fields["apiVersion"].text() not in _VERSIONS:
        raise fields["apiVersion"].error("not security.istio.io/v1 or v1beta1")
    kind = fields["kind"].text()
    parse = _KINDS.get(kind)
    if parse is None:
        raise fields["kind"].error(f"not a policy kind: {kind[:60]}")
    common = _metadata(fields["metadata"])
    if kind != "AuthorizationPolicy" and _DRY_RUN in common["annotations"]:
        raise fields["metadata"].error(f"only an AuthorizationPolicy has {_DRY_RUN}", field="annotations")
    common["place"] = Place(reader.file, reader.line)
    return parse(fields.get("spec"), common)


def _metadata(reader: Reader) -> dict[str, Any]:
    fields = reader.fields(_METADATA, nulls=True)
    if "name" not in fields:
        raise reader.error("the field is missing", field="name")
    found = {"name": fields["name"].text(), "namespace": "default"}
    if "namespace" in fields:
        found["namespace"] = fields["namespace"].text()
    for name, value in found.items():
        if not _NAMES[name].match(value):
            raise fields[name].error(f"not a Kubernetes name: {value[:80]}")
    annotations = fields["annotations"].fields() if "annotations" in fields else {}
    for annotation, its in annotations.items():
        if annotation.startswith(_RESERVED):
            raise its.error("this annotation is Istio's own")
    return {**found, "annotations": annotations}


def _selector(reader: Reader | None) -> Mapping[str, str] | None:
    if reader is None:
        return None
    labels = reader.fields({"matchLabels"}).get("matchLabels")
    if labels is None:
        return {}
    found = {name: value.text(empty=True) for name, value in labels.fields().items()}
    for name, value in found.items():
        if not name or "*" in name or "*" in value or len(value) > MAX_LABEL:
            raise labels.error("a label has no name, is too long, or has a wildcard", field=name[:80])
    return found


def _target_refs(fields: Mapping[str, Reader]) -> tuple[Mapping[str, str], ...]:
    ways = [fields[name] for name in ("selector", "targetRef", "targetRefs") if name in fields]
    if len(ways) > 1:
        raise ways[0].error("selector, targetRef and targetRefs exclude each other")
    readers = fields["targetRefs"].items() if "targetRefs" in fields else []
    readers += [fields["targetRef"]] if "targetRef" in fields else []
    if "targetRefs" in fields and not 1 <= len(readers) <= MAX_REFS:
        raise fields["targetRefs"].error(f"1 to {MAX_REFS} targetRefs")
    return tuple(_target_ref(reader) for reader in readers)


def _target_ref(reader: Reader) -> Mapping[str, str]:
    ref = {name: it.text(empty=True) for name, it in reader.fields({"group", "kind", "name", "namespace"}).items()}
    if not ref.get("kind") or not ref.get("name"):
        raise reader.error("kind and name are needed")
    if ref.get("namespace"):
        raise reader.error("it is in the policy's own namespace", field="namespace")
    if (ref.get("group", ""), ref["kind"]) not in _TARGETS:
        raise reader.error("not a Gateway, GatewayClass, Service or ServiceEntry, or not of its group", field="kind")
    return {name: value for name, value in ref.items() if value}


def _authorization(spec: Reader | None, common: dict[str, Any]) -> AuthorizationPolicy:
    allowed = {"selector", "targetRef", "targetRefs", "action", "rules", "provider"}
    fields = spec.fields(allowed) if spec is not None else {}
    action = _action(fields)
    readers = fields["rules"].items() if "rules" in fields else []
    if len(readers) > MAX_RULES:
        raise fields["rules"].error(f"at most {MAX_RULES} rules")
    if action is Action.DENY and not readers and spec is not None:
        raise spec.error("a DENY without rules would never match", field="rules")
    rules = tuple(_rule(reader) for reader in readers)
    if sum(max(1, len(rule.sources)) * max(1, len(rule.operations)) for rule in rules) > MAX_PAIRS:
        raise fields["rules"].error(f"more than {MAX_PAIRS} pairs of a source and an operation", code="HBK-302")
    return AuthorizationPolicy(
        namespace=common["namespace"],
        name=common["name"],
        action=action,
        rules=rules,
        selector=_selector(fields.get("selector")),
        target_refs=_target_refs(fields),
        dry_run=_dry_run(action, common["annotations"]),
        place=common["place"],
    )


def _action(fields: Mapping[str, Reader]) -> Action:
    text = fields["action"].text() if "action" in fields else "ALLOW"
    if text == "CUSTOM":
        raise fields["action"].error("CUSTOM calls an external authorizer, which is not enforced yet", code="HBK-302")
    if "provider" in fields:
        raise fields["provider"].error("only CUSTOM has a provider")
    if text not in Action.__members__:
        raise fields["action"].error(f"unknown action: {text[:40]}")
    return Action(text)


def _dry_run(action: Action, annotations: Mapping[str, Reader]) -> bool:
    if _DRY_RUN not in annotations:
        return False
    reader = annotations[_DRY_RUN]
    value = _BOOLEANS.get(reader.text())
    if value is None:
        raise reader.error("true or false is needed, in quotes")
    if action is Action.AUDIT:
        raise reader.error("an AUDIT never changes an answer, so it has no dry run")
    return value


def _rule(reader: Reader) -> Rule:
    fields = reader.fields({"from", "to", "when"})
    sources = tuple(_source(item) for item in _filled(fields.get("from")))
    if len(sources) > MAX_FROM:
        raise fields["from"].error(f"at most {MAX_FROM} sources")
    operations = tuple(_operation(item) for item in _filled(fields.get("to")))
    conditions = tuple(_condition(item) for item in _filled(fields.get("when")))
    return Rule(sources, operations, conditions, reader.line)


def _filled(reader: Reader | None) -> list[Reader]:
    if reader is None:
        return []
    items = reader.items()
    if not items:
        raise reader.error("the list is empty; leave the field out to match everything")
    return items


def _lists(reader: Reader, inner: str, fields: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Read `source` or `operation`: lists of strings, at least one of them filled."""
    part = reader.fields({inner}).get(inner)
    if part is None:
        raise reader.error("the field is missing or empty", field=inner)
    found: dict[str, tuple[str, ...]] = {}
    for name, child in part.fields(fields.keys()).items():
        attribute = fields[name]
        values = child.texts()
        check = CHECKS.get(attribute.removeprefix("not_"))
        if check is not None:
            check(child, values)
        found[attribute] = values
    if not any(found.values()):
        raise part.error("it is empty; leave it out to match everything")
    return found


def _source(reader: Reader) -> Source:
    found = _lists(reader, "source", SOURCE_FIELDS)
    accounts = any(found.get(name) for name in ("service_accounts", "not_service_accounts"))
    others = ("principals", "not_principals", "namespaces", "not_namespaces")
    if accounts and any(found.get(name) for name in others):
        raise reader.error("serviceAccounts exclude principals and namespaces", field="source")
    return Source(**found)


def _operation(reader: Reader) -> Operation:
    return Operation(**_lists(reader, "operation", OPERATION_FIELDS))


def _condition(reader: Reader) -> Condition:
    fields = reader.fields({"key", "values", "notValues"})
    if "key" not in fields:
        raise reader.error("the field is missing", field="key")
    key = fields["key"].text(limit=MAX_NAME)
    check_key(fields["key"], key)
    lists = {name: fields[name].texts() if name in fields else () for name in ("values", "notValues")}
    if not lists["values"] and not lists["notValues"]:
        raise reader.error("values or notValues are needed")
    check = CONDITION_CHECKS.get(key)
    for name, values in lists.items():
        if check is not None and values:
            check(fields[name], values)
    return Condition(key, lists["values"], lists["notValues"])


def _mode(reader: Reader) -> str:
    mode = reader.fields({"mode"}).get("mode")
    text = "UNSET" if mode is None else mode.text()
    if mode is not None and text not in _MODES:
        raise mode.error(f"unknown mode: {text[:40]}")
    return text


def _peer(spec: Reader | None, common: dict[str, Any]) -> PeerAuthentication:
    fields = spec.fields({"selector", "mtls", "portLevelMtls"}) if spec is not None else {}
    selector = _selector(fields.get("selector"))
    ports: dict[int, str] = {}
    if "portLevelMtls" in fields:
        reader = fields["portLevelMtls"]
        if not selector:
            raise reader.error("port-level modes need a selector")
        ports = {decimal(child, name, 1, MAX_PORT): _mode(child) for name, child in reader.fields().items()}
        if not ports:
            raise reader.error("it is empty")
    mode = _mode(fields["mtls"]) if "mtls" in fields else "UNSET"
    return PeerAuthentication(
        namespace=common["namespace"], name=common["name"], selector=selector, mode=mode, ports=ports,
        place=common["place"],
    )  # fmt: skip


def _request(spec: Reader | None, common: dict[str, Any]) -> RequestAuthentication:
    fields = spec.fields({"selector", "targetRef", "targetRefs", "jwtRules"}) if spec is not None else {}
    rules = fields["jwtRules"].items() if "jwtRules" in fields else []
    return RequestAuthentication(
        namespace=common["namespace"],
        name=common["name"],
        selector=_selector(fields.get("selector")),
        target_refs=_target_refs(fields),
        jwt_rules=tuple(jwt_rule(rule) for rule in rules),
        place=common["place"],
    )


_KINDS: Mapping[str, Callable[[Reader | None, dict[str, Any]], Document]] = {
    "AuthorizationPolicy": _authorization,
    "PeerAuthentication": _peer,
    "RequestAuthentication": _request,
}
