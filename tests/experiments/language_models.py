"""Measure the language models of tests/examples: `uv run tests/experiments/language_models.py`.

It writes `language_models.json`, in about forty minutes on one core. Name one or more of
shell_game, control, imitation, rejection, divergence, say_five and names to measure only these.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[1] / "examples"))

import autograd.numpy as anp
import names as naming
import numpy as np
import say_five
from gpt import gpt_objective, gpt_policy, once_per_reply
from shell_game import LEARNING_RATE, configure, measure, play_test, pre_train

from microgrpo import AdamWOptimizer, Batch, GRPOConfig, Params, train_grpo

np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py

RESULTS = Path(__file__).with_name("language_models.json")


def imitation_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return the mean of log π over the steps of right replies: imitation, in place of GRPO.

    It does not matter which policy played the batch.
    """
    π = once_per_reply(batch)(θ, batch.observations)
    log_π = anp.log(π[np.arange(len(batch.actions)), batch.actions])  # [S]
    right = batch.rewards[batch.trajectory]  # [S] 1 or 0
    return anp.sum(right * log_π) / max(1, right.sum())


def train_shell_game(
    seed: int,
    pre_training: int = 1500,
    objective: Any = gpt_objective,
    β: float = 0,
    *,
    base_replies: bool = False,
) -> dict[str, Any]:
    """Pre-train and train; return measurements before and after, and [right, tokens] per batch.

    With base_replies, the base model replies throughout training, and not the model being trained.
    """
    start = time.process_time()
    optimizer = pre_train(seed, pre_training)
    θ_base = optimizer.params.copy()
    config = configure(seed)
    if β > 0:
        config = replace(config, β=β, reference_policy=lambda texts: gpt_policy(θ_base, texts))
    if base_replies:
        config = replace(config, policy=lambda _, texts: gpt_policy(θ_base, texts))
    curve: list[list[float]] = []

    def report(i: int, config: GRPOConfig, batch: Batch, *_: float) -> None:
        tokens = len(batch.actions) / len(batch.rewards)
        curve.append([round(float(batch.rewards.mean()), 4), round(tokens, 2)])

    optimizer.learning_rate = LEARNING_RATE
    train_grpo(optimizer, config, objective, report)
    return {
        "before": measure(play_test(θ_base, configure(seed))),
        "after": measure(play_test(optimizer.params, configure(seed))),
        "curve": curve,
        "seconds": round(time.process_time() - start, 1),
    }


def shell_game() -> list[Any]:
    """Train with ten seeds."""
    return [train_shell_game(seed) for seed in range(10)]


def control() -> dict[str, list[Any]]:
    """Train after shorter pre-training, three seeds each; shell_game is after 1,500 steps."""
    return {
        str(steps): [train_shell_game(seed, pre_training=steps) for seed in range(3)]
        for steps in (600, 300)
    }


def imitation() -> list[Any]:
    """Imitate right replies of the current model, three seeds."""
    return [train_shell_game(seed, objective=imitation_objective) for seed in range(3)]


def rejection() -> list[Any]:
    """Imitate right replies of the base model, in as many steps, three seeds."""
    return [
        train_shell_game(seed, objective=imitation_objective, base_replies=True)
        for seed in range(3)
    ]


def divergence() -> list[Any]:
    """Stay near the base model, three seeds."""
    return [train_shell_game(seed, β=0.001) for seed in range(3)]


def fives() -> dict[str, float]:
    """Train 100 models to say 5; return the share of exact fives of each."""
    shares = {}
    for seed in range(100, 200):
        with contextlib.redirect_stdout(io.StringIO()):
            shares[str(seed)] = say_five.main(seed)
    return shares


def train_names(seed: int, θ_before: Params, β: float) -> dict[str, Any]:
    """Train to write a's; return measurements afterwards and, with β = 0, [KL, a's] per batch."""
    config = naming.configure(seed, θ_before, β)
    optimizer = AdamWOptimizer(θ_before, naming.LEARNING_RATE)
    path: list[list[float]] = []

    def report(i: int, config: GRPOConfig, batch: Batch, *_: float) -> None:
        m = naming.measure(batch)
        path.append([round(m["kl"], 2), round(m["a"], 2)])

    train_grpo(optimizer, config, gpt_objective, report)
    after = naming.measure(naming.play_test(optimizer.params, config))
    return after if β > 0 else after | {"path": path}


def names() -> dict[str, list[Any]]:
    """Train without a reference and with four values of β, ten seeds each."""
    βs = {"β=1": 1, "β=0.7": 0.7, "β=0.5": 0.5, "β=0.3": 0.3, "no reference": 0}
    rows: dict[str, list[Any]] = {"before GRPO": []} | {name: [] for name in βs}
    for seed in range(10):
        θ_before = naming.pre_train(seed)
        before = naming.play_test(θ_before, naming.configure(seed, θ_before, β=0))
        rows["before GRPO"].append(naming.measure(before))
        for name, β in βs.items():
            rows[name].append(train_names(seed, θ_before, β))
    return rows


if __name__ == "__main__":
    measures: dict[str, Callable[[], Any]] = {
        "shell_game": shell_game,
        "control": control,
        "imitation": imitation,
        "rejection": rejection,
        "divergence": divergence,
        "say_five": fives,
        "names": names,
    }
    for name in sys.argv[1:] or measures:
        result = measures[name]()
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = result
        RESULTS.write_text(json.dumps(results) + "\n")
        print(name, "done", flush=True)
