"""A policy set: documents, their digest and their canonical text. Immutable; a change makes another set."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256

import msgspec
import yaml

from hauberk.policy.model import Action, AuthorizationPolicy, Document, PeerAuthentication, Place, to_data

ROOT_NAMESPACE = "hauberk-system"
BUILT_IN = Place("built in", 0)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class PolicySet:
    """Documents and what they are resolved against. Use `of` or `default`.

    Args:
        documents: in the order in which they came; of two PeerAuthentications of one scope the first wins.
        root_namespace: whose policies apply to every workload.
        trust_domain: the local one, which `cluster.local` in a policy means.
        aliases: other names of it that peers may have.
    """

    def __init__(
        self, documents: Sequence[Document], *, root_namespace: str, trust_domain: str, aliases: Sequence[str]
    ) -> None:
        self.documents = tuple(documents)
        self.root_namespace = root_namespace
        self.trust_domain = trust_domain
        self.aliases = tuple(aliases)

    @classmethod
    def of(
        cls,
        documents: Iterable[Document],
        *,
        root_namespace: str = ROOT_NAMESPACE,
        trust_domain: str = "example.org",
        aliases: Sequence[str] = (),
    ) -> "PolicySet":
        """Return a set of exactly these documents; of several with one kind, namespace and name the last counts."""
        named = {(it.kind, it.namespace, it.name): it for it in documents}
        return cls(tuple(named.values()), root_namespace=root_namespace, trust_domain=trust_domain, aliases=aliases)

    @classmethod
    def default(
        cls, *, root_namespace: str = ROOT_NAMESPACE, trust_domain: str = "example.org", aliases: Sequence[str] = ()
    ) -> "PolicySet":
        """Return Istio's own allow-nothing policy and a STRICT PeerAuthentication, both for the whole mesh."""
        documents = (
            AuthorizationPolicy(namespace=root_namespace, name="allow-nothing", action=Action.ALLOW, place=BUILT_IN),
            PeerAuthentication(namespace=root_namespace, name="default", mode="STRICT", place=BUILT_IN),
        )
        return cls.of(documents, root_namespace=root_namespace, trust_domain=trust_domain, aliases=aliases)

    def with_documents(self, documents: Iterable[Document]) -> "PolicySet":
        """Return a set with these too; one of the same kind, namespace and name is replaced where it stands."""
        return PolicySet.of(
            (*self.documents, *documents),
            root_namespace=self.root_namespace,
            trust_domain=self.trust_domain,
            aliases=self.aliases,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex of the content: documents in canonical form, and what they are resolved against.

        How a document is written (its file, comments, API version, order of fields, defaults spelled out) does not
        count. The order of the documents does: the first of two PeerAuthentications of one scope wins, and the first of
        two rules that match is the one a decision names, so that an equal digest means equal decisions, rule and all.
        """
        content = [
            [to_data(document) for document in self.documents],
            self.root_namespace,
            self.trust_domain,
            list(self.aliases),
        ]
        return sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()

    def export(self) -> str:
        """Return the documents as YAML; parsing it gives the same set."""
        return yaml.dump_all(
            [to_data(document) for document in self.documents], Dumper=_Dumper, sort_keys=False, width=120
        )

    def __repr__(self) -> str:
        return f"PolicySet({len(self.documents)} documents, {self.digest[:12]})"
