"""The errors that this package raises, all below ``ClipperError``."""

from __future__ import annotations


class ClipperError(Exception):
    """Anything that went wrong while serving, predicting or managing.

    ``status`` is the HTTP status of the server's answer, ``None`` when there was no answer.
    """

    def __init__(self, msg: str, status: int | None = None) -> None:
        super().__init__(msg)
        self.msg = msg
        self.status = status


ClipperException = ClipperError
"""The name that programs written for ``clipper_admin`` catch."""


class BadInput(ClipperError):
    """The server, or this package before sending, refused the input (HTTP 400, 413)."""


class AccessDenied(ClipperError):
    """The server asks for a key (HTTP 401), or the key's role may not do that (HTTP 403)."""


class UnknownApplication(ClipperError):
    """No application of that name is served (HTTP 404)."""


class ModelError(ClipperError):
    """The model answered this input with an error (HTTP 422); ``msg`` is the model's.

    Raised where the application passes errors of its model on; by default they arrive as the
    default output's explanation.
    """


class Overloaded(ClipperError):
    """The server is at one of its limits (HTTP 429).

    ``retry_after`` is the server's advice in seconds, if it gave one.
    """

    def __init__(
        self, msg: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(msg, status)
        self.retry_after = retry_after


class ServerUnavailable(ClipperError):
    """The server cannot be reached, closed the connection, or says so itself (HTTP 503).

    ``retry_after`` is the server's advice in seconds, if it gave one.
    """

    def __init__(
        self, msg: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(msg, status)
        self.retry_after = retry_after


class PredictionTimeout(ClipperError):
    """No answer came within the client's own timeout."""


class UnexpectedAnswer(ClipperError):
    """The answer is none that a Clipper server gives."""


class AdminError(ClipperError):
    """The management side refused a command; ``msg`` carries its reason."""


class ConfigurationError(ClipperError):
    """A setting of the container is missing or has a value that cannot be used."""


class ModelLoadError(ClipperError):
    """A model file or predict function could not be loaded."""


class ProtocolError(ClipperError):
    """A message on the RPC connection does not follow the protocol."""
