"""Two services of a small shop, and an intruder."""
