"""Who: never inferred from an address."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Kind(StrEnum):
    """What sort of principal this is."""

    WORKLOAD = "workload"
    USER = "user"
    LOCAL = "local"  # a process on this machine, known by kernel credentials
    ANONYMOUS = "anonymous"


class Proof(msgspec.Struct, frozen=True):
    """How a principal was proven.

    Args:
        method: `mtls`, `token`, `session`, `local` or `none`.
        detail: such as `{"serial": "4f..", "expires": 1790000000.0}`; never a secret.
    """

    method: str = "none"
    detail: Mapping[str, object] = _NOTHING


NO_PROOF = Proof()


class Principal(msgspec.Struct, frozen=True):
    """Who attempts something.

    Args:
        kind: workload, user, local or anonymous.
        id: `spiffe://td/ns/NS/sa/SA`, or `ISSUER/SUBJECT`, or `uid:1000`; empty when anonymous.
        claims: verified claims of a user; empty for a workload.
        proof: how it was proven.
        via: the actor chain, outermost first.
    """

    kind: Kind
    id: str = ""
    claims: Mapping[str, object] = _NOTHING
    proof: Proof = NO_PROOF
    via: "tuple[Principal, ...]" = ()


ANONYMOUS = Principal(Kind.ANONYMOUS)
