"""Keeping a runtime fresh: one thread follows the feed, one renews the identity.

Whatever goes wrong (the authority is away, a push does not verify, a policy of a newer version does not parse) the last
good state stays in force, `Runtime.status()` says why and how old it is, and the next message is tried.
"""

import logging
import random
import threading
from collections.abc import Callable, Mapping

import msgspec

from hauberk.agent.feed import FeedState
from hauberk.agent.remote import Remote, new_request
from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.feed import (
    BUNDLES,
    POLICIES,
    RENEWAL,
    REVOCATIONS,
    BundleBody,
    PolicyBody,
    RenewalBody,
    Resource,
    RevocationBody,
)
from hauberk.crypto.signing import VerifyKey
from hauberk.crypto.x509 import BACKDATE, parse_svid
from hauberk.errors import HauberkError
from hauberk.identity.bundle import BundleSet, TrustBundle
from hauberk.identity.revocation import Revocations
from hauberk.identity.source import SvidSource, renew_at
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.runtime import Runtime

RETRY = 0.5  # seconds after a failed poll; doubled up to MAX_RETRY
MAX_RETRY = 5.0
STOP_SECONDS = 6.0  # a poll under way ends by then
_log = logging.getLogger("hauberk.agent")
_uniform = random.SystemRandom().uniform


class Follower:
    """The two threads.

    Args:
        runtime: what to keep fresh.
        source: its identity.
        remote: the authority; closed with this.
        feed_key: Ed25519 public key of the feed, 32 bytes.
        clock: time source.
    """

    def __init__(
        self, runtime: Runtime, source: SvidSource, remote: Remote, feed_key: bytes, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._runtime = runtime
        self._source = source
        self._remote = remote
        self._clock = clock
        self.state = FeedState(VerifyKey(feed_key), source.spiffe_id.trust_domain, clock=clock)
        self._error = ""  # why the last poll failed; empty once one succeeds
        self.ready = threading.Event()  # the first snapshot is in force
        self._stop = threading.Event()
        self._renew_now = threading.Event()
        self._apply: Mapping[str, Callable[[Resource], None]] = {
            POLICIES: self._policies,
            BUNDLES: self._bundles,
            REVOCATIONS: self._revocations,
            RENEWAL: self._renewal,
        }
        self._threads = [
            threading.Thread(target=self._follow, name="feed", daemon=True),
            threading.Thread(target=self._keep_identity, name="identity", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def _follow(self) -> None:
        pause = RETRY
        while not self._stop.is_set():
            try:
                changed = self.state.apply(self._remote.feed(self.state.after))
            except HauberkError as error:
                self._error = error.code
                self._stop.wait(pause)
                pause = min(MAX_RETRY, pause * 2)
                continue
            pause, self._error = RETRY, ""
            for resource in changed:
                self.take(resource)
            self._runtime.connections.close_retiring(self._source.current().roots)
            self.ready.set()

    def take(self, resource: Resource) -> None:
        """Put one resource in force; a name this version does not know is left alone."""
        apply = self._apply.get(resource.name)
        if apply is None:
            return
        try:
            apply(resource)
        except (HauberkError, msgspec.DecodeError) as error:
            code = error.code if isinstance(error, HauberkError) else "HBK-305"
            self._runtime.last_error = f"{resource.name}: {code}"
            _log.warning("%s number %d was not put in force: %s", resource.name, resource.number, code)

    def _policies(self, resource: Resource) -> None:
        body = msgspec.json.decode(resource.body, type=PolicyBody)
        policies = PolicySet.of(
            parse_documents(body.text, file="feed"),
            root_namespace=body.root_namespace,
            trust_domain=self._source.spiffe_id.trust_domain,
            aliases=body.aliases,
        )
        self._runtime.apply_policies(policies, resource.number)

    def _bundles(self, resource: Resource) -> None:
        body = msgspec.json.decode(resource.body, type=BundleBody)
        bundles = BundleSet(*(TrustBundle.of(domain, *roots) for domain, roots in body.roots.items()))
        if bundles != self._source.current().bundles:
            self._source.update(bundles=bundles)
            self._runtime.connections.close_untrusted(bundles.roots)

    def _revocations(self, resource: Resource) -> None:
        body = msgspec.json.decode(resource.body, type=RevocationBody)
        self._runtime.revoke(Revocations.of(body.ids, body.serials))

    def _renewal(self, resource: Resource) -> None:
        body = msgspec.json.decode(resource.body, type=RenewalBody)
        issued = self._source.current().svid.not_before + BACKDATE + 1  # certificates keep whole seconds
        if issued < body.issued_before and self.ready.is_set():
            self._renew_now.set()

    def _keep_identity(self) -> None:
        pause = 0.0  # after a failure: an order to renew stays good until it is carried out
        while not self._stop.is_set():
            due = renew_at(self._source.current().svid) - self._clock.time()
            self._renew_now.wait(pause or max(RETRY, due))
            self._renew_now.clear()
            if self._stop.is_set():
                return
            try:
                self.renew()
                pause = 0.0
            except HauberkError as error:
                self._runtime.last_error = f"renewal: {error.code}"
                _log.warning("the identity could not be renewed: %s", error.code)
                pause = _uniform(RETRY, MAX_RETRY)

    def renew(self) -> None:
        """Get a new certificate for a new key now; connections made with the old one end with the request they are at.

        Raises:
            HauberkError: what the authority refused, or HBK-902.
        """
        key, csr = new_request()
        grant = self._remote.renew(csr)
        self._source.update(key=key, svid=parse_svid(grant.chain))
        self._runtime.connections.close_older_than(0.0)

    def status(self) -> Mapping[str, object]:
        """Return number and age of the feed and why the last poll failed, as plain data."""
        return {"number": self.state.number, "age": round(self.state.age(), 3), "last_error": self._error}

    def close(self) -> None:
        """Stop both threads."""
        self._stop.set()
        self._renew_now.set()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(STOP_SECONDS)
        self._remote.close()  # not under a poll: the number of its socket could be somebody else's by then
