"""The variants: each against its paper's formula, written as loops."""

from dataclasses import replace
from math import log, prod, sqrt
from typing import Any

import numpy as np
import pytest
import variants
from autograd import value_and_grad
from test_grpo import LINEAR, any_batch, check_formula, linear_policy, literal_advantage

import microgrpo as m

# Three groups of four. Those of the last are equal, but for the order in which they were added up.
REWARDS = np.append(
    [0.4, -1.1, 0.9, 2.0, 0.0, 1.0, 1.0, -0.5],
    [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.2 + 0.3 + 0.1, 0.3 + 0.1 + 0.2],
)
GROUPS_THAT_COUNT = 2
CONFIG = replace(LINEAR, max_steps=7)


def literal_variant(name: str, θ: m.Params, batch: m.Batch, now: m.Params) -> float:
    """Add up the terms of a paper's formula. Weights that are held constant are taken at `now`."""
    ε, β, G, n, S = CONFIG.ε, CONFIG.β, CONFIG.G, len(batch.rewards), len(batch.actions)

    def π(θ: m.Params, step: int) -> float:
        return float(linear_policy(θ, batch.observations[step])[batch.actions[step]])

    def surrogate(ρ: float, A: float, low: float, high: float) -> float:
        return min(ρ * A, min(max(ρ, low), high) * A)

    total = 0.0
    for i in range(n):
        group = [j for j in range(n) if j // G == i // G]
        own = [step for step in range(S) if batch.trajectory[step] == i]
        of_group = [step for step in range(S) if batch.trajectory[step] in group]
        rewards = [float(batch.rewards[j]) for j in group]
        others = [float(batch.rewards[j]) for j in group if j != i]
        centered = float(batch.rewards[i]) - sum(rewards) / G
        A = literal_advantage(batch.rewards, i, G)
        s = prod(π(θ, step) / float(batch.π_old[step]) for step in own) ** (1 / len(own))

        step_rewards = [float(batch.step_rewards[step]) for step in of_group]
        mean = sum(step_rewards) / len(of_group)
        std = sqrt(sum((reward - mean) ** 2 for reward in step_rewards) / len(of_group))
        for t, step in enumerate(own):
            ρ = π(θ, step) / float(batch.π_old[step])
            constant = min(π(now, step) / float(batch.π_old[step]), 1 + ε)
            to_ref = float(batch.π_ref[step]) / π(θ, step) or 1.0
            to_come = [(float(batch.step_rewards[k]) - mean) / (std + 1e-4) for k in own[t:]]
            process = surrogate(ρ, sum(to_come), 1 - ε, 1 + ε)
            total += {
                "dr_grpo": surrogate(ρ, centered, 1 - ε, 1 + ε) / n / CONFIG.max_steps,
                "dapo": surrogate(ρ, A, 0.8, 1.28) / len(of_group) / GROUPS_THAT_COUNT,
                "gspo": surrogate(s, A, 1 - ε, 1 + ε) / n / len(own),
                "cispo": constant * A * log(π(θ, step)) / len(of_group) / (n / G),
                "rloo": (batch.rewards[i] - sum(others) / (G - 1)) * log(π(θ, step)) / n,
                "k2": (surrogate(ρ, A, 1 - ε, 1 + ε) - β * log(to_ref) ** 2 / 2) / n / len(own),
                "process_supervision": (process - β * (to_ref - log(to_ref) - 1)) / n / len(own),
                "process_supervision, no KL": process / n / len(own),
            }[name]
    return total


NAMES = ["dr_grpo", "dapo", "gspo", "cispo", "rloo", "k2", "process_supervision"]


OFF: list[dict[str, Any]] = [{"β": 0}, {"reference_policy": None}]  # so that π_ref may even be 0


@pytest.mark.parametrize(
    ("name", "off"), [*((name, {}) for name in NAMES), *((NAMES[-1], off) for off in OFF)]
)
def test_a_variant_is_its_papers_formula(name: str, off: dict[str, Any]) -> None:
    """Value and gradient, of steps in any order."""
    θ, batch = any_batch(REWARDS)
    rng = np.random.default_rng(2)
    batch = batch._replace(step_rewards=rng.normal(size=len(batch.actions)))
    batch.π_ref[::2] *= not off
    objective = getattr(variants, f"{name}_objective")
    check_formula(
        lambda now: objective(now, batch, replace(CONFIG, **off)),
        lambda now: literal_variant(name + ", no KL" * bool(off), now, batch, θ),
        θ,
    )


def test_a_batch_without_any_difference_teaches_nothing() -> None:
    """Then DAPO counts no group at all, and does not divide by 0."""
    θ, batch = any_batch(np.full(12, 0.7))
    J, gradient = value_and_grad(variants.dapo_objective)(θ, batch, CONFIG)
    assert float(J) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(gradient["W"], 0, atol=1e-9)
