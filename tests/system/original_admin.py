"""Runs calls of the original's clipper_admin, one JSON list a line: METHOD, ARGUMENTS...

Answers with a JSON line each, the result or {"raised": TEXT}. Needs clipper_admin 0.4.1, so it is
started with an interpreter of its own: original_admin.py QUERY_HOST:PORT MANAGEMENT_HOST:PORT
"""

import json
import logging
import sys

from clipper_admin import ClipperConnection
from clipper_admin.container_manager import ContainerManager
from clipper_admin.deployers.deployer_utils import save_python_function

logging.disable(logging.CRITICAL)


class Manager(ContainerManager):
    """A container manager of one's own, which knows addresses and starts nothing."""

    cluster_identifier = "clipper"

    def connect(self):
        pass

    def get_admin_addr(self):
        return sys.argv[2]

    def get_query_addr(self):
        return sys.argv[1]

    def stop_models(self, models):
        pass


def closure(inputs):
    return [float(sum(values)) for values in inputs]


def main():
    connection = ClipperConnection(Manager())
    connection.connect()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            if method == "save_python_function":
                result = save_python_function("closure", closure)
            else:
                result = getattr(connection, method)(*arguments)
        except Exception as error:
            result = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
