"""Write `docs/reference/*.md` from the source: `python scripts/reference.py`, or with `--check` only compare.

Everything on these pages is read from the code: docstrings, the registry of error codes, the configuration tree, the
click commands, and the event types that occur in the syntax tree. `make docs` runs this first; a test runs `--check`.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_args, get_origin

import click
import msgspec

import hauberk
from hauberk import records
from hauberk.cli import COMMANDS
from hauberk.core import config
from hauberk.core.address import Address
from hauberk.errors import REGISTRY
from hauberk.policy._values import PLAIN_KEYS
from hauberk.policy.model import OPERATION_FIELDS, SOURCE_FIELDS, camel
from hauberk.policy.parse import MAX_FROM, MAX_RULES

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
TARGET = ROOT / "docs" / "reference"
HEAD = "<!-- Written by scripts/reference.py from the source; change the source instead. -->\n"
CORE = (
    "call", "principal", "decision", "event", "finding", "inbound", "limits", "clock", "ids", "spiffe", "feed", "ports",
)  # fmt: skip
FAMILIES = {
    "1": "transport: the wire",
    "2": "identity: who is calling",
    "3": "policy: may they",
    "4": "edge: is the input sane",
    "7": "records: what happened is provable",
    "9": "configuration and runtime",
}
# Type: who writes it, and when. A test holds this table and the syntax tree together.
EVENTS = {
    "admin.entry.added": ("authority", "an administrator registered a workload; written before it takes effect"),
    "admin.entry.removed": ("authority", "an administrator unregistered a workload; written before it takes effect"),
    "admin.renewal": ("authority", "an administrator asked every workload to renew now"),
    "admin.restored": ("authority", "an administrator took revocations back"),
    "admin.root.activate": ("authority", "a rotation of the root: the new root signs from now on"),
    "admin.root.finish": ("authority", "a rotation of the root: the old root is trusted no longer"),
    "admin.root.prepare": ("authority", "a rotation of the root: a new root is trusted beside the old one"),
    "admin.revoked": ("authority", "an administrator revoked ids or serials; written before it takes effect"),
    "edge.denied": ("both", "a request, or bytes that never became one, was refused as malformed or too large"),
    "identity.denied": ("both", "the authority refused an identity, or a service refused a revoked peer"),
    "authority.created": ("authority", "the first start of this authority; the first entry of its ledger"),
    "identity.issued": ("authority", "an X.509-SVID was issued: first one, renewal, or the authority's own"),
    "identity.token": ("authority", "a join token was made, by an administrator or for `hauberk run`"),
    "policy.applied": ("authority", "a push of policies is in force"),
    "policy.denied": ("service", "the policies in force do not allow the call"),
    "policy.refused": ("authority", "a push of policies was refused; what was in force still is"),
    "policy.removed": ("authority", "one policy was taken out of force"),
    "records.denied": ("any", "a batch of records was refused as forged or malformed, or no policy allows an attempt"),
    "audit.access": ("any", "somebody had access to something, or tried to; other kinds of entry are `audit.KIND`"),
    "audit.uncosigned": ("any", "witnesses did not confirm an entry in time, and `records.uncosigned` is `report`"),
    "ledger.archived": ("any", "sealed segments were written to files"),
    "ledger.pruned": ("any", "archived entries of some types were deleted; written before they are"),
    "ledger.recovered": ("any", "the first entry of a new epoch: both heads, and what is lost"),
    "ledger.restored": ("any", "archived entries were put back"),
    "producer.certified": ("any", "who signs the entries that follow: the chain of an SVID, or a key"),
    "pseudonyms.begun": ("any", "people and addresses get other pseudonyms from now on"),
    "pseudonyms.retired": ("any", "an old key of pseudonyms was destroyed"),
    "records.erased": ("any", "a person was erased: which keys were destroyed, and why"),
    "records.held": ("any", "a legal hold forbids erasing a person"),
    "records.lifted": ("any", "a legal hold was lifted"),
    "records.read": ("any", "somebody reads a stream of the record itself; written before it is shown"),
    "records.read.counted": ("any", "how often that was within the minute"),
    "records.scrubbed": ("any", "what an erasure deleted has been overwritten since"),
    "records.snapshot": ("any", "what a stream has come to"),
    "request.allowed": ("service", "a request passed every guard and was handed to the application"),
    "request.failed": ("service", "the application raised, or answered 500; the cause is in `data.cause`"),
    "transport.denied": ("service", "a TLS handshake failed, or a caller without an identity met STRICT"),
}
# What is filled into a type that is put together at run time.
HOLES = {
    "{decision.layer.value}": ("edge", "identity", "policy", "transport"),
    "{step}": ("prepare", "activate", "finish"),
    "{kind}": ("access", "uncosigned"),
}


# docstrings


def markdown(doc: str) -> str:
    """Turn a docstring into Markdown: sections become lists, everything else is Markdown already."""
    out: list[str] = []
    section = fenced = False
    for line in inspect.cleandoc(doc).splitlines():
        title = re.fullmatch(r"(Args|Returns|Raises|Yields):", line)
        if line == "```":
            fenced = not fenced
            out.append("```text" if fenced else line)
        elif title:
            section = True
            out += [f"**{title.group(1)}**", ""]
        elif section and (item := re.fullmatch(r"    ([\w.*]+): (.*)", line)):
            out.append(f"* `{item.group(1)}`: {item.group(2)}")
        elif section and line.startswith("    "):
            out.append(("  " if out[-1] else "") + line.strip())
        else:
            section = section and not line
            out.append(line)
    return "\n".join(out).strip()


def first_sentence(doc: str | None) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0].rstrip(":")


# api


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(module: str) -> Iterator[Definition]:
    """Yield the public functions and classes of a module."""
    tree = ast.parse((SOURCE / (module.replace(".", "/") + ".py")).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, name: str = "", method: bool = False) -> str:
    """Return a readable signature, wrapped when it is long."""
    arguments = ast.unparse(node.args)
    if method:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    text = f"{name or node.name}({arguments}){returns}".replace("'", '"')
    if len(text) > 100:  # noqa: PLR2004  # columns that fit a page
        text = text.replace(", *, ", ", *,\n    ").replace("(*, ", "(\n    *, ")
    return text


def api_entry(module: str, node: Definition, level: int) -> Iterator[str]:
    """Yield the section of one function or class."""
    yield f"{'#' * level} {node.name}\n"
    if isinstance(node, ast.ClassDef):
        yield from class_entry(module, node, level)
        return
    yield f"```text\n{module}.{signature(node)}\n```\n"
    yield markdown(ast.get_docstring(node) or "") + "\n"


def class_entry(module: str, node: ast.ClassDef, level: int) -> Iterator[str]:
    """Yield what a class promises and its public methods."""
    methods = [it for it in node.body if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)]
    made = next((it for it in methods if it.name == "__init__"), None)
    call = signature(made, name=node.name, method=True) if made is not None else node.name
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    yield f"```text\nclass {module}.{call}" + (f"    # {bases}" if bases and made is None else "") + "\n```\n"
    yield markdown(ast.get_docstring(node) or "") + "\n"
    values = [
        it.targets[0].id for it in node.body if isinstance(it, ast.Assign) and isinstance(it.targets[0], ast.Name)
    ]
    if bases in {"StrEnum", "IntEnum"}:
        yield "Members: " + ", ".join(f"`{name}`" for name in values) + ".\n"
    for method in methods:
        if not method.name.startswith("_") and "overload" not in map(ast.unparse, method.decorator_list):
            yield f"{'#' * (level + 1)} {node.name}.{method.name}\n"
            yield f"```text\n{_kind(method)}{signature(method, method=True)}\n```\n"
            yield markdown(ast.get_docstring(method) or "") + "\n"


def _kind(method: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kinds = {"property": "property ", "classmethod": "classmethod ", "staticmethod": "staticmethod "}
    return "".join(kinds.get(ast.unparse(it), "") for it in method.decorator_list)


def api_page() -> str:
    """The facade."""
    out = [
        f"{HEAD}# The facade\n",
        "What `import hauberk` offers. Importing it loads nothing; each name is loaded from its home on first use.\n",
        "| name | home | |\n|---|---|---|",
    ]
    found = {}
    for name in hauberk.__all__:
        value = getattr(hauberk, name)
        found[name] = value.__module__
        out.append(f"| [`{name}`](#{name.lower()}) | `{value.__module__}` | {first_sentence(value.__doc__)} |")
    out.append("")
    for name, module in found.items():
        node = next(it for it in definitions(module) if it.name == name)
        out += api_entry(module, node, 2)
    return "\n".join(out)


def records_page() -> str:
    """What `hauberk.records` offers."""
    out = [
        f"{HEAD}# Records\n",
        (
            "What `from hauberk.records import ...` offers. `Runtime.events` is an [`EventStore`](#eventstore),"
            " `Runtime.audit` an [`AuditLog`](#auditlog). Each name is loaded from its home on first use.\n"
        ),
        "| name | home | |\n|---|---|---|",
    ]
    entries: list[str] = []
    for name in records.__all__:
        module = records._HOME[name]  # noqa: SLF001  # a constant or an alias does not say where it is from
        node = next((it for it in definitions(module) if it.name == name), None)
        words = value_words(module, name) if node is None else first_sentence(ast.get_docstring(node))
        out.append(f"| [`{name}`](#{name.lower()}) | `{module}` | {words} |")
        if node is None:
            entries += [f"## {name}\n", f"```text\n{name} = {value_text(module, name)}\n```\n", words + "\n"]
        else:
            entries += api_entry(module, node, 2)
    return "\n".join([*out, "", *entries])


def _assignment(module: str, name: str) -> ast.Assign:
    tree = ast.parse((SOURCE / (module.replace(".", "/") + ".py")).read_text("utf-8"))
    found = (it for it in tree.body if isinstance(it, ast.Assign))
    return next(it for it in found if isinstance(it.targets[0], ast.Name) and it.targets[0].id == name)


def value_text(module: str, name: str) -> str:
    """Return what a constant or an alias of a type stands for."""
    return ast.unparse(_assignment(module, name).value).replace("'", '"')


def value_words(module: str, name: str) -> str:
    """Return the comment behind a constant or an alias of a type, as a sentence."""
    lines = (SOURCE / (module.replace(".", "/") + ".py")).read_text("utf-8").splitlines()
    line = lines[_assignment(module, name).lineno - 1]
    words = VALUE_WORDS.get(name) or line.partition("  # ")[2]
    return words[:1].upper() + words[1:].rstrip(".") + "."


# What has no room for a comment where it is defined.
VALUE_WORDS = {
    "Actor": "who does something: the call being served, a context, or a principal",
    "Fields": "fields of an event as plain JSON, private ones as `Sealed`",
    "Pii": "how a field is declared that only those see who may decrypt: `email: Pii[str]`",
    "Subject": "how the field is declared that says whose data it is",
}


def core_page() -> str:
    """The shared types and the ports."""
    out = [
        f"{HEAD}# Core types and ports\n",
        "What every plane builds on: frozen values, and the ports adapters implement.\n",
    ]
    for name in CORE:
        module = f"hauberk.core.{name}"
        out += [f"## core.{name}\n", markdown(import_module(module).__doc__ or "") + "\n"]
        for node in definitions(module):
            out += api_entry(module, node, 3)
    return "\n".join(out)


def modules_page() -> str:
    """Every module and what it is for."""
    out = [
        f"{HEAD}# Modules\n",
        "Every module opens with a paragraph; this is its first sentence.\n",
        "| module | |\n|---|---|",
    ]
    for path in sorted((SOURCE / "hauberk").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        out.append(f"| `{name}` | {first_sentence(doc).replace('|', chr(92) + '|')} |")
    return "\n".join(out) + "\n"


# errors


def errors_page() -> str:
    """The registry of codes."""
    out = [
        f"{HEAD}# Error codes\n",
        (
            "An error has two faces. The public text is constant and may be shown to anybody; it is all a caller gets,"
            " as an RFC 9457 problem with the code and an incident id. Details stay in `HauberkError.diagnostics()` and"
            " in the ledger. The hint is printed by the command line only. The status is what an edge answers with.\n"
        ),
    ]
    for family, title in FAMILIES.items():
        out += [f"## HBK-{family}xx {title}\n", "| code | public text | status | hint |\n|---|---|---|---|"]
        for code, spec in REGISTRY.items():
            if code[4] == family:
                out.append(f"| `{code}` | {spec.public} | {spec.status} | {spec.hint} |")
        out.append("")
    return "\n".join(out)


# configuration


def documented(kind: type) -> dict[str, str]:
    """Return the `Args:` of a configuration class, by field."""
    found: dict[str, str] = {}
    for line in markdown(kind.__doc__ or "").splitlines():
        if item := re.fullmatch(r"\* `(\w+)`: (.*)", line):
            found[last := item.group(1)] = item.group(2)
        elif found and line.startswith("  "):
            found[last] += " " + line.strip()
    return found


def type_name(hint: object) -> str:
    """Return what people call a type."""
    if get_origin(hint) is Annotated:
        return type_name(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return "list of texts"
    if get_origin(hint) is dict:
        return "table of texts"
    if isinstance(hint, type) and issubclass(hint, Address):
        return "address"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names[hint] if isinstance(hint, type) and hint in names else str(hint)


def configuration_page() -> str:
    """Every key."""
    out = [
        f"{HEAD}# Configuration\n",
        (
            "Defaults, then `hauberk.toml`, then the environment, then arguments; the later wins. An unknown key is an"
            " error. `hauberk config` shows each value and where it came from; how to set them is in"
            " [Configure](../how-to/configure.md).\n"
        ),
        "| key | type | default | environment | |\n|---|---|---|---|---|",
    ]
    for key, value, _ in config.Config().items():
        owner: object = config.Config()
        *parents, last = key.split(".")
        for part in parents:
            owner = getattr(owner, part)
        shown = msgspec.json.encode(value).decode()
        words = documented(type(owner))[last]
        out.append(f"| `{key}` | {type_name(config.KEYS[key])} | `{shown}` | `{config.variable(key)}` | {words} |")
    return "\n".join([*out, "", HANDOVERS])


HANDOVERS = """## Hand-overs

