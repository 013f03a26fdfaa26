"""A witness on the wire and on disk: strangers bounded, memory durable, an identity that cannot be made anew."""

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import httpx2
import pytest

from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.authority.witness import (
    FACTS,
    OpenWitness,
    WitnessFacts,
    parse_listen,
    read_witness,
    run_witness,
    watchlist,
    witness_app,
)
from hauberk.core.ports import Put, Write
from hauberk.crypto.cosignature import Algorithm
from hauberk.crypto.note import LogKey, encode_key, parse_note
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, IdentityError, RecordsError, Tampered, WitnessRefused
from hauberk.integrations.uvicorn import Server, new_loop
from hauberk.records.asking import NO_ANSWER
from hauberk.records.cosign import Cosigning
from hauberk.records.ledger import Ledger
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.records.witness_wire import MAX_BODY_BYTES, Request, origin_hash, parse_cosignatures
from hauberk.witness_client import MAX_ANSWER_BYTES, MAX_LEFT, WitnessClient, _Line, check_policy, check_url
from tests.records.made import ORIGIN, events
from tests.records.parties import LOG, Grower, witness

NAME = "witness.example/w"
PATIENCE = 20.0


class Serving:
    """A server in a thread of this process."""

    def __init__(self, opened: OpenWitness) -> None:
        self.opened = opened
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await run_witness(self.opened, "127.0.0.1", 0, self._on_ready, self._stop)

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    def _on_ready(self, url: str) -> None:
        self.url = url
        self._ready.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenWitness]:
    with closing(OpenWitness(tmp_path / "w", NAME)) as made:
        yield made


@pytest.fixture
def serving(opened: OpenWitness) -> Iterator[Serving]:
    with Serving(opened) as made:
        yield made


@pytest.fixture
def log() -> Grower:
    return Grower()


def post(serving: Serving, body: bytes) -> httpx2.Response:
    return httpx2.post(f"{serving.url}/add-checkpoint", content=body, trust_env=False)


def get(serving: Serving, path: str) -> httpx2.Response:
    return httpx2.get(serving.url + path, trust_env=False)


# On the wire


def test_statuses_bodies_and_types_are_those_of_the_protocol(serving: Serving, log: Grower) -> None:
    assert post(serving, log.request(0, 5)).status_code == 404
    serving.opened.witness.add_log(log.vkey)
    assert get(serving, f"/{origin_hash(LOG)}/checkpoint").status_code == 404
    good = post(serving, log.request(0, 5))
    assert good.status_code == 200
    assert len(parse_cosignatures(good.content)) == 2
    stale = post(serving, log.request(3, 8))
    assert (stale.status_code, stale.content, stale.headers["content-type"]) == (409, b"5\n", "text/x.tlog.size")
    assert post(serving, log.fork(0).request(5, 8)).status_code == 422
    assert post(serving, Request(9, (), log.note(5)).encode()).status_code == 400
    assert post(serving, b"").status_code == 400
    assert post(serving, Grower(seed=2).request(0, 5)).status_code == 403


