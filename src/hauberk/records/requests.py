"""What the record says about requests: events made of what guards saw and answered. Pure; nothing is written here.

Texts that a caller chose are bounded and printable, so that no entry can forge a line or fill the log. Addresses appear
as pseudonyms. The serial of the caller's certificate tells certificates of one id apart, forged ones too.
"""

import msgspec

from hauberk.core.decision import Decision
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.core.inbound import Inbound
from hauberk.core.principal import Principal
from hauberk.crypto.keyring import Pseudonyms

MAX_PATH = 200  # characters
MAX_METHOD = 16  # characters


class AllowedDraft(msgspec.Struct, frozen=True, gc=False):  # many wait in the queue, and none is part of a cycle
    """The draft of the event that a call was let through; calling it makes the event.

    Args:
        stream: of the service.
        peer: who called.
        method: of the call.
        path: of the call, canonical.
        decision: on what ground.
        time: Unix seconds.
    """

    stream: str
    peer: Principal
    method: str
    path: str
    decision: Decision
    time: float

    def __call__(self) -> Event:
        """Make the event."""
        decision, time_ns = self.decision, int(self.time * 1e9)
        return Event(
            id=uuid7(now_ns=time_ns),
            type="request.allowed",
            stream=self.stream,
            time_ns=time_ns,
            actor=self.peer.id,
            outcome="allow",
            rule=decision.rule or "",
            digest=decision.basis.digest,
            data={**_facts(self.peer, self.method, self.path[:MAX_PATH]), **_audited(decision)},
        )


def denied(
    stream: str, time_ns: int, inbound: Inbound, decision: Decision, *, incident: str, pseudonyms: Pseudonyms
) -> Event:
    """Return the event that a request was refused."""
    return Event(
        id=uuid7(now_ns=time_ns),
        type=f"{decision.layer.value}.denied",
        stream=stream,
        time_ns=time_ns,
        actor=inbound.peer.id,
        address=pseudonyms.of("address", inbound.address.ip),
        outcome="deny",
        code=decision.code,
        rule=decision.rule or "",
        digest=decision.basis.digest,
        incident=incident,
        data={**_facts_of(inbound), "reason": decision.reason, **_audited(decision)},
    )


def failed(stream: str, time_ns: int, inbound: Inbound, incident: str, cause: str) -> Event:
    """Return the event that the application failed."""
    return Event(
        id=uuid7(now_ns=time_ns),
        type="request.failed",
        stream=stream,
        time_ns=time_ns,
        actor=inbound.peer.id,
        outcome="failed",
        code="HBK-406",
        incident=incident,
        data={**_facts_of(inbound), "cause": cause},
    )


def _audited(decision: Decision) -> dict[str, object]:
    return {"audits": decision.audits} if decision.audits else {}


def _facts(peer: Principal, method: str, path: str) -> dict[str, object]:
    data: dict[str, object] = {"method": method, "path": path}
    if "serial" in peer.proof.detail:
        data["serial"] = peer.proof.detail["serial"]
    return data


def _facts_of(inbound: Inbound) -> dict[str, object]:
    return _facts(inbound.peer, inbound.method[:MAX_METHOD], _printable(inbound.raw_path))


def _printable(raw: bytes) -> str:
    """The path as sent: ASCII, bounded, nothing that could forge a line."""
    return "".join(chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}" for byte in raw[:MAX_PATH])  # noqa: PLR2004  # space, delete
