"""Finding the few clauses that can match a call, without looking at the many that cannot.

Peers: for each SPIFFE id a `View` holds the clauses whose tests about the id hold for it; ids that policies name
exactly are prepared, others are worked out on first sight and remembered. Clauses that say nothing about the peer are
shared by all views.

Paths and methods, within a table: each distinct value has an integer whose bit `i` says that clause `i` accepts it.
One AND gives the clauses that accept both; each of them then runs the tests the index does not cover (its residue).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from hauberk.core.call import Call
from hauberk.policy._values import is_template
from hauberk.policy.clause import Clause, Test

MAX_VIEWS = 65_536  # ids remembered; only authenticated peers have one
_PATHS = "to.operation.paths"
_METHODS = "to.operation.methods"
_PRINCIPALS = "from.source.principals"
_NAMESPACES = "from.source.namespaces"
FEW = 4  # clauses; from there on the index is faster
FEW_PATHS = 16  # of those clauses together
Residue = tuple[Callable[[Call], bool], ...] | None
_Row = tuple[Clause, frozenset[str] | None, tuple[str, ...] | None, tuple[str, ...], tuple[str, ...], Residue]


class _Paths(NamedTuple):
    """What a clause says about paths, as far as an index can tell; `covered` when that is all it says."""

    exact: tuple[str, ...]
    prefixes: tuple[str, ...]  # templates too, with what comes before their first operator
    suffixes: tuple[str, ...]
    covered: Test | None


def _paths(clause: Clause) -> _Paths | None:
    """Return the paths of a clause, None where any will do."""
    test = next((test for test in clause.tests if test.field == _PATHS), None)
    if test is None or "*" in test.values:
        return None
    exact, prefixes, suffixes = [], [], []
    for value in test.values:
        if is_template(value):
            prefixes.append(value.partition("{")[0])
        elif value.startswith("*"):
            suffixes.append(value[1:])
        elif value.endswith("*"):
            prefixes.append(value[:-1])
        else:
            exact.append(value)
    whole = not any(is_template(value) for value in test.values)
    return _Paths(tuple(exact), tuple(prefixes), tuple(suffixes), test if whole else None)


def _methods(clause: Clause) -> Test | None:
    """Return the test that names every method of a clause, None where others may match too."""
    test = next((test for test in clause.tests if test.field == _METHODS), None)
    return None if test is None or any("*" in value for value in test.values) else test


def _residue(clause: Clause, *covered: Test | None) -> Residue:
    """Return the tests that remain: neither covered nor about the peer's id, which the caller has checked."""
    left = tuple(test.match for test in clause.tests if test.on_id is None and test not in covered)
    return left or None


@lru_cache(4_096)
def _shared(values: tuple[str, ...]) -> frozenset[str]:
    """One set for the many clauses that name the same methods."""
    return frozenset(values)


class Few:
    """A handful of clauses, looked at one after the other: no slower than an index, and much smaller.

    Args:
        clauses: in the order in which a match is reported.
    """

    __slots__ = ("_rows",)

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._rows = tuple(self._row(clause) for clause in clauses)

    @staticmethod
    def _row(clause: Clause) -> _Row:
        paths, methods = _paths(clause), _methods(clause)
        residue = _residue(clause, methods, paths.covered if paths else None)
        named = None if methods is None else _shared(methods.values)
        if paths is None:
            return clause, named, None, (), (), residue
        return clause, named, paths.exact, paths.prefixes, paths.suffixes, residue

    def find(self, method: str, path: str, call: Call) -> Clause | None:
        """Return the first clause that matches, or None."""
        for clause, methods, exact, prefixes, suffixes, residue in self._rows:
            if methods is not None and method not in methods:
                continue
            if not (exact is None or path in exact or path.startswith(prefixes) or path.endswith(suffixes)):
                continue
            if residue is None:
                return clause
            for match in residue:
                if not match(call):
                    break
            else:
                return clause
        return None

    def all(self, call: Call) -> Iterable[Clause]:
        """Yield every clause that matches."""
        return (row[0] for row in self._rows if row[0].matches(call))


class Table:
    """Many clauses over method and path.

    Args:
        clauses: in the order in which a match is reported.
    """

    __slots__ = ("_any_path", "_clauses", "_exact", "_methods", "_other_methods", "_prefixes", "_residue", "_suffixes")

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._clauses = tuple(clauses)
        exact: dict[str, int] = {}
        prefixes: dict[int, dict[str, int]] = {}
        suffixes: dict[int, dict[str, int]] = {}
        methods: dict[str, int] = {}
        self._any_path = self._other_methods = 0
        residue = []
        for at, clause in enumerate(clauses):
            bit = 1 << at
            paths, named = _paths(clause), _methods(clause)
            if paths is None:
                self._any_path |= bit
            else:
                self._place(bit, paths, exact, prefixes, suffixes)
            if named is None:
                self._other_methods |= bit
            for value in named.values if named else ():
                methods[value] = methods.get(value, 0) | bit
            residue.append(_residue(clause, named, paths.covered if paths else None))
        self._exact = {path: mask | self._any_path for path, mask in exact.items()}
        self._methods = {method: mask | self._other_methods for method, mask in methods.items()}
        self._prefixes = tuple(sorted(prefixes.items()))
        self._suffixes = tuple(sorted(suffixes.items()))
        self._residue = tuple(residue)

    @staticmethod
    def _place(
        bit: int,
        paths: _Paths,
        exact: dict[str, int],
        prefixes: dict[int, dict[str, int]],
        suffixes: dict[int, dict[str, int]],
    ) -> None:
        for value in paths.exact:
            exact[value] = exact.get(value, 0) | bit
        for value in paths.prefixes:
            _enter(prefixes, value, bit)
        for value in paths.suffixes:
            _enter(suffixes, value, bit)

    def find(self, method: str, path: str, call: Call) -> Clause | None:
        """Return a clause that matches, or None. The lowest one, so that reports are stable."""
        mask = self._exact.get(path, self._any_path)
        size = len(path)
        for length, table in self._prefixes:
            if length > size:
                break
            if (found := table.get(path[:length])) is not None:
                mask |= found
        for length, table in self._suffixes:
            if (found := table.get(path[-length:])) is not None:
                mask |= found
        mask &= self._methods.get(method, self._other_methods)
        while mask:
            at = (mask & -mask).bit_length() - 1
            residue = self._residue[at]
            if residue is None:
                return self._clauses[at]
            for match in residue:
                if not match(call):
                    break
            else:
                return self._clauses[at]
            mask &= mask - 1
        return None

    def all(self, call: Call) -> Iterable[Clause]:
        """Yield every clause that matches."""
        return (clause for clause in self._clauses if clause.matches(call))


