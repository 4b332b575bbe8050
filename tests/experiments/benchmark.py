"""Measure where the time goes, and keep it in `results.json`.

`uv run tests/experiments/benchmark.py` takes about four minutes on one core. All times are
CPU times. They depend on the machine; their ratios within one run hardly do.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from results import write_section

import microgrpo as m

np.empty(30 * 2**20, np.uint8)  # as in microgrpo.py's own run; measured below

DEFAULT = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
)


def milliseconds(work: Callable[[], Any], repeats: int = 15) -> float:
    """Return the shortest CPU time of a few repeats; the others were disturbed more."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    return min(times)


# %% Parts of a batch


def parts_of_a_batch(config: m.GRPOConfig, θ: m.Params) -> dict[str, float]:
    """Return how long a batch takes, the share of each part, and what a step costs."""
    rng = np.random.default_rng(0)

    def play() -> m.Batch:
        starts = rng.integers(config.num_val, 2**31, config.B)
        return m.rollout(θ, config, np.repeat(starts, config.G))

    batch = play()
    gradient = value_and_grad(m.grpo_objective)
    rollouts = milliseconds(play)
    gradients = config.μ * milliseconds(lambda: gradient(θ, batch, config))
    validation = milliseconds(lambda: m.rollout(θ, config, range(config.num_val)))
    total = rollouts + gradients + validation
    return {
        "steps": len(batch.actions),
        "rollouts, %": round(100 * rollouts / total, 1),
        "gradients, %": round(100 * gradients / total, 1),
        "validation, %": round(100 * validation / total, 1),
        "CPU ms": round(total, 2),
        "µs per step": round(1000 * (rollouts + gradients) / len(batch.actions), 2),
    }


def measure_parts() -> dict[str, dict[str, float]]:
    """Measure the default batch, and how it grows with its size, the network and the board."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    m.train_grpo(optimizer, replace(DEFAULT, M=150), report=lambda *_: None)
    θ = optimizer.params  # of some experience, as in most of training

    table = {"default": parts_of_a_batch(DEFAULT, θ)}
    for B in (16, 32, 128):
        table[f"B={B}"] = parts_of_a_batch(replace(DEFAULT, B=B), θ)
    for hidden in (32, 128, 512):
        random_θ = m.neural_battleship_policy_init(hidden=hidden)
        table[f"hidden={hidden}, untrained"] = parts_of_a_batch(DEFAULT, random_θ)
    for side, ships in {6: (2, 3, 3), 8: (2, 3, 3, 4), 10: (5, 4, 3, 3, 2)}.items():
        environment = partial(m.BattleshipEnv, board_size=side, ships=ships)
        config = replace(DEFAULT, environment=environment)
        random_θ = m.neural_battleship_policy_init(side)
        table[f"{side} x {side}, untrained"] = parts_of_a_batch(config, random_θ)
    return table


# %% One gradient step: its matrix products, and the same in loops


def time_of_matrix_products(θ: m.Params, steps: int) -> float:
    """Return the milliseconds of the products in the objective and its gradient, alone."""
    x = np.ones((steps, len(θ["W1"])), np.float32)
    h = np.ones((steps, len(θ["b1"])), np.float32)
    d = np.ones((steps, θ["W2"].shape[1]), np.float32)

    def multiply() -> None:
        x @ θ["W1"]
        h @ θ["W2"]
        h.T @ d
        d @ θ["W2"].T
        x.T @ h

    return milliseconds(multiply)


def loop_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """Return J as equation 3 of DeepSeekMath is printed, one trajectory and step at a time."""
    steps_of: list[list[int]] = [[] for _ in batch.rewards]
    for step, trajectory in enumerate(batch.trajectory):
        steps_of[trajectory].append(step)

    J = 0.0
    for i, steps in enumerate(steps_of):
        first = i - i % config.G
        group = batch.rewards[first : first + config.G]
        A = (batch.rewards[i] - group.mean()) / (group.std() + 1e-4)
        for step in steps:
            π = config.policy(θ, batch.observations[step])[batch.actions[step]]
            ρ = π / batch.π_old[step]
            clipped = anp.clip(ρ, 1 - config.ε, 1 + config.ε)
            ratio = batch.π_ref[step] / π
            kl = ratio - anp.log(ratio) - 1
            term = anp.minimum(ρ * A, clipped * A) - config.β * kl
            J = J + term / len(steps) / len(steps_of)
    return J


def measure_gradient_step() -> dict[str, dict[str, float]]:
    """Measure the objective and its gradient, matrix products alone, and both in loops."""
    θ = m.neural_battleship_policy_init()
    batch = m.rollout(θ, DEFAULT, np.repeat(range(1000, 1000 + DEFAULT.B), DEFAULT.G))
    whole = value_and_grad(m.grpo_objective)
    loops = value_and_grad(loop_objective)
    if abs(whole(θ, batch, DEFAULT)[0] - loops(θ, batch, DEFAULT)[0]) > 1e-6:
        raise ValueError("the loops compute something else")
    times = {
        "objective and gradient": milliseconds(lambda: whole(θ, batch, DEFAULT)),
        "their matrix products alone": time_of_matrix_products(θ, len(batch.actions)),
        "the same in loops": milliseconds(lambda: loops(θ, batch, DEFAULT), repeats=1),
    }
    ours = times["objective and gradient"]
    return {
        name: {"CPU ms": round(time, 2), "ratio": round(time / ours, 3)}
        for name, time in times.items()
    }


# %% The line that makes glibc keep its memory

MEMORY_LINE = "np.empty(30 * 2**20, np.uint8)"
COUNT_FAULTS = """
import resource, time
from microgrpo import *

config = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy, M=120)
marks = []

def mark(i, *_):
    marks.append((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt))

train_grpo(AdamWOptimizer(neural_battleship_policy_init()), config, report=mark)
milliseconds = 1000 * (marks[-1][0] - marks[19][0]) / 100
faults = (marks[-1][1] - marks[19][1]) / 100
print(milliseconds, faults)
"""


def batches_in_a_new_process(first_line: str) -> tuple[float, float]:
    """Return CPU milliseconds and page faults per batch, over 100 batches after the first 20."""
    command = [sys.executable, "-c", f"import numpy as np\n{first_line}\n{COUNT_FAULTS}"]
    printed = subprocess.check_output(command, text=True)
    milliseconds, faults = printed.split()
    return float(milliseconds), float(faults)


def measure_memory() -> dict[str, dict[str, list[float]]]:
    """Train with and without the line, alternately. It matters only on Linux with glibc."""
    if MEMORY_LINE not in Path(m.__file__).read_text(encoding="utf-8"):
        raise ValueError("the line is not in microgrpo.py")
    table: dict[str, dict[str, list[float]]] = {}
    for _ in range(5):
        for name, first_line in {"with": MEMORY_LINE, "without": ""}.items():
            milliseconds, faults = batches_in_a_new_process(first_line)
            row = table.setdefault(name, {"CPU ms": [], "page faults": []})
            row["CPU ms"].append(round(milliseconds, 2))
            row["page faults"].append(round(faults))
    return table


if __name__ == "__main__":
    speed: dict[str, dict[str, Any]] = {
        "parts": measure_parts(),
        "gradient step": measure_gradient_step(),
        "memory": measure_memory(),
    }
    for section, table in speed.items():
        print(section)
        for name, row in table.items():
            print(f"  {name:28}{row}")
    write_section("speed", speed)
