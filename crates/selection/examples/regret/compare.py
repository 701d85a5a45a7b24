"""The rounds of `regret`, played by other libraries: compare.py ROUNDS SEEDS PROCESSES

Prints a line of JSON for each policy, kind of losses and seed.
"""

import contextlib
import io
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import scipy.special
from mabwiser.mab import MAB, LearningPolicy

ARMS, GAP = 10, 0.1
SMPY_SEEDS = 2


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
    return (uniform < mean).astype(np.uint8)


class Mabwiser:
    """One of mabwiser's policies, as its users call it."""

    def __init__(self, policy, seed, first):
        self.mab = MAB(arms=list(range(ARMS)), learning_policy=policy, seed=seed)
        # It has to know every model before it can choose: each is asked once, as in its examples.
        self.mab.fit(list(range(ARMS)), [1.0 - loss for loss in first])

    def choose(self):
        return self.mab.predict()

    def learn(self, arm, loss):
        self.mab.partial_fit([arm], [1.0 - loss])


# A round takes mabwiser some 100 us, nearly all of it to check arguments and to share work among
# threads. What follows is its arithmetic alone, on the same random numbers; that it chooses the
# same is seen in the first CHECKED rounds of each seed, where both play.
CHECKED = 5_000


class EpsilonGreedy:
    library = LearningPolicy.EpsilonGreedy(epsilon=0.1)

    def __init__(self, seed, first):
        self.random = np.random.default_rng(seed).random
        self.sums, self.counts = [1.0 - loss for loss in first], [1] * ARMS
        self.means = list(self.sums)

    def choose(self):
        if self.random() < 0.1:
            return int(np.argmax([self.random() for _ in range(ARMS)]))
        return self.means.index(max(self.means))

    def learn(self, arm, loss):
        self.sums[arm] += 1.0 - loss
        self.counts[arm] += 1
        self.means[arm] = self.sums[arm] / self.counts[arm]


class Ucb1(EpsilonGreedy):
    library = LearningPolicy.UCB1(alpha=1.0)

    def choose(self):
        doubt = 2 * math.log(sum(self.counts))
        pairs = zip(self.means, self.counts)
        bounds = [mean + 1.0 * math.sqrt(doubt / count) for mean, count in pairs]
        return bounds.index(max(bounds))


class Thompson:
    library = LearningPolicy.ThompsonSampling()

    def __init__(self, seed, first):
        self.beta = np.random.default_rng(seed).beta
        self.wrong = 1.0 + np.array(first, dtype=np.float64)
        self.right = 3.0 - self.wrong

    def choose(self):
        return int(self.beta(self.right, self.wrong).argmax())

    def learn(self, arm, loss):
        self.wrong[arm] += loss
        self.right[arm] += 1.0 - loss


class Smpy:
    """SMPyBandits' Exp3, with its own defaults."""

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


def regret(player, table, start, own, beside=None):
    """Plays the rounds from `start` on; `own` was lost before."""
    losses = table.tobytes()
    for round_ in range(start, len(table)):
        arm = player.choose()
        loss = losses[round_ * ARMS + arm]
        own += loss
        player.learn(arm, loss)
        if beside and round_ < CHECKED:
            assert beside.choose() == arm, f"{type(player)} is not what it stands for: {round_}"
            beside.learn(arm, loss)
    return float(own - table.sum(axis=0, dtype=np.int64).min())


def play(game, policy, seed, rounds):
    table = losses(game, rounds, seed)
    first = [int(table[arm, arm]) for arm in range(ARMS)]
    if policy == "exp3":
        by, found = "SMPyBandits", regret(Smpy(seed), table, 0, 0)
    else:
        kind = {"epsilon_greedy": EpsilonGreedy, "ucb1": Ucb1, "thompson": Thompson}[policy]
        beside = Mabwiser(kind.library, seed, first)
        by, found = "mabwiser", regret(kind(seed, first), table, ARMS, sum(first), beside)
    return {"policy": policy, "losses": game, "by": by, "seed": seed, "regret": found}


def main():
    rounds, seeds, jobs = (int(number) for number in sys.argv[1:])
    plays = []
    for game in ("stochastic", "adversarial"):
        for policy in ("exp3", "epsilon_greedy", "ucb1", "thompson"):
            # SMPyBandits takes a minute for a million rounds.
            few = min(seeds, SMPY_SEEDS) if policy == "exp3" else seeds
            plays += [(game, policy, seed, rounds) for seed in range(1, few + 1)]
    with ProcessPoolExecutor(jobs) as pool:
        for line in pool.map(play, *zip(*plays)):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
