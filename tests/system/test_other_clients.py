"""What KServe's and MLServer's Python clients put on the wire, byte by byte.

Their packages bring web frameworks and gigabytes of dependencies, so the requests stand here as
``kserve.InferenceRESTClient`` 0.21 and ``mlserver.types.InferenceRequest`` 1.7 write them.
"""

from __future__ import annotations

import json
import struct
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from harness import Server

KSERVE_INFER = {
    "id": "0f3c3bd8-4d36-4e0c-9bd3-6a2c0f7b5c11",
    "model_name": "doubles",
    "inputs": [
        {"name": "input", "shape": [2, 2], "datatype": "FP64", "data": [1.5, 2.0, 3.0, 4.0]}
    ],
    "outputs": [{"name": "output"}],
}

MLSERVER_INFER = {
    "id": "one",
    "parameters": {"content_type": "np", "headers": {"x-user": "1"}},
    "inputs": [
        {
            "name": "input",
            "shape": [2, 2],
            "datatype": "FP64",
            "parameters": {"content_type": "np"},
            "data": [[1.5, 2.0], [3.0, 4.0]],
        }
    ],
}


def ask(served: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    sent = {"content-type": "application/json", "accept": "*/*"}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    request = urllib.request.Request(f"{served.query}{path}", body, sent)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_kserve_infers(every_type: Server) -> None:
    status, body = ask(every_type, "/v2/models/doubles/infer", json.dumps(KSERVE_INFER).encode())
    assert status == 200 and body["id"] == KSERVE_INFER["id"], body
    assert body["model_name"] == "doubles"
    # InferOutput takes these members by name.
    (output,) = body["outputs"]
    assert {"name", "shape", "datatype", "data"} <= set(output)
    assert (output["name"], output["shape"], output["data"]) == ("output", [2, 1], ["3.5", "7.0"])


def test_kserve_infers_in_binary(every_type: Server) -> None:
    tensor = np.array([[1.5, 2.0]]).tobytes()
    asked = {
        "id": "b",
        "model_name": "doubles",
        "inputs": [
            {
                "name": "input",
                "shape": [1, 2],
                "datatype": "FP64",
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "parameters": {"binary_data_output": False},
    }
    head = json.dumps(asked).encode()
    status, body = ask(
        every_type,
        "/v2/models/doubles/infer",
        head + tensor,
        content_type="application/octet-stream",
        inference_header_content_length=str(len(head)),
    )
    assert status == 200 and body["outputs"][0]["data"] == ["3.5"], body
    texts = struct.pack("<I", 2) + b"ab"
    asked["inputs"] = [
        {
            "name": "input",
            "shape": [1, 1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(texts)},
        }
    ]
    head = json.dumps(asked).encode()
    status, body = ask(
        every_type,
        "/v2/models/strings/infer",
        head + texts,
        content_type="application/octet-stream",
        inference_header_content_length=str(len(head)),
    )
    assert status == 200 and body["outputs"][0]["data"] == ["AB"], body


def test_kserve_asks_after_health(every_type: Server) -> None:
    # is_server_live, is_server_ready and is_model_ready read these members of the answer.
    assert ask(every_type, "/v2/health/live") == (200, {"live": True})
    status, body = ask(every_type, "/v2/health/ready")
    assert status == 200 and body["ready"] is True
    status, body = ask(every_type, "/v2/models/doubles/ready")
    assert (status, body["name"], body["ready"]) == (200, "doubles", True)
    status, body = ask(every_type, "/v2/models/nobody/ready")
    assert status != 200
    status, body = ask(every_type, "/v2/models")
    assert status == 200 and "doubles" in json.dumps(body)


def test_mlserver_infers(every_type: Server) -> None:
    body = json.dumps(MLSERVER_INFER).encode()
    for path in ("/v2/models/doubles/infer", "/v2/models/doubles/versions/1/infer"):
        status, answer = ask(every_type, path, body)
        assert status == 200, answer
        # The members that InferenceResponse requires.
        assert {"model_name", "id", "outputs"} <= set(answer)
        assert (answer["id"], answer["outputs"][0]["data"]) == ("one", ["3.5", "7.0"])
    texts = {
        "inputs": [
            {
                "name": "input",
                "shape": [2, 1],
                "datatype": "BYTES",
                "parameters": {"content_type": "str"},
                "data": ["ab", "c"],
            }
        ]
    }
    status, answer = ask(every_type, "/v2/models/strings/infer", json.dumps(texts).encode())
    assert status == 200 and answer["outputs"][0]["data"] == ["AB", "C"], answer


def test_mlserver_asks_for_metadata(every_type: Server) -> None:
    status, answer = ask(every_type, "/v2")
    assert status == 200 and {"name", "version", "extensions"} <= set(answer)
    status, answer = ask(every_type, "/v2/models/doubles")
    assert status == 200 and {"name", "platform", "inputs", "outputs"} <= set(answer)
    status, answer = ask(every_type, "/v2/repository/index", b"{}")
    assert status == 200 and {"name", "state"} <= set(answer[0])
