# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "gymnasium>=1.2", "numpy>=2", "pytest>=8"]
# ///
"""Measure every result that the README quotes, and keep them in `results.json` beside this file.

`uv run .github/experiments.py` takes about an hour on two cores. Name one or more of seeds,
symmetric, learning_rates, ablations, boards and elsewhere to measure only these.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each process

import autograd.numpy as anp
import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results.json")
sys.path += [str(ROOT), str(ROOT / "tests")]

from elsewhere import GAMES, measure
from readme import run_block
from test_references import all_placements, beside_a_hit

import microgrpo as m

LEARNING_RATE = 1.5e-2
SYMMETRIC_LEARNING_RATE = 2e-2
DEFAULT = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
)
results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


@cache
def readme(name: str) -> Any:
    """Give an objective or the symmetric policy, just as the README has it."""
    if "symmetric" in name:
        return run_block("def symmetric_battleship_policy", **{"M=100": "M=1"})[name]
    return run_block("def dapo_objective")[name]


def undivided_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """GRPO without the divergence and without the division by the standard deviation."""
    ρ = readme("probabilities")(θ, batch, config) / batch.π_old
    A = readme("centred")(batch, config)[batch.trajectory]
    length = np.bincount(batch.trajectory)[batch.trajectory]
    per_step = readme("clipped")(ρ, A, config.ε, config.ε) / length
    return anp.sum(per_step) / len(batch.rewards)


class EveryFleet(m.BattleshipEnv):
    """Battleship on one of the 9,024 legal placements: the seed says which."""

    def reset(self, *, seed: Iterable[int]) -> tuple[m.Array, dict[str, Any]]:
        """Hide the placements with these numbers."""
        self.game = m.BattleshipGame(all_placements()[list(seed)])
        return self.observations(), {}


def exact_score(θ: m.Params, config: m.GRPOConfig) -> float:
    """Average the scores of a game on each of the 9,024 placements."""
    every_fleet = replace(config, environment=EveryFleet)
    return float(m.rollout(θ, every_fleet, range(len(all_placements()))).rewards.mean())


def quiet_train(
    optimizer: m.AdamWOptimizer, config: m.GRPOConfig, objective: Callable[..., Any] | None = None
) -> tuple[m.Params, m.Array, float]:
    """Train without a report; return θ_star, rewards_val and the CPU seconds it took."""
    start = time.process_time()
    θ_star, rewards_val = m.train_grpo(optimizer, config, objective, report=lambda *_: None)
    return θ_star, rewards_val, time.process_time() - start


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train with the changes of a job; return score, CPU seconds, curve and a game.

    A job may hold learning_rate, objective (a name), symmetric, and fields of the configuration.
    """
    changes = dict(job)
    symmetric = changes.pop("symmetric", False)
    learning_rate = changes.pop("learning_rate", LEARNING_RATE)
    objective = changes.pop("objective", None)
    if objective is not None:
        objective = undivided_objective if objective == "undivided" else readme(objective)

    config = replace(DEFAULT, **changes)
    init = m.neural_battleship_policy_init
    if symmetric:
        config = replace(config, policy=readme("symmetric_battleship_policy"))
        init = readme("symmetric_battleship_policy_init")
    optimizer = m.AdamWOptimizer(init(seed=config.seed), learning_rate)
    θ_star, rewards_val, seconds = quiet_train(optimizer, config, objective)
    return {
        "score": round(exact_score(θ_star, config), 4),
        "seconds": round(seconds),
        "curve": [round(float(part.mean()), 4) for part in np.array_split(rewards_val, 100)],
        "to_0.48": mini_batches_to(0.48, rewards_val),
        "game": [] if symmetric else likeliest_shots(θ_star),
    }


def likeliest_shots(θ: m.Params, seed: int = 2**31 + 3) -> list[dict[str, Any]]:
    """Play one game, always the likeliest shot; keep board and probabilities before each."""
    environment = m.BattleshipEnv(num_envs=1)
    board, _ = environment.reset(seed=[seed])
    game = []
    while not environment.game.finished().all():
        π = m.neural_battleship_policy(θ, board).ravel()
        shot = int(π.argmax())
        seen = board.astype(int).ravel().tolist()
        game.append({"board": seen, "policy": [round(float(p), 4) for p in π], "shot": shot})
        board, *_ = environment.step(np.array([shot]))
    return game


