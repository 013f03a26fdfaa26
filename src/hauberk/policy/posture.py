"""What the policies in force leave open, in the words `hauberk status` shows beside the dangerous settings."""

from collections.abc import Iterator

from hauberk.policy.model import Action, AuthorizationPolicy, PeerAuthentication
from hauberk.policy.set import PolicySet

_WEAK = frozenset({"PERMISSIVE", "DISABLE"})


def weakened(policies: PolicySet) -> tuple[str, ...]:
    """Return one line for each way in which the set is weaker than the default one."""
    return tuple(_lines(policies))


def _lines(policies: PolicySet) -> Iterator[str]:
    root = policies.root_namespace
    if not any(_denies(it, root) for it in policies.documents if isinstance(it, AuthorizationPolicy)):
        yield "policy: no default deny"
    peers = [it for it in policies.documents if isinstance(it, PeerAuthentication)]
    # Of several in one scope the first counts; where nothing is said anywhere, plaintext is taken.
    modes = [it.mode for it in peers if it.namespace == root and not it.selector]
    if modes[:1] in ([], ["UNSET"]):
        yield "policy: no default mutual TLS"
    for it in peers:
        named = f"policy: PeerAuthentication {it.namespace}/{it.name}"
        if it.mode in _WEAK:
            yield f"{named} {it.mode}"
        yield from (f"{named} port {port} {mode}" for port, mode in sorted(it.ports.items()) if mode in _WEAK)


def _denies(policy: AuthorizationPolicy, root: str) -> bool:
    """Tell whether it is allow-nothing for every workload, by whatever name: what no rule allows is then denied."""
    everywhere = policy.namespace == root and not policy.selector and not policy.target_refs
    return everywhere and policy.action is Action.ALLOW and not policy.rules and not policy.dry_run
