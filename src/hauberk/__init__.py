"""Hauberk: a security runtime for distributed Python systems.

The facade loads nothing until a name is used (PEP 562), so importing it costs well under a millisecond.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hauberk.agent import connect
    from hauberk.core.call import Call
    from hauberk.core.decision import Decision, Verdict
    from hauberk.core.event import Event
    from hauberk.core.principal import Principal
    from hauberk.errors import Denied, HauberkError
    from hauberk.integrations.asgi import protect
    from hauberk.integrations.httpx import async_client, client
    from hauberk.integrations.uvicorn import serve
    from hauberk.runtime import Runtime

__version__ = "0.1.0"

_HOME = {
    "Call": "hauberk.core.call",
    "Decision": "hauberk.core.decision",
    "Denied": "hauberk.errors",
    "Event": "hauberk.core.event",
    "HauberkError": "hauberk.errors",
    "Principal": "hauberk.core.principal",
    "Runtime": "hauberk.runtime",
    "Verdict": "hauberk.core.decision",
    "async_client": "hauberk.integrations.httpx",
    "client": "hauberk.integrations.httpx",
    "connect": "hauberk.agent",
    "protect": "hauberk.integrations.asgi",
    "serve": "hauberk.integrations.uvicorn",
}

__all__ = [
    "Call",
    "Decision",
    "Denied",
    "Event",
    "HauberkError",
    "Principal",
    "Runtime",
    "Verdict",
    "async_client",
    "client",
    "connect",
    "protect",
    "serve",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'hauberk' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # loaded on use: importing the facade must cost nothing

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
