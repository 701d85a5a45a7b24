"""Serve Python models through a Clipper server, call it, and manage it.

Container side: ``serve``, ``container``, ``metrics``, ``loaders``, ``current_trace``.
Client side: ``Client``, ``AsyncClient``, ``Admin``, ``Prediction`` and the typed errors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import loaders, metrics
    from .admin import Admin
    from .aio import AsyncClient
    from .client import Client, Prediction
    from .errors import (
        AccessDenied,
        AdminError,
        BadInput,
        ClipperError,
        ClipperException,
        ConfigurationError,
        ModelError,
        ModelLoadError,
        Overloaded,
        PredictionTimeout,
        ProtocolError,
        ServerUnavailable,
        UnexpectedAnswer,
        UnknownApplication,
    )
    from .input_types import InputType
    from .serving import Container, container, serve
    from .stopping import StopSignal
    from .streaming import streams
    from .traces import Trace, current_trace, current_traces

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Admin",
    "AdminError",
    "AsyncClient",
    "BadInput",
    "Client",
    "ClipperError",
    "ClipperException",
    "ConfigurationError",
    "Container",
    "InputType",
    "ModelError",
    "ModelLoadError",
    "Overloaded",
    "Prediction",
    "PredictionTimeout",
    "ProtocolError",
    "ServerUnavailable",
    "StopSignal",
    "Trace",
    "UnexpectedAnswer",
    "UnknownApplication",
    "container",
    "current_trace",
    "current_traces",
    "loaders",
    "metrics",
    "serve",
    "streams",
]

_MODULES = {
    "admin": ["Admin"],
    "aio": ["AsyncClient"],
    "client": ["Client", "Prediction"],
    "input_types": ["InputType"],
    "serving": ["Container", "container", "serve"],
    "stopping": ["StopSignal"],
    "streaming": ["streams"],
    "traces": ["Trace", "current_trace", "current_traces"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a container starts without the client's modules."""
    if name in ("loaders", "metrics"):
        return importlib.import_module(f".{name}", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f".{_HOMES.get(name, 'errors')}", __name__)
    found = globals()[name] = getattr(home, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
