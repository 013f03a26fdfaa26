"""Addresses: what they accept, and that a password in one is shown nowhere."""

from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from hauberk.cli.config import config as config_command
from hauberk.core.address import Address, BusAddress, StoreAddress
from hauberk.core.config import Config, load
from hauberk.errors import ConfigError
from tests.core.refusal import refuses

SECRET = "hunter2hunter2"
DSN = f"postgresql://me:{SECRET}@db.example.org:5433/records?sslmode=verify-full&sslpassword={SECRET}"
MASKED = "postgresql://me:***@db.example.org:5433/records?sslmode=verify-full&sslpassword=***"


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("sqlite:", "sqlite", ""),
        ("sqlite:/var/lib/h.db", "sqlite", "/var/lib/h.db"),
        ("postgresql://db", "postgresql", "//db"),
        ("postgres:///db?host=/run/postgresql", "postgresql", "///db?host=/run/postgresql"),
        ("postgresql://[::1]:5433,db2/x", "postgresql", "//[::1]:5433,db2/x"),
        ("env:DATABASE_URL", "env", "DATABASE_URL"),
        ("file:/run/secrets/db", "file", "/run/secrets/db"),
    ],
)
def test_a_store_is_a_file_a_database_or_written_elsewhere(text: str, scheme: str, rest: str) -> None:
    address = StoreAddress(text)
    assert (address.scheme, address.rest, address.reveal()) == (scheme, rest, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "sqlite", "mysql://db", "local:", "env:", "env:A-B", "file:", "postgresql:db", "postgresql://a b/c",
        "postgresql://me:p@ss@host/db", "postgresql://me:p/ss@host/db", "postgresql://me:p?ss@host/db",
        "postgresql://me:p#ss@host/db", "postgresql://host/db?password=p@ss", "sqlite:a\0b",
    ],
)  # fmt: skip
def test_what_is_no_address_or_could_be_read_in_two_ways_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|begins with") as found:
        StoreAddress(text)
    rest = text.partition("://")[2]
    assert not rest or rest not in str(found.value)


def test_a_bus_is_within_the_process_or_a_database() -> None:
    assert BusAddress("local:").scheme == "local"
    assert BusAddress("postgresql://db").scheme == "postgresql"
    for text in ("local:x", "sqlite:", "nats://a"):
        with pytest.raises(ValueError, match="local:"):
            BusAddress(text)


def test_a_password_is_shown_neither_by_the_address_nor_by_anything_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = StoreAddress(DSN)
    assert str(address) == f"{address}" == MASKED
    assert repr(address) == f"StoreAddress({MASKED!r})"
    config = load(environ={"HAUBERK_STORE": DSN, "HAUBERK_BUS": DSN})
    assert config.store.reveal() == config.bus.reveal() == DSN
    for shown in (repr(config), str(config), repr({key: value for key, value, _ in config.items()})):
        assert SECRET not in shown
        assert MASKED in shown
    with pytest.raises(TypeError):
        msgspec.json.encode(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAUBERK_STORE", DSN)
    for options in ([], ["--json"]):
        result = CliRunner().invoke(config_command, options)
        assert result.exit_code == 0
        assert SECRET not in result.output
        assert MASKED in result.output


def test_the_twin_a_text_in_its_place_would_have_been_shown() -> None:
    assert SECRET in repr({"store": DSN})


@pytest.mark.parametrize("text", [f"postgresql://me:{SECRET}@a@b/db", f"mysql://me:{SECRET}@a/db"])
def test_an_address_that_is_refused_is_not_shown_in_the_refusal(text: str) -> None:
    with refuses("HBK-901") as found:
        load(environ={"HAUBERK_STORE": text})
    error = found.value
    assert isinstance(error, ConfigError)
    assert error.context == {"key": "store", "origin": "HAUBERK_STORE"}
    assert SECRET not in error.diagnostics()


def test_addresses_are_equal_when_they_lead_to_the_same_kind_of_thing_by_the_same_text() -> None:
    assert StoreAddress("postgresql://a") == StoreAddress("postgresql://a")
    assert len({StoreAddress("sqlite:"), StoreAddress("sqlite:"), StoreAddress("sqlite:x")}) == 2
    assert StoreAddress("postgresql://a") != BusAddress("postgresql://a")
    assert Config() == Config(store=StoreAddress("sqlite:"))


passwords = st.text(min_size=8, max_size=20).filter(lambda text: "\0" not in text)


@example("&0000000", "///d?password={}")
@example("x&sslmode=hunter2", "//h/d?password={}")
@given(passwords, st.sampled_from(["//u:{}@h/d", "//u:{}@h:1/d?sslmode=require", "///d?password={}", "//h/d?a&x={}&y"]))
def test_no_password_however_strange_is_shown(password: str, template: str) -> None:
    text = "postgresql:" + template.format(quote(password, safe=""))
    assert quote(password, safe="") not in str(Address(text))
    raw = "postgresql:" + template.format(password)
    try:
        shown = str(Address(raw))
    except ValueError as error:
        shown = str(error)
    assert password not in shown
