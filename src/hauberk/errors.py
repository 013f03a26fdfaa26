"""The one exception tree, and the registry of stable codes.

```
HauberkError
├── TransportError     HBK-1xx   ├── RecordsError       HBK-7xx
├── IdentityError      HBK-2xx   │   ├── Conflict        HBK-701
├── PolicyError        HBK-3xx   │   ├── OutcomeUnknown  HBK-702
│   └── Denied         HBK-300   │   ├── Tampered        HBK-710
├── EdgeError          HBK-4xx   │   ├── UnknownType     HBK-714
│                                │   ├── Oversized       HBK-715
│                                │   ├── Malformed       HBK-716
│                                │   ├── UnknownSubject  HBK-717
│                                │   ├── IdTaken         HBK-718
│                                │   ├── HeldBack        HBK-719
│                                │   ├── NotCosigned     HBK-720
│                                │   └── WitnessRefused  HBK-722
│                                └── ConfigError        HBK-9xx
```

5xx is kept for resilience, 6xx for data and 8xx for coordination.

An error has two faces. The public one is the constant sentence its code has in `REGISTRY`; it may be shown to anybody.
The private one (`detail` and the typed fields in `context`) is for operators: it is in `diagnostics()`, never in
`str()` or `repr()`, so an error that reaches a log line or a caller by accident leaks nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Spec(NamedTuple):
    """What a code stands for.

    Args:
        public: the sentence anybody may read; constant, no internals.
        status: the HTTP status an edge answers with.
        hint: what an operator should do; printed by the command line only.
    """

    public: str
    status: int = 500
    hint: str = ""


REGISTRY: dict[str, Spec] = {
    # 1xx transport
    "HBK-101": Spec("the TLS handshake failed", 400, "compare the peer's certificate, bundle and clock"),
    "HBK-102": Spec("mutual TLS is required here", 403, "call with an SVID, or make PeerAuthentication PERMISSIVE"),
    "HBK-103": Spec(
        "the peer is not who the caller expected", 403, "check the target name and the peer's registration"
    ),
    "HBK-104": Spec("the connection is older than allowed", 403, "reconnect"),
    "HBK-105": Spec("the TLS material is not usable", 500, "renew the SVID"),
    # 2xx identity
    "HBK-201": Spec("not a valid SPIFFE ID", 400, "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"),
    "HBK-202": Spec("not a valid X.509-SVID", 400, "the certificate breaks the X.509-SVID standard"),
    "HBK-203": Spec("the certificate signing request is refused", 400, "send a PKCS #10 request signed by its own key"),
    "HBK-204": Spec("the join token is refused", 403, "tokens are used once and expire: hauberk entry token NAME"),
    "HBK-205": Spec(
        "no registration entry matches this process", 403, "hauberk entry create; or name one of several: --entry NAME"
    ),
    "HBK-206": Spec("the identity is revoked", 403, "issue a new identity after finding out why"),
    "HBK-207": Spec("the process could not be attested", 403, "use a join token where the kernel cannot attest"),
    "HBK-208": Spec("the trust bundle is not usable", 500, "fetch the bundle of that trust domain again"),
    "HBK-209": Spec(
        "the certificate does not chain to its trust domain", 403, "the peer's authority is not in the bundle"
    ),
    "HBK-210": Spec(
        "the authority refuses to start", 500, "restore the missing or exposed files, or name its own trust domain"
    ),
    "HBK-211": Spec(
        "no identity is available",
        503,
        "start the process with: hauberk run -- COMMAND, or serve with insecure_plaintext",
    ),
    "HBK-212": Spec("the identity may not be requested by this caller", 403, ""),
    "HBK-213": Spec("the registration entry is not valid", 400, "hauberk entry create --help"),
    "HBK-214": Spec("the signature is not by this identity", 403, ""),
    "HBK-215": Spec("not a certificate serial number", 400, "hex digits, as hauberk svid prints them"),
    # 3xx policy
    "HBK-300": Spec("not allowed", 403, "hauberk policy explain"),
    "HBK-301": Spec("the policy document is not valid", 400, "hauberk policy lint FILE"),
    "HBK-302": Spec("the policy uses a feature that is not enforced yet", 400, "remove it, or wait for its release"),
    "HBK-303": Spec("the policy has lint errors", 400, "fix them, or apply with --force"),
    "HBK-304": Spec("the policy set is older than the one in force", 409, ""),
    "HBK-305": Spec("the feed message is not genuine", 400, "the signer is not the authority this service trusts"),
    # 4xx edge
    "HBK-401": Spec("the request is malformed", 400, ""),
    "HBK-402": Spec("the request path is not canonical", 400, ""),
    "HBK-403": Spec("the request headers are too large", 431, ""),
    "HBK-404": Spec("the request body is too large", 413, ""),
    "HBK-405": Spec("the request framing is ambiguous", 400, ""),
    "HBK-406": Spec("the application failed", 500, "look the incident id up: hauberk ledger show --incident ID"),
    "HBK-407": Spec("the request took too long to arrive", 408, ""),
    # 7xx records
    "HBK-701": Spec("somebody else wrote first", 409, "read again and retry"),
    "HBK-702": Spec("the outcome of the write is unknown", 503, "look your own event id up before retrying"),
    "HBK-703": Spec("the record could not be written", 503, "check disk space and the authority"),
    "HBK-704": Spec("the record spool is full", 503, "bring the authority back, or enlarge the spool"),
    "HBK-705": Spec("the record batch is refused", 400, ""),
    "HBK-706": Spec("the store is not usable", 500, ""),
    "HBK-707": Spec("no such record", 404, ""),
    "HBK-710": Spec("the ledger has been tampered with", 500, "keep the file, compare with a backup and a witness"),
    "HBK-711": Spec("not a valid checkpoint", 400, ""),
    "HBK-712": Spec("not a valid Merkle proof", 400, ""),
    "HBK-713": Spec("the ledger was rolled back", 500, "the log is shorter than its last known checkpoint"),
    "HBK-714": Spec("the event type is unknown", 400, "define the class before reading, or register an upcaster"),
    "HBK-715": Spec("the event is too large", 413, "a record is a fact of at most 64 KiB: store a document elsewhere"),
    "HBK-716": Spec("the event is malformed", 400, ""),
    "HBK-717": Spec("the subject is unknown", 404, "name whose data it is in the field marked Subject"),
    "HBK-718": Spec("the event id stands for another event", 409, "ids are made once: use a new one"),
    "HBK-719": Spec("the erasure is refused by a legal hold", 409, "lift the hold first: hauberk subject hold --help"),
    "HBK-720": Spec("the witnesses have not cosigned in time", 503, "the event is recorded; ask for its receipt later"),
    "HBK-722": Spec("the witness refuses the checkpoint", 409, "compare the log with the witness's last checkpoint"),
    "HBK-723": Spec("not a valid log policy", 400, "see c2sp.org/tlog-policy"),
    "HBK-724": Spec("the database schema is of another release", 500, "hauberk database migrate"),
    "HBK-725": Spec("the archived segment is not of this log", 400, "restore a segment archived from this log"),
    # 9xx configuration and runtime
    "HBK-901": Spec("the configuration is not valid", 500, "hauberk config"),
    "HBK-902": Spec(
        "the authority cannot be reached",
        503,
        "start it with: hauberk up; or say where it is: --dir, HAUBERK_DIRECTORY",
    ),
    "HBK-904": Spec("sealed material cannot be opened", 500, "the key does not fit, or the file was changed"),
    "HBK-905": Spec("key material is missing or exposed", 500, "key files belong to you alone, mode 0600"),
    "HBK-906": Spec("the command was refused", 400, ""),
    "HBK-907": Spec("an optional part is not installed", 500, "install the extra that the message names"),
}


class HauberkError(Exception):
    """The root of every error this package raises.

    Args:
        code: a key of `REGISTRY`.
        detail: what happened, for operators; never in `str()` or `repr()`.
        context: typed private fields, for operators.
    """

    def __init__(self, code: str, detail: str = "", **context: object) -> None:
        self.code = code
        self.detail = detail
        self.context = context
        super().__init__(code)

    @property
    def public(self) -> str:
        """The constant sentence of this code, safe to show to anybody."""
        return REGISTRY[self.code].public

    @property
    def status(self) -> int:
        """The HTTP status an edge answers with."""
        return REGISTRY[self.code].status

    @property
    def hint(self) -> str:
        """What an operator should do."""
        return REGISTRY[self.code].hint

    def diagnostics(self) -> str:
        """Return the private story in one line, for operators only; what a caller sent cannot start a second one."""
        fields = " ".join(f"{key}={value}" for key, value in self.context.items())
        story = " ".join(part for part in (f"{self.code} {self.public}", self.detail, fields) if part)
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in story)

    def explain(self) -> None:
        """Add the private story and the hint to what a traceback shows: for errors of a start, which operators see."""
        story = [self.diagnostics(), f"hint: {self.hint}"] if self.hint else [self.diagnostics()]
        for line in story:
            if line not in getattr(self, "__notes__", ()):
                self.add_note(line)

    def __str__(self) -> str:
        return f"{self.code} {self.public}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r})"


@contextmanager
def explained() -> Iterator[None]:
    """Let errors of a start say in their traceback what happened, and what to do."""
    try:
        yield
    except HauberkError as error:
        error.explain()
        raise


class TransportError(HauberkError):
    """HBK-1xx: the wire."""


class IdentityError(HauberkError):
    """HBK-2xx: who is calling."""


class PolicyError(HauberkError):
    """HBK-3xx: may they."""


class Denied(PolicyError):
    """A decision was enforced and it was no."""

    def __init__(self, code: str = "HBK-300", detail: str = "", **context: object) -> None:
        super().__init__(code, detail, **context)


class EdgeError(HauberkError):
    """HBK-4xx: is the input sane."""


class RecordsError(HauberkError):
    """HBK-7xx: what happened is provable."""


class Conflict(RecordsError):
    """An expectation of a write failed; `context["found"]` tells what is there now."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-701", detail, **context)


