"""A bank account as `eventsourcing` writes them, for the benches that run that library."""

from decimal import Decimal

from eventsourcing.domain import Aggregate, event


class Account(Aggregate):
    """Somebody's balance."""

    @event("Opened")
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = Decimal(0)

    @event("Deposited")
    def deposit(self, amount: Decimal) -> None:
        """Add to the balance."""
        self.balance += amount
