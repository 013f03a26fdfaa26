"""The configuration tree: who set what, and that nothing unknown, mistyped or dangerous slips in unseen."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.config import KEYS, RESERVED, RESERVED_PREFIXES, Config, load, variable
from hauberk.errors import ConfigError
from tests.core.refusal import refuses


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hauberk.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_anything_said_every_value_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(environ={})
    assert config == Config()
    assert {origin for _, _, origin in config.items()} == {"default"}
    assert [key for key, _, _ in config.items()] == list(KEYS)


def test_arguments_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'trust_domain = "file.org"\n[limits]\nbody_bytes = 1\n'
        '[authority]\nhost = "file"\nkeys = "file:a"\nadvertise = "file"\n',
    )
    environ = {
        "HAUBERK_AUTHORITY_KEYS": "env:A",
        "HAUBERK_AUTHORITY_HOST": "env",
        "HAUBERK_LIMITS_HEADER_COUNT": "7",
    }
    config = load(path, environ=environ, arguments={"authority.host": "argument", "directory": None})
    told = config.authority
    assert (config.trust_domain, told.advertise, told.keys, told.host) == ("file.org", "file", "env:A", "argument")
    assert (config.limits.body_bytes, config.limits.header_count) == (1, 7)
    origins = {key: origin for key, _, origin in config.items()}
    assert origins["trust_domain"] == origins["limits.body_bytes"] == "hauberk.toml"
    assert origins["authority.keys"] == "HAUBERK_AUTHORITY_KEYS"
    assert origins["limits.header_count"] == "HAUBERK_LIMITS_HEADER_COUNT"
    assert (origins["authority.host"], origins["directory"]) == ("argument", "default")


def test_the_file_is_found_by_variable_then_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 'trust_domain = "here"\n')
    other = tmp_path / "other.toml"
    other.write_text('trust_domain = "other"\n')
    assert load(environ={}).trust_domain == "here"
    assert load(environ={"HAUBERK_CONFIG": str(other)}).trust_domain == "other"
    with refuses("HBK-901"):
        load(environ={"HAUBERK_CONFIG": str(tmp_path / "absent.toml")})
    with refuses("HBK-901"):
        load(environ={"HAUBERK_CONFIG": ""})


def _give_away(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Make the file belong to somebody else, or, where that takes root, make us somebody else."""
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534, follow_symlinks=False)
    else:
        patch.setattr(os, "geteuid", lambda: 65_534)


def _open_up(path: Path, _patch: pytest.MonkeyPatch) -> None:
    path.chmod(0o646)


