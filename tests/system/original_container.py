"""A model on the original's rpc.py, whose folder is the first argument: each input's sum."""

import sys

sys.path.insert(0, sys.argv[1])

import rpc


class Sum(rpc.ModelContainerBase):
    def predict_doubles(self, inputs):
        return [str(float(sum(values))) for values in inputs]


# Its own metrics want a Redis and port 1390.
rpc.RPCService(collect_metrics=False).start(Sum())
