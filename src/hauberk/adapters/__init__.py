"""Engines behind the ports of core."""
