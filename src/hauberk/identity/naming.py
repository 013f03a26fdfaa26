"""Short names of services, as people write them in code."""

from hauberk.core.spiffe import SpiffeId
from hauberk.errors import IdentityError


def resolve(to: str | SpiffeId, own: SpiffeId) -> SpiffeId:
    """Return the id that `to` means for a caller whose own id is `own`. No lookup is made: a name is an id.

    Args:
        to: `payment-service` (own namespace), `billing/payment-service` (own trust domain), a full `spiffe://` id, or
            a parsed one.
        own: the caller's id.

    Raises:
        IdentityError: HBK-201 none of these, or the caller has no namespace to look in.
    """
    if isinstance(to, SpiffeId):
        return to
    if to.startswith("spiffe:"):
        return SpiffeId.parse(to)
    namespace, slash, account = to.rpartition("/")
    home = namespace if slash else own.namespace
    if not home or not account:
        raise IdentityError("HBK-201", "not a service name", name=to[:80])
    return SpiffeId.service(own.trust_domain, home, account)
