"""Kernel attestation against real processes on a real Unix socket, the impostors included."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hauberk.core.ports import PeerCredentials
from hauberk.core.spiffe import SpiffeId
from hauberk.identity import attest
from hauberk.identity.attest import ConnectedProcess, LinuxAttestor, peer_credentials
from hauberk.identity.registration import RegistrationEntry, choose
from tests.core.refusal import refuses

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux has SO_PEERCRED")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")

OTHER = 54_321
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
ATTESTOR = LinuxAttestor()
# Becomes another user, connects, says so, and then does what it is told line by line.
CHILD = """
import os, socket, sys
uid = int(sys.argv[2])
if uid:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("\\0" + sys.argv[1])
    print("connected", flush=True)
    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""


class Child:
    """A process that has connected."""

    def __init__(self, address: str, uid: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", CHILD, address, str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._answer() == "connected\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        assert self._answer() == "done\n"

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@contextmanager
def connected(uid: int = 0) -> Iterator[tuple[Child, socket.socket]]:
    """Yield a child and our end of its connection."""
    address = f"hauberk-test-{os.getpid()}-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)  # the abstract namespace: any user may connect
        listener.listen()
        child = Child(address, uid)
        try:
            ours, _ = listener.accept()
            with ours:
                yield child, ours
        finally:
            child.end()


def _again(pid: int) -> subprocess.Popen[bytes]:
    """Start an impostor under a pid that has become free, or skip the test."""
    for _ in range(20):
        with suppress(OSError):
            LAST_PID.write_text(str(pid - 1), "ascii")
        impostor = subprocess.Popen([sys.executable, "-S", "-E", "-c", "input()"], stdin=subprocess.PIPE)
        if impostor.pid == pid:
            return impostor
        impostor.kill()
        impostor.communicate()
    pytest.skip("this system does not let a test have a pid again")


def test_a_living_process_is_known_by_user_group_and_cgroup() -> None:
    with connected() as (child, ours):
        peer = peer_credentials(ours)
        assert (peer.pid, peer.uid, peer.gid) == (child.pid, os.geteuid(), os.getegid())
        assert peer.started > 0
        proven = ATTESTOR.attest(peer)
    assert {f"unix:uid:{os.geteuid()}", f"unix:gid:{os.getegid()}"} <= proven
    unified = [line for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines() if line.startswith("0::/")]
    assert {f"unix:cgroup:{line[3:]}" for line in unified} <= proven


def test_both_ends_of_a_socketpair_are_this_process() -> None:
    for end in socket.socketpair():
        with end:
            peer = peer_credentials(end)
            assert peer.pid == os.getpid()
            assert f"unix:uid:{os.geteuid()}" in ATTESTOR.attest(peer)


def test_an_asyncio_transport_is_read_like_a_socket() -> None:
    async def accept() -> ConnectedProcess:
        found: asyncio.Future[ConnectedProcess] = asyncio.get_running_loop().create_future()

        def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(peer_credentials(writer.get_extra_info("socket")))
            writer.close()

        address = f"\0hauberk-test-{os.getpid()}-{os.urandom(8).hex()}"
        async with await asyncio.start_unix_server(serve, address):
            _, writer = await asyncio.open_unix_connection(address)
            peer = await found
            writer.close()
            await writer.wait_closed()
        return peer

    assert asyncio.run(accept()).pid == os.getpid()


@as_root
def test_another_user_is_known_as_such_and_gets_no_entry_of_ours() -> None:
    ours_only = RegistrationEntry(
        name="orders",
        spiffe_id=SpiffeId.service("example.org", "prod", "orders"),
        selectors=frozenset({f"unix:uid:{os.geteuid()}"}),
    )
    with connected(OTHER) as (_, ours):
        proven = ATTESTOR.attest(peer_credentials(ours))
    assert {f"unix:uid:{OTHER}", f"unix:gid:{OTHER}"} <= proven
    with refuses("HBK-205"):
        choose([ours_only], proven)
    with refuses("HBK-205"):
        choose([ours_only], proven, "orders")
    with connected() as (_, ours):
        assert choose([ours_only], ATTESTOR.attest(peer_credentials(ours))) is ours_only


def test_a_process_that_ended_after_the_accept_is_refused() -> None:
    with connected() as (child, ours):
        peer = peer_credentials(ours)
        child.end()
        with refuses("HBK-207"):
            ATTESTOR.attest(peer)


def test_a_process_that_ended_before_the_accept_is_refused() -> None:
    with connected() as (child, ours):
        child.end()
        peer = peer_credentials(ours)
        assert (peer.pid, peer.started) == (child.pid, 0)
        with refuses("HBK-207"):
            ATTESTOR.attest(peer)


def test_a_zombie_is_no_living_process() -> None:
    with connected() as (child, ours):
        before = peer_credentials(ours)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is still in the table
        for peer in (before, peer_credentials(ours)):
            with refuses("HBK-207"):
                ATTESTOR.attest(peer)


@as_root
@pytest.mark.parametrize(
    "line",
    [
        f"os.setresuid({OTHER}, {OTHER}, {OTHER})",
        f"os.setresgid({OTHER}, {OTHER}, {OTHER})",
        f"os.seteuid({OTHER})",
    ],
)
def test_a_process_that_changed_its_owner_is_refused(line: str) -> None:
    with connected() as (child, ours):
        peer = peer_credentials(ours)
        assert ATTESTOR.attest(peer)
        child.tell(line)
        with refuses("HBK-207"):
            ATTESTOR.attest(peer)


@as_root
@pytest.mark.parametrize("accepted", [True, False])
def test_whoever_gets_the_pid_of_a_dead_process_does_not_get_its_identity(*, accepted: bool) -> None:
    with connected() as (child, ours):
        before = peer_credentials(ours)
        child.end()
        impostor = _again(child.pid)
        try:
            peer = before if accepted else peer_credentials(ours)
            assert peer.pid == impostor.pid
            with refuses("HBK-207"):
                ATTESTOR.attest(peer)
            # Without the start time nothing else tells the two apart, and the impostor is believed.
            assert ATTESTOR.attest(PeerCredentials(peer.pid, peer.uid, peer.gid))
        finally:
            impostor.kill()
            impostor.communicate()


class _Answering(socket.socket):
    """A real connection on a kernel that answers SO_PEERPIDFD with an error."""

    code = 0

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]
        if option == attest._SO_PEERPIDFD:
            raise OSError(self.code, os.strerror(self.code))
        return super().getsockopt(level, option, size)


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL, errno.ENODATA])
def test_where_the_kernel_says_the_peer_is_gone_what_lives_under_its_pid_is_not_believed(code: int) -> None:
    """Linux 6.5 to 6.15 has no pidfd for a process that was reaped, and answers with one of these."""
    with connected() as (_, ours), _Answering(fileno=os.dup(ours.fileno())) as gone:
        gone.code = code
        peer = peer_credentials(gone)
        assert peer.started == 0
        with refuses("HBK-207"):
            ATTESTOR.attest(peer)


