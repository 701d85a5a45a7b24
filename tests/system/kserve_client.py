"""KServe's own clients, unmodified; run by ``test_other_clients.py`` in an environment of theirs.

    python kserve_client.py http://QUERY_ADDR GRPC_ADDR
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.array([[1.5, 2.0], [3.0, 4.0]])


def request(name: str, array: np.ndarray, datatype: str, binary: bool, **more: Any) -> InferRequest:
    given = InferInput("input", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(name, [given], request_id="one", **more)


def texts(answer: InferResponse) -> list[str]:
    assert answer.id == "one", answer.id
    (output,) = answer.outputs
    assert (output.name, output.datatype) == ("output", "BYTES")
    assert output.shape == [2, 1], output.shape
    found = output.as_numpy().reshape(-1)
    return [x.decode() if isinstance(x, bytes) else str(x) for x in found]


def asked_for() -> list[Any]:
    """The same over both protocols: a request, and what is answered."""
    words = np.array([["ab"], ["cé"]], dtype=np.object_)
    outputs = [RequestedOutput("output")]
    found: list[Any] = []
    for name in ("doubles", "app-doubles"):
        for binary in (False, True):
            found.append((request(name, ROWS, "FP64", binary), ["3.5", "7.0"]))
    found.append((request("doubles", ROWS, "FP64", True, request_outputs=outputs), ["3.5", "7.0"]))
    found.append((request("strings", words, "BYTES", True), ["AB", "CÉ"]))
    return found


async def over_rest(url: str) -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
        assert await client.is_server_live(url) is True
        assert await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, "doubles") is True
        assert await client.is_model_ready(url, "app-doubles") is True
        assert await client.is_model_ready(url, "nobody") is False
        for asked, expected in asked_for():
            answer = await client.infer(url, asked, model_name=asked.model_name)
            assert (answer.model_name, texts(answer)) == (asked.model_name, expected)
        wrong = request("doubles", ROWS.reshape(4), "FP64", False)
        wrong.inputs[0].shape = [3, 3]
        for name, why in (("doubles", "shape"), ("none", "none")):
            try:
                await client.infer(url, wrong, model_name=name)
            except httpx.HTTPStatusError as error:
                assert why in str(error), error
                assert error.response.status_code in (400, 404), error
            else:
                raise AssertionError(name)


async def over_grpc(addr: str) -> None:
    async with InferenceGRPCClient(addr) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("doubles")
        assert not await client.is_model_ready("nobody")
        for asked, expected in asked_for():
            answer = await client.infer(asked)
            assert (answer.model_name, texts(answer)) == (asked.model_name, expected)
        try:
            await client.infer(request("none", ROWS, "FP64", True))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error
        else:
            raise AssertionError("a model that is not there")


async def main(url: str, addr: str) -> None:
    await over_rest(url)
    await over_grpc(addr)
    print("kserve", len(asked_for()))


asyncio.run(main(*sys.argv[1:]))
