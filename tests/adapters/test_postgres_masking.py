"""What a driver says, without the password: however short that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("psycopg")

from hauberk.adapters.postgres_connect import SHORT, told

SAID = 'connection failed: password authentication failed for user "app"\nand more'


@pytest.mark.parametrize("password", ["a", "on", "app"])
def test_a_short_password_is_not_searched_for_but_nothing_is_told(password: str) -> None:
    assert told(RuntimeError(SAID), password) == "RuntimeError"


def test_by_replacement_alone_the_text_would_show_where_it_is() -> None:
    assert "***" in SAID.replace("a", "***")
    assert told(RuntimeError(SAID)) == SAID.splitlines()[0]


@given(st.text(min_size=SHORT).filter(lambda text: "*" not in text), st.text(), st.text())
def test_a_longer_one_is_masked(password: str, before: str, after: str) -> None:
    masked = told(RuntimeError(before + password + after), password)
    assert password not in masked or password in "RuntimeError"
