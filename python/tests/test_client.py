"""The clients against an HTTP server that gives recorded answers of Clipper."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeHttp
from ports import free_port

from clipper_serving import (
    AccessDenied,
    Admin,
    AdminError,
    AsyncClient,
    BadInput,
    Client,
    ModelError,
    Overloaded,
    PredictionTimeout,
    ServerUnavailable,
    UnexpectedAnswer,
    UnknownApplication,
)

ANSWER = '{"query_id":26,"output":"plain text","default":false}'
DEFAULT = (
    '{"query_id":38,"output":-1,"default":true,"default_explanation":"Failed to retrieve a '
    'prediction response within the specified latency SLO"}'
)
BATCH = (
    '{"batch_predictions":[{"query_id":42,"output":0,"default":false},'
    '{"query_id":43,"output":-1,"default":true,"default_explanation":"late"}]}'
)


def test_a_prediction(http: FakeHttp) -> None:
    http.answer(ANSWER)
    with Client(http.url) as client:
        prediction = client.predict("app", [1.5, 2])
    assert (prediction.output, prediction.query_id) == ("plain text", 26)
    assert (prediction.default, prediction.explanation) == (False, None)
    (seen,) = http.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/app/predict", {"input": [1.5, 2]})


def test_a_default_answer_says_so(http: FakeHttp) -> None:
    http.answer(DEFAULT)
    prediction = Client(http.url).predict("app", [1.0])
    assert prediction.default
    assert prediction.explanation is not None
    assert "latency SLO" in prediction.explanation


def test_an_error_of_the_model_is_raised(http: FakeHttp) -> None:
    http.answer({"error": "Model error", "cause": "ValueError: no 13"}, status=422)
    with pytest.raises(ModelError, match="ValueError: no 13") as caught:
        Client(http.url).predict("app", [13.0])
    assert caught.value.status == 422


def test_an_error_of_the_model_does_not_fail_its_batch(http: FakeHttp) -> None:
    failed = {"query_id": 2, "error": "Model error", "cause": "ValueError: no 13"}
    good = {"query_id": 1, "output": [1], "default": False}
    http.answer({"batch_predictions": [good, failed]})
    first, second = Client(http.url).predict_batch("app", [[1.0], [13.0]])
    assert (first.array().tolist(), first.error) == ([1], None)
    assert second.error is not None and second.error.msg == "ValueError: no 13"
    assert (second.output, second.default, second.query_id) == (None, False, 2)
    with pytest.raises(ModelError):
        second.array()


@pytest.mark.parametrize(
    ("x", "sent"),
    [
        (np.array([1.0, 2.5]), [1.0, 2.5]),
        (np.array([1, 2], dtype=np.int32), [1, 2]),
        ([np.float32(0.5), 1], [0.5, 1]),
        ((1, 2), [1, 2]),
        ("text", "text"),
        (np.str_("text"), "text"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"a"), "YQ=="),
    ],
)
def test_inputs_as_json(http: FakeHttp, x: Any, sent: Any) -> None:
    http.answer(ANSWER)
    Client(http.url).predict("app", x)
    assert http.seen[0].body == {"input": sent}


@pytest.mark.parametrize("x", [np.zeros((2, 2)), 5, None, [float("nan")], [object()]])
def test_inputs_that_are_none_are_not_sent(http: FakeHttp, x: Any) -> None:
    with pytest.raises(BadInput):
        Client(http.url).predict("app", x)
    assert http.seen == []


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda c: c.predict("a", 5), r"one number is a list of one: \[5\]"),
        (lambda c: c.predict("a", np.zeros((2, 2))), "several inputs go to predict_batch"),
        (lambda c: c.predict("a", None), r"not nothing \(None\)"),
        (lambda c: c.predict_batch("a", "text"), "several inputs are a list of them, not a str"),
        (lambda c: c.predict_batch("a", b"bytes"), "not a bytes"),
        (lambda c: c.predict_batch("a", {"x": 1}), "not a dict"),
        (lambda c: c.predict_batch("a", np.zeros(2)), "one number is a list of one"),
    ],
)
def test_an_input_that_is_none_is_told_what_one_is(http: FakeHttp, ask: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        ask(Client(http.url))
    assert http.seen == []


def test_a_batch(http: FakeHttp) -> None:
    http.answer(BATCH)
    first, second = Client(http.url).predict_batch("app", np.array([[1.0], [2.0]]), version="3")
    assert (first.output, second.default) == (0, True)
    assert http.seen[0].body == {"input_batch": [[1.0], [2.0]], "version": "3"}


def test_a_batch_of_one_and_of_none(http: FakeHttp) -> None:
    http.answer(ANSWER)
    client = Client(http.url)
    assert len(client.predict_batch("app", [[1]])) == 1
    assert client.predict_batch("app", []) == []
    assert len(http.seen) == 1


def test_an_output_as_array(http: FakeHttp) -> None:
    http.answer({"query_id": 1, "output": [[1, 2], [3, 4]], "default": False})
    array = Client(http.url).predict("app", [1]).array(np.float32)
    assert array.shape == (2, 2)
    assert array.dtype == np.float32


def test_names_are_quoted(http: FakeHttp) -> None:
    http.answer(ANSWER)
    Client(http.url).predict("a b/ü", [1])
    assert http.seen[0].path == "/a%20b%2F%C3%BC/predict"


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": "Json error", "cause": "why"}, BadInput, "why"),
        (413, {"error": "too large"}, BadInput, "too large"),
        (404, {"error": "unknown", "cause": "no app"}, UnknownApplication, "no app"),
        (429, {"error": "full"}, Overloaded, "full"),
        (503, "going down", ServerUnavailable, "going down"),
        (500, "oops", UnexpectedAnswer, "500"),
        (200, "not json", UnexpectedAnswer, "not json"),
        (200, [], UnexpectedAnswer, "not a prediction"),
        (200, {"output": 1}, UnexpectedAnswer, "not a prediction"),
        (200, {"batch_predictions": []}, UnexpectedAnswer, "0 predictions for 1"),
    ],
)
def test_errors_are_typed(
    http: FakeHttp, status: int, body: Any, error: type[Exception], message: str
) -> None:
    http.answer(body, status, Retry_After="2")
    with pytest.raises(error, match=message) as raised:
        Client(http.url).predict("app", [1])
    assert getattr(raised.value, "status") == status  # noqa: B009
    assert getattr(raised.value, "retry_after", 2.0) == 2.0


def test_no_answer_in_time(http: FakeHttp) -> None:
    with pytest.raises(PredictionTimeout, match=r"0\.05 s"):
        Client(http.url).predict("app", [1], timeout=0.05)


def test_a_connection_closed_without_an_answer(http: FakeHttp) -> None:
    http.hang_up()
    with pytest.raises(ServerUnavailable):
        Client(http.url).predict("app", [1])
    assert len(http.seen) == 1


def test_nobody_listens(http: FakeHttp) -> None:
    http.close()
    with pytest.raises(ServerUnavailable):
        Client(http.url).predict("app", [1])


def test_connections_are_kept(http: FakeHttp) -> None:
    client = Client(http.url)
    for _ in range(3):
        http.answer(ANSWER)
        client.predict("app", [1])
    assert len({seen.connection for seen in http.seen}) == 1


def test_a_kept_connection_that_was_closed_is_replaced(http: FakeHttp) -> None:
    client = Client(http.url)
    http.answer(ANSWER, Connection="close")
    client.predict("app", [1])
    http.answer(ANSWER)
    client.predict("app", [1])
    assert len({seen.connection for seen in http.seen}) == 2


def test_many_threads_share_a_client(http: FakeHttp) -> None:
    client = Client(http.url)
    for _ in range(200):
        http.answer(ANSWER)
    done: list[str] = []

    def work() -> None:
        for _ in range(20):
            done.append(client.predict("app", [1]).output)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["plain text"] * 200
    assert len({seen.connection for seen in http.seen}) <= 10


@pytest.mark.parametrize(("text", "taken"), [("1", True), ("0", False)])
def test_feedback(http: FakeHttp, text: str, taken: bool) -> None:
    http.answer(f"Feedback received? {text}")
    assert Client(http.url).update("app", 0, np.array([1.5]), 1) is taken
    seen = http.seen[0]
    assert (seen.path, seen.body) == ("/app/update", {"uid": 0, "input": [1.5], "label": 1.0})
    assert isinstance(seen.body["label"], float)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:1337", "", "ftp://h", "http://", "http://h:x", "http://h:0", "http://h?a=b"]
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)


def test_passwords_in_an_address_are_not_dropped_without_a_word() -> None:
    with pytest.raises(ValueError, match="not sent") as refused:
        Client("http://user:secret@h:1337")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("path", ["/clipper", "/clipper/", "/a/b"])
def test_a_base_address_may_have_a_path(http: FakeHttp, path: str) -> None:
    http.answer(ANSWER)
    Client(http.url + path).predict("app", [1])
    http.answer("[]")
    Admin(http.url + path).get_all_apps()
    prefix = path.rstrip("/")
    assert [seen.path for seen in http.seen] == [
        f"{prefix}/app/predict",
        f"{prefix}/admin/get_all_applications",
    ]


def test_https(http: FakeHttp, certificate: tuple[Path, Path]) -> None:
    http.speak_tls(*certificate)
    http.answer(ANSWER)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with Client(http.url, tls=trusting) as client:
        assert client.predict("app", [1]).output == "plain text"
    http.answer("[]")
    assert Admin(http.url, tls=trusting).get_all_apps() == []
    with pytest.raises(ServerUnavailable, match="certificate"):
        Client(http.url).predict("app", [1])


def test_https_to_a_server_that_speaks_http(http: FakeHttp) -> None:
    with pytest.raises(ServerUnavailable, match="its address is http://"):
        Client(http.url.replace("http:", "https:")).predict("app", [1])


NOT_HERE = {
    "error": "Not found",
    "cause": "There is no /app/predict here. Endpoints: POST /admin/add_app, GET /livez",
}


@pytest.mark.parametrize("body", [NOT_HERE, "", "<html>nginx</html>"])
def test_the_wrong_port_is_not_an_unknown_application(http: FakeHttp, body: Any) -> None:
    http.answer(body, status=404)
    with pytest.raises(UnexpectedAnswer, match="query frontend, port 1337") as caught:
        Client(http.url).predict("app", [1])
    assert "Endpoints" not in caught.value.msg
    http.answer(NOT_HERE, status=404)
    with pytest.raises(AdminError, match="management frontend, port 1338"):
        Admin(http.url).get_all_apps()


def test_the_port_of_containers_is_no_http(zmtp_port: int) -> None:
    for ask in (
        lambda: Client(f"http://127.0.0.1:{zmtp_port}").predict("app", [1]),
        lambda: Admin(f"http://127.0.0.1:{zmtp_port}").connect(),
    ):
        with pytest.raises(ServerUnavailable, match="only containers to 7000"):
            ask()


def test_a_server_that_is_not_there_is_asked_after() -> None:
    with pytest.raises(ServerUnavailable, match="is the server running"):
        Client(f"http://127.0.0.1:{free_port()}").predict("app", [1])


def test_the_async_client(http: FakeHttp) -> None:
    for _ in range(20):
        http.answer(ANSWER)

    async def run() -> None:
        async with AsyncClient(http.url, concurrency=4) as client:
            found = await asyncio.gather(*(client.predict("app", [n]) for n in range(20)))
            assert {prediction.output for prediction in found} == {"plain text"}
            http.answer(BATCH)
            assert len(await client.predict_batch("app", [[1], [2]])) == 2
            http.answer("Feedback received? 1")
            assert await client.update("app", 0, [1], 1.0)
            http.answer({"error": "unknown"}, 404)
            with pytest.raises(UnknownApplication):
                await client.predict("nowhere", [1])

    asyncio.run(run())
    assert len({seen.connection for seen in http.seen}) <= 4


def test_a_key_goes_with_every_request(
    http: FakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPPER_KEY", "clk_from_the_environment")
    http.answer(ANSWER)
    Client(http.url).predict("app", [1.0])
    http.answer("PONG")
    Admin(http.url, key="clk_given").connect()
    http.answer(ANSWER)
    Client(http.url, key="").predict("app", [1.0])
    assert http.authorizations == ["Bearer clk_from_the_environment", "Bearer clk_given", None]
    with pytest.raises(ValueError, match="one word"):
        Client(http.url, key="two words")


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_is_told_why(http: FakeHttp, status: int) -> None:
    http.answer({"error": "Forbidden", "cause": "key 'ci' is for 'a*' only"}, status=status)
    with pytest.raises(AccessDenied, match="'a\\*' only") as raised:
        Client(http.url).predict("b", [1.0])
    assert raised.value.status == status
