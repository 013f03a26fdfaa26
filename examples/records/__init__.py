"""A shop that records orders, and forgets a customer."""
