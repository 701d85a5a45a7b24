"""Answers in pieces as Triton's own client, unmodified, gets them: many for one request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip("tritonclient.grpc")
aio = pytest.importorskip("tritonclient.grpc.aio")

from every_type import application, is_ready  # noqa: E402
from harness import Server, container, server, until  # noqa: E402

SOURCE = """
import os

closed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "closed")

def predict(text):
    try:
        n = 0
        while text == "endless" or n < int(text):
            if n == 13:
                raise ValueError("unlucky")
            yield f" {n}"
            n += text != "endless"
    finally:
        with open(closed, "a") as file:
            file.write("x")
"""


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder: Path = tmp_path_factory.mktemp("streams")
    config = (
        application("app", "chat", "strings")
        + '[[model]]\nname = "chat"\nversion = "1"\ninput_type = "strings"\n'
    )
    variables = {"CLIPPER_INPUT_TYPE": "strings", "CLIPPER_STREAMS": "4"}
    with (
        server(folder, config) as running,
        container(running, folder, "chat", SOURCE, **variables),
    ):
        until("chat is ready", lambda: is_ready(running, "chat"))
        yield running, folder


def text(value: str) -> list[Any]:
    given = triton.InferInput("input", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[value.encode()]], dtype=object))
    return [given]


Answers = queue.Queue[tuple[Any, Any]]


def started(client: Any) -> Answers:
    answers: Answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    return answers


def test_one_request_has_many_answers(streaming: tuple[Server, Path]) -> None:
    with triton.InferenceServerClient(streaming[0].grpc) as client:
        answers = started(client)
        for name in ("app", "chat"):
            client.async_stream_infer(
                name, text("3"), request_id=name, enable_empty_final_response=True
            )
            told = []
            while True:
                result, error = answers.get(timeout=60)
                assert error is None
                answer = result.get_response()
                assert answer.id == name and answer.model_name == name
                if answer.parameters["triton_final_response"].bool_param:
                    assert not answer.outputs
                    break
                told.append(result.as_numpy("output").reshape(-1)[0].decode())
            assert told == [" 0", " 1", " 2"]


def test_requests_stream_side_by_side_and_errors_end_only_theirs(
    streaming: tuple[Server, Path],
) -> None:
    with triton.InferenceServerClient(streaming[0].grpc) as client:
        answers = started(client)
        for n in ("5", "20", "7"):
            client.async_stream_infer(
                "chat", text(n), request_id=n, enable_empty_final_response=True
            )
        pieces = {"5": 0, "20": 0, "7": 0}
        ended = set()
        failed = []
        while len(ended) + len(failed) < 3:
            result, error = answers.get(timeout=60)
            if error is not None:
                failed.append(str(error))
                continue
            answer = result.get_response()
            if answer.parameters["triton_final_response"].bool_param:
                ended.add(answer.id)
            else:
                pieces[answer.id] += 1
        assert pieces == {"5": 5, "20": 13, "7": 7} and ended == {"5", "7"}
        assert "unlucky" in failed[0]


def test_a_whole_answer_for_who_asks_once(streaming: tuple[Server, Path]) -> None:
    with triton.InferenceServerClient(streaming[0].grpc) as client:
        result = client.infer("chat", text("3"))
        assert result.as_numpy("output").reshape(-1)[0] == b" 0 1 2"


def test_who_stops_ends_the_generator(streaming: tuple[Server, Path]) -> None:
    running, folder = streaming
    client = triton.InferenceServerClient(running.grpc)
    answers = started(client)
    client.async_stream_infer("chat", text("endless"))
    for _ in range(100):
        assert answers.get(timeout=60)[1] is None
    closed = folder.rglob("closed")
    before = sum(len(file.read_text()) for file in closed)
    stop = threading.Thread(target=client.stop_stream, kwargs={"cancel_requests": True})
    stop.start()
    until(
        "the generator is closed",
        lambda: sum(len(file.read_text()) for file in folder.rglob("closed")) > before,
    )
    stop.join()
    client.close()