def mini_batches_to(score: float, rewards_val: m.Array) -> int | None:
    """Count the mini-batches until the held-out score, exponentially smoothed, gets there."""
    smoothed = 0.0
    for i, reward in enumerate(rewards_val, start=1):
        smoothed = 0.8 * smoothed + 0.2 * reward
        if smoothed >= score:
            return i
    return None


# %% Seeds: is the default run robust, and what does a policy gain that knows the board?


def ten_seeds(pool: ProcessPoolExecutor, **job: Any) -> list[dict[str, Any]]:
    """Train with seeds 0 to 9; keep the game of the first, which a picture shows."""
    runs = []
    for seed, run in enumerate(pool.map(train, [job | {"seed": seed} for seed in range(10)])):
        if seed > 0 or job.get("symmetric"):
            del run["game"]
        print(
            f"seed {seed}: {run['score']:.4f} in {run['seconds']} s, {run['to_0.48']}", flush=True
        )
        runs.append(run)
    return runs


def measure_seeds(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Run the default ten times."""
    return ten_seeds(pool)


def measure_symmetric(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Run the policy that knows the board ten times."""
    return ten_seeds(pool, symmetric=True, learning_rate=SYMMETRIC_LEARNING_RATE)


# %% Ablations: what matters on Battleship?

# Every row is trained on M=300 mini-batches of 256 games.
ROWS: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "Dr. GRPO": {"objective": "dr_grpo_objective", "max_steps": 25},
    "DAPO": {"objective": "dapo_objective"},
    "GSPO": {"objective": "gspo_objective"},
    "CISPO": {"objective": "cispo_objective"},
    "RLOO, μ=1": {"objective": "rloo_objective", "μ": 1},
    "no KL": {"β": 0},
    "no KL, A not divided": {"objective": "undivided", "β": 0},
    "k2 for k3": {"objective": "k2_objective"},
    "β=0.01": {"β": 0.01},
    "no clip": {"ε": 1e9},
    "μ=1": {"μ": 1},
    "μ=4": {"μ": 4},
    "μ=8": {"μ": 8},
    "μ=8, no clip": {"μ": 8, "ε": 1e9},
    "R=2": {"R": 2},
    "R=8": {"R": 8},
    "G=4, B=64": {"G": 4, "B": 64},
    "G=16, B=16": {"G": 16, "B": 16},
    "G=64, B=4": {"G": 64, "B": 4},
    "knows the board": {"symmetric": True},
}
TUNED = [name for name, row in ROWS.items() if "objective" in row or "symmetric" in row] + ["μ=1"]
LEARNING_RATES = (7.5e-3, 1.5e-2, 3e-2)


def measure_learning_rates(pool: ProcessPoolExecutor) -> dict[str, dict[str, float]]:
    """Try three learning rates for each variant, on two seeds that are not reported."""
    grid = list(product(TUNED, LEARNING_RATES))
    jobs = [
        ROWS[name] | {"M": 300, "learning_rate": rate, "seed": seed}
        for name, rate in grid
        for seed in (200, 201)
    ]
    scores = [run["score"] for run in pool.map(train, jobs)]
    table: dict[str, dict[str, float]] = {name: {} for name in TUNED}
    for i, (name, rate) in enumerate(grid):
        table[name][str(rate)] = round(float(np.mean(scores[2 * i : 2 * i + 2])), 4)
    for name, by_rate in table.items():
        print(f"{name:24}{by_rate}", flush=True)
    return table