Tables = tuple[Few | Table, ...]


def table_of(clauses: Sequence[Clause]) -> Few | Table:
    """Return the smaller of the two that serves."""
    values = sum(len(test.values) for clause in clauses[: FEW + 1] for test in clause.tests if test.field == _PATHS)
    return Few(clauses) if len(clauses) <= FEW and values <= FEW_PATHS else Table(clauses)


def _enter(tables: dict[int, dict[str, int]], part: str, bit: int) -> None:
    table = tables.setdefault(len(part), {})
    table[part] = table.get(part, 0) | bit


class PeerIndex:
    """The clauses of one group, by peer.

    Args:
        clauses: all of them.
    """

    __slots__ = ("_exact", "_namespaces", "_patterns", "clauses", "shared")

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self.clauses = tuple(clauses)
        shared: list[Clause] = []
        self._exact: dict[str, list[int]] = {}
        self._namespaces: dict[str, list[int]] = {}
        self._patterns: list[int] = []
        for at, clause in enumerate(clauses):
            on_id = [test for test in clause.tests if test.on_id is not None]
            if on_id:
                self._place(at, on_id)
            else:
                shared.append(clause)
        self.shared = (table_of(shared),) if shared else ()

    def _place(self, at: int, on_id: list[Test]) -> None:
        """Enter a clause where the most telling of its tests about the id leads."""
        for test in on_id:
            if test.field == _PRINCIPALS and not any("*" in value for value in test.values):
                for value in test.exact_ids:
                    self._exact.setdefault(value, []).append(at)
                return
        for test in on_id:
            # A slash in the value reaches over more than one segment of the id.
            if test.field == _NAMESPACES and not any("*" in value or "/" in value for value in test.values):
                for value in test.values:
                    self._namespaces.setdefault(value, []).append(at)
                return
        self._patterns.append(at)

    @property
    def exact_ids(self) -> Iterable[str]:
        """The ids that are named exactly."""
        return self._exact

    @property
    def depends_on_strangers(self) -> bool:
        """Whether an id that is not named exactly may make a difference."""
        return bool(self._namespaces or self._patterns)

    def tables(self, spiffe_id: str) -> Tables:
        """Return the tables that can match for a peer with this id (empty: none)."""
        found = [*self._exact.get(spiffe_id, ()), *self._patterns]
        if self._namespaces:
            for name in _namespaces_in(spiffe_id):
                found.extend(self._namespaces.get(name, ()))
        own = [
            self.clauses[at]
            for at in sorted(set(found))
            if all(test.on_id(spiffe_id) for test in self.clauses[at].tests if test.on_id is not None)
        ]
        return (table_of(own), *self.shared) if own else self.shared


def _namespaces_in(spiffe_id: str) -> set[str]:
    """Every segment after an `ns` segment that is not the last: what `.*/ns/NS/.*` can match."""
    segments = spiffe_id.split("/")
    return {segments[at + 1] for at, segment in enumerate(segments[:-2]) if segment == "ns"}


class View:
    """What can match for one peer."""

    __slots__ = ("allow", "audit", "deny")

    def __init__(self, deny: Tables, allow: Tables, audit: Tables) -> None:
        self.deny = deny
        self.allow = allow
        self.audit = audit


class Views:
    """The views of all peers.

    Args:
        deny: clauses of DENY policies.
        allow: clauses of ALLOW policies.
        audit: clauses of AUDIT policies and of dry-run ones.
    """

    def __init__(self, deny: Sequence[Clause], allow: Sequence[Clause], audit: Sequence[Clause]) -> None:
        self._groups = (PeerIndex(deny), PeerIndex(allow), PeerIndex(audit))
        self._remember = any(group.depends_on_strangers for group in self._groups)
        self._stranger = self._make("spiffe://")  # an id that no exact value equals
        named = {spiffe_id for group in self._groups for spiffe_id in group.exact_ids}
        self.known: dict[str, View] = {spiffe_id: self._make(spiffe_id) for spiffe_id in named}
        self.known[""] = self._make("")

    def _make(self, spiffe_id: str) -> View:
        deny, allow, audit = self._groups
        return View(deny.tables(spiffe_id), allow.tables(spiffe_id), audit.tables(spiffe_id))

    def see(self, peer_id: str) -> View:
        """Return the view of a peer that is not in `known`."""
        if not peer_id.startswith("spiffe://"):
            return self.known[""]
        if not self._remember:
            return self._stranger
        if len(self.known) >= MAX_VIEWS:
            self.known = {"": self.known[""]}
        view = self.known[peer_id] = self._make(peer_id)
        return view
