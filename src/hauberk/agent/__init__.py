"""The service's side of a mesh: identity, feed and records through the authority."""

from hauberk.agent.connect import connect

__all__ = ["connect"]
