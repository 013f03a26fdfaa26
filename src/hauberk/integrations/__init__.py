"""Thin glue to servers, frameworks and clients."""