def measure_ablations(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train each row with three seeds, the variants at the learning rate found before."""
    table: dict[str, dict[str, Any]] = {}
    for name in ROWS:
        tried = results["learning_rates"].get(name, {str(LEARNING_RATE): 1.0})
        table[name] = {"learning_rate": float(max(tried, key=lambda rate: tried[rate]))}
    jobs = [
        ROWS[name] | {"M": 300, "learning_rate": table[name]["learning_rate"], "seed": seed}
        for name in ROWS
        for seed in (100, 101, 102)
    ]
    scores = [run["score"] for run in pool.map(train, jobs)]
    for i, (name, row) in enumerate(table.items()):
        row["scores"] = scores[3 * i : 3 * i + 3]
        mean, low, high = np.mean(row["scores"]), min(row["scores"]), max(row["scores"])
        print(f"{name:24}{row['learning_rate']} {mean:.3f} ({low:.3f} to {high:.3f})", flush=True)
    return table


# %% Boards: other rules by changing one argument

BOARDS = {
    "10 x 10": (8, m.BattleshipRules(10, (5, 4, 3, 3, 2))),
    "8 x 8": (5, m.BattleshipRules(8, (2, 3, 3, 4))),
    "6 x 6": (2, m.BattleshipRules(6, (2, 3, 3))),
}  # minutes of training, and the rules


def hunt_and_target(_: m.Params, observation: m.Array) -> m.Array:
    """Fire beside a hit if possible, else anywhere: the usual strategy, as a policy."""
    unknown = observation == 0
    beside = unknown & beside_a_hit(observation)
    choice = np.where(beside.any(axis=(-2, -1), keepdims=True), beside, unknown)
    choice = choice.reshape(*observation.shape[:-2], -1)
    return np.asarray(choice / choice.sum(axis=-1, keepdims=True))


def train_on_board(name: str) -> dict[str, Any]:
    """Train the symmetric policy for some minutes; beside it, random play and hunt & target."""
    minutes, rules = BOARDS[name]

    def trained(mini_batches: int) -> tuple[m.Params, float]:
        init = readme("symmetric_battleship_policy_init")
        optimizer = m.AdamWOptimizer(init(rules), SYMMETRIC_LEARNING_RATE)
        θ_star, _, seconds = quiet_train(optimizer, replace(config, M=mini_batches))
        return θ_star, seconds / 60

    def score(θ: m.Params, policy: Callable[..., Any]) -> float:
        seeds = range(2**31, 2**31 + 10_000)
        return float(m.rollout(θ, replace(config, policy=policy), seeds).rewards.mean())

    policy = readme("symmetric_battleship_policy")
    config = replace(DEFAULT, environment=lambda n: m.BattleshipEnv(n, rules), policy=policy)
    _, minutes_for_ten = trained(10)
    mini_batches = int(1.4 * 10 * minutes / minutes_for_ten)  # games get shorter with experience
    θ_star, minutes = trained(mini_batches)
    return {
        "random": score({}, lambda _, seen: m.reference_battleship_policy(seen)),
        "hunt & target": score({}, hunt_and_target),
        "trained": score(θ_star, policy),
        "mini-batches": mini_batches,
        "minutes": round(minutes, 1),
    }


def measure_boards(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train for a few minutes of one core's time on each of three larger boards."""
    boards = dict(zip(BOARDS, pool.map(train_on_board, BOARDS), strict=True))
    for name, row in boards.items():
        print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    return boards


# %% Elsewhere: games that no one here wrote


def measure_elsewhere(pool: ProcessPoolExecutor) -> dict[str, list[dict[str, Any]]]:
    """Train on each of Gymnasium's games with three seeds."""
    jobs = list(product((0, 1, 2), GAMES))
    runs = list(pool.map(measure, *zip(*jobs, strict=True)))
    return {
        name: [run for (_, game), run in zip(jobs, runs, strict=True) if game == name]
        for name in GAMES
    }


if __name__ == "__main__":
    measures: dict[str, Callable[[ProcessPoolExecutor], Any]] = {
        "seeds": measure_seeds,
        "symmetric": measure_symmetric,
        "learning_rates": measure_learning_rates,
        "ablations": measure_ablations,
        "boards": measure_boards,
        "elsewhere": measure_elsewhere,
    }
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as workers:
        for name in sys.argv[1:] or measures:
            results[name] = measures[name](workers)
            RESULTS.write_text(json.dumps(results) + "\n")