def test_monitors_get_text_with_both_signatures(serving: Serving, log: Grower) -> None:
    serving.opened.witness.add_log(log.vkey)
    post(serving, log.request(0, 5))
    seen = get(serving, f"/{origin_hash(LOG)}/checkpoint")
    assert (seen.status_code, seen.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert [one.name for one in parse_note(seen.text).signatures] == [LOG, NAME, NAME]


@pytest.mark.parametrize("path", ["/", "/x/checkpoint", f"/{origin_hash(LOG).upper()}/checkpoint", "/../checkpoint"])
def test_there_is_nothing_else_to_see(serving: Serving, path: str) -> None:
    assert get(serving, path).status_code == 404


def test_other_methods_are_refused(serving: Serving) -> None:
    assert get(serving, "/add-checkpoint").status_code == 405
    assert httpx2.post(f"{serving.url}/{origin_hash(LOG)}/checkpoint", trust_env=False).status_code == 405


def test_connections_are_kept(serving: Serving, log: Grower) -> None:
    with httpx2.Client(trust_env=False) as client:
        for _ in range(3):
            answer = client.post(f"{serving.url}/add-checkpoint", content=log.request(0, 5))
            assert answer.headers.get("connection") != "close"


def test_a_body_beyond_the_limit_is_413(serving: Serving) -> None:
    assert post(serving, b"x" * (MAX_BODY_BYTES + 1)).status_code == 413


class Stuck(MemoryStore):
    """A disk that takes no write until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.entered = threading.Event()

    def commit(self, write: Write) -> int:
        if any(isinstance(row, Put) and row.space == "witness" for row in write.rows):
            self.entered.set()
            assert self.free.wait(PATIENCE)
        return super().commit(write)


async def statuses(store: MemoryStore, log: Grower, *, at_work: int, threads: int, waiting: int) -> list[int]:
    """Ask one question too many while the disk is stuck, then let it go."""
    one = witness(log.vkey, store=store)
    async with (
        Server(witness_app(one, threads=threads, waiting=waiting)) as server,
        httpx2.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        body = log.request(0, 5)
        asked = [asyncio.create_task(client.post("/add-checkpoint", content=body)) for _ in range(at_work)]
        if isinstance(store, Stuck):
            await asyncio.to_thread(store.entered.wait, PATIENCE)
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
            early = [one.result().status_code for one in done]
            store.free.set()
            return early
        return [(await one).status_code for one in asked]


def test_who_comes_when_the_line_is_full_is_told_to_come_back(log: Grower) -> None:
    early = asyncio.run(statuses(Stuck(), log, at_work=4, threads=1, waiting=2))
    assert set(early) == {429}


def test_a_store_that_fails_is_503_and_no_signature_leaves(log: Grower) -> None:
    class Failing(MemoryStore):
        def commit(self, write: Write) -> int:
            if any(isinstance(row, Put) and row.space == "witness" for row in write.rows):
                raise RecordsError("HBK-703", "the disk is full")
            return super().commit(write)

    assert asyncio.run(statuses(Failing(), log, at_work=1, threads=1, waiting=1)) == [503]


# On disk


def test_keys_and_memory_outlast_a_restart(tmp_path: Path, log: Grower) -> None:
    with closing(OpenWitness(tmp_path, NAME)) as first:
        first.witness.add_log(log.vkey)
        first.witness.add_checkpoint(log.request(0, 5))
        facts = first.facts
    with closing(OpenWitness(tmp_path)) as second:
        assert second.facts == facts == read_witness(tmp_path)
        assert second.witness.add_checkpoint(log.fork(0).request(0, 6)).body == b"5\n"
    assert [key.split("+")[0] for key in facts.keys] == [NAME, NAME]


def test_the_two_keys_are_different_secrets_and_neither_is_in_clear(opened: OpenWitness) -> None:
    seeds = [key.seed() for key in opened.witness._keys]
    assert len(set(seeds)) == len(list(Algorithm)) == 2
    for path in (file for file in opened.state.path.rglob("*") if file.is_file()):
        assert not any(seed in path.read_bytes() for seed in seeds)


def test_a_database_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    OpenWitness(tmp_path, NAME).close()
    (tmp_path / "private" / "hauberk.db").unlink()
    with pytest.raises(IdentityError) as found:
        OpenWitness(tmp_path, NAME)
    assert found.value.code == "HBK-210"


def test_secrets_that_are_gone_are_not_made_anew(tmp_path: Path) -> None:
    OpenWitness(tmp_path, NAME).close()
    shutil.rmtree(tmp_path / "private")
    with pytest.raises(IdentityError):
        OpenWitness(tmp_path, NAME)


def test_another_name_is_another_witness(tmp_path: Path) -> None:
    OpenWitness(tmp_path, NAME).close()
    with pytest.raises(ConfigError) as found:
        OpenWitness(tmp_path, "other.example/w")
    assert found.value.code == "HBK-906"


@pytest.mark.parametrize("name", ["a b", "a+b", "x" * 256, "a\n"])
def test_what_is_no_name_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordsError):
        OpenWitness(tmp_path / "w", name)
    assert not (tmp_path / "w").exists()


def test_a_second_process_is_refused_but_may_change_the_watchlist(opened: OpenWitness, log: Grower) -> None:
    directory = opened.state.path
    with pytest.raises(ConfigError):
        OpenWitness(directory)
    with watchlist(directory) as book:
        book.add_log(log.vkey)
        with pytest.raises(RecordsError):
            book.add_log(opened.facts.keys[1])
    assert opened.witness.add_checkpoint(log.request(0, 5)).status == 200
    with watchlist(directory) as book:
        assert [one.size for one in book.logs()] == [5]


def test_another_log_of_a_known_name_takes_nothing_from_the_first(serving: Serving, log: Grower) -> None:
    other = Grower(seed=9)
    book = serving.opened.witness
    book.add_log(log.vkey)
    assert post(serving, log.request(0, 5)).status_code == 200
    with pytest.raises(ConfigError) as found:
        book.add_log(other.vkey)
    assert (found.value.code, found.value.context["origin"]) == ("HBK-906", log.origin)
    assert post(serving, other.request(0, 5)).status_code == 403
    assert post(serving, log.request(5, 8)).status_code == 200
    book.add_log(other.vkey, replace=True)  # the same, wanted: what was cosigned is remembered all the same
    assert book.keys_of(log.origin)[0] == [other.vkey]
    assert post(serving, log.request(8, 9)).status_code == 403
    assert post(serving, other.request(0, 5)).content == b"8\n"


def test_where_no_witness_is_there_is_no_watchlist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), watchlist(tmp_path):
        pass
    (tmp_path / FACTS).write_bytes(b"{")
    with pytest.raises(ConfigError):
        read_witness(tmp_path)


def test_whoever_writes_the_database_can_only_make_the_witness_stop(opened: OpenWitness, log: Grower) -> None:
    opened.witness.add_log(log.vkey)
    opened.witness.add_checkpoint(log.request(0, 5))
    with closing(SqliteStore(opened.state.database)) as raw:
        row = next(raw.scan("witness"))
        raw.commit(Write(rows=[Put("witness", row.key, bytes(32) + row.value[32:])]))
    with pytest.raises(Tampered):
        opened.witness.add_checkpoint(log.request(5, 8))


def test_a_policy_line_of_each_key_is_one_that_a_policy_takes(opened: OpenWitness) -> None:
    lines = opened.facts.policy_lines("http://127.0.0.1:1")
    names = [line.split()[1] for line in lines]
    found = LogPolicy.parse("\n".join([*lines, f"group both all {' '.join(names)}", "quorum both", ""]).encode())
    assert [one.key.algorithm for one in found.witnesses] == list(Algorithm)


# Where to listen


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("localhost:0", ("localhost", 0)), ("[::1]:65535", ("::1", 65535))],
)
def test_this_machine_may_be_listened_on(text: str, found: tuple[str, int]) -> None:
    assert parse_listen(text) == found


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "witness.example:1"])
def test_where_others_reach_it_only_when_told(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)
    assert parse_listen(text, insecure_plaintext=True)


@pytest.mark.parametrize("text", ["", "1", ":1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "a:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text, insecure_plaintext=True)


# The client


def test_a_ledger_is_cosigned_over_http_by_both_keys(serving: Serving, tmp_path: Path) -> None:
    key = SigningKey.generate()
    serving.opened.witness.add_log(encode_key(ORIGIN, key.public))
    lines = serving.opened.facts.policy_lines(serving.url)
    policy = LogPolicy.parse("\n".join([*lines, f"quorum {lines[1].split()[1]}", ""]).encode())
    check_policy(policy)
    with ExitStack() as stack:
        store = stack.enter_context(closing(SqliteStore(tmp_path / "log.db")))
        send = stack.enter_context(WitnessClient())
        cosigning = Cosigning(store, ORIGIN, key.public, policy, send, patience=PATIENCE)
        ledger = stack.enter_context(closing(Ledger(store, key, ORIGIN, witnesses=cosigning)))
        for _ in range(3):
            size = (ledger.append_batch(events(300)).result(PATIENCE)[-1].position or 0) + 1
            note = ledger.cosigned(size).result(PATIENCE)
            assert len(examine(note, policy, logs=[LogKey(ORIGIN, key.public)]).cosigned) == 2
        assert get(serving, f"/{origin_hash(ORIGIN)}/checkpoint").text.startswith(f"{ORIGIN}\n900\n")


def test_a_log_that_came_back_from_an_old_copy_is_refused_over_http(serving: Serving, tmp_path: Path) -> None:
    key = SigningKey.generate()
    serving.opened.witness.add_log(encode_key(ORIGIN, key.public))
    lines = serving.opened.facts.policy_lines(serving.url)
    policy = LogPolicy.parse(f"{lines[0]}\nquorum {lines[0].split()[1]}\n".encode())
    with WitnessClient() as send:
        for step in ("write", "grow", "come back"):
            with closing(SqliteStore(tmp_path / "log.db")) as store:
                cosigning = Cosigning(store, ORIGIN, key.public, policy, send, patience=PATIENCE)
                with closing(Ledger(store, key, ORIGIN, witnesses=cosigning)) as ledger:
                    if step == "come back":
                        with pytest.raises(WitnessRefused):
                            cosigning.confirm()
                        break
                    size = (ledger.append_batch(events(3)).result(PATIENCE)[-1].position or 0) + 1
                    ledger.cosigned(size).result(PATIENCE)
            if step == "write":
                shutil.copy(tmp_path / "log.db", tmp_path / "copy.db")
            else:
                shutil.copy(tmp_path / "copy.db", tmp_path / "log.db")


@pytest.mark.parametrize(
    "url",
    [
        "http://witness.example",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "https://me:secret@w.example",
        "https://",
        "x",
        "",
    ],
)
def test_where_no_witness_may_be_asked_nothing_is_sent(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url(url)
    with WitnessClient() as send:
        assert send(url, b"")[0] == NO_ANSWER


@pytest.mark.parametrize(
    "url", ["https://witness.example/w1", "http://127.0.0.1:8450", "http://[::1]:1", "http://localhost"]
)
def test_where_a_witness_may_be_asked(url: str) -> None:
    check_url(url)


class Rude:
    """A server that answers each connection with the same bytes and then goes on, or not."""

    def __init__(self, *parts: bytes, hold: bool = False) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._parts = parts
        self._hold = hold
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        caller, _ = self._listening.accept()
        with caller:
            caller.recv(65_536)
            try:
                for part in self._parts:
                    caller.sendall(part)
            except OSError:
                return
            if self._hold:
                self._over.wait(PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)
        self._listening.close()


def test_an_answer_without_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1)
    with Rude(endless, hold=True) as rude, WitnessClient() as send:
        assert send(rude.url, b"") == (NO_ANSWER, b"the answer is too long")


def test_a_witness_that_says_nothing_is_left_in_time() -> None:
    with Rude(hold=True) as rude, WitnessClient(timeout=0.2) as send:
        began = time.monotonic()
        assert send(rude.url, b"") == (NO_ANSWER, b"the answer takes too long")
        assert time.monotonic() - began < PATIENCE / 2


class Dripping(Rude):
    """A server that goes on with its answer one byte at a time, much faster than any step may take."""

    def _run(self) -> None:
        self._listening.settimeout(PATIENCE)
        caller, _ = self._listening.accept()
        with caller:
            try:
                caller.recv(65_536)
                for part in self._parts:
                    caller.sendall(part)
                while not self._over.wait(0.02):
                    caller.sendall(b"a")
            except OSError:
                self.left.set()

    def __enter__(self) -> Self:
        self.left = threading.Event()
        super().__enter__()
        return self


HEADS = [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n"]


@pytest.mark.parametrize("head", HEADS)
def test_an_answer_that_drips_is_left_in_time_and_its_connection_cut(head: bytes) -> None:
    with Dripping(head) as rude, WitnessClient(timeout=0.2) as send:
        began = time.monotonic()
        assert send(rude.url, b"") == (NO_ANSWER, b"the answer takes too long")
        assert time.monotonic() - began < PATIENCE / 2
        assert rude.left.wait(PATIENCE)
        assert_none_left(send)


def assert_none_left(send: WitnessClient) -> None:
    for thread in threading.enumerate():
        if thread.name == "witness":
            thread.join(PATIENCE)
    assert not any(send._busy.values())


def test_with_a_limit_for_each_step_alone_the_same_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Line, "end", lambda _line: None)
    with Dripping(HEADS[0]) as rude:
        send = WitnessClient(timeout=0.2)
        assert send(rude.url, b"")[0] == NO_ANSWER
        (thread,) = (one for one in threading.enumerate() if one.name == "witness")
        thread.join(5 * 0.2)  # each step may take twice the time
        assert thread.is_alive()
    thread.join(PATIENCE)


def test_a_name_that_is_looked_up_for_ever_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()

    def look_up(*_: object) -> object:
        found.wait(PATIENCE)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with WitnessClient(timeout=0.05) as send:
        for _ in range(MAX_LEFT):
            assert send("https://w.example", b"") == (NO_ANSWER, b"the answer takes too long")
        assert send("https://w.example", b"") == (NO_ANSWER, b"earlier questions hang")
        assert send("https://v.example", b"") == (NO_ANSWER, b"the answer takes too long")
        found.set()
        assert_none_left(send)
        assert send("https://w.example", b"") == (NO_ANSWER, b"ConnectError")


def test_no_tls_is_waited_for_longer_than_that() -> None:
    with Rude(hold=True) as rude, WitnessClient(timeout=0.2) as send:
        began = time.monotonic()
        assert send(rude.url.replace("http:", "https:"), b"") == (NO_ANSWER, b"the answer takes too long")
        assert time.monotonic() - began < PATIENCE / 2


def test_closing_ends_the_question_under_way() -> None:
    with Dripping(HEADS[0]) as rude:
        send = WitnessClient(timeout=PATIENCE)
        answers: list[tuple[int, bytes]] = []
        asking = threading.Thread(target=lambda: answers.append(send(rude.url, b"")))
        asking.start()
        while not any(line._socket for lines in list(send._busy.values()) for line in list(lines)):
            asking.join(0.001)
        send.close()
        asking.join(PATIENCE / 2)
        assert answers
        assert answers[0][0] == NO_ANSWER
        assert send(rude.url, b"") == (NO_ANSWER, b"closed")


def test_connections_to_witnesses_are_kept(serving: Serving) -> None:
    with WitnessClient() as send:
        for _ in range(3):
            assert send(f"{serving.url}/add-checkpoint", b"")[0] == 400
        ((line,),) = send._idle.values()
        used = line._socket
        assert send(f"{serving.url}/{origin_hash(ORIGIN)}/checkpoint", None)[0] == 404
        assert line._socket is used


def test_a_redirect_is_not_followed_and_compression_is_not_undone() -> None:
    away = b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    with Rude(away) as rude, WitnessClient() as send:
        assert send(rude.url, b"")[0] == 301
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00"
    with Rude(packed) as rude, WitnessClient() as send:
        assert send(rude.url, b"") == (200, b"\x1f\x8b\x08\x00")


def test_a_proxy_of_the_environment_is_not_asked(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    with WitnessClient() as send:
        assert send(f"{serving.url}/add-checkpoint", b"")[0] == 400


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
def test_what_is_no_http_is_no_answer(said: bytes) -> None:
    with Rude(said) as rude, WitnessClient() as send:
        assert send(rude.url, b"")[0] == NO_ANSWER


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with WitnessClient() as send:
        assert send(f"http://127.0.0.1:{port}", b"") == (NO_ANSWER, b"ConnectError")


def test_facts_are_public_and_hold_no_secret(opened: OpenWitness) -> None:
    found = read_witness(opened.state.path)
    assert found == WitnessFacts(NAME, opened.witness.vkeys)
