"""Exported lines: one an entry, one field a field, whatever anybody wrote into them, and nothing is lost."""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.core.event import Entry
from hauberk.records.audit_query import Hit
from hauberk.records.details import kept_details, kept_text
from hauberk.records.export import Format, cef_line, json_line, line_of, syslog_line
from hauberk.records.view import entry_view
from tests.records.made import entry

Line = Callable[[Mapping[str, object]], str]
FORMATS: dict[str, Line] = {"jsonl": json_line, "cef": cef_line, "syslog": syslog_line}

EVIL = (
    "\nCEF:0|Hauberk|hauberk|1|audit.access|audit.access|3|suser=bob outcome=ok",
    "x outcome=ok suser=bob",
    "x|3|suser=bob",
    '\\|\\=\\]\\"\\n',
    '"] [hauberk@32473 actor="bob"',
    'x" actor="bob',
    '\r\n<110>1 2026-01-01T00:00:00.000Z - hauberk - audit.access [hauberk@32473 actor="bob"]',
    '"}\n{"actor":"bob"}',
    "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\x00\x1b[2K\u202e",
    "\\u000a",
    "\\",
    "trailing ",
    " leading",
    "a=b",
    "",
)  # fmt: skip
words = st.one_of(
    st.text(st.characters(codec="utf-8")), st.sampled_from(EVIL), st.lists(st.sampled_from(EVIL)).map("".join)
)
TEXTS = (
    "type", "stream", "actor", "address", "outcome", "code", "rule", "digest", "incident", "session", "correlation",
    "causation",
)  # fmt: skip
values = st.recursive(
    words | st.integers(-(2**53), 2**53) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["resource", "action", "reason", "details", "cut", "outcome", "suser", "data"]) | words
entries = st.builds(
    lambda at, texts, data: entry(at, **texts, data=data),
    st.integers(0, 2**40),
    st.fixed_dictionaries({}, optional=dict.fromkeys(TEXTS, words)),
    st.dictionaries(names, values, max_size=4),
)  # fmt: skip


# what a reader on the other side does, after the formats' own documents


def unescape(text: str, known: Mapping[str, str]) -> str:
    found: list[int] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            found.extend(text[at].encode("utf-16-be")[i] for i in range(len(text[at].encode("utf-16-be"))))
            at += 1
        elif text[at + 1] == "u":
            found.extend(bytes.fromhex(text[at + 2 : at + 6]))
            at += 6
        else:
            found.extend(known[text[at + 1]].encode("utf-16-be"))
            at += 2
    return bytes(found).decode("utf-16-be")


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    header: list[str] = []
    rest = line
    for _ in range(7):
        found = re.match(r"((?:[^\\|]|\\.)*)\|", rest)
        assert found
        header.append(unescape(found.group(1), {"\\": "\\", "|": "|"}))
        rest = rest[found.end() :]
    keys = list(re.finditer(r"(?:\A| )([A-Za-z0-9]+)=", re.sub(r"\\.", "..", rest)))
    extension: dict[str, str] = {}
    for found, following in zip(keys, [*keys[1:], None], strict=True):
        end = following.start() if following else len(rest)
        assert found.group(1) not in extension
        value = rest[found.end() : end]
        extension[found.group(1)] = unescape(value, {"\\": "\\", "=": "=", "n": "\n", "r": "\r"})
    return header, extension


def fields_of_cef(line: str) -> dict[str, object]:
    header, extension = read_cef(line)
    assert header[:4] == ["CEF:0", "Hauberk", "hauberk", "1"]
    assert header[4] == header[5]
    fields: dict[str, object] = {"type": header[4]}
    more: dict[str, object] = json.loads(extension.pop("cs6", "{}"))
    extension.pop("cs6Label", None)
    for key in [key for key in extension if key.endswith("Label")]:
        fields[extension.pop(key)] = extension.pop(key.removesuffix("Label"))
    known = {"externalId": "position", "suser": "actor", "act": "action", "outcome": "outcome", "reason": "code"}
    fields |= {known[key]: value for key, value in extension.items() if key != "rt"}
    return fields | more


