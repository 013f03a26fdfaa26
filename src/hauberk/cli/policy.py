"""`hauberk policy`: on files, and (`apply`, `export`, `remove`) on what the authority has in force."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from hauberk.cli._authority import directory_option, fetch, pairs
from hauberk.cli._output import Exit, emit, json_option, note, printable
from hauberk.core.call import Call, Headers
from hauberk.core.config import load
from hauberk.core.decision import Verdict
from hauberk.core.finding import Finding, Severity
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import PolicyFile, PolicyForm, PolicyName
from hauberk.errors import IdentityError, PolicyError
from hauberk.policy.diff import diff as compare
from hauberk.policy.engine import Engine
from hauberk.policy.explain import explain as explain_call
from hauberk.policy.lint import lint as find
from hauberk.policy.model import Document
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.policy.table import Verdicts, parse_table, run_table, target_of
from hauberk.policy.whocan import who_can as answer

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, exists=True)
_YAML = frozenset({".yaml", ".yml"})  # what a runtime reads of a directory, too


@click.group()
def policy() -> None:
    """Lint, explain, test, compare and apply policies."""


def _read(path: Path) -> tuple[str, str]:
    """Return name and text of a file."""
    try:
        return printable(path), path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError("HBK-301", f"cannot be read: {error}") from None


def _files(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Return name and text of each file; a directory stands for the YAML files in it."""
    return [_read(one) for path in paths for one in (_listed(path) if path.is_dir() else [path])]


def _listed(directory: Path) -> list[Path]:
    try:
        found = sorted(it for it in directory.iterdir() if it.suffix in _YAML)
    except OSError as error:
        raise PolicyError("HBK-301", f"cannot be read: {error}") from None
    if not found:
        raise PolicyError("HBK-301", "no .yaml or .yml file in the directory", file=str(directory))
    return found


def _parsed(files: Iterable[tuple[str, str]]) -> list[Document]:
    return [document for name, text in files for document in parse_documents(text, file=name)]


def _some(found: list[Document], files: Iterable[tuple[str, str]]) -> list[Document]:
    """Return the documents found; none is an error, since whoever names files means that they say something."""
    if not found:
        raise PolicyError("HBK-301", "there is no policy document in it", file=", ".join(name for name, _ in files))
    return found


def _documents(paths: Iterable[Path]) -> list[Document]:
    files = _files(paths)
    return _some(_parsed(files), files)


def _refuse_none(files: Iterable[tuple[str, str]]) -> None:
    try:
        found = _parsed(files)
    except PolicyError:
        return  # the authority refuses it as well, and records who tried
    _some(found, files)


def _set(paths: Iterable[Path], trust_domain: str) -> PolicySet:
    return PolicySet.default(trust_domain=trust_domain).with_documents(_documents(paths))


def _in_force(directory: Path | None) -> tuple[PolicySet, int]:
    """Return the policies in force at the authority, and their number."""
    found = fetch(directory, "GET", "/admin/policies")
    documents = parse_documents(found["text"], file="in force")
    named = {name: found[name] for name in ("root_namespace", "trust_domain")}
    return PolicySet.of(documents, **named, aliases=tuple(found["aliases"])), int(found["revision"])


def _tell(findings: Iterable[Finding]) -> str:
    lines = []
    for found in findings:
        told = f"{found.file}:{found.line}: {found.severity.value}: {found.message} [{found.rule}] {found.field}"
        lines.append(printable(told))
        if found.fix:
            lines += ["corrected:", *(f"    {printable(line)}" for line in found.fix.splitlines())]
    return "\n".join(lines)


def _domain_option(command: _F) -> _F:
    return click.option(
        "--trust-domain", default=_configured_domain, help="The local trust domain (default: the configuration's)."
    )(command)


def _configured_domain() -> str:
    return load().trust_domain


def _callee(_context: click.Context, _option: click.Parameter, value: str) -> str:
    namespace, slash, account = value.partition("/")
    if not (namespace and slash and account) or "/" in account:
        raise click.BadParameter("write NAMESPACE/ACCOUNT, such as production/payment-service")
    return value


