"""Events that are sealed, signed and provable, and a customer who is forgotten. Run this file."""

import hauberk
from hauberk.core.principal import Kind, Principal
from hauberk.records import Event, Pii, Subject


class OrderPlaced(Event, type="shop.order.placed.v1"):
    order_id: str
    customer: Subject  # whose data it is
    email: Pii[str]  # sealed under that customer's key
    total: int


runtime = hauberk.Runtime.embedded(".orders", policies="examples/records/policy.yaml")
shop, reports = (Principal(Kind.WORKLOAD, f"spiffe://example.org/ns/default/sa/{name}") for name in ("shop", "reports"))
order = f"order-{runtime.events.size}"  # another one each time this is run
placed = OrderPlaced(order_id=order, customer="cust-9", email="ann@example.org", total=3)
runtime.events.append(order, [placed], actor=shop).result()  # durable and under a signed checkpoint
for reader in (shop, reports):
    print(*(type(item.event.email).__name__ for item in runtime.events.read(order, actor=reader)))
runtime.events.erase("cust-9", actor=shop, reason="Art. 17 GDPR").result()
print(*(type(item.event.email).__name__ for item in runtime.events.read(order, actor=shop)))
runtime.close()