class OutcomeUnknown(RecordsError):
    """The connection was lost during the commit: resolve by reading your own event id."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-702", detail, **context)


class Tampered(RecordsError):
    """Verification failed; `context["position"]` is the first bad position."""

    def __init__(self, detail: str = "", code: str = "HBK-710", **context: object) -> None:
        super().__init__(code, detail, **context)


class UnknownType(RecordsError):
    """No class is registered for an event's type; `context["type"]`."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-714", detail, **context)


class Oversized(RecordsError):
    """An event is larger than a record may be; `context["bytes"]`."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-715", detail, **context)


class Malformed(RecordsError):
    """An event cannot be stored, or not be read, as what it claims to be."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-716", detail, **context)


class UnknownSubject(RecordsError):
    """A private value names nobody, or somebody of whom nothing is kept."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-717", detail, **context)


class IdTaken(RecordsError):
    """An event id is in the log already, with other content; `context["position"]`."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-718", detail, **context)


class HeldBack(RecordsError):
    """A legal hold forbids the erasure; `context["reason"]`."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-719", detail, **context)


class NotCosigned(RecordsError):
    """The event is in the ledger, but the witness quorum was not reached in time; `context["position"]`."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-720", detail, **context)


class WitnessRefused(RecordsError):
    """A witness answered no; `context["status"]` is its HTTP status."""

    def __init__(self, detail: str = "", **context: object) -> None:
        super().__init__("HBK-722", detail, **context)


class ConfigError(HauberkError):
    """HBK-9xx: configuration and runtime."""
