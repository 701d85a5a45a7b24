"""``python -m clipper_serving``, and the program that a server starts for a Python model."""

import sys

PYTHON_MIN = (3, 9)


def start() -> int:
    """Run the command line, after a look at what it needs."""
    if sys.version_info < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        found = ".".join(map(str, sys.version_info[:3]))
        what = f"clipper-serving needs Python {wanted} or later, and {sys.executable} is {found}"
        print(what, file=sys.stderr)
        return 1
    try:
        import numpy as _numpy
        import zmq as _zmq
    except ImportError as error:
        print(
            f"clipper-serving: cannot serve a Python model: {error}; install what it needs: "
            f"{sys.executable} -m pip install pyzmq numpy",
            file=sys.stderr,
        )
        return 1
    from .cli import main

    del _numpy, _zmq
    return main()


if __name__ == "__main__":
    sys.exit(start())
