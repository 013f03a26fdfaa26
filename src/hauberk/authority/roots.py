"""The authority's roots and their rotation without a dropped request.

Three steps, each durable before it is published and each taken up where it was after a restart:

* prepare: a new root joins the bundle behind the one that signs; everybody learns to trust it.
* activate: the new root signs from now on and stands first; the old key is destroyed, every workload renews.
* finish: the old root leaves the bundle; whatever still hangs on it is refused, and its connections are closed.

The first root of a domain's bundle is the one that signs. Services end connections of peers that another one vouches
for, gently, so that none is left at the last step. A root that is gone still verifies what was signed in its time and
waited in a spool; the sender of that proves who he is with a current certificate.

The state is one sealed file, replaced atomically: what signs, what is on its way in and the roots on their way out.
"""

from collections.abc import Mapping

import msgspec

from hauberk.adapters.state import StateDirectory
from hauberk.authority.audience import Audience
from hauberk.authority.publisher import Publisher
from hauberk.authority.registry import Registry
from hauberk.core.clock import Clock
from hauberk.core.feed import BUNDLES
from hauberk.crypto.keyring import Purpose
from hauberk.crypto.x509 import CertificateAuthority, fingerprint
from hauberk.errors import ConfigError, IdentityError
from hauberk.identity.bundle import BundleSet, TrustBundle

STEPS = {"prepare": "settled", "activate": "prepared", "finish": "activated"}  # each step and what comes before it
SETTLE = 6.0  # seconds; clients keep idle connections for five, and services look for old ones each second
MAX_GONE = 4  # roots that are gone and still verify old records; they are rotated far less often than spools empty
_SECRET = "ca"  # noqa: S105  # the name of a file


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed: the pair that signs, the next pair, the root before, and those before that, newest first."""

    key: bytes
    root: bytes
    next_key: bytes = b""
    next_root: bytes = b""
    old_root: bytes = b""
    gone: tuple[bytes, ...] = ()


class Roots:
    """The signer in force and whom to trust. Steps are taken under the authority's lock; readers need none.

    Args:
        state: where the sealed file is.
        trust_domain: whose roots these are.
        clock: time source.

    Raises:
        IdentityError: HBK-210 the file is missing, open to others, or of another trust domain or key.
    """

    def __init__(self, state: StateDirectory, trust_domain: str, *, clock: Clock) -> None:
        self._state = state
        self._domain = trust_domain
        self._clock = clock
        try:
            sealed = state.secret(_SECRET, Purpose.CA_KEY, lambda: msgspec.msgpack.encode(_Kept(*self._fresh())))
        except ConfigError as error:
            if error.code != "HBK-904":
                raise
            raise IdentityError(
                "HBK-210", "the CA key is of another trust domain or key", trust_domain=trust_domain
            ) from None
        self._take(msgspec.msgpack.decode(sealed, type=_Kept))

    def _fresh(self) -> tuple[bytes, bytes]:
        made = CertificateAuthority.create(self._domain, clock=self._clock)
        return made.key_der(), made.root_der

    def _take(self, kept: _Kept) -> None:
        roots = [root for root in (kept.root, kept.next_root, kept.old_root) if root]
        self._kept = kept
        self.bundles = BundleSet(TrustBundle.of(self._domain, *roots))
        self.for_records: Mapping[str, tuple[bytes, ...]] = {self._domain: (*roots, *kept.gone)}
        self.ca = CertificateAuthority.load(kept.key, kept.root)
        self.signer = fingerprint(kept.root)

    def _keep(self, kept: _Kept) -> None:
        """Replace the file, durably, then use what is in it."""
        self._state.replace_secret(_SECRET, Purpose.CA_KEY, msgspec.msgpack.encode(kept))
        self._take(kept)

    @property
    def step(self) -> str:
        """`settled`, `prepared` or `activated`: the last step taken."""
        return "prepared" if self._kept.next_key else "activated" if self._kept.old_root else "settled"

    def expect(self, step: str) -> None:
        """Return if `step` is the next one: `prepare`, `activate` or `finish`.

        Raises:
            ConfigError: HBK-906 it is not.
        """
        if self.step != STEPS.get(step):
            raise ConfigError("HBK-906", "not the next step of a root rotation", step=step[:20], state=self.step)

    def prepare(self) -> None:
        """Make the next root and trust it too."""
        self.expect("prepare")
        key, root = self._fresh()
        self._keep(msgspec.structs.replace(self._kept, next_key=key, next_root=root))

    def activate(self) -> None:
        """Sign with the next root; the key of the old one is gone with this."""
        self.expect("activate")
        kept = self._kept
        self._keep(_Kept(kept.next_key, kept.next_root, old_root=kept.root, gone=kept.gone))

    def finish(self) -> None:
        """Trust the old root no more."""
        self.expect("finish")
        kept = self._kept
        self._keep(_Kept(kept.key, kept.root, gone=(kept.old_root, *kept.gone)[:MAX_GONE]))


def check_ready(
    step: str, roots: Roots, audience: Audience, registry: Registry, publisher: Publisher, *, now: float
) -> None:
    """Return if nobody who follows the feed is cut off by this step.

    Raises:
        ConfigError: HBK-906 somebody does not trust the new root yet, or hangs on the old one still.
    """
    bundles = publisher.get(BUNDLES)
    if step == "activate" and bundles is not None:
        behind = {line.spiffe_id for line in audience.present() if line.number < bundles.number}
        if behind:
            raise ConfigError("HBK-906", "not everybody has the new root yet", waiting=sorted(behind))
    if step == "finish":
        svids = list(registry.svids())
        old = {svid.serial for svid in svids if svid.root != roots.signer}
        renewed = {svid.parent: svid.issued for svid in svids if svid.parent in old}
        behind = {line.spiffe_id for line in audience.present() if line.serial in old - renewed.keys()}
        if behind:
            raise ConfigError("HBK-906", "not everybody has renewed yet", waiting=sorted(behind))
        seconds = max(renewed.values(), default=0.0) + SETTLE - now
        if seconds > 0:
            raise ConfigError("HBK-906", "connections made before the last renewal are ending", seconds=seconds)
