"""The policies in force: validated, linted, numbered, kept. A push is taken whole or refused whole."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec

from hauberk.authority.publisher import Publisher
from hauberk.core.call import Workload
from hauberk.core.config import Config
from hauberk.core.feed import POLICIES, PolicyBody, Resource
from hauberk.core.finding import Finding, Severity
from hauberk.errors import PolicyError
from hauberk.policy.lint import lint
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet

MAX_BYTES = 16 * 1024 * 1024


class Applied(msgspec.Struct, frozen=True):
    """The outcome of a push.

    Args:
        revision: the feed's number from now on.
        digest: of the policy set.
        findings: what lint noticed.
    """

    revision: int
    digest: str
    findings: tuple[Finding, ...]


class PolicyBook:
    """What `hauberk policy apply` writes to. Thread-safe.

    Args:
        publisher: where policies are published.
        config: trust domain, root namespace, aliases.
        lock: of everything that publishes, so that the number a change is recorded under is the one it gets.
    """

    def __init__(self, publisher: Publisher, config: Config, lock: AbstractContextManager[object]) -> None:
        self._publisher = publisher
        self._config = config
        self._lock = lock
        self._known: tuple[Resource, PolicySet] | None = None  # parsing ten thousand rules takes a second
        if publisher.get(POLICIES) is None:
            self._publish(self._default())

    def _default(self) -> PolicySet:
        return PolicySet.default(
            root_namespace=self._config.policy.root_namespace,
            trust_domain=self._config.trust_domain,
            aliases=self._config.policy.aliases,
        )

    @property
    def revision(self) -> int:
        """The feed's number of the set in force, which decisions name."""
        resource = self._publisher.get(POLICIES)
        return 0 if resource is None else resource.number

    def current(self) -> PolicySet:
        """Return the set in force."""
        resource = self._publisher.get(POLICIES)
        if resource is None:
            return self._default()
        known = self._known
        if known is None or known[0] is not resource:
            self._known = known = (resource, self._parsed(resource))
        return known[1]

    def _parsed(self, resource: Resource) -> PolicySet:
        body = msgspec.json.decode(resource.body, type=PolicyBody)
        return PolicySet.of(
            parse_documents(body.text, file="policies in force"),
            root_namespace=body.root_namespace,
            trust_domain=self._config.trust_domain,
            aliases=body.aliases,
        )

    def _publish(self, policies: PolicySet) -> int:
        body = PolicyBody(policies.export(), self._config.policy.root_namespace, self._config.policy.aliases)
        return self._publisher.put(POLICIES, body)

    def apply(
        self,
        files: Sequence[tuple[str, str]],
        workloads: Sequence[Workload],
        *,
        force: bool,
        replace: bool,
        record: Callable[[Applied], object],
    ) -> Applied:
        """Put documents in force, beside those that are, or with `replace` instead of them.

        Args:
            files: name and text of each.
            workloads: who is registered, for lint.
            force: take documents that lint calls an error.
            replace: forget every other document but the default ones.
            record: called with what is about to be in force; when it raises, nothing changes.

        Raises:
            PolicyError: HBK-301, HBK-302 not valid; HBK-303 lint errors, `context["findings"]`. Nothing changes.
        """
        if sum(len(text) for _, text in files) > MAX_BYTES:
            raise PolicyError("HBK-301", "too large", bytes=MAX_BYTES)
        documents = [document for name, text in files for document in parse_documents(text, file=name)]
        findings = lint(documents, workloads=workloads)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        if errors and not force:
            raise PolicyError("HBK-303", errors[0].message, findings=findings)
        with self._lock:
            policies = (self._default() if replace else self.current()).with_documents(documents)
            return self._put(policies, tuple(findings), record)

    def _put(self, policies: PolicySet, findings: tuple[Finding, ...], record: Callable[[Applied], object]) -> Applied:
        applied = Applied(self._publisher.number + 1, policies.digest, findings)
        record(applied)
        self._publish(policies)
        return applied

    def remove(self, kind: str, namespace: str, name: str, *, record: Callable[[Applied], object]) -> Applied:
        """Take one document out of force; `record` as in `apply`.

        Raises:
            PolicyError: HBK-301 there is none.
        """
        with self._lock:
            policies = self.current()
            kept = [it for it in policies.documents if (it.kind, it.namespace, it.name) != (kind, namespace, name)]
            if len(kept) == len(policies.documents):
                raise PolicyError("HBK-301", "no such policy", kind=kind, name=f"{namespace}/{name}"[:200])
            left = PolicySet.of(
                kept,
                root_namespace=self._config.policy.root_namespace,
                trust_domain=self._config.trust_domain,
                aliases=self._config.policy.aliases,
            )
            return self._put(left, (), record)
