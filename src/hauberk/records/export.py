r"""Entries as lines that other systems take: JSON lines, CEF, and syslog messages of RFC 5424.

An entry is one line and each of its fields one field of it, whatever anybody wrote into them: what could end a line or
move a terminal is written `\uHHHH` (in CEF extensions `\n` and `\r`, as its guide has them), and what has a meaning in
the format behind a backslash. A backslash is always escaped itself, so different entries give different lines.

* JSON lines: the entry as `hauberk ledger show --json` has it, in one line of ASCII escapes where it is not printable.
* CEF (ArcSight Common Event Format, version 0): `\` and `|` are escaped in the header, `\`, `=` and line ends in the
  extension. What the dictionary of CEF has no key for is JSON in `cs6`.
* Syslog (RFC 5424 section 6): facility 13, log audit; everything in one element of structured data, in which `"`, `\`
  and `]` are escaped. There is no free text behind it. The enterprise number in its name is that of examples
  (RFC 5612) until you name your own.

`leaf` is the leaf hash: with it a line can be compared with the tree years later.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from hauberk.crypto.merkle import leaf_hash

EXAMPLES = 32_473  # private enterprise number set aside for documentation
FACILITY = 13  # log audit
MAX_MSGID = 32  # characters; RFC 5424 section 6
MAX_HOSTNAME = 255
VERSION = "1"  # of what we make of an entry; raised when a field comes to mean something else
_ID = "hauberk"
_encode = msgspec.json.Encoder().encode
_OWN = ("resource", "action", "reason")  # data of audit entries that gets fields of its own
_NOT_USED = re.compile(r"[^\x21-\x7e]")
_SYSLOG_SEVERITY = {"ok": 6, "allow": 6, "": 6, "denied": 4, "deny": 4, "failed": 3}  # RFC 5424 table 2
_CEF_SEVERITY = {"ok": 3, "allow": 3, "": 3, "denied": 7, "deny": 7, "failed": 6}  # 0 to 10
_NOTICE, _MEDIUM = 5, 4  # of any other outcome
_CEF_KEYS = {"position": "externalId", "actor": "suser", "action": "act", "outcome": "outcome", "code": "reason"}
_CEF_LABELLED = {"stream": "cs1", "resource": "cs2", "session": "cs3", "address": "cs4", "correlation": "cs5"}
_REST, _LEAF = "cs6", "flexString1"

View = Mapping[str, object]


class Format(StrEnum):
    """What a line is."""

    JSONL = "jsonl"
    CEF = "cef"
    SYSLOG = "syslog"


def line_of(view: View, wanted: Format, *, host: str = "", enterprise: int = EXAMPLES) -> str:
    """Return an entry as one line, without its end.

    Args:
        view: as `Hit.view` or `records.view.entry_view` make it.
        wanted: the format.
        host: of syslog messages: where the log lives.
        enterprise: private enterprise number of syslog messages.
    """
    if wanted is Format.CEF:
        return cef_line(view)
    return syslog_line(view, host=host, enterprise=enterprise) if wanted is Format.SYSLOG else json_line(view)


def json_line(view: View) -> str:
    """Return an entry as JSON."""
    return printable(_encode(_whole(view)).decode())


def cef_line(view: View) -> str:
    """Return an entry in the Common Event Format."""
    fields = dict(_fields(view))
    kind, outcome = str(fields.pop("type", "")), str(fields.get("outcome", ""))
    header = ("Hauberk", _ID, VERSION, kind, kind, str(_CEF_SEVERITY.get(outcome, _MEDIUM)))
    return "|".join(["CEF:0", *map(_cef_header, header), " ".join(_extension(fields))])


def _extension(fields: dict[str, object]) -> Iterator[str]:
    when = _moment(fields.pop("time", ""))
    if isinstance(when, datetime):
        yield f"rt={int(when.timestamp() * 1_000)}"
    else:
        fields["time"] = when
    for name, key in _CEF_KEYS.items():
        if name in fields:
            yield f"{key}={_cef_value(_text(fields.pop(name)))}"
    labelled = {**_CEF_LABELLED, "leaf": _LEAF}
    for name, key in labelled.items():
        if name in fields:
            yield f"{key}Label={name} {key}={_cef_value(_text(fields.pop(name)))}"
    if fields:
        yield f"{_REST}Label=more {_REST}={_cef_value(_encode(fields).decode())}"


def syslog_line(view: View, *, host: str = "", enterprise: int = EXAMPLES) -> str:
    """Return an entry as a syslog message."""
    fields = dict(_fields(view))
    kind, outcome = str(fields.get("type", "")), str(fields.get("outcome", ""))
    when = _moment(fields["time"])
    stamp = when.isoformat(timespec="milliseconds").replace("+00:00", "Z") if isinstance(when, datetime) else "-"
    if stamp != "-":
        del fields["time"]
    priority = FACILITY * 8 + _SYSLOG_SEVERITY.get(outcome, _NOTICE)
    head = f"<{priority}>1 {stamp} {_name(host, MAX_HOSTNAME)} {_ID} - {_name(kind, MAX_MSGID)}"
    parameters = "".join(f' {name}="{_parameter(_text(value))}"' for name, value in fields.items())
    return f"{head} [{_ID}@{enterprise}{parameters}]"


# fields


def _whole(view: View) -> dict[str, object]:
    """Return a view whose proof is a leaf hash, which ties the line to the tree."""
    whole = {name: value for name, value in view.items() if name != "proof"}
    proof = view.get("proof")
    if isinstance(proof, Mapping):
        whole["leaf"] = leaf_hash(bytes.fromhex(str(proof["leaf"]))).hex()
    return whole


def _fields(view: View) -> Iterator[tuple[str, object]]:
    """Yield the fields of an entry, each one once; of its data, what audit entries always have on its own."""
    whole = _whole(view)
    data = whole.pop("data", {})
    yield from whole.items()
    if isinstance(data, Mapping):
        yield from ((name, data[name]) for name in _OWN if isinstance(data.get(name), str))
        rest = {name: value for name, value in data.items() if name not in _OWN or not isinstance(value, str)}
        if rest:
            yield "data", rest


def _text(value: object) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _moment(text: object) -> object:
    """Return a time, or the text when no calendar has it."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return text
    return found if found.tzinfo is UTC else text


# escaping


def printable(text: str, known: Mapping[str, str] | None = None) -> str:
    r"""Return a text whose unprintable characters are written `\uHHHH`, in UTF-16 as JSON does, or as `known` says.

    It takes a text in which each backslash is escaped already.
    """
    if text.isprintable():
        return text
    short = known or {}
    return "".join(char if char.isprintable() else short.get(char) or _escape(char) for char in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _escaping(special: str, known: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return what puts a backslash before each of these characters."""
    table = {ord(char): f"\\{char}" for char in special}

    def escape(text: str) -> str:
        return printable(text.translate(table), known)

    return escape


_cef_header = _escaping("\\|")
_cef_value = _escaping("\\=", {"\n": "\\n", "\r": "\\r"})
_parameter = _escaping('"\\]')


def _name(text: str, longest: int) -> str:
    """Return a name for the head of a syslog message; the whole of it is in the structured data."""
    return _NOT_USED.sub("?", text[:longest]) or "-"