These variables are no settings. They say where the file is, or how a process gets its identity.

| variable | |
|---|---|
| `HAUBERK_CONFIG` | the configuration file, instead of `hauberk.toml` in the working directory |
| `HAUBERK_IDENTITY_FD` | descriptor that `hauberk run` left; taken out of the environment when it is read |
| `HAUBERK_JOIN_TOKEN` | a join token; taken out of the environment when it is read |
| `HAUBERK_JOIN_TOKEN_FILE` | file that holds a join token |
| `HAUBERK_IDENTITY_ENTRY` | registration entry to ask for, where the process matches several |
| `HAUBERK_SOCKET` | the workload socket, instead of `workload.sock` in the state directory |
| `HAUBERK_KEY_ROOT` | the key-encryption key, base64 of 32 bytes, with `authority.keys = "env:HAUBERK_KEY"` |
"""


# command line


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield the full name of every command and the command."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            for short, child in sorted(command.commands.items()):
                yield from walk(f"{name} {short}", child)

    for name in sorted(COMMANDS):
        yield from walk(f"hauberk {name}", getattr(import_module(f"hauberk.cli.{name}"), name))


def cli_page() -> str:
    """Every command with its options."""
    out = [
        f"{HEAD}# Command line\n",
        (
            "Data goes to standard output, words for people to standard error, `--json` prints one JSON document. Exit"
            " status: 0 fine, 1 a finding, a denial or a refusal, 2 wrong usage, 3 the authority cannot be reached."
            " `hauberk --version` prints the version.\n"
        ),
    ]
    for name, command in commands():
        out += [f"## {name}\n", inspect.cleandoc(command.help or "") + "\n"]
        if not isinstance(command, click.Group):
            out.append(f"```text\n{_usage(name, command)}\n```\n")
            out += _options(command)
    return "\n".join(out)


def _usage(name: str, command: click.Command) -> str:
    with click.Context(command, info_name=name) as context:
        return " ".join([name, *command.collect_usage_pieces(context)])


def _options(command: click.Command) -> Iterator[str]:
    options = [it for it in command.params if isinstance(it, click.Option)]
    if not options:
        return
    yield "| option | |\n|---|---|"
    with click.Context(command) as context:
        for option in options:
            names, words = option.get_help_record(context) or ("", "")
            yield f"| `{names}` | {words.replace('|', chr(92) + '|')} |"
    yield ""


# events


def written_events() -> set[str]:
    """Return every event type that the syntax tree of the source says is written."""
    found: set[str] = set()
    for path in sorted((SOURCE / "hauberk").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        named = _assigned(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found.update(text for kind in _types(node) for text in _texts(kind, named))
    return {text for text in found if re.fullmatch(r"[a-z]+(\.[a-z]+)+", text)}


def _assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return what each name of a module is ever set to."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(value)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hauberk."):
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).extend(_constant(node.module or "", alias.name))
    return found


@cache
def _constants(module: str) -> dict[str, list[ast.expr]]:
    path = SOURCE.joinpath(*module.split(".")).with_suffix(".py")
    nodes = ast.parse(path.read_text("utf-8")).body if path.exists() else []
    return {
        node.targets[0].id: [node.value]
        for node in nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }


def _constant(module: str, name: str) -> list[ast.expr]:
    """Return what a constant of another module is set to."""
    return _constants(module).get(name, [])


def _types(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield prefix and expression of the event type a call writes."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in {"event", "record", "_record", "_held"} and call.args:
        yield "", call.args[0]
    elif name == "command" and len(call.args) > 1:
        yield "admin.", call.args[1]
    elif name in {"Event", "Draft"}:
        yield from (("", it.value) for it in call.keywords if it.arg in {"type", "kind"})


def _texts(kind: tuple[str, ast.expr], named: dict[str, list[ast.expr]]) -> Iterator[str]:
    prefix, node = kind
    if isinstance(node, ast.Constant):
        yield f"{prefix}{node.value!s}"
    elif isinstance(node, ast.IfExp):
        yield from (*_texts((prefix, node.body), named), *_texts((prefix, node.orelse), named))
    elif isinstance(node, ast.Name):
        yield from (text for value in named.get(node.id, ()) for text in _texts((prefix, value), {}))
    elif isinstance(node, ast.JoinedStr):
        template = ast.unparse(node)[2:-1]
        yield from (prefix + template.replace(hole, text) for hole, texts in HOLES.items() for text in texts
                    if hole in template)  # fmt: skip


def events_page() -> str:
    """Every event type."""
    out = [
        f"{HEAD}# Events\n",
        (
            "One envelope, [`Event`](api.md#event), serves them all. A service writes to `/services/NAMESPACE/ACCOUNT`,"
            " the authority to `/authority/identity`, `/authority/policy` and `/authority/admin`; it refuses a"
            " service's entries for any other stream. The authority's own TLS listener is the service"
            " `hauberk-system/authority`.\n"
        ),
        "| type | written by | when |\n|---|---|---|",
    ]
    for kind, (who, when) in sorted(EVENTS.items()):
        out.append(f"| `{kind}` | {who} | {when} |")
    out.append(
        "\nEqual denials beyond `records.fold_rate` per caller, rule and second are counted instead of written one by"
        " one: the counting entry has the type with `.folded` behind it, such as `policy.denied.folded`, and"
        " `data.count`, `data.first`, `data.last`, and in `data.incidents` the first hundred ids callers were told.\n"
    )
    return "\n".join(out)


# policy language


def policies_page() -> str:
    """Every field of the policy language."""
    out = [f"{HEAD}# Policy language\n", POLICY_INTRO]
    for title, where, fields in (
        ("Sources", "spec.rules[].from[].source", SOURCE_FIELDS),
        ("Operations", "spec.rules[].to[].operation", OPERATION_FIELDS),
    ):
        out += [f"## {title}\n", f"Fields of `{where}`; each is a list of texts.\n", "| field | matches |\n|---|---|"]
        for name, attribute in fields.items():
            if not attribute.startswith("not_"):
                out.append(f"| `{name}`, `{camel('not_' + attribute)}` | {FIELD_WORDS[name]} |")
        out.append("")
    out += [
        "## Conditions\n",
        "Keys of `spec.rules[].when[]`, with `values`, `notValues` or both.\n",
        "| key | |\n|---|---|",
    ]
    out += [f"| `{key}` | {KEY_WORDS[key]} |" for key in sorted(PLAIN_KEYS)]
    out += [f"| `{key}` | {words} |" for key, words in BRACKET_WORDS.items()]
    return "\n".join([*out, "", POLICY_REST])


POLICY_INTRO = """The fields of `AuthorizationPolicy`, as Istio names them; what they mean together is in
[Policy semantics](../explanation/policy-semantics.md). A field with `not` in its name is NOT(OR) of its values.
"""
FIELD_WORDS = {
    "principals": "the peer's SPIFFE id without `spiffe://`; `cluster.local` is the local trust domain",
    "requestPrincipals": "the request's user, `ISSUER/SUBJECT`; no request has one yet",
    "namespaces": "the namespace in the peer's SPIFFE id",
    "serviceAccounts": "`NAMESPACE/ACCOUNT`, or `ACCOUNT` in the policy's own namespace; no wildcards",
    "trustDomains": "the trust domain of the peer's SPIFFE id",
    "ipBlocks": "the address of the direct peer, as address or CIDR block",
    "remoteIpBlocks": "the address of the direct peer too: what a trusted hop reports is not read yet",
    "hosts": "the `Host` header, without regard to case",
    "ports": "the port of the workload, in quotes",
    "methods": "the HTTP method",
    "paths": "the canonical path without query; `{*}` and `{**}` stand for one and for any number of segments",
}
KEY_WORDS = {
    "source.ip": "as `ipBlocks`",
    "remote.ip": "as `remoteIpBlocks`",
    "source.namespace": "as `namespaces`",
    "source.serviceAccount": "as `serviceAccounts`",
    "source.trustDomain": "as `trustDomains`",
    "source.principal": "as `principals`",
    "request.auth.principal": "as `requestPrincipals`",
    "request.auth.audiences": "claim `aud` of the request's token; no request has one yet",
    "request.auth.presenter": "claim `azp` of the request's token; no request has one yet",
    "destination.ip": "the local address the connection arrived at",
    "destination.port": "as `ports`",
    "connection.sni": "the server name of the TLS handshake; no request has one yet",
}
BRACKET_WORDS = {
    "request.headers[NAME]": "a request header; several of one name are joined by commas",
    "request.auth.claims[NAME]": "a claim of the request's token, nested ones as `[A][B]`; no request has one yet",
}
POLICY_REST = f"""## Everything else

`spec.action` is ALLOW (the default), DENY or AUDIT; CUSTOM is refused. `spec.selector.matchLabels` selects workloads by
label. `spec.targetRefs` selects gateways and no workload. The annotation `istio.io/dry-run` keeps a policy from being
enforced. At most {MAX_RULES} rules and {MAX_FROM} sources each.

`PeerAuthentication` has `spec.mtls.mode` and `spec.portLevelMtls`, which needs a selector: STRICT, PERMISSIVE, DISABLE,
or UNSET to inherit from the namespace and then the mesh.
"""

PAGES = {
    "api.md": api_page,
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "core.md": core_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "modules.md": modules_page,
    "policies.md": policies_page,
    "records.md": records_page,
}


def pages() -> Iterable[tuple[Path, str]]:
    """Yield path and text of every page."""
    for name, make in PAGES.items():
        yield TARGET / name, make().rstrip("\n") + "\n"


def main() -> int:
    """Write the pages, or with `--check` tell which are stale."""
    stale = [(path, text) for path, text in pages() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        if "--check" in sys.argv[1:]:
            print(f"stale: {path.relative_to(ROOT)}", file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
    if stale and "--check" in sys.argv[1:]:
        print("hint: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
