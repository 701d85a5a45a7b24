"""The rounds of `regret`, played by other libraries: compare.py ROUNDS SEED...

Prints a line of JSON for each policy, kind of losses and seed.
"""

import contextlib
import io
import json
import sys

import numpy as np
import scipy.special
from mabwiser.mab import MAB, LearningPolicy

ARMS, GAP = 10, 0.1


def mixed(number):
    """SplitMix64's finaliser over an array of 64-bit numbers."""
    with np.errstate(over="ignore"):
        z = number + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def losses(game, rounds, seed):
    round_ = np.arange(rounds, dtype=np.uint64)
    index = round_[:, None] * np.uint64(ARMS) + np.arange(ARMS, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        number = mixed(mixed(np.array([seed], dtype=np.uint64)) + index)
    uniform = (number >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    mean = np.full((rounds, ARMS), 0.5)
    mean[:, 3] -= GAP
    if game == "adversarial":
        ends, end, length = [], 100.0, 100.0
        while end <= rounds:
            ends.append(end)
            length *= 1.6
            end += length
        phase = np.searchsorted(np.array(ends), np.arange(rounds), side="right")
        low = np.full((rounds, ARMS), GAP)
        low[:, 3] = 0.0
        mean = np.where((phase % 2 == 0)[:, None], low, 1.0 - GAP + low)
    return (uniform < mean).astype(np.float64)


class Mabwiser:
    """One of mabwiser's policies."""

    def __init__(self, policy, seed, first):
        self.mab = MAB(arms=list(range(ARMS)), learning_policy=policy, seed=seed)
        # It has to know every model before it can choose: each is asked once, as in its examples.
        self.asked_first = list(range(ARMS))
        self.mab.fit(self.asked_first, [1.0 - first[arm, arm] for arm in range(ARMS)])

    def choose(self):
        return self.mab.predict()

    def learn(self, arm, loss):
        self.mab.partial_fit([arm], [1.0 - loss])


class Smpy:
    """SMPyBandits' Exp3, with its own defaults."""

    asked_first = ()

    def __init__(self, seed):
        np.random.seed(seed)
        # It is from 2019: SciPy has since renamed this function, which Exp3 does not use.
        scipy.special.btdtri = scipy.special.betaincinv
        with contextlib.redirect_stdout(io.StringIO()):
            from SMPyBandits.Policies import Exp3
        self.policy = Exp3(ARMS)
        self.policy.startGame()

    def choose(self):
        return int(self.policy.choice())

    def learn(self, arm, loss):
        self.policy.getReward(arm, 1.0 - loss)


def players(seed, first):
    mabwiser = {
        "epsilon_greedy": LearningPolicy.EpsilonGreedy(epsilon=0.1),
        "ucb1": LearningPolicy.UCB1(alpha=1.0),
        "thompson": LearningPolicy.ThompsonSampling(),
    }
    yield "exp3", "SMPyBandits", lambda: Smpy(seed)
    for name, policy in mabwiser.items():
        yield name, "mabwiser", lambda policy=policy: Mabwiser(policy, seed, first)


def regret(player, table):
    own = sum(table[arm, arm] for arm in player.asked_first)
    for row in table[len(player.asked_first) :]:
        arm = player.choose()
        own += row[arm]
        player.learn(arm, row[arm])
    return own - table.sum(axis=0).min()


def main():
    rounds, seeds = int(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]
    for seed in seeds:
        for game in ("stochastic", "adversarial"):
            table = losses(game, rounds, seed)
            for policy, by, player in players(seed, table[:ARMS]):
                line = {"policy": policy, "losses": game, "by": by, "seed": seed}
                print(json.dumps({**line, "regret": regret(player(), table)}), flush=True)


if __name__ == "__main__":
    main()
