"""``Client`` for asyncio programs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Callable, TypeVar

from .client import DEFAULT_QUERY_URL, DEFAULT_TIMEOUT_SECONDS, Client, Prediction
from .wire_json import Inputs

T = TypeVar("T")

DEFAULT_CONCURRENCY = 32


class AsyncClient:
    """The methods of ``Client`` as coroutines, with the same arguments and errors.

    Requests run on ``concurrency`` threads of its own, each with a kept connection; further
    ones wait for a free thread. A cancelled call returns at once, its request runs out.
    """

    def __init__(
        self,
        url: str = DEFAULT_QUERY_URL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        concurrency: int = DEFAULT_CONCURRENCY,
        tls: ssl.SSLContext | None = None,
        key: str | None = None,
    ) -> None:
        self._client = Client(url, timeout, max_idle_connections=concurrency, tls=tls, key=key)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="clipper-client")

    async def predict(
        self,
        app: str,
        x: Any,
        version: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Predict one input."""
        return await self._call(partial(self._client.predict, app, x, version, timeout))

    async def predict_batch(
        self,
        app: str,
        xs: Inputs,
        version: str | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Predict several inputs in one request."""
        return await self._call(partial(self._client.predict_batch, app, xs, version, timeout))

    async def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Ask an application or model over tensors."""
        ask = partial(self._client.infer, name, inputs, outputs, version, timeout)
        return await self._call(ask)

    async def update(
        self, app: str, uid: int, x: Any, label: float, timeout: float | None = None
    ) -> bool:
        """Report the true label of an input."""
        return await self._call(partial(self._client.update, app, uid, x, label, timeout))

    async def close(self) -> None:
        """Wait for running requests and close the connections."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.shutdown)
        self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)
