"""By what a container is known to a server that asks for keys; all of it from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from .errors import ConfigurationError

KEY_NAME = "CLIPPER_RPC_KEY_NAME"
KEY = "CLIPPER_RPC_KEY"
SERVER_KEY = "CLIPPER_RPC_SERVER_KEY"
SECRET_KEY = "CLIPPER_RPC_SECRET_KEY"
VARIABLES = (KEY_NAME, KEY, SERVER_KEY, SECRET_KEY)

MAX_BYTES = 255


@dataclass(frozen=True)
class NamedKey:
    """The name of a key and its secret (ZMTP PLAIN); they are not encrypted."""

    name: str
    secret: str = field(repr=False)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set it on a socket that has not connected yet."""
        socket.setsockopt(zmq.PLAIN_USERNAME, self.name.encode())
        socket.setsockopt(zmq.PLAIN_PASSWORD, self.secret.encode())


@dataclass(frozen=True)
class CurveKeys:
    """The server's public key and the container's own secret one (CURVE), Z85; encrypted."""

    server: bytes
    secret: bytes = field(repr=False)
    public: bytes

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set them on a socket that has not connected yet."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)


def key_of(env: Mapping[str, str]) -> NamedKey | CurveKeys | None:
    """The key that the environment gives. Raises ``ConfigurationError`` for what cannot be one."""
    server, secret = env.get(SERVER_KEY), env.get(SECRET_KEY)
    if server or secret:
        if not server or not secret:
            raise ConfigurationError(f"{SERVER_KEY} and {SECRET_KEY} belong together")
        try:
            public = zmq.curve_public(secret.encode())
            if len(z85.decode(server)) != 32:
                raise ValueError("its length")
        except Exception as error:
            what = f"{SERVER_KEY} and {SECRET_KEY} are keys of CURVE, 40 characters of Z85"
            raise ConfigurationError(what) from error
        return CurveKeys(server.encode(), secret.encode(), public)
    name, key = env.get(KEY_NAME), env.get(KEY)
    if not name and not key:
        return None
    if not name or not key:
        raise ConfigurationError(f"{KEY_NAME} and {KEY} belong together")
    if max(len(name.encode()), len(key.encode())) > MAX_BYTES:
        raise ConfigurationError(f"{KEY_NAME} and {KEY} have at most {MAX_BYTES} bytes each")
    return NamedKey(name, key)
