"""Serve Python models through a Clipper server, call it, and manage it.

Container side: ``serve``, ``container``, ``metrics``, ``loaders``.
Client side: ``Client``, ``AsyncClient``, ``Admin``, ``Prediction`` and the typed errors.
"""

from . import loaders, metrics
from .admin import Admin
from .aio import AsyncClient
from .client import Client, Prediction
from .errors import (
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

__version__ = "0.1.0"

__all__ = [
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
    "UnexpectedAnswer",
    "UnknownApplication",
    "container",
    "loaders",
    "metrics",
    "serve",
]
