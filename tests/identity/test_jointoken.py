"""Join tokens: used once however many try, gone when they expire, and nothing in the store is worth stealing."""

import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.ports import Put, Store, Write
from hauberk.errors import Conflict, IdentityError
from hauberk.identity.jointoken import SPACE, JoinToken, grant, redeem, redemption
from tests.core.refusal import refuses

PRINT = "ab" * 32
CLOCK = ManualClock()


def token(address: str = "127.0.0.1:8440") -> JoinToken:
    return JoinToken.create(address, PRINT)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore(CLOCK.time) if request.param == "memory" else SqliteStore(tmp_path / "s", now=CLOCK.time)
    yield made
    made.close()


def test_a_token_is_good_once(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    assert redeem(store, made.secret, clock=CLOCK) == "orders"
    with refuses("HBK-204"):
        redeem(store, made.secret, clock=CLOCK)


def test_of_many_racing_threads_exactly_one_wins(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    barrier, outcomes = threading.Barrier(16), []

    def race() -> None:
        barrier.wait()
        try:
            outcomes.append(redeem(store, made.secret, clock=CLOCK))
        except IdentityError as refused:
            outcomes.append(refused.code)

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["HBK-204"] * 15 + ["orders"]


def test_two_that_both_saw_the_token_cannot_both_take_it(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    first, second = (redemption(store, made.secret, clock=CLOCK) for _ in range(2))
    assert first[0] == second[0] == "orders"
    store.commit(Write(rows=(first[1],)))
    with pytest.raises(Conflict):
        store.commit(Write(rows=(second[1],)))


def test_without_the_expectation_on_the_revision_both_would_take_it(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    taken = [redemption(store, made.secret, clock=CLOCK) for _ in range(2)]
    for _, removal in taken:
        store.commit(Write(rows=(type(removal)(removal.space, removal.key),)))
    assert [entry for entry, _ in taken] == ["orders", "orders"]


def test_looking_a_token_up_does_not_use_it(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    for _ in range(3):
        assert redemption(store, made.secret, clock=CLOCK)[0] == "orders"
    assert redeem(store, made.secret, clock=CLOCK) == "orders"


@pytest.mark.parametrize("later", [10.0, 10.5, 1e9])
def test_a_token_ends_at_its_time_whichever_clock_notices_first(later: float) -> None:
    made, clock = token(), ManualClock()
    for asked in (lambda: 0.0, clock.time):  # a store whose clock stands still, and one that expires rows itself
        clock.now = 1000.0
        with_rows = MemoryStore(asked)
        with_rows.commit(Write(rows=(grant(made, "orders", ttl=10, clock=clock),)))
        clock.advance(9.9)
        assert redemption(with_rows, made.secret, clock=clock)[0] == "orders"
        clock.now = 1000.0 + later
        with refuses("HBK-204"):
            redeem(with_rows, made.secret, clock=clock)


def test_expired_replayed_and_made_up_tokens_are_refused_with_the_same_words(store: Store) -> None:
    used, old, unknown = token(), token(), token()
    store.commit(Write(rows=(grant(used, "orders", clock=CLOCK), grant(old, "orders", ttl=-1, clock=CLOCK))))
    redeem(store, used.secret, clock=CLOCK)
    said = set()
    for made in (used, old, unknown):
        with refuses("HBK-204") as caught:
            redeem(store, made.secret, clock=CLOCK)
        said.add((str(caught.value), caught.value.public, caught.value.status))
    assert len(said) == 1


def test_the_store_holds_nothing_that_redeems(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    rows = list(store.scan(SPACE))
    assert [row.key for row in rows] == [made.digest]
    for row in rows:
        assert made.secret not in row.key + row.value
        assert made.secret.hex().encode() not in row.value
        for stolen in (row.key, row.value, row.key.hex().encode()):
            with refuses("HBK-204"):
                redeem(store, stolen, clock=CLOCK)
    assert redeem(store, made.secret, clock=CLOCK) == "orders"


def test_a_token_is_granted_once(store: Store) -> None:
    made = token()
    store.commit(Write(rows=(grant(made, "orders", clock=CLOCK),)))
    with pytest.raises(Conflict):
        store.commit(Write(rows=(grant(made, "payments", clock=CLOCK),)))


def test_a_row_that_is_no_grant_gives_nothing_away(store: Store) -> None:
    made = token()
    for value in (b"", b"{}", b'{"entry": "orders"}', b'{"entry": "orders", "expires": 9e18, "admin": true}', b"\xff"):
        store.commit(Write(rows=(Put(SPACE, made.digest, value),)))
        with refuses("HBK-204"):
            redeem(store, made.secret, clock=CLOCK)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(st.from_regex(r"[a-zA-Z0-9.-]{1,253}", fullmatch=True), st.sampled_from(["[::1]", "[fe80::1]"])),
    st.integers(1, 65_535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)
def test_every_token_survives_being_pasted(host: str, port: int, fingerprint: bytes, secret: bytes) -> None:
    made = JoinToken.create(f"{host}:{port}", fingerprint.hex(), random=lambda _: secret)
    again = JoinToken.parse(f" {made.text()}\n")
    assert again == made
    assert (again.address, again.root_fingerprint, again.secret) == (f"{host}:{port}", fingerprint.hex(), secret)
    assert hash(again) == hash(made)


def encoded(address: bytes) -> str:
    return "hbkjoin1." + urlsafe_b64encode(bytes(64) + address).decode().rstrip("=")


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200), st.text(max_size=200).map("hbkjoin1.".__add__), st.binary(max_size=80).map(encoded)
    )
)
def test_garbage_is_a_typed_refusal_or_the_one_spelling_of_a_token(text: str) -> None:
    try:
        made = JoinToken.parse(text)
    except IdentityError as refused:
        assert refused.code == "HBK-204"  # noqa: PT017  # one of two outcomes
    else:
        assert made.text() == text.strip()


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"host",
        b"host:",
        b":80",
        b"host:0",
        b"host:65536",
        b"host:99999999999",
        b"host:-1",
        b"host:8o",
        b"user@host:80",
        b"evil.example/?:80",
        b"evil.example#:80",
        b"host\r\nx:80",
        b"host :80",
        b"[::1:80",
        b"::1:80",
        b"h\xc3\xb6st:80",
        b"host:\xd9\xa3",
    ],
)
def test_an_address_that_would_lead_elsewhere_in_a_url_is_refused(address: bytes) -> None:
    with refuses("HBK-204"):
        JoinToken.parse(encoded(address))


def test_a_token_has_one_spelling() -> None:
    text = token().text()
    for other in (
        text.removeprefix("hbkjoin1."),
        text.replace("hbkjoin1.", "hbkjoin2."),
        text.replace("hbkjoin1.", "HBKJOIN1."),
        f"hbkjoin1.{text}",
        f"{text}=",
        f"{text}!",
        f"{text[:40]} {text[40:]}",
        f"{text[:40]}\n{text[40:]}",
        text[:-30],
        text + "A" * 600,
    ):
        with refuses("HBK-204"):
            JoinToken.parse(other)


def test_the_secret_does_not_show() -> None:
    made = token()
    shown = f"{made!r} {made}"
    assert made.secret.hex() not in shown
    assert repr(made.secret)[2:-1] not in shown
    assert made.text() not in shown
    assert made != token()
    assert made != "token"