def _link_away(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Put a link of somebody else to a file of ours in its place."""
    path.rename(path.with_name("ours.toml"))
    path.symlink_to("ours.toml")
    _give_away(path, patch)


def _pipe(path: Path, _patch: pytest.MonkeyPatch) -> None:
    path.unlink()
    os.mkfifo(path)  # opening it would wait for a writer


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_give_away, "somebody else"),
        (_open_up, "everybody may write"),
        (_link_away, "somebody else"),
        (_pipe, "not a regular file"),
    ],
)
def test_a_file_that_others_may_have_left_in_the_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, pytest.MonkeyPatch], None], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "[records]\ninsecure_unrecorded = true\n")
    path.chmod(0o644)
    assert load(environ={}).records.insecure_unrecorded  # ours alone: believed
    spoil(path, monkeypatch)
    with refuses("HBK-901") as caught:
        load(environ={})
    assert caught.value.context["file"] == str(path)
    assert why in caught.value.detail


def test_a_directory_or_a_loose_link_in_place_of_the_file_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hauberk.toml").mkdir()
    with refuses("HBK-901"):
        load(environ={})
    (tmp_path / "hauberk.toml").rmdir()
    (tmp_path / "hauberk.toml").symlink_to("nowhere")
    assert load(environ={}).origins == {}


def test_a_file_that_was_named_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, 'trust_domain = "named.org"\n')
    path.chmod(0o666)
    assert load(path, environ={}).trust_domain == "named.org"
    assert load(environ={"HAUBERK_CONFIG": str(path)}).trust_domain == "named.org"


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("limits.header_bytes", 2**20),
        ("limits.header_count", 1_000),
        ("limits.target_bytes", 2**16),
        ("limits.body_bytes", 2**30),
        ("transport.max_connection_seconds", 86_400),
        ("authority.svid_seconds", 86_400),
        ("authority.token_seconds", 86_400),
    ],
)
def test_no_control_can_be_turned_off_with_a_large_number(tmp_path: Path, key: str, most: int) -> None:
    table, _, name = key.partition(".")
    for environ in ({}, {variable(key): str(most + 1)}):
        with refuses("HBK-901") as caught:
            load(write(tmp_path, "" if environ else f"[{table}]\n{name} = {most + 1}\n"), environ=environ)
        assert caught.value.context["key"] == key
    with refuses("HBK-901"):
        load(environ={}, arguments={key: most + 1})
    found = {name: value for name, value, _ in load(environ={variable(key): str(most)}).items()}
    assert found[key] == most


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trust_domian = 'x'", "trust_domian"),
        ("[limits]\nbody_byte = 1", "limits.body_byte"),
        ("store = 'mysql://db'", "store"),
        ("bus = 'nats://a'", "bus"),
        ("[limitz]\nbody_bytes = 1", "limitz"),
        ("[limitz]", "limitz"),
        ("[limits.more]", "limits.more"),
        ("limits = 5", "limits"),
        ("origins = {a = 'b'}", "origins"),
    ],
)
def test_an_unknown_key_of_the_file_is_an_error_that_names_it(tmp_path: Path, text: str, key: str) -> None:
    with refuses("HBK-901") as caught:
        load(write(tmp_path, text), environ={})
    assert (caught.value.context["key"], caught.value.context["origin"]) == (key, "hauberk.toml")


def test_an_unknown_variable_or_argument_is_an_error_that_names_it() -> None:
    for name in ("HAUBERK_TRUST_DOMIAN", "HAUBERK_CONFIGURATION", "HAUBERK_SOCKETS", "HAUBERK_", "HAUBERK_LIMITS"):
        with refuses("HBK-901") as caught:
            load(environ={name: "x"})
        assert caught.value.context["key"] == name
    with refuses("HBK-901") as caught:
        load(environ={}, arguments={"limits.body": 1})
    assert caught.value.context["key"] == "limits.body"


def test_handovers_and_foreign_variables_are_no_settings() -> None:
    names = [*RESERVED - {"HAUBERK_CONFIG"}, *(f"{prefix}X" for prefix in RESERVED_PREFIXES), "PATH", "hauberk_bus"]
    assert load(environ=dict.fromkeys(names, "x")).origins == {}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[limits]\nbody_bytes = '1'", "limits.body_bytes"),
        ("[limits]\nbody_bytes = 0", "limits.body_bytes"),
        ("[limits]\nbody_bytes = true", "limits.body_bytes"),
        ("[limits]\nbody_seconds = inf", "limits.body_seconds"),
        ("[limits]\nbody_seconds = nan", "limits.body_seconds"),
        ("[transport]\nmax_connection_seconds = inf", "transport.max_connection_seconds"),
        ("[authority]\nport = 65536", "authority.port"),
        ("[authority]\nsvid_seconds = -1", "authority.svid_seconds"),
        ("[records]\ninsecure_unrecorded = 1", "records.insecure_unrecorded"),
        ("[policy]\nfiles = 'a.yaml'", "policy.files"),
        ("[policy]\nfiles = [1]", "policy.files"),
        ("[service]\nlabels = {app = 1}", "service.labels"),
        ("trust_domain = {a = 1}", "trust_domain"),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_that_names_key_and_origin(tmp_path: Path, text: str, key: str) -> None:
    with refuses("HBK-901") as caught:
        load(write(tmp_path, text), environ={})
    assert (caught.value.context["key"], caught.value.context["origin"]) == (key, "hauberk.toml")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HAUBERK_LIMITS_BODY_BYTES", "many"),
        ("HAUBERK_LIMITS_BODY_BYTES", "-1"),
        ("HAUBERK_LIMITS_BODY_BYTES", ""),
        ("HAUBERK_TRANSPORT_MAX_CONNECTION_SECONDS", "inf"),
        ("HAUBERK_TRANSPORT_MAX_CONNECTION_SECONDS", "nan"),
        ("HAUBERK_AUTHORITY_PORT", "99999"),
        ("HAUBERK_RECORDS_INSECURE_UNRECORDED", "perhaps"),
        ("HAUBERK_SERVICE_LABELS", "app"),
        ("HAUBERK_SERVICE_LABELS", "app=a,=b"),
    ],
)
def test_a_variable_that_cannot_be_read_is_an_error_that_names_it(name: str, text: str) -> None:
    with refuses("HBK-901") as caught:
        load(environ={name: text})
    assert caught.value.context["origin"] == name


def test_lists_tables_numbers_and_switches_are_read_from_the_environment() -> None:
    config = load(
        environ={
            "HAUBERK_POLICY_FILES": " a.yaml, b.yaml ,",
            "HAUBERK_SERVICE_LABELS": "app=orders, tier=a=b",
            "HAUBERK_RECORDS_INSECURE_UNRECORDED": "true",
            "HAUBERK_TRANSPORT_MAX_CONNECTION_SECONDS": "1.5",
        }
    )
    assert config.policy.files == ("a.yaml", "b.yaml")
    assert config.service.labels == {"app": "orders", "tier": "a=b"}
    assert config.records.insecure_unrecorded is True
    assert config.transport.max_connection_seconds == 1.5


@pytest.mark.parametrize("text", ["trust_domain", "a = [", "\x00", "a = 1\na = 2", "x = '\ud83d'"])
def test_a_file_that_is_no_toml_is_a_typed_refusal(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hauberk.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with refuses("HBK-901"):
        load(path, environ={})
    with refuses("HBK-901"):
        load(tmp_path, environ={})


def test_dangerous_settings_have_their_own_word_and_are_listed() -> None:
    assert Config().insecure() == ()
    config = load(environ={"HAUBERK_RECORDS_INSECURE_UNRECORDED": "true"})
    assert config.insecure() == ("records.insecure_unrecorded",)


def test_no_two_keys_share_a_variable_and_none_is_taken_for_a_handover() -> None:
    names = [variable(key) for key in KEYS]
    assert len(set(names)) == len(names)
    assert [name for name in names if name in RESERVED or name.startswith(RESERVED_PREFIXES)] == []


def test_no_key_holds_a_secret_itself() -> None:
    last = {key.rpartition(".")[2] for key in KEYS}
    assert last.isdisjoint({"secret", "password", "token", "key"})
    assert [key for key in KEYS if "key" in key] == ["authority.keys"]  # where they are, never what they are


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([variable(key) for key in KEYS]), st.text(max_size=20), max_size=3))
def test_any_text_in_the_environment_is_a_value_or_a_typed_refusal(environ: dict[str, str]) -> None:
    try:
        config = load(environ=environ)
    except ConfigError as refused:
        assert refused.code == "HBK-901"  # noqa: PT017  # one of two outcomes
    else:
        assert set(config.origins.values()) == set(environ)


def test_every_table_refuses_unknown_fields() -> None:
    tables: list[msgspec.Struct] = [Config()]
    tables += [
        value
        for value in map(Config().__getattribute__, Config.__struct_fields__)
        if hasattr(value, "__struct_config__")
    ]
    assert len(tables) >= 7
    assert [type(table) for table in tables if not table.__struct_config__.forbid_unknown_fields] == []