def read_syslog(line: str) -> tuple[str, dict[str, str]]:
    """RFC 5424 section 6."""
    found = re.fullmatch(
        r"<(1[0-9]{2}|[0-9]{1,2})>1 (\S+) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32})"
        r' \[([^ =\]"]{1,32})((?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\.)*")*)\]',
        line,
    )
    assert found
    assert (found.group(4), found.group(7)) == ("hauberk", "hauberk@32473")
    parameters: dict[str, str] = {}
    for one in re.finditer(r' ([^ =\]"]{1,32})="((?:[^"\\\]]|\\.)*)"', found.group(8)):
        assert one.group(1) not in parameters
        parameters[one.group(1)] = unescape(one.group(2), {"\\": "\\", '"': '"', "]": "]"})
    return found.group(6), parameters


def expected(one: Entry, *, without: tuple[str, ...] = ()) -> dict[str, object]:
    view = dict(entry_view(one))
    data = dict(view.pop("data", {}))  # type: ignore[call-overload]  # a mapping
    for name in ("resource", "action", "reason"):
        if isinstance(data.get(name), str):
            view[name] = data.pop(name)
    if data:
        view["data"] = data
    return {name: value for name, value in view.items() if name not in without}


def as_text(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value if isinstance(value, str) else json.loads(json.dumps(value)) for name, value in fields.items()}


def loosely(fields: Mapping[str, object], like: Mapping[str, object]) -> dict[str, object]:
    """Read what is no text in the entry as what it was: a format of texts says `3` for 3."""
    return {
        name: json.loads(value)
        if name in like and isinstance(value, str) and not isinstance(like[name], str)
        else value
        for name, value in fields.items()
    }


@given(entries)
def test_json_lines_lose_nothing(one: Entry) -> None:
    assert json.loads(json_line(entry_view(one))) == as_text(entry_view(one))


@given(entries)
def test_cef_loses_nothing_and_each_field_is_one(one: Entry) -> None:
    wanted = expected(one, without=("time",))
    assert loosely(fields_of_cef(cef_line(entry_view(one))), wanted) == as_text(wanted)


@given(entries)
def test_syslog_loses_nothing_and_each_field_is_one(one: Entry) -> None:
    wanted = expected(one, without=("time",))
    _, found = read_syslog(syslog_line(entry_view(one)))
    assert loosely(found, wanted) == as_text(wanted)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@given(written=st.lists(entries, max_size=5))
def test_an_entry_is_one_line_for_every_reader_of_lines(write: Line, written: list[Entry]) -> None:
    lines = [write(entry_view(one)) for one in written]
    assert "".join(f"{line}\n" for line in lines).splitlines() == lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@given(st.lists(entries, min_size=2, max_size=2))
def test_different_entries_are_different_lines(write: Line, written: list[Entry]) -> None:
    views = [dict(entry_view(one)) for one in written]
    for view in views:  # what differs anyway
        view.update(id="", position=0, time=0)
    first, second = map(write, views)
    assert (first == second) == (views[0] == views[1])


# forging, and how it is done to those who only put texts together


def naive_cef(user: str, resource: str) -> str:
    return f"CEF:0|Shop|shop|1|access|access|3|suser={user} cs2Label=resource cs2={resource} outcome=denied"


def naive_syslog(user: str, resource: str) -> str:
    return f'<108>1 2026-01-01T00:00:00.000Z - shop - access [shop@32473 actor="{user}" resource="{resource}"]'


def test_lines_put_together_from_texts_are_forged() -> None:
    assert naive_cef("mallory", EVIL[0]).splitlines()[1].startswith("CEF:0|Hauberk")
    _, extension = read_cef(naive_cef("mallory", "x suser2=bob"))
    assert extension["suser2"] == "bob"
    assert '[hauberk@32473 actor="bob"' in naive_syslog("mallory", EVIL[4])


@pytest.mark.parametrize("text", EVIL)
def test_ours_say_who_it_was_and_nothing_else(text: str) -> None:
    one = entry(
        0, actor="mallory", outcome="denied", type=text or "x", session=text, data={"resource": text, "x": text}
    )
    view = entry_view(one)
    fields = fields_of_cef(cef_line(view))
    assert (fields["actor"], fields["outcome"], fields["type"]) == ("mallory", "denied", text or "x")
    assert fields["resource"] == text
    _, parameters = read_syslog(syslog_line(view))
    assert (parameters["actor"], parameters["outcome"], parameters["resource"]) == ("mallory", "denied", text)
    assert json.loads(json_line(view))["actor"] == "mallory"