def _caller(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return str(SpiffeId.parse(value)) if value else ""
    except IdentityError:
        raise click.BadParameter("write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT") from None


def _call_options(command: _F) -> _F:
    for option in (
        click.option(
            "--to",
            required=True,
            metavar="NAMESPACE/ACCOUNT",
            callback=_callee,
            help="The callee; its label app is ACCOUNT.",
        ),
        click.option("--label", "labels", multiple=True, help="KEY=VALUE of the callee, instead of app=ACCOUNT."),
        click.option("--method", default="GET", show_default=True, help="Empty for a TCP connection."),
        click.option("--path", default="/", show_default=True),
        click.option("--host", default=""),
        click.option("--port", type=int, default=0),
        click.option("--header", "headers", multiple=True, help="NAME=VALUE"),
    ):
        command = option(command)
    return command


def _call(options: dict[str, Any], source: str = "") -> Call:
    labels = dict(pairs(options["labels"])) or None
    headers = pairs(options["headers"])
    return Call(
        peer=Principal(Kind.WORKLOAD, source) if source else ANONYMOUS,
        method=options["method"],
        path=options["path"] if options["method"] else "",
        host=options["host"],
        port=options["port"],
        headers=Headers([(name.lower().encode(), value.encode()) for name, value in headers]),
        target=target_of(options["to"], labels),
    )


@policy.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@json_option
def lint(files: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Find what is valid and still not what was meant. Exit status 1 when there is an error."""
    findings = find(_documents(files))
    emit(findings, as_json=as_json, text=_tell(findings))
    errors = sum(found.severity is Severity.ERROR for found in findings)
    note(f"{len(findings)} findings, {errors} errors")
    if errors:
        raise SystemExit(Exit.FINDING)


@policy.command()
@click.argument("files", nargs=-1, type=_FILE)
@click.option(
    "--from", "source", default="", callback=_caller, help="SPIFFE id of the caller; left out: nobody in particular."
)
@_call_options
@_domain_option
@directory_option
@json_option
def explain(  # click passes one argument per option
    files: tuple[Path, ...],
    source: str,
    trust_domain: str,
    directory: Path | None,
    as_json: bool,  # noqa: FBT001  # click's flag
    **options: Any,  # noqa: ANN401  # click's options
) -> None:
    """Decide one call and say why, and which rule came nearest. Exit status 1 when it is denied.

    Without FILES it is the policies in force at the authority that decide.
    """
    call = _call(options, source)
    policies, revision = (_set(files, trust_domain), 0) if files else _in_force(directory)
    told = explain_call(Engine(policies, call.target, revision=revision), call)
    emit(told.data(), as_json=as_json, text=told.text())
    if told.decision.verdict is not Verdict.ALLOW:
        raise SystemExit(Exit.FINDING)


def _told_row(result: Verdicts) -> str:
    if result.passed:
        return result.line()
    return "\n".join([result.line(), *(f"     {line}" for line in result.explanation.text().splitlines())])


@policy.command("test")
@click.argument("table", type=_FILE)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@_domain_option
@json_option
def table_test(table: Path, files: tuple[Path, ...], trust_domain: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Check a YAML table of calls and expected verdicts. Exit status 1 when one differs."""
    name, text = _read(table)
    results = run_table(_set(files, trust_domain), parse_table(text, file=name))
    data = [{"row": it.row, "passed": it.passed, "explanation": it.explanation.data()} for it in results]
    emit(data, as_json=as_json, text="\n".join(_told_row(it) for it in results))
    if not all(it.passed for it in results):
        raise SystemExit(Exit.FINDING)


@policy.command("who-can")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@_call_options
@_domain_option
@json_option
def who_can(files: tuple[Path, ...], trust_domain: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401, FBT001  # click's options
    """List who may make a call."""
    call = _call(options)
    found = answer(Engine(_set(files, trust_domain), call.target), call)
    lines = [f"{it.who}  {it.rule}" + ("" if it.certain else "  (under further conditions)") for it in found]
    emit(found, as_json=as_json, text="\n".join(lines) or "nobody")


@policy.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@_domain_option
@json_option
def diff(old: Path, new: Path, trust_domain: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show which documents change, and which calls get another verdict or need mutual TLS otherwise.

    Exit status 1 when any call does.
    """
    found = compare(_set([old], trust_domain), _set([new], trust_domain))
    lines = [
        *(f"+ {name}" for name in found.added),
        *(f"- {name}" for name in found.removed),
        *(f"~ {name}" for name in found.changed),
        *(f"  mutual TLS of {line}" for line in found.modes),
        *(
            f"  {it.before} -> {it.after}  {it.peer} {it.method} {it.path} -> {it.target} {it.detail}".rstrip()
            for it in found.verdicts
        ),
    ]
    emit(found, as_json=as_json, text="\n".join(lines))
    if not found.complete:
        note("not every call was compared: there are too many, or conditions on claims")
    if found.verdicts or found.modes:
        raise SystemExit(Exit.FINDING)


@policy.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--force", is_flag=True, help="Take documents that lint calls an error.")
@click.option("--replace", is_flag=True, help="Forget every other document but the default ones.")
@directory_option
@json_option
def apply(files: tuple[Path, ...], force: bool, replace: bool, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Put policies in force at every service. A refused push changes nothing."""
    read = _files(files)
    _refuse_none(read)
    form = PolicyForm(tuple(PolicyFile(name, text) for name, text in read), force, replace)
    try:
        done = fetch(directory, "POST", "/admin/policies", form)
    except PolicyError as error:
        note(_tell(_findings(error.context.pop("findings", ()))))
        raise
    note(_tell(it for it in _findings(done["findings"]) if it.severity is not Severity.INFO))
    emit(done, as_json=as_json, text=f"revision {done['revision']}  digest {done['digest'][:16]}")


def _findings(data: Any) -> list[Finding]:  # noqa: ANN401  # JSON
    return [Finding(**{**found, "severity": Severity(found["severity"])}) for found in data]


@policy.command()
@directory_option
@json_option
def export(directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the policies in force, the default ones included."""
    found = fetch(directory, "GET", "/admin/policies")
    emit(found, as_json=as_json, text=found["text"].rstrip())


@policy.command()
@click.argument("kind", type=click.Choice(["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]))
@click.argument("name", metavar="NAMESPACE/NAME")
@directory_option
@json_option
def remove(kind: str, name: str, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Take one policy out of force."""
    namespace, slash, short = name.partition("/")
    if not slash:
        raise click.UsageError("the name is NAMESPACE/NAME")
    done = fetch(directory, "POST", "/admin/policies/remove", PolicyName(kind, namespace, short))
    emit(done, as_json=as_json, text=f"revision {done['revision']}")
