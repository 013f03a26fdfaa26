"""CloudEvents: out with what the exporter may see, in only if it is exactly an event of ours."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk.core.call import Call
from hauberk.errors import HauberkError, IdTaken, Malformed, Oversized, UnknownType
from hauberk.records.cloudevents import MAX_BYTES, encode_cloudevents, from_cloudevent, to_cloudevent
from hauberk.records.hidden import Redacted
from tests.records.made import PATIENCE
from tests.records.made import event as plain_event
from tests.records.shop import CLERK, OWNER, Address, OrderPaid, OrderPlaced, Shop, placed

SOURCE = "/example.org/ledger"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def cloud_event(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    """A CloudEvent from elsewhere; a change to None leaves an attribute out."""
    made: dict[str, Any] = {
        "specversion": "1.0",
        "id": "A234-1234-1234",
        "source": "https://shop.example.com/orders",
        "type": "shop.order.placed.v1",
        "data": {"order": "17", "customer": "ann", "email": "ann@example.org", "total": 3},
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def imported(**changes: Any) -> Any:  # noqa: ANN401  # as above
    return from_cloudevent(json.dumps(cloud_event(**changes)))


# out


def test_a_recorded_event_is_exported_with_its_attributes(shop: Shop) -> None:
    shop.append("order-17", placed(17, home=Address("Ring 1")), actor=Call(peer=OWNER, id="call-2", parent="call-1"))
    [item] = shop.store.read(actor=OWNER)
    assert to_cloudevent(item, source=SOURCE, schema="https://example.org/order.json") == {
        "specversion": "1.0",
        "id": str(UUID(bytes=item.id)),
        "source": SOURCE,
        "type": "shop.order.placed.v1",
        "subject": "order-17",
        "time": "2027-01-15T08:00:00.000000000Z",
        "partitionkey": "order-17",
        "dataschema": "https://example.org/order.json",
        "correlationid": "call-1",
        "causationid": "call-2",
        "datacontenttype": "application/json",
        "data": {
            "order": "order-17", "customer": "ann", "email": "ann@example.org", "phone": None,
            "home": {"street": "Ring 1", "zip": None}, "when": None, "lines": [], "total": 17,
        },
    }  # fmt: skip


def test_what_the_exporter_may_not_see_is_named_and_not_told(shop: Shop) -> None:
    shop.append("order-17", placed(17))
    [item] = shop.store.read("order-17", actor=CLERK)
    found = to_cloudevent(item, source=SOURCE)
    assert found["redacted"] == "customer,email,home,phone"
    assert found["data"] == {"order": "order-17", "when": None, "lines": [], "total": 17}
    assert "ann" not in json.dumps(found)
    [item] = shop.store.read("order-17", actor=OWNER)
    assert "ann" in json.dumps(to_cloudevent(item, source=SOURCE))  # and who may, tells
    shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    [item] = shop.store.read("order-17", actor=OWNER)
    found = to_cloudevent(item, source=SOURCE)
    assert found["erased"] == "customer,email,home,phone"
    assert "redacted" not in found


def test_the_planes_own_records_are_exported_too(shop: Shop) -> None:
    shop.ledger.submit(plain_event(4, type="policy.denied")).result(PATIENCE)
    [item] = shop.store.read("/services/*", actor=OWNER)
    found = to_cloudevent(item, source=SOURCE)
    assert (found["type"], found["data"]) == ("policy.denied", {"number": 4})
    assert found["subject"] == "/services/production/payment-service"


def test_many_are_json_lines(shop: Shop) -> None:
    shop.append("order-17", placed(1, email="two\nlines"), OrderPaid(order="17", amount=1))
    lines = encode_cloudevents(list(shop.store.read(actor=OWNER)), source=SOURCE).splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["shop.order.placed.v1", "shop.order.paid.v1"]


# in


def test_what_was_exported_comes_in_as_it_was(shop: Shop) -> None:
    events = [placed(1, home=Address("Ring 1"), when=datetime(2026, 1, 1, tzinfo=UTC)), OrderPaid(order="1", amount=2)]
    shop.append("order-1", *events, actor=Call(peer=OWNER, id="call-2", parent="call-1"))
    for item, event in zip(shop.store.read(actor=OWNER), events, strict=True):
        found = from_cloudevent(json.dumps(to_cloudevent(item, source=SOURCE)))
        assert (found.event, found.event_id, found.stream, found.source) == (event, item.id, "order-1", SOURCE)
        assert found.time == item.time
        assert found.extensions == {"correlationid": "call-1", "causationid": "call-2"}


def test_an_event_from_elsewhere_is_recorded_once_however_often_it_comes(shop: Shop) -> None:
    found = imported(subject="order-17", time="2026-11-25T01:13:33.5+01:00", traceparent="00-ab", sequence=7)
    assert isinstance(found.event, OrderPlaced)
    assert (found.stream, found.extensions) == ("order-17", {"traceparent": "00-ab", "sequence": 7})
    for _ in range(2):
        done = shop.append(found.stream, found.event, ids=[found.event_id])
        assert done.positions == (0,)
    with pytest.raises(IdTaken):
        shop.append(found.stream, placed(1), ids=[imported(subject="order-17").event_id])
    assert imported(source="https://other.example.com").event_id != found.event_id
    assert imported(id="A234").event_id != found.event_id


def test_ids_and_sources_that_only_together_are_alike_are_not() -> None:
    assert imported(source="/a", id="bc").event_id != imported(source="/ab", id="c").event_id


def test_a_partition_key_that_is_no_stream_of_ours_is_left_to_whoever_imports() -> None:
    assert imported(partitionkey="a b").stream == ""
    assert imported().stream == ""
    assert imported(partitionkey="p-1", subject="s-1").stream == "p-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": None}, {"specversion": "0.3"}, {"specversion": 1}, {"id": None}, {"id": ""}, {"id": 3},
        {"source": None}, {"source": ""}, {"source": "a b"}, {"source": "<x>"}, {"type": ""}, {"type": ["x"]},
        {"time": "yesterday"}, {"time": "2026-13-01T00:00:00Z"}, {"time": "2026-11-25"}, {"time": ""}, {"time": 3},
        {"time": "2026-11-25T01:13:33"}, {"subject": ""}, {"Subject": "x"}, {"trace_parent": "x"}, {"x" * 21: "x"},
        {"ext": {"a": 1}}, {"ext": [1]}, {"ext": 1 << 31}, {"ext": 1.5}, {"ext": "a\u0000b"}, {"ext": "a\u0085"},
        {"ext": "\ufdd0"}, {"datacontenttype": "text/xml"}, {"datacontenttype": "application/jsonp"},
        {"data": None}, {"data": []}, {"data": "text"}, {"data": {}}, {"data_base64": "AA=="},
    ],
    ids=lambda changes: repr(changes)[:40],
)  # fmt: skip
def test_what_the_specification_does_not_allow_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        imported(**changes)


@pytest.mark.parametrize(
    "field",
    [{"total": "3"}, {"total": None}, {"strange": 1}, {"email": 3}, {"home": {"zip": "1"}}, {"when": "soon"}],
    ids=str,
)
def test_data_that_are_not_exactly_the_fields_of_the_class_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        imported(data=cloud_event()["data"] | field)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"id":"a","id":"b"}', '{"data":{"x":1,"x":2}}', '{"id":NaN}', "[" * 100_000, b"\xff\xfe"],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_json_object_with_each_name_once_is_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        from_cloudevent(text)


WHOLE = json.dumps(cloud_event(number=7))


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ('"id": ', '"id": "shown to the auditor", "id": '),
        ('"total": 3', '"total": 3, "total": 4'),
        ('"number": 7', '"number": 7, "number": 7'),
        ('"number": 7', '"number": 7, "data": {"order": "17", "customer": "bob", "email": "", "total": 4}'),
    ],
)
def test_an_event_that_is_whole_but_for_a_name_twice_is_refused(
    found: str, put: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one reader checks, another does not use: JSON leaves open which of the two counts."""
    twice = WHOLE.replace(found, put)
    assert twice != WHOLE
    with pytest.raises(Malformed):
        from_cloudevent(twice)
    from_cloudevent(WHOLE)
    monkeypatch.setattr("hauberk.records.cloudevents._once", dict)
    from_cloudevent(twice)  # the twin


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_no_number_for_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        from_cloudevent(WHOLE.replace('"number": 7', f'"number": {text}'))
    assert caught.value.detail == "not a CloudEvent: no JSON, or a name twice"


