"""What happened is provable."""