def test_an_older_kernel_without_the_option_still_attests() -> None:
    with connected() as (_, ours), _Answering(fileno=os.dup(ours.fileno())) as old:
        old.code = errno.ENOPROTOOPT
        assert ATTESTOR.attest(peer_credentials(old))


@pytest.mark.parametrize("name", ["x) Z 1 1", "((", ") R (", "a b c"])
def test_a_process_cannot_lie_about_its_age_by_its_name(name: str) -> None:
    with connected() as (child, ours):
        honest = peer_credentials(ours)
        child.tell(f"open('/proc/self/comm', 'w').write({name!r})")
        assert peer_credentials(ours) == honest
        assert ATTESTOR.attest(honest)


def test_what_is_no_connected_unix_socket_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            for sock in (server, client, accepted):
                with refuses("HBK-207"):
                    peer_credentials(sock)
    with socket.socket(socket.AF_UNIX) as lonely, refuses("HBK-207"):
        peer_credentials(lonely)


@pytest.mark.parametrize("pid", [0, -1, -(2**31), 2**22 + 1])
def test_a_pid_that_cannot_be_one_is_refused(pid: int) -> None:
    with refuses("HBK-207"):
        ATTESTOR.attest(PeerCredentials(pid, os.geteuid(), os.getegid()))


def test_where_the_kernel_cannot_hold_a_process_nothing_is_attested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with refuses("HBK-207"):
        LinuxAttestor().attest(PeerCredentials(os.getpid(), os.geteuid(), os.getegid()))


def test_nothing_stays_open_whatever_the_outcome() -> None:
    open_now = Path("/proc/self/fd")
    with connected() as (child, ours):
        peer = peer_credentials(ours)
        before = len(list(open_now.iterdir()))
        for _ in range(10):
            ATTESTOR.attest(peer_credentials(ours))
            with refuses("HBK-207"):
                ATTESTOR.attest(PeerCredentials(peer.pid, peer.uid + 1, peer.gid))
        child.end()
        for _ in range(10):
            with refuses("HBK-207"):
                ATTESTOR.attest(peer_credentials(ours))
        assert len(list(open_now.iterdir())) <= before


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/order.service", "order.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/machine.slice/payments.scope", "payments.scope"),
        # A user's own manager may call its services what it likes; so may a service with a delegated subtree.
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/order.service", "user@1000.service"),
        ("/system.slice/evil.service/order.service", "evil.service"),
        ("/system.slice/evil.service/system.slice/order.service", "evil.service"),
        ("/order.service", None),
        ("/evil/system.slice/order.service", None),
        ("/../system.slice/order.service", None),
        ("/system.slice", None),
        ("/system.slice/order.service (deleted)", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_unit_is_what_the_systems_own_manager_made(cgroup: str, unit: str | None) -> None:
    found = attest._selectors(1000, 1000, cgroup)
    assert {text for text in found if text.startswith("systemd:")} == ({f"systemd:unit:{unit}"} if unit else set())
    assert (f"unix:cgroup:{cgroup}" in found) is bool(cgroup)
