"""What a model's process is made of, as one short text: its build.

Two processes with the same build answer alike as far as files tell: the Python modules beside the
model, and the files that were read until it was served. Libraries are left out. The server drops
its cached answers of a model version when a container of another build joins.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

BUILD_VARIABLE = "CLIPPER_MODEL_BUILD"
FILES_MAX = 10_000
"""How many of the files that are read count; further ones do not."""

_READ_BYTES = 1 << 20
_LIBRARIES = tuple(
    {
        os.path.realpath(path) + os.sep
        for name, path in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    | {os.path.realpath(os.path.dirname(__file__)) + os.sep}
)
_PACKAGES = ("site-packages", "dist-packages")
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib")


class FilesRead:
    """The files that this process has opened for reading until ``stop``.

    Python's own ``open`` is heard, in any library; what C code opens by itself is not.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self._is_listening = True
        sys.addaudithook(self._hear)

    def stop(self) -> None:
        """Note no more. The hook stays for the life of the process, and costs nothing then."""
        self._is_listening = False

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._is_listening or event != "open":
            return
        path, mode = arguments[0], arguments[1]
        if not isinstance(path, (str, os.PathLike)) or _writes(mode):
            return
        if len(self.paths) < FILES_MAX:
            self.paths.add(os.path.abspath(os.fspath(path)))


def build_of(spec: str | None, read: Iterable[str]) -> str:
    """The build of this process.

    ``spec`` is what the command line names, ``FILE.py:function`` or a model file, ``None`` for a
    program that serves by itself; ``read`` are the files that it has read until now.
    """
    root = (
        _file_of(spec) if spec is not None else getattr(sys.modules["__main__"], "__file__", None)
    )
    files = {os.path.realpath(path) for path in read}
    folder = os.sep
    if root is not None:
        real = os.path.realpath(root)
        folder = real if os.path.isdir(real) else os.path.dirname(real)
        files.update(_files_in(real) if os.path.isdir(real) else [real])
        files.update(_modules_below(folder))
    digest = _Digest()
    for path in sorted(files):
        if os.path.isfile(path) and _counts(path, folder):
            _add_file(digest, path, folder)
    return digest.text()


class _Digest:
    """Tells files apart that nobody has made to look alike; ``hashlib`` costs 3 MB of memory."""

    def __init__(self) -> None:
        self._crc, self._adler, self._size = 0, 1, 0

    def add(self, part: bytes) -> None:
        self._crc, self._adler = zlib.crc32(part, self._crc), zlib.adler32(part, self._adler)
        self._size += len(part)

    def text(self) -> str:
        return f"{self._crc:08x}{self._adler:08x}-{self._size}"


def _file_of(spec: str) -> str:
    place, colon, _ = spec.rpartition(":")
    return place if colon and not Path(spec).exists() else spec


def _files_in(folder: str) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        yield from (os.path.join(where, name) for name in names)


def _modules_below(folder: str) -> Iterator[str]:
    """The files of the imported modules that lie beside the model."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.realpath(file).startswith(folder + os.sep):
            yield os.path.realpath(file)


def _counts(path: str, folder: str) -> bool:
    """Whether a file belongs to the model and not to the machine; hidden ones are caches.

    The model's own folder may be anywhere, also where otherwise the system or something hidden is.
    """
    if path.endswith((".pyc", ".pyo")):
        return False
    is_beside = path.startswith(folder + os.sep)
    parts = (os.path.relpath(path, folder) if is_beside else path).split(os.sep)
    if any(part.startswith(".") or part in _PACKAGES for part in parts):
        return False
    return is_beside or not path.startswith((*_LIBRARIES, *_SYSTEM))


def _add_file(digest: _Digest, path: str, folder: str) -> None:
    """Add a file by its place beside the model, so that the same folder elsewhere is the same."""
    digest.add(os.fsencode(os.path.relpath(path, folder)) + b"\0")
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.add(chunk)
    except OSError:
        digest.add(b"unreadable")


def _writes(mode: object) -> bool:
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")
