"""A small application written for the `eventsourcing` library; see `clinic`."""
