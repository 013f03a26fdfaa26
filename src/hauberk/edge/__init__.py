"""Is the input sane."""
