"""Five models of handwritten digits, each a function for a container: images in, digits out.

They were trained on few images, so that they err differently often. While the file that
BREAK_FLAG names exists, `svm` is broken: it answers the digit after the right one.
"""

import os

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

TRAINED_ON = 500

NAMES = ["bayes", "logistic", "neighbours", "svm", "tree"]


def dataset():
    """Images and digits: those that models were trained on come first."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    return images[order], digits[order]


def train(name):
    images, digits = dataset()
    images, digits = images[:TRAINED_ON], digits[:TRAINED_ON]
    if name == "bayes":
        return GaussianNB(var_smoothing=1e-3).fit(images, digits)
    if name == "logistic":
        return LogisticRegression(max_iter=2_000, C=0.001).fit(images[:150], digits[:150])
    if name == "neighbours":
        return KNeighborsClassifier(5).fit(images[:100], digits[:100])
    if name == "svm":
        return SVC(gamma=0.001, C=10.0).fit(images, digits)
    return DecisionTreeClassifier(random_state=0).fit(images, digits)


def is_broken():
    return os.path.exists(os.environ.get("BREAK_FLAG", ""))


def predictor(name):
    """The function of one model; it is trained at the first batch."""
    model = None

    def predict(images):
        nonlocal model
        if model is None:
            model = train(name)
        digits = model.predict(np.asarray(images))
        if name == "svm" and is_broken():
            digits = (digits + 1) % 10
        return [str(int(digit)) for digit in digits]

    return predict


bayes = predictor("bayes")
logistic = predictor("logistic")
neighbours = predictor("neighbours")
svm = predictor("svm")
tree = predictor("tree")
