"""The rounds of `regret`, played by mabwiser: compare.py ROUNDS SEED."""

import sys

import numpy as np
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


def regret(policy, table, seed):
    mab = MAB(arms=list(range(ARMS)), learning_policy=policy, seed=seed)
    # It has to know every model before it can choose: each is asked once, as in its examples.
    first = table[:ARMS]
    mab.fit(list(range(ARMS)), [1.0 - first[arm, arm] for arm in range(ARMS)])
    own = sum(first[arm, arm] for arm in range(ARMS))
    for row in table[ARMS:]:
        arm = mab.predict()
        own += row[arm]
        mab.partial_fit([arm], [1.0 - row[arm]])
    return own - table.sum(axis=0).min()


def main():
    rounds, seed = int(sys.argv[1]), int(sys.argv[2])
    policies = {
        "epsilon_greedy": LearningPolicy.EpsilonGreedy(epsilon=0.1),
        "ucb1": LearningPolicy.UCB1(alpha=1.0),
        "thompson": LearningPolicy.ThompsonSampling(),
    }
    print(f"mabwiser, {rounds} rounds, {ARMS} models, gap {GAP}, seed {seed}")
    for game in ("stochastic", "adversarial"):
        table = losses(game, rounds, seed)
        for name, policy in policies.items():
            print(f"{name:<16}{game:<14}{regret(policy, table, seed):>12.0f}", flush=True)


if __name__ == "__main__":
    main()
