"""Which witness is asked for which head, and when: decisions only, no thread, no clock, nothing sent.

All witnesses of a quorum have to sign the same head, so cosigning goes in rounds: one head, everybody is asked at once,
and as soon as the quorum is reached the next round may take whatever is newest by then. A witness that is still busy
with an earlier round joins when it is done. One that fails is asked again after a delay that doubles up to a bound, and
no round begins before so many may be asked that the quorum is possible at all. A witness that contradicts the log is
asked no more.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from hauberk.records.asking import Target
from hauberk.records.log_policy import LogPolicy

FIRST_DELAY = 0.5  # seconds until a witness that failed is asked again
LONGEST_DELAY = 60.0  # seconds; a witness that comes back is found within a minute
_DOUBLINGS = 10


class WitnessStatus(msgspec.Struct, frozen=True):
    """How one URL is doing.

    Args:
        url: where it is asked.
        names: of its witnesses, in the policy.
        state: `asked` when that is all that is known yet, `answers`, `fails` or `contradicts`.
        failures: in a row.
        why: it failed last.
    """

    url: str
    names: tuple[str, ...]
    state: str
    failures: int
    why: str


class Seat(msgspec.Struct):
    """One URL in the rounds.

    Args:
        names: of its witnesses, in the policy.
        busy: a question is under way.
        failures: in a row.
        due: monotonic seconds before which it is not asked.
        why: it failed last, empty when it did not.
        answered: it has cosigned since it failed.
        contradicts: it is asked no more.
    """

    names: Collection[str]
    busy: bool = False
    failures: int = 0
    due: float = float("-inf")
    why: str = ""
    answered: bool = False
    contradicts: bool = False

    def status(self, url: str) -> WitnessStatus:
        """Return what is told about it."""
        state = "answers" if self.answered else "fails" if self.failures else "asked"
        return WitnessStatus(
            url, tuple(self.names), "contradicts" if self.contradicts else state, self.failures, self.why
        )


class Rounds:
    """The rounds of one log.

    Args:
        policy: whose quorum it takes.
        names: of the witnesses at each URL.
        interval: seconds between the beginnings of two rounds while nobody waits.
        random: from 0 to 1; spreads delays.
    """

    def __init__(
        self, policy: LogPolicy, names: Mapping[str, Collection[str]], *, interval: float, random: Callable[[], float]
    ) -> None:
        self.seats = {url: Seat(there) for url, there in names.items()}
        self.target: Target | None = None
        self.lines: dict[str, str] = {}  # of the present round, by the witness's name
        self.reached = False
        self._policy = policy
        self._interval = interval
        self._random = random
        self._began = float("-inf")
        self._asked: set[str] = set()  # URLs that were asked in the present round and did not fail

    def possible(self, now: float) -> bool:
        """Tell whether those who may be asked now can make up a quorum."""
        free = [seat for seat in self.seats.values() if not seat.busy and not seat.contradicts and seat.due <= now]
        return not self._policy.missing([name for seat in free for name in seat.names])

    def lacking(self) -> str:
        """Return what the quorum of the present round lacks, and why witnesses failed; empty when it is reached."""
        if self.reached:
            return ""
        failed = [f"{', '.join(seat.names)}: {seat.why}" for seat in self.seats.values() if seat.why]
        return "; ".join([self._policy.missing(set(self.lines)), *failed])

    def lost(self) -> bool:
        """Tell whether the present round stays without a quorum unless somebody is asked again."""
        busy = [name for seat in self.seats.values() if seat.busy for name in seat.names]
        return not self.reached and bool(self._policy.missing({*self.lines, *busy}))

    def hopeless(self) -> str:
        """Return what the quorum lacks for good without those who contradict, empty when it lacks nothing."""
        left = [seat for seat in self.seats.values() if not seat.contradicts]
        return self._policy.missing([name for seat in left for name in seat.names])

    def ready(self, now: float, *, urgent: bool) -> bool:
        """Tell whether a round on a newer head may begin: those at work on the present one cannot be counted on."""
        return (urgent or now >= self._began + self._interval) and self.possible(now)

    def begin(self, target: Target, now: float) -> None:
        """Begin a round."""
        self.target, self.lines, self._asked, self._began = target, {}, set(), now
        self.reached = not self._policy.missing(())

    def ask(self, now: float) -> list[str]:
        """Return the URLs to ask for the present round; each of them is busy from now on."""
        if self.target is None:
            return []
        free = [
            url
            for url, seat in self.seats.items()
            if not seat.busy and not seat.contradicts and seat.due <= now and url not in self._asked
        ]
        for url in free:
            self.seats[url].busy = True
        self._asked.update(free)
        return free

    def signed(self, url: str, target: Target, lines: Mapping[str, str]) -> bool:
        """Take cosignatures.

        Returns:
            Whether there is more than before of a head that has its quorum.
        """
        seat = self.seats[url]
        seat.busy, seat.failures, seat.why, seat.answered = False, 0, "", True
        if target != self.target:
            return False
        self.lines.update(lines)
        self.reached = not self._policy.missing(self.lines)
        return self.reached

    def failed(self, url: str, why: str, now: float) -> None:
        """Take note that a witness gave no cosignature; it is asked again later."""
        seat = self.seats[url]
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(seat.failures, _DOUBLINGS))
        seat.busy, seat.why, seat.answered = False, why, False
        seat.failures += 1
        seat.due = now + delay * (0.5 + self._random() / 2)
        self._asked.discard(url)

    def overtaken(self, url: str) -> None:
        """Take note that a newer head is there: the witness is fine, the round is over."""
        self.seats[url].busy = False

    def contradicted(self, url: str, why: str) -> None:
        """Ask this witness no more."""
        seat = self.seats[url]
        seat.busy, seat.contradicts, seat.why = False, True, why

    def due(self, now: float, *, newer: bool, urgent: bool) -> float | None:
        """Return in how many seconds something may begin by itself, None when only news can cause it.

        Args:
            now: monotonic seconds.
            newer: there is a head beyond that of the present round.
            urgent: somebody waits for it.
        """
        free = [seat for seat in self.seats.values() if not seat.busy and not seat.contradicts]
        unfinished = self.target is not None and len(self._asked) < len(self.seats)
        moments = [seat.due for seat in free] if newer or unfinished else []
        if newer and not urgent:
            moments.append(self._began + self._interval)
        return min((moment - now for moment in moments if moment > now), default=None)
