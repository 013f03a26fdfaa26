"""`hauberk policy test`: a YAML table of calls and what should become of them.

```yaml
- from: spiffe://example.org/ns/production/sa/order-service   # left out: nobody in particular
  to: production/payment-service      # namespace/account; labels default to {app: ACCOUNT}
  method: POST
  path: /api/payments
  expect: allow                       # or deny
```
"""

from collections.abc import Mapping

import msgspec
import yaml

from hauberk.core.call import Call, Headers, Workload
from hauberk.core.principal import ANONYMOUS, Kind, Principal
from hauberk.errors import PolicyError
from hauberk.policy.engine import Engine
from hauberk.policy.explain import Explanation, explain
from hauberk.policy.set import PolicySet


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One call and what is expected of it."""

    to: str
    expect: str
    source: str = msgspec.field(default="", name="from")
    method: str = "GET"
    path: str = "/"
    host: str = ""
    port: int = 0
    labels: dict[str, str] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    name: str = ""


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


def parse_table(text: str, *, file: str = "<table>") -> tuple[Row, ...]:
    """Read a table.

    Raises:
        PolicyError: HBK-301 not such a table.
    """
    try:
        rows = msgspec.convert(yaml.safe_load(text), tuple[Row, ...])
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise PolicyError("HBK-301", str(error)[:200], file=file) from None
    for at, row in enumerate(rows):
        if row.expect not in {"allow", "deny"} or row.to.count("/") != 1:
            raise PolicyError("HBK-301", "expect is allow or deny; to is NAMESPACE/ACCOUNT", file=file, row=at)
    return rows


def call_of(row: Row) -> Call:
    """Return the call a row describes."""
    peer = Principal(Kind.WORKLOAD, row.source) if row.source else ANONYMOUS
    headers = [(name.lower().encode(), value.encode()) for name, value in row.headers.items()]
    return Call(
        peer=peer, method=row.method, path=row.path, host=row.host, port=row.port, headers=Headers(headers),
        target=target_of(row.to, row.labels),
    )  # fmt: skip


def target_of(name: str, labels: Mapping[str, str] | None = None) -> Workload:
    """Return the workload `NAMESPACE/ACCOUNT`; without labels it has `app: ACCOUNT`."""
    namespace, _, account = name.partition("/")
    return Workload(namespace, account, {"app": account} if labels is None else labels)


def run_table(policies: PolicySet, rows: tuple[Row, ...]) -> tuple[Verdicts, ...]:
    """Decide every row."""
    engines: dict[str, Engine] = {}
    found = []
    for row in rows:
        key = f"{row.to} {row.labels}"
        engine = engines.get(key)
        if engine is None:
            engine = engines[key] = Engine(policies, target_of(row.to, row.labels))
        found.append(Verdicts(row, explain(engine, call_of(row))))
    return tuple(found)
