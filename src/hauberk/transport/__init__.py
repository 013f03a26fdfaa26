"""The wire is encrypted and mutual."""
