"""Manage applications, models and links, with the method names of ``clipper_admin``.

What started, stopped or filled Docker containers is not here: a model version is registered, and
whichever container connects under its name and version serves it; or it is deployed, and the server
starts its replicas.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Union

from .client import DEFAULT_QUERY_URL, DEFAULT_TIMEOUT_SECONDS
from .errors import AdminError, BadInput, ServerUnavailable
from .http import Answer, HttpPool
from .input_types import InputType, decode_one, encode_one
from .wire_json import encode_input

DEFAULT_MANAGEMENT_URL = "http://127.0.0.1:1338"
DEPLOY_TIMEOUT_SECONDS = 60.0
DEPLOY_SLACK_SECONDS = 30.0
"""How much longer than the deployment its answer may take."""

NO_IMAGE = "NO_CONTAINER"
"""What ``clipper_admin`` records as the image of a model without one."""

Info = dict[str, Any]
Version = Union[str, int]


class Admin:
    """Commands to one management frontend. May be used from any number of threads.

    ``query_url`` is asked by ``inspect_instance`` only. ``timeout`` is in seconds. A refused
    command raises ``AdminError`` with the server's reason in ``msg``; a server that does not
    answer raises ``ServerUnavailable`` or ``PredictionTimeout``. The addresses may be ``https://``
    and have a path, for a proxy that has them; ``tls`` says which certificates are trusted then.
    A server that asks for a key gets ``key``, or what the environment variable ``CLIPPER_KEY``
    says.

    With ``exist_ok``, the methods that add something do nothing where it is there already as it is
    asked for, so that a program which registers and serves can be run again.
    """

    def __init__(
        self,
        url: str = DEFAULT_MANAGEMENT_URL,
        query_url: str = DEFAULT_QUERY_URL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        tls: ssl.SSLContext | None = None,
        key: str | None = None,
    ) -> None:
        self._management = HttpPool(url, tls=tls, key=key)
        self._query = HttpPool(query_url, tls=tls, key=key)
        self._timeout = timeout

    def connect(self) -> None:
        """Check that the server answers. Every other method works without it as well."""
        _checked(self._management.request("GET", "/admin/ping", None, self._timeout))

    def register_application(
        self,
        name: str,
        input_type: str,
        default_output: str,
        slo_micros: int,
        on_model_error: str | None = None,
        *,
        exist_ok: bool = False,
    ) -> None:
        """Add an application that answers within ``slo_micros`` microseconds.

        ``on_model_error`` says what a caller gets for an input that the model answers with an
        error: ``"default"``, the default output with the error as its explanation (what the
        server does unasked), or ``"error"``, see ``ModelError``.
        """
        extra = {} if on_model_error is None else {"on_model_error": on_model_error}
        wanted: Info = {
            "input_type": InputType.parse(input_type).long_name if exist_ok else input_type,
            "default_output": default_output,
            "latency_slo_micros": slo_micros,
            **extra,
        }
        try:
            self._post("add_app", name=name, **wanted)
        except AdminError as error:
            found = self.get_app_info(name) if exist_ok else None
            if not found:
                raise
            _check_equal(f"application {name!r}", found, wanted, error)

    def update_application(
        self,
        name: str,
        default_output: str | None = None,
        slo_micros: int | None = None,
        on_model_error: str | None = None,
        cache: bool | None = None,
        weight: int | None = None,
        limits: Mapping[str, object] | None = None,
    ) -> None:
        """Change an application's definition; what is ``None`` stays as it is.

        ``weight`` is its part, in overload, of a model that it shares with others: 1 to 100.
        ``limits`` is how much its clients may ask for, of ``rate``, ``burst``, ``concurrent``,
        ``body_bytes`` and ``priority``, in place of all before; an empty one takes them away.
        """
        given = {
            "default_output": default_output,
            "latency_slo_micros": slo_micros,
            "on_model_error": on_model_error,
            "cache": cache,
            "weight": weight,
            "limits": None if limits is None else dict(limits),
        }
        changed = {key: value for key, value in given.items() if value is not None}
        self._post("update_app", name=name, **changed)

    def unregister_application(self, name: str) -> None:
        """Remove an application and its links."""
        self._post("delete_app", name=name)

    def delete_application(self, name: str) -> None:
        """The older name of ``unregister_application``."""
        self.unregister_application(name)

    def register_model(
        self,
        name: str,
        version: Version,
        input_type: str,
        image: str | None = None,
        labels: Sequence[str] | None = None,
        batch_size: int = -1,
        *,
        make_current: bool = True,
        cache: bool = True,
        exist_ok: bool = False,
    ) -> None:
        """Add a model version and make it the current one.

        Queries go to it at once, and get the default output until a container of it has
        connected: with ``make_current=False`` they stay with the version before until
        ``set_model_version``. ``batch_size`` bounds its batches; -1 lets the server find the best
        size. ``cache=False`` has every query computed anew. ``image`` and ``labels`` are notes
        only.
        """
        extra = {} if make_current else {"make_current": False}
        if not cache:
            extra["cache"] = False
        try:
            self._post(
                "add_model",
                model_name=name,
                model_version=str(version),
                labels=list(labels or []),
                input_type=input_type,
                container_name=NO_IMAGE if image is None else image,
                model_data_path="DEPRECATED",
                batch_size=batch_size,
                **extra,
            )
        except AdminError as error:
            found = self.get_model_info(name, version) if exist_ok else None
            if not found:
                raise
            wanted = {"input_type": InputType.parse(input_type).long_name}
            _check_equal(f"model {name}:{version}", found, wanted, error)

    def unregister_model(self, name: str, version: Version) -> None:
        """Remove one version of a model; the server drops its replicas."""
        self._post("delete_versioned_model", model_name=name, model_version=str(version))

    def stop_models(self, model_names: Sequence[str]) -> None:
        """Remove all versions of these models."""
        self._unregister_where(lambda model: model["model_name"] in model_names)

    def stop_versioned_models(self, model_versions_dict: Mapping[str, Sequence[Version]]) -> None:
        """Remove these versions; the keys are model names."""
        for name, versions in model_versions_dict.items():
            for version in versions:
                self.unregister_model(name, version)

    def stop_inactive_model_versions(self, model_names: Sequence[str]) -> None:
        """Remove all versions of these models but the current ones."""
        self._unregister_where(
            lambda model: model["model_name"] in model_names and not model["is_current_version"]
        )

    def stop_all_model_containers(self) -> None:
        """Remove all versions of all models."""
        self._unregister_where(lambda _model: True)

    def link_model_to_app(self, app_name: str, model_name: str, *, exist_ok: bool = False) -> None:
        """Let the application answer from the model; their input types must be equal."""
        try:
            self._post("add_model_links", app_name=app_name, model_names=[model_name])
        except AdminError:
            if not exist_ok or model_name not in self.get_linked_models(app_name):
                raise

    def deploy(
        self,
        model: str | Sequence[str],
        app_name: str,
        *,
        name: str | None = None,
        version: Version | None = None,
        input_type: str | None = None,
        replicas: int = 1,
        batch_size: int = -1,
        slo_micros: int | None = None,
        default_output: str | None = None,
        example: Any = None,
        python: str = sys.executable,
        timeout: float = DEPLOY_TIMEOUT_SECONDS,
    ) -> Info:
        """Let the server start replicas of a model, try it out, register it and link it.

        ``model`` is ``FILE.onnx``, ``FILE.py:function`` or a command as a list of words, on the
        server's machine; relative paths are from here. As ``clipper deploy`` does: a new
        application needs ``slo_micros`` and ``default_output``; ``name`` is by default the model
        that the application queries, else the file's; ``version`` the next number. ``example`` is
        an input to try. Returns the server's last word; raises ``AdminError`` where the model
        does not answer, and then nothing was changed.
        """
        app = self.get_app_info(app_name)
        linked = self.get_linked_models(app_name) if app else []
        runtime = _runtime(model, python)
        chosen = name or (linked[0] if linked else _name_of(runtime))
        request: Info = {
            "model_name": chosen,
            "model_version": str(version) if version is not None else self._next_version(chosen),
            "app_name": app_name,
            "input_type": input_type or (app["input_type"] if app else "doubles"),
            "replicas": replicas,
            "batch_size": batch_size,
            "runtime": runtime,
            "timeout_ms": int(timeout * 1000),
        }
        if example is not None:
            request["input"] = encode_input(example)
        if not app:
            if slo_micros is None or default_output is None:
                raise AdminError(
                    f"there is no application {app_name!r}; to register it in the same step give "
                    "slo_micros and default_output"
                )
            request["new_app"] = {
                "default_output": default_output,
                "latency_slo_micros": slo_micros,
            }
        return self._deploy(request, timeout)

    def _deploy(self, request: Info, timeout: float) -> Info:
        body = json.dumps(request).encode("utf-8")
        patience = timeout + DEPLOY_SLACK_SECONDS
        answer = self._management.request("POST", "/admin/deploy_model", body, patience)
        lines = _checked(answer).text.splitlines()
        last = _json(Answer(answer.status, (lines or [""])[-1].encode("utf-8"), None))
        if not isinstance(last, dict) or last.get("stage") not in ("done", "failed"):
            raise AdminError(
                f"the connection ended before the server said what came of it: {last!r}"
            )
        if last["stage"] == "failed":
            said = "".join(f"\n  {line}" for line in last.get("output") or [])
            raise AdminError(
                f"not deployed: {last.get('cause')}"
                + (f"\nThe container's last lines:{said}" if said else "")
            )
        return last

    def _next_version(self, name: str) -> str:
        versions = [
            int(model["model_version"])
            for model in self.get_all_models(verbose=True)
            if model["model_name"] == name and str(model["model_version"]).isdigit()
        ]
        return str(max(versions, default=0) + 1)

    def unlink_model_from_app(self, app_name: str, model_name: str) -> None:
        """Undo ``link_model_to_app``."""
        self._post("delete_model_links", app_name=app_name, model_names=[model_name])

    def set_model_version(self, name: str, version: Version) -> None:
        """Make a registered version the current one: roll forward or back."""
        self._post("set_model_version", model_name=name, model_version=str(version))

    def get_current_model_version(self, name: str) -> str:
        """The current version of a model. Raises ``AdminError`` when it has none."""
        for model in self.get_all_models(verbose=True):
            if model["model_name"] == name and model["is_current_version"]:
                return str(model["model_version"])
        raise AdminError(f"No versions of model {name} registered with Clipper")

    def get_num_replicas(self, name: str, version: Version | None = None) -> int:
        """How many replicas of a version, by default the current one, are connected."""
        wanted = self.get_current_model_version(name) if version is None else str(version)
        return sum(
            replica["model_name"] == name and replica["model_version"] == wanted
            for replica in self.get_all_model_replicas(verbose=True)
        )

    def set_num_replicas(
        self, name: str, num_replicas: int, version: Version | None = None
    ) -> None:
        """Keep so many replicas of a deployed version, by default the current one.

        The change is acknowledged at once, and the replicas start or end after it; servers that
        share their metadata keep as many each. Raises ``AdminError`` for models whose containers
        the server does not start: of those you start and stop the containers.
        """
        chosen = {} if version is None else {"model_version": str(version)}
        self._post("set_replicas", model_name=name, num_replicas=num_replicas, **chosen)

    def update_model(
        self,
        name: str,
        version: Version,
        batch_size: int | None = None,
        labels: Sequence[str] | None = None,
        cache: bool | None = None,
    ) -> None:
        """Change a registered version while it serves; what is ``None`` stays as it is.

        Its containers stay connected, and queries under way keep what they began with. What it
        takes and gives cannot change: register another version for that.
        """
        given = {
            "batch_size": batch_size,
            "labels": None if labels is None else list(labels),
            "cache": cache,
        }
        changed = {key: value for key, value in given.items() if value is not None}
        self._post("update_model", model_name=name, model_version=str(version), **changed)

    def get_all_apps(self, verbose: bool = False) -> list[Any]:
        """The names of all applications, or with ``verbose`` their definitions."""
        return self._list("get_all_applications", verbose=verbose)

    def get_app_info(self, name: str) -> Info | None:
        """One application's definition, ``None`` when it is unknown."""
        return self._info("get_application", name=name)

    def get_linked_models(self, app_name: str) -> list[str]:
        """The names of the models linked to an application."""
        return self._list("get_linked_models", app_name=app_name)

    def get_all_models(self, verbose: bool = False) -> list[Any]:
        """All model versions as ``name:version``, or with ``verbose`` their definitions."""
        return self._list("get_all_models", verbose=verbose)

    def get_model_info(self, name: str, version: Version) -> Info | None:
        """One model version's definition, ``None`` when it is unknown."""
        return self._info("get_model", model_name=name, model_version=str(version))

    def get_all_model_replicas(self, verbose: bool = False) -> list[Any]:
        """All connected replicas as ``name:version:id``, or with ``verbose`` as dicts."""
        return self._list("get_all_containers", verbose=verbose)

    def get_model_replica_info(self, name: str, version: Version, replica_id: int) -> Info | None:
        """One connected replica, ``None`` when it is unknown."""
        return self._info(
            "get_container", model_name=name, model_version=str(version), replica_id=replica_id
        )

    def inspect_instance(self) -> Info:
        """The metrics of the query frontend, in Clipper's JSON."""
        answer = self._query.request("GET", "/metrics", None, self._timeout)
        found = _json(_checked(answer))
        if not isinstance(found, dict):
            raise AdminError(f"unexpected metrics: {answer.text[:200]}", answer.status)
        return found

    def get_query_addr(self) -> str:
        """``host:port`` of the query frontend."""
        return self._query.address

    def test_predict_function(
        self, query: Mapping[str, Any], func: Callable[[Any], Any], input_type: str
    ) -> Any:
        """Call ``func`` here with the inputs of a query, as a container would get them.

        ``query`` is what the query frontend takes: ``{"input": X}`` or
        ``{"input_batch": [X, ...]}``; byte inputs are bytes or base64 text. Returns what
        ``func`` returns; raises ``BadInput`` for a query that the server would refuse.
        """
        if "input_batch" in query:
            inputs = list(query["input_batch"])
        elif "input" in query:
            inputs = [query["input"]]
        else:
            raise BadInput('a query has the key "input" or "input_batch"')
        kind = InputType.parse(input_type)
        try:
            frames = [encode_one(kind, _from_base64(kind, value)) for value in inputs]
        except (TypeError, ValueError) as error:
            raise BadInput(f"the query does not fit {kind.long_name}: {error}") from error
        return func([decode_one(kind, frame) for frame in frames])

    def close(self) -> None:
        """Close the idle connections."""
        self._management.close()
        self._query.close()

    def _unregister_where(self, chosen: Callable[[Info], bool]) -> None:
        for model in self.get_all_models(verbose=True):
            if chosen(model):
                self.unregister_model(model["model_name"], model["model_version"])

    def _post(self, verb: str, **arguments: Any) -> Answer:
        body = json.dumps(arguments).encode("utf-8")
        return _checked(self._management.request("POST", f"/admin/{verb}", body, self._timeout))

    def _list(self, verb: str, **arguments: Any) -> list[Any]:
        found = _json(self._post(verb, **arguments))
        if not isinstance(found, list):
            raise AdminError(f"unexpected answer to {verb}: {found!r}")
        return found

    def _info(self, verb: str, **arguments: Any) -> Info | None:
        found = _json(self._post(verb, **arguments))
        if not isinstance(found, dict):
            raise AdminError(f"unexpected answer to {verb}: {found!r}")
        return found or None


