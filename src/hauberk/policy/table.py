"""`hauberk policy test`: a YAML table of calls and what should become of them.

```yaml
- from: spiffe://example.org/ns/production/sa/order-service   # left out: nobody in particular
  to: production/payment-service      # namespace/account; labels default to {app: ACCOUNT}
  method: POST
  path: /api/payments
  expect: allow                       # or deny
```

Further columns: `host`, `port`, `ip` (the caller's address), `sni`, `headers`, `labels` (of the callee), `name`. An
empty `method` is a TCP connection.
"""

from collections.abc import Callable, Mapping

import msgspec

from hauberk.core.call import Address, Call, Headers, Workload
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.errors import PolicyError
from hauberk.policy._reader import Reader, documents
from hauberk.policy._values import MAX_PORT
from hauberk.policy.engine import Engine
from hauberk.policy.explain import Explanation, explain
from hauberk.policy.set import PolicySet


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One call and what is expected of it.

    Args:
        to: the callee, `NAMESPACE/ACCOUNT`.
        expect: `allow` or `deny`.
        source: SPIFFE id of the caller, `from` in the table; empty for nobody in particular.
        method: empty for a TCP connection.
        ip: the caller's address.
        sni: the server name of the TLS handshake.
        line: where the row is.
    """

    to: str
    expect: str
    source: str = msgspec.field(default="", name="from")
    method: str = "GET"
    path: str = "/"
    host: str = ""
    port: int = 0
    ip: str = ""
    sni: str = ""
    labels: dict[str, str] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    name: str = ""
    line: int = 0


class Verdicts(msgspec.Struct, frozen=True):
    """What became of one row."""

    row: Row
    explanation: Explanation

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return self.explanation.decision.verdict.value == self.row.expect

    def line(self) -> str:
        """Return one line for people."""
        row, verdict = self.row, self.explanation.decision.verdict.value
        what = row.name or f"{row.source or 'anonymous'} {row.method} {row.path} -> {row.to}"
        return f"{'ok  ' if self.passed else 'FAIL'} {what}: {verdict}" + ("" if self.passed else f", not {row.expect}")


def _texts(reader: Reader) -> dict[str, str]:
    return {name: value.text(empty=True) for name, value in reader.fields().items()}


def _text(reader: Reader) -> str:
    return reader.text(empty=True)


_FIELDS: Mapping[str, tuple[str, Callable[[Reader], object]]] = {
    "from": ("source", _text),
    "port": ("port", lambda reader: reader.number(MAX_PORT)),
    "labels": ("labels", _texts),
    "headers": ("headers", _texts),
    **{name: (name, _text) for name in ("to", "expect", "method", "path", "host", "ip", "sni", "name")},
}


def parse_table(text: str, *, file: str = "<table>") -> tuple[Row, ...]:
    """Read a table.

    Raises:
        PolicyError: HBK-301 not such a table, or one without a row, which would always pass.
    """
    rows = tuple(_row(item) for document in documents(text, file) for item in document.items())
    if not rows:
        raise PolicyError("HBK-301", "the table has no rows", file=file, line=1, field="document")
    return rows


def _row(reader: Reader) -> Row:
    fields = reader.fields(_FIELDS.keys())
    for name in ("to", "expect"):
        if name not in fields:
            raise reader.error("the field is missing", field=name)
    found: dict[str, object] = {_FIELDS[name][0]: _FIELDS[name][1](child) for name, child in fields.items()}
    if found["expect"] not in {"allow", "deny"}:
        raise fields["expect"].error("allow or deny is needed")
    namespace, _, account = str(found["to"]).partition("/")
    if not namespace or not account or "/" in account:
        raise fields["to"].error("NAMESPACE/ACCOUNT is needed")
    return Row(**found, line=reader.line)  # type: ignore[arg-type]  # the table of fields says which is what


def call_of(row: Row) -> Call:
    """Return the call a row describes."""
    peer = Principal(Kind.WORKLOAD, row.source) if row.source else ANONYMOUS
    headers = [(name.lower().encode(), value.encode()) for name, value in row.headers.items()]
    return Call(
        peer=peer, method=row.method, path=row.path if row.method else "", host=row.host, port=row.port,
        headers=Headers(headers), address=Address(row.ip), sni=row.sni, target=target_of(row.to, row.labels),
    )  # fmt: skip


def target_of(name: str, labels: Mapping[str, str] | None = None) -> Workload:
    """Return the workload `NAMESPACE/ACCOUNT`; without labels it has `app: ACCOUNT`."""
    namespace, _, account = name.partition("/")
    return Workload(namespace, account, {"app": account} if labels is None else labels)


def run_table(policies: PolicySet, rows: tuple[Row, ...]) -> tuple[Verdicts, ...]:
    """Decide every row."""
    engines: dict[tuple[str, str], Engine] = {}
    found = []
    for row in rows:
        key = row.to, repr(sorted(row.labels.items()) if row.labels is not None else None)
        engine = engines.get(key)
        if engine is None:
            engine = engines[key] = Engine(policies, target_of(row.to, row.labels))
        found.append(Verdicts(row, explain(engine, call_of(row))))
    return tuple(found)
