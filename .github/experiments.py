# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2", "pytest>=8"]
# ///
"""Measure every result that the README quotes, and keep them in `results.json` beside this file.

`uv run .github/experiments.py` takes about twenty minutes on two cores; name one or more of seeds,
ablations and boards to measure only these.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each process

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results.json")
sys.path += [str(ROOT), str(ROOT / "tests")]

from test_references import all_placements, beside_a_hit

import microgrpo as m

np.empty(2**25 - 2**13, np.uint8)  # as the script does: keep freed memory for reuse

LEARNING_RATE = 1e-2
DEFAULT = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
    lr_schedule="linear",
)


class EveryFleet(m.BattleshipEnv):
    """Battleship on one of the 9,024 legal placements: the seed says which."""

    def reset(self, *, seed: Sequence[int]) -> tuple[m.Array, dict[str, Any]]:
        """Hide the placements with these numbers."""
        ships = all_placements()[list(seed)]
        self.game = m.BattleshipGame(ships, np.zeros_like(ships))
        return np.zeros(ships.shape, np.float32), {}


def exact_score(θ: m.Params, config: m.GRPOConfig) -> float:
    """Average the scores of a game on each of the 9,024 placements."""
    return m.mean_reward(θ, replace(config, environment=EveryFleet), range(len(all_placements())))


def train(config: m.GRPOConfig) -> dict[str, Any]:
    """Train from an initialisation with the same seed; return its curve, score and seconds."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(seed=config.seed), LEARNING_RATE)
    start = time.process_time()
    θ_star, rewards_val = m.train_grpo(optimizer, config, report=lambda *_: None)
    seconds = time.process_time() - start
    curve = [
        round(float(point.mean()), 4) for point in np.array_split(rewards_val, min(100, config.M))
    ]
    policy = {name: np.round(value, 4).tolist() for name, value in θ_star.items()}
    score = round(exact_score(θ_star, config), 4)
    return {"score": score, "seconds": round(seconds), "curve": curve, "policy": policy}


# %% Seeds: is the default run robust?


def measure_seeds(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Run the default ten times, with seeds 0 to 9."""
    runs = list(pool.map(train, [replace(DEFAULT, seed=seed) for seed in range(10)]))
    for seed, run in enumerate(runs):
        run["mini_batches"] = DEFAULT.M
        if seed > 0:
            del run["policy"]  # one is enough for a picture
        print(f"seed {seed}: score {run['score']:.4f} in {run['seconds']:.0f} s", flush=True)
    return runs


# %% Ablations: which part of GRPO matters?

ABLATIONS: dict[str, dict[str, Any]] = {
    "as it stands": {},
    'scale_rewards="batch"': {"scale_rewards": "batch"},
    'scale_rewards="none"': {"scale_rewards": "none"},
    'loss_type="dapo"': {"loss_type": "dapo"},
    'loss_type="dr_grpo"': {"loss_type": "dr_grpo", "max_steps": 25},
    "β=0": {"β": 0.0},
    "β=0.01": {"β": 0.01},
    "μ=1": {"μ": 1},
    "μ=8": {"μ": 8},
    "μ=8, no clipping": {"μ": 8, "ε": 1e9},
    "R=2": {"R": 2},
    "R=8": {"R": 8},
}


def measure_ablations(pool: ProcessPoolExecutor) -> dict[str, list[float]]:
    """Train each variant for 300 mini-batches, hence on as many games, with three seeds."""
    seeds = (100, 101, 102)
    base = replace(DEFAULT, M=300)
    configs = [replace(base, seed=s, **change) for change in ABLATIONS.values() for s in seeds]
    scores = [run["score"] for run in pool.map(train, configs)]
    table = {name: scores[3 * i : 3 * i + 3] for i, name in enumerate(ABLATIONS)}
    for name, values in table.items():
        print(
            f"{name:24}{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})", flush=True
        )
    return table


# %% Boards: other rules by changing one argument

BOARDS = {
    "10 x 10": (10, m.BattleshipRules(10, (5, 4, 3, 3, 2))),
    "8 x 8": (6, m.BattleshipRules(8, (2, 3, 3, 4))),
    "6 x 6": (3, m.BattleshipRules(6, (2, 3, 3))),
}  # minutes of training, and the rules


def hunt_and_target(_: m.Params, observation: m.Array) -> m.Array:
    """Fire beside a hit if possible, else anywhere: the usual strategy, as a policy."""
    unknown = observation == 0
    beside = unknown & beside_a_hit(observation)
    choice = np.where(beside.any(axis=(-2, -1), keepdims=True), beside, unknown)
    choice = choice.reshape(*observation.shape[:-2], -1)
    return np.asarray(choice / choice.sum(axis=-1, keepdims=True))


def train_on_board(name: str) -> dict[str, Any]:
    """Train for some minutes on other rules; beside it, random play and hunt & target."""
    minutes, rules = BOARDS[name]

    def environment(n: int) -> m.BattleshipEnv:
        return m.BattleshipEnv(n, rules)

    def trained(mini_batches: int) -> tuple[m.Params, float]:
        start = time.process_time()
        optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(rules), LEARNING_RATE)
        m.train_grpo(optimizer, replace(config, M=mini_batches), report=lambda *_: None)
        return optimizer.params, (time.process_time() - start) / 60

    config = replace(DEFAULT, environment=environment, μ=2)
    _, first_minutes = trained(10)
    mini_batches = int(1.4 * 10 * minutes / first_minutes)  # games get shorter with experience
    θ_star, minutes = trained(mini_batches)

    seeds = range(10_001, 30_001, 2)
    at_random = replace(config, policy=lambda _, seen: m.reference_battleship_policy(seen))
    return {
        "random": m.mean_reward({}, at_random, seeds),
        "hunt & target": m.mean_reward({}, replace(config, policy=hunt_and_target), seeds),
        "trained": m.mean_reward(θ_star, config, seeds),
        "mini-batches": mini_batches,
        "minutes": round(minutes, 1),
    }


def measure_boards(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train for a few minutes of one core's time on each of three larger boards."""
    boards = dict(zip(BOARDS, pool.map(train_on_board, BOARDS), strict=True))
    for name, row in boards.items():
        print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    return boards


if __name__ == "__main__":
    measures: dict[str, Any] = {
        "seeds": measure_seeds,
        "ablations": measure_ablations,
        "boards": measure_boards,
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as workers:
        for name in sys.argv[1:] or measures:
            results[name] = measures[name](workers)
            RESULTS.write_text(json.dumps(results) + "\n")
