"""Twenty forests of handwritten digits as containers, whose replicas pause now and then.

What each forest says of each image was computed beforehand, by `answers`, and is read from the file
that FORESTS_FILE names: an input is the number of an image. A container's work is a sleep: of
4 to 8 ms, drawn anew for each batch; and every 600th batch, at a place of its own for each forest, of 80 ms,
as a garbage collection or a noisy neighbour would cause. So what is measured is the server and not
how many forests two cores can carry. FORESTS_SLOWER makes all times so much longer.
"""

import os
import random
import time

import numpy as np

COUNT = 20
SLOWER = float(os.environ.get("FORESTS_SLOWER", "1"))
USUAL_S = (0.004 * SLOWER, 0.008 * SLOWER)
PAUSE_S = 0.080 * SLOWER
PAUSE_EVERY = 600
NAMES = [f"forest{number:02}" for number in range(COUNT)]
TRAINED_ON = 500


def answers():
    """What each forest says of the images that none was trained on, and what they are."""
    from sklearn.ensemble import RandomForestClassifier

    import models

    images, digits = models.dataset()
    said = []
    for number in range(COUNT):
        # Bagged: each has seen some of the images, and small, so that they err differently.
        seen = np.random.default_rng(number).integers(0, TRAINED_ON, 200)
        forest = RandomForestClassifier(n_estimators=10, max_depth=6, random_state=number)
        forest.fit(images[:TRAINED_ON][seen], digits[:TRAINED_ON][seen])
        said.append(forest.predict(images[TRAINED_ON:]))
    return np.array(said), digits[TRAINED_ON:]


def predictor(number):
    """The function of one forest's container."""
    said, batches = None, 0
    sleeps = random.Random(number)

    def predict(inputs):
        nonlocal said, batches
        if said is None:
            said = np.load(os.environ["FORESTS_FILE"])[number]
        batches += 1
        is_pausing = (batches + number * PAUSE_EVERY // COUNT) % PAUSE_EVERY == 0
        time.sleep(PAUSE_S if is_pausing else sleeps.uniform(*USUAL_S))
        return [str(int(said[int(image[0])])) for image in inputs]

    return predict


for _number, _name in enumerate(NAMES):
    globals()[_name] = predictor(_number)
