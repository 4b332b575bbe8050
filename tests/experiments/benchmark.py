# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2", "pytest>=8"]
# ///
"""Measure where the time goes: `uv run .github/benchmark.py`, less than a minute on one idle core.

Seconds depend on the machine and on what else it does; the ratios within one run hardly do.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from autograd import value_and_grad

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

from test_grpo import literal_objective

import microgrpo as m

DEFAULT = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
)
LEARNING_RATE = 1.5e-2
objective_and_gradient = value_and_grad(m.grpo_objective)


def milliseconds(work: Callable[[], Any], repeats: int = 15) -> float:
    """Time some work, after a warm-up: the median of a few repeats."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def parts_of_a_mini_batch(config: m.GRPOConfig, θ: m.Params) -> dict[str, float]:
    """Milliseconds of each part of a mini-batch, and its number of steps."""
    fresh = iter(range(config.num_val, 10**9))

    def play() -> m.Batch:
        starts = [next(fresh) for _ in range(config.B)]
        return m.rollout(θ, config, np.repeat(starts, config.G))

    batch = play()
    return {
        "steps": batch.actions.size,
        "rollouts": milliseconds(play),
        "gradient": config.μ * milliseconds(lambda: objective_and_gradient(θ, batch, config)),
        "validation": milliseconds(lambda: m.rollout(θ, config, range(config.num_val))),
    }


def show_parts(name: str, config: m.GRPOConfig, θ: m.Params) -> None:
    """Print one row: where a mini-batch spends its time, and what a step of a game costs."""
    parts = parts_of_a_mini_batch(config, θ)
    steps = parts.pop("steps")
    total = sum(parts.values())
    shares = "".join(f"{value / total:14.0%}" for value in parts.values())
    per_step = 1e3 * (total - parts["validation"]) / steps
    print(f"{name:28}{steps:8.0f}{total:10.1f} ms{shares}{per_step:12.2f} µs")


def time_to(score: float) -> None:
    """Print how long the default run takes until its held-out score, smoothed, gets there."""
    smoothed = 0.0
    start = time.perf_counter()

    def stop_there(i: int, metrics: dict[str, Any]) -> None:
        nonlocal smoothed
        smoothed = 0.8 * smoothed + 0.2 * metrics["reward_val"]
        if smoothed >= score:
            print(f"Time to {score}: {time.perf_counter() - start:.1f} s, {i + 1} mini-batches.\n")
            raise StopIteration

    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(), LEARNING_RATE)
    try:
        m.train_grpo(optimizer, DEFAULT, report=stop_there)
    except StopIteration:
        return


if __name__ == "__main__":
    time_to(0.48)

    # A policy of some experience, as training mostly has.
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(), LEARNING_RATE)
    m.train_grpo(optimizer, replace(DEFAULT, M=300), report=lambda *_: None)
    θ = optimizer.params

    header = "".join(f"{name:>14}" for name in ("rollouts", "gradient", "validation"))
    print(f"{'a mini-batch':28}{'steps':>8}{'time':>13}{header}{'per step':>15}")
    show_parts("default", DEFAULT, θ)
    for B in (8, 16, 64):
        show_parts(f"B={B}", replace(DEFAULT, B=B), θ)
    for hidden in (32, 64, 256):
        show_parts(f"hidden={hidden}", DEFAULT, m.neural_battleship_policy_init(hidden=hidden))
    show_parts("hidden=128, untrained", DEFAULT, m.neural_battleship_policy_init())
    for side, ships in ((6, (2, 3, 3)), (8, (2, 3, 3, 4)), (10, (5, 4, 3, 3, 2))):
        rules = m.BattleshipRules(side, ships)
        board = replace(DEFAULT, environment=lambda n, rules=rules: m.BattleshipEnv(n, rules))
        show_parts(f"{side} x {side}, untrained", board, m.neural_battleship_policy_init(rules))

    batch = m.rollout(θ, DEFAULT, np.repeat(range(1000, 1000 + DEFAULT.B), DEFAULT.G))
    ours = milliseconds(lambda: objective_and_gradient(θ, batch, DEFAULT))
    loops = milliseconds(lambda: literal_objective(θ, batch, DEFAULT), repeats=1)
    print(f"\nObjective as nested loops (no gradient): {loops / ours:.0f} times the objective and")
    print(f"gradient in one batch ({ours:.1f} ms for {batch.actions.size} steps).")
