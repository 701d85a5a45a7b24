"""MLServer's own types and codecs, unmodified; run by ``test_other_clients.py`` in an environment
of theirs. Its users post what these write and read the answer with them.

    python mlserver_client.py http://QUERY_ADDR
"""

from __future__ import annotations

import sys

import httpx
import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RequestOutput,
)

ROWS = np.array([[1.5, 2.0], [3.0, 4.0]])


def main(url: str) -> None:
    client = httpx.Client(base_url=url, timeout=60)

    def infer(path: str, request: InferenceRequest) -> InferenceResponse:
        headers = {"content-type": "application/json"}
        body = request.model_dump_json(exclude_none=True)
        answer = client.post(path, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return InferenceResponse.model_validate(answer.json())

    def texts(answer: InferenceResponse) -> list[str]:
        (output,) = answer.outputs
        assert (output.name, output.datatype, output.shape) == ("output", "BYTES", [2, 1])
        return StringCodec.decode_output(output)

    for ready in ("/v2/health/live", "/v2/health/ready", "/v2/models/doubles/ready"):
        assert client.get(ready).status_code == 200, ready
    for path in ("/v2/models/doubles/infer", "/v2/models/doubles/versions/1/infer"):
        asked = InferenceRequest(
            id="one",
            inputs=[NumpyCodec.encode_input("input", ROWS)],
            outputs=[RequestOutput(name="output")],
        )
        answer = infer(path, asked)
        assert (answer.id, answer.model_name, answer.model_version) == ("one", "doubles", "1")
        assert texts(answer) == ["3.5", "7.0"]
    # Whole requests by codecs, which name their inputs themselves.
    whole = NumpyRequestCodec.encode_request(ROWS)
    whole.inputs[0].name = "input"
    assert texts(infer("/v2/models/doubles/infer", whole)) == ["3.5", "7.0"]
    frame = PandasCodec.encode_request(pd.DataFrame({"input": ["ab", "c"]}))
    assert texts(infer("/v2/models/strings/infer", frame)) == ["AB", "C"]
    words = InferenceRequest(inputs=[StringCodec.encode_input("input", ["ab", "c"])])
    assert texts(infer("/v2/models/strings/infer", words)) == ["AB", "C"]

    MetadataServerResponse.model_validate(client.get("/v2").json())
    model = MetadataModelResponse.model_validate(client.get("/v2/models/doubles").json())
    assert model.inputs and model.inputs[0].name == "input"
    index = RepositoryIndexRequest().model_dump(exclude_none=True)
    rows = client.post("/v2/repository/index", json=index).json()
    found = RepositoryIndexResponse.model_validate(rows)
    assert "doubles" in {row.name for row in found.root}
    print("mlserver", len(found.root))


main(*sys.argv[1:])
