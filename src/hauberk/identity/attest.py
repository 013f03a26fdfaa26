"""Attestation by the Linux kernel: who is at the other end of a Unix socket.

SO_PEERCRED tells pid, uid and gid of whoever connected. A pid is only a number that is used again, so everything else
read about it could be about another process. Three things close that gap: the process start time (proc(5), field 22)
is taken when the connection is accepted, while SO_PEERPIDFD (Linux 6.5) proves that the connecting process itself
still lives; a pidfd is held while `/proc` is read; and owner and start time are compared again at the end. The
executable's path is never looked at: for Python it is the interpreter. Elsewhere than on Linux attestation is refused
and join tokens serve.
"""

import errno
import os
import re
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hauberk.core.ports import PeerCredentials
from hauberk.errors import IdentityError

_UCRED = struct.Struct("3i")  # unix(7): pid, uid, gid
_SO_PEERPIDFD = 77  # asm-generic/socket.h, since Linux 6.5
_STARTED = 19  # index of starttime among the fields after the command name, proc_pid_stat(5)
_UNIT = re.compile(r"(?:/[^/]+\.slice)+/([^/]+\.(?:service|scope))(?:/|\Z)")  # systemd's cg_path_get_unit()


class ConnectedProcess(PeerCredentials, frozen=True):
    """Kernel credentials, and when that process started.

    Args:
        started: clock ticks after boot; 0 when it was gone already.
    """

    started: int = 0


def peer_credentials(sock: socket.socket) -> ConnectedProcess:
    """Read what the kernel says about the process that connected; call it once, when the connection is accepted.

    Args:
        sock: a connected Unix socket (or what asyncio and uvloop give for one).

    Raises:
        IdentityError: HBK-207 not a Unix socket, or not on Linux.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        raise IdentityError("HBK-207", "this system has no SO_PEERCRED", platform=sys.platform)
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as bad:
        raise IdentityError("HBK-207", "no peer credentials", errno=bad.errno) from None
    pid, uid, gid = _UCRED.unpack(raw)
    if pid <= 0:  # the kernel's answer for a TCP socket, and for a process in a pid namespace it cannot name here
        raise IdentityError("HBK-207", "no process is known at the other end", pid=pid)
    return ConnectedProcess(pid, uid, gid, _started_at_connect(sock, pid))


def _started_at_connect(sock: socket.socket, pid: int) -> int:
    """The start time, proven to be that of the connecting process where the kernel has SO_PEERPIDFD."""
    try:
        started = _start_time(pid)
        pidfd = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4), sys.byteorder)
    except IdentityError:
        return 0
    except OSError as bad:
        # An older kernel does not know the option: the owner check in attest() remains. Any other error says that the
        # process is gone, and what was read about its pid may be about somebody else.
        return started if bad.errno == errno.ENOPROTOOPT else 0
    try:
        return started if _alive(pidfd) else 0
    finally:
        os.close(pidfd)


class LinuxAttestor:
    """Turns kernel credentials into selectors: `unix:uid:N`, `unix:gid:N`, `unix:cgroup:PATH`, `systemd:unit:NAME`.

    Args:
        open_pidfd: pidfd_open(2).
    """

    def __init__(self, *, open_pidfd: Callable[[int], int] | None = None) -> None:
        self._open_pidfd = open_pidfd or getattr(os, "pidfd_open", None)

    def attest(self, peer: PeerCredentials) -> frozenset[str]:
        """Return what is proven about the process.

        Args:
            peer: from `peer_credentials`.

        Raises:
            IdentityError: HBK-207 it is gone, it is not the one that connected, or the kernel cannot tell.
        """
        if self._open_pidfd is None:
            raise IdentityError("HBK-207", "this system has no pidfd_open", platform=sys.platform)
        with _held(self._open_pidfd, peer.pid) as pidfd:
            started = _start_time(peer.pid)
            if isinstance(peer, ConnectedProcess) and peer.started != started:
                raise IdentityError("HBK-207", "the pid now belongs to another process", pid=peer.pid)
            if _owner(peer.pid) != (peer.uid, peer.gid):
                raise IdentityError("HBK-207", "the process has another owner now", pid=peer.pid)
            selectors = _selectors(peer.uid, peer.gid, _cgroup(peer.pid))
            if _start_time(peer.pid) != started or not _alive(pidfd):
                raise IdentityError("HBK-207", "the process ended meanwhile", pid=peer.pid)
        return selectors


@contextmanager
def _held(open_pidfd: Callable[[int], int], pid: int) -> Iterator[int]:
    try:
        pidfd = open_pidfd(pid)
    except (OSError, ValueError, OverflowError):
        raise IdentityError("HBK-207", "no such process", pid=pid) from None
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)  # a pidfd becomes readable when its process ends


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123  # hot: no Path
            return file.read(65_536)
    except (OSError, ValueError):
        raise IdentityError("HBK-207", "the process is gone", pid=pid) from None


def _start_time(pid: int) -> int:
    # The command name is in parentheses and may hold spaces and parentheses itself; the last one ends it.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    if len(fields) <= _STARTED or fields[0] in {"Z", "X"}:
        raise IdentityError("HBK-207", "the process has ended", pid=pid)
    return int(fields[_STARTED])


def _owner(pid: int) -> tuple[int, int]:
    """Effective uid and gid, as SO_PEERCRED reports them (proc_pid_status(5))."""
    found = {}
    for line in _read(pid, "status").splitlines():
        name, _, rest = line.partition(":")
        if name in {"Uid", "Gid"}:
            found[name] = int(rest.split()[1])
    return found.get("Uid", -1), found.get("Gid", -1)


def _cgroup(pid: int) -> str:
    """The path in the unified hierarchy (cgroups(7)), or empty."""
    for line in _read(pid, "cgroup").splitlines():
        if line.startswith("0::/"):
            return line[3:]
    return ""


def _selectors(uid: int, gid: int, cgroup: str) -> frozenset[str]:
    found = {f"unix:uid:{uid}", f"unix:gid:{gid}"}
    if cgroup:
        found.add(f"unix:cgroup:{cgroup}")
        # Only what stands right below the slices is made by the system's manager. Further down anybody with a
        # delegated subtree, such as every user's own manager, may call a group `payment.service`.
        unit = _UNIT.match(cgroup)
        if unit:
            found.add(f"systemd:unit:{unit.group(1)}")
    return frozenset(found)
