"""Ask an application for predictions, and report labels back."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from .errors import UnexpectedAnswer
from .http import MAX_IDLE_CONNECTIONS, HttpPool
from .wire_json import (
    Inputs,
    Prediction,
    batch_body,
    predict_body,
    raise_for_status,
    read_predictions,
    update_body,
)
from .wire_tensors import infer_body, infer_path, read_outputs

__all__ = ["Client", "Prediction"]

DEFAULT_QUERY_URL = "http://127.0.0.1:1337"
DEFAULT_TIMEOUT_SECONDS = 10.0


class Client:
    """A client of one query frontend. May be used from any number of threads.

    ``url`` may be ``https://`` and have a path, for a proxy that has them; ``tls`` says which
    certificates are trusted then. ``timeout`` is in seconds and bounds each wait for the network;
    the server itself answers within the application's latency objective, if need be with its
    default output. A server that asks for a key gets ``key``, or what the environment variable
    ``CLIPPER_KEY`` says.

    All methods raise ``AccessDenied``, ``UnknownApplication``, ``BadInput``, ``ModelError``, ``Overloaded``,
    ``ServerUnavailable``, ``PredictionTimeout`` or ``UnexpectedAnswer``.
    """

    def __init__(
        self,
        url: str = DEFAULT_QUERY_URL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_idle_connections: int = MAX_IDLE_CONNECTIONS,
        tls: ssl.SSLContext | None = None,
        key: str | None = None,
    ) -> None:
        self._pool = HttpPool(url, max_idle_connections, tls, key)
        self._timeout = timeout

    def predict(
        self,
        app: str,
        x: Any,
        version: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Predict one input: a 1-D array or list of numbers, a string, or bytes.

        ``version`` asks for one version of the application's model.
        """
        return self._ask(app, predict_body(x, version), 1, timeout)[0]

    def predict_batch(
        self,
        app: str,
        xs: Inputs,
        version: str | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Predict several inputs in one request; answers in input order.

        An input that the model answers with an error does not fail the others: see
        ``Prediction.error``.

        ``xs`` is a sequence of inputs, or a 2-D array with one input in each row.
        """
        if len(xs) == 0:
            return []
        return self._ask(app, batch_body(xs, version), len(xs), timeout)

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Ask an application or model over tensors: arrays by name in, arrays by name out.

        The first axis of every array is the rows. Arrays are sent and received as they are in
        memory; texts are arrays of ``str`` or ``bytes``, and come as ``bytes``. ``outputs`` names
        those that are wanted. A row that the model does not answer is an error of all.
        """
        body, headers = infer_body(inputs, outputs)
        path = infer_path(name, version)
        answer = self._pool.request("POST", path, body, self._seconds(timeout), headers)
        return read_outputs(answer)

    def update(
        self, app: str, uid: int, x: Any, label: float, timeout: float | None = None
    ) -> bool:
        """Report the true ``label`` of input ``x`` for user ``uid``.

        Returns whether the server took it in.
        """
        body = update_body(uid, x, label)
        path = f"/{quote(app, safe='')}/update"
        answer = self._pool.request("POST", path, body, self._seconds(timeout))
        raise_for_status(answer)
        return answer.text.strip().endswith("1")

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, app: str, body: bytes, count: int, timeout: float | None) -> list[Prediction]:
        path = f"/{quote(app, safe='')}/predict"
        answer = self._pool.request("POST", path, body, self._seconds(timeout))
        predictions = read_predictions(answer)
        if len(predictions) != count:
            raise UnexpectedAnswer(f"{len(predictions)} predictions for {count} inputs", 200)
        return predictions

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
