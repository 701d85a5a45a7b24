"""A model that adds up the numbers of each input."""


def predict(inputs):
    return [float(values.sum()) for values in inputs]
