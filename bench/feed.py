"""From `policy apply` to enforced at a service: how long a denied call stays denied after the push that allows it."""

import time

from bench.harness import Progress, Row, at_most, percentile
from bench.mesh import POLICY, Mesh
from hauberk.core.call import Call, Workload
from hauberk.core.decision import Verdict
from hauberk.core.principal import Kind, Principal

PUSHES = 100
PATIENCE = 5.0
OPEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bench, namespace: production}
spec:
  selector: {matchLabels: {app: payment-service}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/production/sa/order-service]}}]
    to: [{operation: {paths: [/bench/NUMBER]}}]
"""


def run(progress: Progress) -> list[Row]:
    """Push a hundred policies, each of which allows another path."""
    with Mesh() as mesh:
        service = mesh.join("payment-service")
        peer = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/production/sa/order-service")
        target = Workload("production", "payment-service", {"app": "payment-service"})
        from_push, from_answer = [], []
        progress(f"{PUSHES} pushes")
        for number in range(PUSHES):
            call = Call(peer=peer, method="GET", path=f"/bench/{number}", target=target)
            text = POLICY.read_text("utf-8") + "---" + OPEN.replace("NUMBER", str(number))
            pushed = time.perf_counter()
            mesh.apply(text)
            answered = time.perf_counter()
            until = answered + PATIENCE
            while service.decide(call).verdict is not Verdict.ALLOW:
                if time.perf_counter() > until:
                    raise RuntimeError("a push never arrived")
                time.sleep(0.0005)
            enforced = time.perf_counter()
            from_push.append((enforced - pushed) * 1000)
            from_answer.append((enforced - answered) * 1000)
        service.close()
    return [
        at_most(
            "feed.enforced.p99", percentile(from_push, 0.99), 50, "ms", "from sending the push; 5 policies in force"
        ),
        Row("feed.enforced.p50", percentile(from_push, 0.5), "ms", note="from sending the push"),
        Row("feed.answered.p99", percentile(from_answer, 0.99), "ms", note="from the answer to the push"),
    ]