def _checked(answer: Answer) -> Answer:
    """The answer itself if it is 200, else the typed error."""
    if answer.status == 200:
        return answer
    msg = f"Received error status code: {answer.status} and message: {answer.text}"
    if answer.status in (404, 405):
        msg += " (is this the management frontend, port 1338? Queries go to 1337)"
    if answer.status == 503:
        raise ServerUnavailable(msg, answer.status, answer.retry_after)
    raise AdminError(msg, answer.status)


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise AdminError(f"not JSON: {answer.text[:200]}", answer.status) from error


def _check_equal(what: str, found: Info, wanted: Info, error: AdminError) -> None:
    """Nothing, if what is there is what is wanted; else the error with the first difference."""
    for key, value in wanted.items():
        if key in found and found[key] != value:
            raise AdminError(
                f"{what} exists, and its {key} is {found[key]!r}, not {value!r}", error.status
            ) from error


def _runtime(model: str | Sequence[str], python: str) -> Info:
    """What the server is asked to run, with absolute paths."""
    if not isinstance(model, str):
        return {"runtime": "command", "command": [str(word) for word in model]}
    file, colon, function = model.rpartition(":")
    if colon and "/" not in function:
        place = os.path.abspath(file)
        return {"runtime": "python", "function": f"{place}:{function}", "python": python}
    if model.endswith(".onnx"):
        return {"runtime": "onnx", "path": os.path.abspath(model)}
    raise AdminError(
        f"{model!r} is neither FILE.onnx nor FILE.py:function. For other model files give the "
        f"command that serves it: [sys.executable, '-m', 'clipper_serving', 'serve', {model!r}]"
    )


def _name_of(runtime: Info) -> str:
    source: str = runtime.get("path") or runtime.get("function", "").rpartition(":")[0]
    if not source:
        raise AdminError("a model that is a command needs a name")
    stem = os.path.splitext(os.path.basename(source))[0]
    return stem.replace(":", "-").replace(",", "-")


def _from_base64(kind: InputType, value: Any) -> Any:
    if kind is not InputType.BYTES or not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("byte inputs are base64 text") from error