# to the letter


def test_the_escapes_of_cef_are_those_of_its_guide() -> None:
    one = entry(0, type="a|b\\c", data={"resource": "C:\\tmp\\a=b|c\r\nd"})
    line = cef_line(entry_view(one))
    assert line.startswith("CEF:0|Hauberk|hauberk|1|a\\|b\\\\c|a\\|b\\\\c|3|rt=1800000000000 externalId=0 ")
    assert " cs2Label=resource cs2=C:\\\\tmp\\\\a\\=b|c\\r\\nd " in line


def test_the_escapes_of_syslog_are_those_of_rfc_5424() -> None:
    one = entry(0, type="t", stream="/s", outcome="denied", data={"resource": 'a"b]c\\d=e|f'})
    line = syslog_line(entry_view(one), host="log.example.org", enterprise=64_000)
    identity = one.id.hex()
    assert line == (
        "<108>1 2027-01-15T08:00:00.000Z log.example.org hauberk - t"
        f' [hauberk@64000 position="0" type="t" stream="/s" id="{identity}" outcome="denied"'
        ' resource="a\\"b\\]c\\\\d=e|f"]'
    )


@pytest.mark.parametrize(
    ("outcome", "priority", "severity"),
    [("ok", 110, 3), ("allow", 110, 3), ("", 110, 3), ("denied", 108, 7), ("deny", 108, 7), ("failed", 107, 6),
     ("cancelled", 109, 4), ("\n", 109, 4)],
)  # fmt: skip
def test_how_grave_it_is_follows_from_the_outcome(outcome: str, priority: int, severity: int) -> None:
    view = entry_view(entry(0, outcome=outcome))
    assert syslog_line(view).startswith(f"<{priority}>1 ")
    assert cef_line(view).split("|")[6] == str(severity)


def test_names_in_the_head_of_a_message_are_short_and_ascii_and_whole_in_its_data() -> None:
    kind = "müll " * 20
    line = syslog_line(entry_view(entry(0, type=kind)), host="höst name")
    message, parameters = read_syslog(line)
    assert message == "m?ll?" * 6 + "m?"
    assert parameters["type"] == kind
    assert line.split(" ")[2] == "h?st?name"


def test_a_time_that_no_calendar_has_is_left_out_of_the_head_and_kept_as_text() -> None:
    one = entry(0, time_ns=1 << 62)
    view = {**entry_view(one), "time": f"{1 << 62} ns"}
    message, parameters = read_syslog(syslog_line(view))
    assert parameters["time"] == f"{1 << 62} ns"
    assert message == "order.paid"
    assert fields_of_cef(cef_line(view))["time"] == f"{1 << 62} ns"


def test_an_entry_that_cannot_be_read_is_exported_as_what_it_is() -> None:
    one = Entry(7, b"1" * 16, "/s", "t", 1, b"", b"not json", b"\n")
    for write in FORMATS.values():
        line = write(entry_view(one))
        assert b"not json".hex() in line
        assert line.isprintable()


def test_a_line_names_the_leaf_it_stands_for() -> None:
    one = entry(3)
    view = Hit(one, (b"1" * 32,)).view()
    leaf = sha256(b"\x00" + one.leaf).hexdigest()
    assert json.loads(json_line(view))["leaf"] == leaf
    assert "proof" not in json_line(view)
    assert fields_of_cef(cef_line(view))["leaf"] == leaf
    assert read_syslog(syslog_line(view))[1]["leaf"] == leaf


def test_each_format_has_a_name() -> None:
    view = entry_view(entry(0))
    assert [line_of(view, one) for one in Format] == [json_line(view), cef_line(view), syslog_line(view)]
    assert line_of(view, Format.SYSLOG, host="h", enterprise=1) == syslog_line(view, host="h", enterprise=1)


@given(words)
def test_what_was_scrubbed_on_its_way_in_is_scrubbed_in_every_line(text: str) -> None:
    secret = "Tr0ub4dor-hunter2"
    data: dict[str, object] = {"resource": kept_text(f"{text} password={secret}", 500)[0]}
    data["details"] = kept_details({"password": secret, "text": text}).data
    view = entry_view(entry(0, data=data))
    assert not any(secret in write(view) for write in FORMATS.values())
