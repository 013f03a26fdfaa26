"""What people see of an entry: all of it, and nothing a producer could forge or break with it."""

from typing import Any

from msgspec.structs import replace

from hauberk.records.view import entry_line, entry_view, printable
from tests.records.made import NOW, STREAM, entry


def test_an_entry_is_shown_with_everything_it_says_and_nothing_empty() -> None:
    one = entry(7, actor="spiffe://example.org/ns/a/sa/b", outcome="deny", code="HBK-300", rule="r")
    view = entry_view(one)
    assert view == {
        "position": 7,
        "time": "2027-01-15T08:00:00.000+00:00",
        "type": "order.paid",
        "stream": STREAM,
        "id": one.id.hex(),
        "actor": "spiffe://example.org/ns/a/sa/b",
        "outcome": "deny",
        "code": "HBK-300",
        "rule": "r",
        "data": {"number": 7},
    }
    line = entry_line(view)
    assert line.startswith("      7  2027-01-15T08:00:00")
    assert line.endswith("deny HBK-300 r")


def test_a_producer_cannot_forge_lines_or_drive_a_terminal() -> None:
    forged = "x\n      8  2027-01-15T08:00:00.000+00:00  identity.issued"
    for field in ("actor", "rule", "outcome", "code", "type"):
        for attack in (forged, "\x1b[2J\x1b[31m", "\u202egnp.exe", "a\rb", "a\x00b", "\u2028next", "\x9b31m"):
            facts: dict[str, Any] = {field: attack}
            line = entry_line(entry_view(entry(1, **facts)))
            assert len(line.splitlines()) == 1
            assert line.isprintable(), (field, attack)


def test_a_long_field_is_cut() -> None:
    assert len(entry_line(entry_view(entry(1, actor="a" * 60_000)))) < 400
    assert printable("ä€") == "ä€"


def test_a_time_no_calendar_has_is_shown_as_it_was_given() -> None:
    one = entry(1)
    for time_ns in (10**21, -(10**21)):
        meta = one.meta.replace(str(NOW * 10**9 + 1).encode(), str(time_ns).encode())
        view = entry_view(replace(one, meta=meta))
        assert view["time"] in {f"{time_ns} ns", "-"}
        assert entry_line(view)
    far = one.meta.replace(str(NOW * 10**9 + 1).encode(), str(2**63 - 1).encode())
    assert entry_view(replace(one, meta=far))["time"] == "2262-04-11T23:47:16.854+00:00"


def test_an_entry_that_cannot_be_read_is_shown_as_such_and_hides_no_other() -> None:
    one = entry(3)
    for odd in (
        replace(one, meta=b"not JSON"),
        replace(one, public=b"["),
        replace(one, public=b"[" * 60_000),
        replace(one, public=b'{"x":1' + b"0" * 5000 + b"}"),
        replace(one, meta=one.meta.replace(one.id.hex().encode(), b"zz")),
    ):
        view = entry_view(odd)
        assert (view["position"], view["type"], view["stream"]) == (3, "order.paid", STREAM)
        assert "unreadable" in view
        assert entry_line(view)
