"""Load models of common libraries as predict functions.

Each library is imported only by its own loader. Loading a pickle, a joblib file or a Python
file runs the code in it: load only what you trust.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Callable, Union

import numpy as np

from .errors import ModelLoadError
from .predictor import PredictFn

PathLike = Union[str, "os.PathLike[str]"]

_loading: list[str] = []
"""The model file that is being imported, if any."""


class LoadedModel:
    """A predict function that wants numeric inputs stacked into one 2-D array."""

    stacked = True

    def __init__(self, fn: PredictFn, library: str) -> None:
        self._fn = fn
        self.library = library

    def __call__(self, inputs: Any) -> Any:
        return self._fn(inputs)


def load_model(spec: PathLike, method: str = "predict") -> PredictFn:
    """Load whatever ``spec`` names.

    ``file.py:function``; ``.joblib``, ``.pkl`` or ``.pickle`` (scikit-learn; ``method`` is the
    method to call, such as ``predict_proba``); ``.onnx``; ``.pt``, ``.pth`` or ``.pt2``
    (PyTorch); ``.ubj``, ``.json`` or ``.xgb`` (XGBoost); ``.txt`` or ``.lgb`` (LightGBM); or a
    directory with one such file, or with the ``func.pkl`` of a Clipper Python closure.
    Raises ``ModelLoadError`` when there is nothing to load or its library is missing; errors
    that the model's own code raises are passed on.
    """
    text = os.fspath(spec)
    path = Path(text)
    if ":" in text and not path.exists():
        return load_function(text)
    if path.is_dir():
        if (path / "func.pkl").is_file():
            return load_closure(path)
        path = _only_model_in(path)
    if not path.is_file():
        raise ModelLoadError(f"no such model file: {path}")
    if path.suffix.lower() in _SKLEARN_SUFFIXES:
        return load_sklearn(path, method)
    loader = _LOADERS.get(path.suffix.lower())
    if path.suffix.lower() == ".py":
        raise ModelLoadError(f"which function of it? Name it: {text}:FUNCTION")
    if loader is None:
        known = ", ".join(sorted([*_SKLEARN_SUFFIXES, *_LOADERS]))
        raise ModelLoadError(f"{path} has none of the suffixes {known}; or give file.py:function")
    return loader(path)


def load_function(spec: str) -> PredictFn:
    """The callable that ``file.py:name`` or ``package.module:name`` names.

    The name may have dots: ``file.py:model.predict``. The file's folder is put on the import path,
    so that it can import its neighbours. Raises ``ModelLoadError`` for what cannot be called with
    one list of inputs.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ModelLoadError(f"{spec!r} is not of the form file.py:function")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ModelLoadError(f"{place} has no function {name!r}{_functions_of(module)}")
    _check_callable(f"{place}:{name}", found)
    fn: PredictFn = found
    return fn


def model_being_loaded() -> str | None:
    """The file that this module is importing right now, if any."""
    return _loading[-1] if _loading else None


def load_sklearn(model: Any, method: str = "predict") -> LoadedModel:
    """A fitted scikit-learn estimator or pipeline, or the joblib or pickle file of one."""
    if isinstance(model, (str, os.PathLike)):
        model = _import("joblib", "joblib scikit-learn").load(model)
    call = getattr(model, method, None)
    if not callable(call):
        raise ModelLoadError(f"a {type(model).__name__} has no method {method!r}")
    return LoadedModel(call, "scikit-learn")


