"""What travels between authority, services and command line: strict on both sides, and no secret in a log line."""

import inspect

import msgspec
import pytest

from hauberk.core import feed, wire
from hauberk.core.wire import Grant, JoinRequest, TokenReply

FORMS: list[type[msgspec.Struct]] = [
    form
    for module in (wire, feed)
    for _, form in inspect.getmembers(module, inspect.isclass)
    if issubclass(form, msgspec.Struct) and form.__module__ == module.__name__
]
GRANT = Grant((b"leaf",), {"example.org": (b"root",)}, {"app": "a"}, b"f" * 32, b"PSEUDONYM-KEY!!!", "h:1", "root", ())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_frozen_and_refuses_unknown_fields(form: type[msgspec.Struct]) -> None:
    assert form.__struct_config__.forbid_unknown_fields
    assert form.__struct_config__.frozen
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"enforce": false}', type=form)


def test_the_list_of_forms_is_not_empty_by_mistake() -> None:
    names = {form.__name__ for form in FORMS}
    assert {"Grant", "JoinRequest", "EntryForm", "PolicyForm", "RevokeForm", "Message", "Resource"} <= names


def test_one_unknown_field_beside_all_known_ones_is_an_error() -> None:
    plain = msgspec.json.decode(msgspec.json.encode(GRANT))
    assert msgspec.json.decode(msgspec.json.encode(plain), type=Grant) == GRANT
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(msgspec.json.encode(plain | {"audit": True}), type=Grant)


def test_an_unknown_field_deep_inside_is_an_error_too() -> None:
    body = b'{"files": [{"name": "a", "text": "b", "dryRun": true}]}'
    with pytest.raises(msgspec.ValidationError, match="dryRun"):
        msgspec.json.decode(body, type=wire.PolicyForm)


def test_secrets_do_not_show_in_text() -> None:
    for form in (GRANT, JoinRequest(b"TOKEN-SECRET", b"csr"), TokenReply("hbkjoin1.TOKEN-SECRET")):
        shown = f"{form!r} {form}"
        assert "SECRET" not in shown
        assert "PSEUDONYM" not in shown