def test_a_name_twice_would_mean_different_things_to_different_readers() -> None:
    assert json.loads('{"id":"a","id":"b"}') == {"id": "b"}


def test_what_is_too_large_or_of_a_type_nobody_knows_is_an_error_of_its_own() -> None:
    with pytest.raises(Oversized):
        from_cloudevent(b" " * (MAX_BYTES + 1))
    with pytest.raises(UnknownType):
        imported(type="com.github.pull_request.opened")


def test_a_redacted_export_does_not_come_back_as_a_whole_event(shop: Shop) -> None:
    shop.append("order-17", placed(17))
    [item] = shop.store.read("order-17", actor=CLERK)
    assert isinstance(item.event.email, Redacted)
    with pytest.raises(Malformed):
        from_cloudevent(json.dumps(to_cloudevent(item, source=SOURCE)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.text(max_size=60)
    | st.dictionaries(st.sampled_from([*cloud_event(), "time", "subject", "ext"]), json_values).map(
        lambda changes: json.dumps(cloud_event() | changes)
    )
)
def test_anything_at_all_is_an_event_or_refused(text: str) -> None:
    try:
        found = from_cloudevent(text)
    except HauberkError as error:
        assert error.code in {"HBK-714", "HBK-715", "HBK-716"}  # noqa: PT017  # whichever fits
    else:
        assert len(found.event_id) == 16