def load_onnx(path: PathLike, output: str | None = None) -> LoadedModel:
    """An ONNX file with one input; answers ``output``, by default its first output.

    Rows are reshaped to the input's declared shape and converted to its element type.
    """
    runtime = _import("onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelLoadError(f"{path} has {len(inputs)} inputs; a Clipper model has one")
    names = [out.name for out in session.get_outputs()]
    wanted = names[0] if output is None else output
    if wanted not in names:
        raise ModelLoadError(f"{path} has no output {wanted!r}; it has {', '.join(names)}")
    feed, dims = inputs[0].name, inputs[0].shape[1:]
    dtype = _ONNX_DTYPES.get(inputs[0].type)
    if dtype is None:
        raise ModelLoadError(f"{path} takes {inputs[0].type}, which no Clipper input type gives")
    fixed = dims if len(dims) > 1 and all(isinstance(dim, int) for dim in dims) else None

    def predict(rows: Any) -> Any:
        if dtype == "O":
            array = np.array(list(rows), dtype=object).reshape(len(rows), *([1] * len(dims)))
        else:
            array = np.asarray(rows).astype(dtype, copy=False)
        if fixed is not None:
            array = array.reshape(len(rows), *fixed)
        return session.run([wanted], {feed: array})[0]

    return LoadedModel(predict, "onnxruntime")


def load_torch(model: Any) -> LoadedModel:
    """A ``torch.nn.Module``, a TorchScript file (``.pt``, ``.pth``), or an exported ``.pt2``.

    It gets float32 tensors of shape (inputs, values) without gradients.
    """
    torch = _import("torch", "torch")
    if isinstance(model, (str, os.PathLike)):
        if os.fspath(model).endswith(".pt2"):
            model = torch.export.load(os.fspath(model)).module()
        else:
            model = torch.jit.load(os.fspath(model), map_location="cpu").eval()
    elif hasattr(model, "eval"):
        model = model.eval()

    def predict(rows: Any) -> Any:
        with torch.no_grad():
            tensor = torch.from_numpy(np.asarray(rows, dtype=np.float32))
            return model(tensor).detach().cpu().numpy()

    return LoadedModel(predict, "torch")


def load_xgboost(model: Any) -> LoadedModel:
    """An ``xgboost.Booster`` or its ``.ubj`` or ``.json`` file."""
    xgboost = _import("xgboost", "xgboost")
    booster = model
    if isinstance(model, (str, os.PathLike)):
        booster = xgboost.Booster(model_file=os.fspath(model))
    # inplace_predict skips building a DMatrix for each batch.
    return LoadedModel(lambda rows: booster.inplace_predict(rows), "xgboost")


def load_lightgbm(model: Any) -> LoadedModel:
    """A ``lightgbm.Booster`` or its text file."""
    lightgbm = _import("lightgbm", "lightgbm")
    booster = model
    if isinstance(model, (str, os.PathLike)):
        booster = lightgbm.Booster(model_file=os.fspath(model))
    return LoadedModel(lambda rows: booster.predict(rows), "lightgbm")


def load_closure(directory: PathLike) -> PredictFn:
    """The ``func.pkl`` that ``clipper_admin``'s Python deployer wrote, with its ``modules``.

    Such functions get what Clipper gave them, except that strings are ``str`` and byte inputs
    are ``bytes``.
    """
    pickle = _import("cloudpickle", "cloudpickle")
    folder = Path(directory).resolve()
    sys.path.append(str(folder / "modules"))
    with open(folder / "func.pkl", "rb") as file:
        fn: PredictFn = pickle.load(file)
    return fn


_SKLEARN_SUFFIXES = (".joblib", ".pkl", ".pickle")

_LOADERS: dict[str, Callable[[PathLike], PredictFn]] = {
    ".onnx": load_onnx,
    ".pt": load_torch,
    ".pth": load_torch,
    ".pt2": load_torch,
    ".ubj": load_xgboost,
    ".json": load_xgboost,
    ".xgb": load_xgboost,
    ".txt": load_lightgbm,
    ".lgb": load_lightgbm,
}

_ONNX_DTYPES = {
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(int32)": "i4",
    "tensor(int64)": "i8",
    "tensor(string)": "O",
}


def _only_model_in(folder: Path) -> Path:
    known = {*_SKLEARN_SUFFIXES, *_LOADERS}
    found: list[Path] = sorted(f for f in folder.iterdir() if f.suffix.lower() in known)
    if len(found) != 1:
        names = ", ".join(f.name for f in found) or "none"
        raise ModelLoadError(f"{folder} must hold exactly one model file; it holds {names}")
    return found[0]


def _check_callable(spec: str, found: Any) -> None:
    """Find out before the first query what could never be served."""
    if inspect.isclass(found):
        raise ModelLoadError(
            f"{spec} is a class; name a function, or a method of an object: "
            f"model = {found.__name__}(...), and then model.predict"
        )
    if inspect.iscoroutinefunction(found):
        raise ModelLoadError(f"{spec} is async; a predict function is a plain one")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # Built in: its first call tells.
    try:
        signature.bind([])
    except TypeError as error:
        raise ModelLoadError(
            f"{spec}{signature} cannot be called with one list of inputs: {error}"
        ) from None


def _functions_of(module: ModuleType) -> str:
    """What the file defines instead, for the message."""
    names = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return f"; it has {', '.join(sorted(names)[:_NAMES_SHOWN])}" if names else ""


_NAMES_SHOWN = 10


def _import(module: str, packages: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = f"this model needs {module}: {sys.executable} -m pip install {packages}"
        raise ModelLoadError(hint) from error


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Reads the source itself: Python tells an old bytecode file by its source's time in whole
    seconds, so that a model changed twice in one second would be the old one."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelLoadError(f"no such file: {path}")
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    loader = _SourceLoader(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ModelLoadError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Registered, because pickles made in the file name their classes by this module.
    sys.modules[path.stem] = module
    with _is_loading(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _is_loading(path: Path) -> Iterator[None]:
    _loading.append(str(path))
    try:
        yield
    finally:
        _loading.pop()


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] and error.name != name:
            raise
        raise ModelLoadError(f"no module or file named {name}") from error
