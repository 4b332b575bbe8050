"""The variants: each beside its paper's formula, written as loops, and as a script that trains."""

from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
import variants
from autograd import grad, value_and_grad
from test_grpo import LINEAR, any_batch, linear_policy, literal_advantage

import microgrpo as m

# Three groups of four. Those of the last are equal, but for the order in which they were added up.
REWARDS = np.append(
    [0.4, -1.1, 0.9, 2.0, 0.0, 1.0, 1.0, -0.5],
    [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.2 + 0.3 + 0.1, 0.3 + 0.1 + 0.2],
)
GROUPS_THAT_COUNT = 2
CONFIG = replace(LINEAR, max_steps=7)


class Literal:
    """A batch as the papers write it: trajectories i of a group, and their steps t."""

    def __init__(self, batch: m.Batch, config: m.GRPOConfig, now: m.Params) -> None:
        self.batch = batch
        self.config = config
        self.now = now  # the parameters at which a weight that is held constant is taken
        self.n = len(batch.rewards)
        self.steps = [
            [step for step in range(len(batch.actions)) if batch.trajectory[step] == i]
            for i in range(self.n)
        ]

    def group(self, i: int) -> list[int]:
        """List the trajectories of the group that i belongs to."""
        return [j for j in range(self.n) if j // self.config.G == i // self.config.G]

    def steps_of_group(self, i: int) -> list[int]:
        """List the steps of the group that i belongs to."""
        return [step for j in self.group(i) for step in self.steps[j]]

    def centered(self, i: int) -> float:
        """Subtract the mean of its group from the reward of trajectory i."""
        rewards = [float(self.batch.rewards[j]) for j in self.group(i)]
        return float(self.batch.rewards[i]) - sum(rewards) / len(rewards)

    def process_advantage(self, i: int, t: int) -> float:
        """Sum the normalized rewards from step t of trajectory i to its end."""
        rewards = [float(self.batch.step_rewards[step]) for step in self.steps_of_group(i)]
        mean = sum(rewards) / len(rewards)
        std = sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
        still_to_come = [float(self.batch.step_rewards[step]) for step in self.steps[i][t:]]
        return sum((reward - mean) / (std + 1e-4) for reward in still_to_come)

    def objective(self, name: str, θ: m.Params) -> float:
        """Add up the terms of a paper's formula."""
        total = 0.0
        for i in range(self.n):
            for t in range(len(self.steps[i])):
                total += self.term(name, θ, i, t)
        return total

    def term(self, name: str, θ: m.Params, i: int, t: int) -> float:
        """Return what step t of trajectory i adds to the objective, weight included."""
        ε, β, G, n = self.config.ε, self.config.β, self.config.G, self.n
        B = n / G
        step, length = self.steps[i][t], len(self.steps[i])
        steps_of_group = len(self.steps_of_group(i))
        A = literal_advantage(self.batch.rewards, i, G)
        π = self.π(θ, step)
        ρ = π / float(self.batch.π_old[step])
        π_ref = float(self.batch.π_ref[step])
        match name:
            case "dr_grpo":
                term = surrogate(ρ, self.centered(i), 1 - ε, 1 + ε) / n / self.config.max_steps
            case "dapo":
                term = surrogate(ρ, A, 0.8, 1.28) / steps_of_group / GROUPS_THAT_COUNT
            case "gspo":
                product = 1.0
                for other in self.steps[i]:
                    product *= self.π(θ, other) / float(self.batch.π_old[other])
                term = surrogate(product ** (1 / length), A, 1 - ε, 1 + ε) / n / length
            case "cispo":
                constant = self.π(self.now, step) / float(self.batch.π_old[step])
                term = min(max(constant, 0), 1 + ε) * A * log(π) / steps_of_group / B
            case "rloo":
                others = [float(self.batch.rewards[j]) for j in self.group(i) if j != i]
                term = (float(self.batch.rewards[i]) - sum(others) / (G - 1)) * log(π) / n
            case "k2":
                k2 = (log(π) - log(π_ref)) ** 2 / 2
                term = (surrogate(ρ, A, 1 - ε, 1 + ε) - β * k2) / length / n
            case "process_supervision":
                k3 = π_ref / π - log(π_ref / π) - 1
                A = self.process_advantage(i, t)
                term = (surrogate(ρ, A, 1 - ε, 1 + ε) - β * k3) / length / n
        return term

    def π(self, θ: m.Params, step: int) -> float:
        """Return the probability of the action that was taken."""
        probabilities = linear_policy(θ, self.batch.observations[step])
        return float(probabilities[self.batch.actions[step]])


def surrogate(ρ: float, A: float, low: float, high: float) -> float:
    """Clip like PPO."""
    return min(ρ * A, min(max(ρ, low), high) * A)


NAMES = ["dr_grpo", "dapo", "gspo", "cispo", "rloo", "k2", "process_supervision"]


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_is_its_papers_formula(name: str) -> None:
    """Value and gradient, of steps in any order."""
    θ, batch = any_batch(REWARDS)
    rng = np.random.default_rng(2)
    batch = batch._replace(step_rewards=rng.normal(size=len(batch.actions)))
    literal = Literal(batch, CONFIG, now=θ)
    objective = getattr(variants, f"{name}_objective")
    J, gradient = value_and_grad(objective)(θ, batch, CONFIG)
    assert float(J) == pytest.approx(literal.objective(name, θ), rel=1e-9)
    for _ in range(5):
        nudge = 1e-6 * rng.normal(size=θ["W"].shape)
        above = literal.objective(name, {"W": θ["W"] + nudge})
        below = literal.objective(name, {"W": θ["W"] - nudge})
        slope = float((gradient["W"] * nudge).sum())
        assert slope == pytest.approx((above - below) / 2, rel=1e-4)


def test_a_batch_without_any_difference_teaches_nothing() -> None:
    """Then DAPO counts no group at all, and does not divide by 0."""
    θ, batch = any_batch(np.full(12, 0.7))
    J, gradient = value_and_grad(variants.dapo_objective)(θ, batch, CONFIG)
    assert float(J) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(gradient["W"], 0, atol=1e-9)


def test_process_supervision_without_a_divergence() -> None:
    """It is off without a reference policy, as in GRPO, and where β is 0, whatever π_ref is."""
    θ, batch = any_batch(REWARDS)
    literal = Literal(batch, replace(CONFIG, β=0), now=θ)
    expected = literal.objective("process_supervision", θ)
    objective = variants.process_supervision_objective
    without = replace(CONFIG, reference_policy=None)
    assert float(objective(θ, batch, without)) == pytest.approx(expected, rel=1e-9)
    batch.π_ref[::2] = 0
    assert float(objective(θ, batch, replace(CONFIG, β=0))) == pytest.approx(expected, rel=1e-9)


def test_the_gradient_of_k2_is_that_of_the_divergence() -> None:
    """Over actions that are as frequent as π has them, here 1/2, 1/4 and 1/4."""
    θ: m.Params = {"W": np.log([[2.0, 1.0, 1.0]])}
    observations = np.ones((4, 1))
    actions = np.array([0, 0, 1, 2])
    π = linear_policy(θ, observations)[np.arange(4), actions]
    π_ref = np.array([0.2, 0.3, 0.5])
    flat = np.zeros(4)
    batch = m.Batch(observations, actions, π, π_ref[actions], flat, np.arange(4), flat)

    def divergence(W: Any) -> float:
        weights = [exp(logit) for logit in W]
        p = [weight / sum(weights) for weight in weights]
        return sum(p[a] * log(p[a] / π_ref[a]) for a in range(3))

    gradient = grad(variants.k2_objective)(θ, batch, CONFIG)["W"][0]
    for a, nudge in enumerate(1e-6 * np.eye(3)):
        slope = (divergence(θ["W"][0] + nudge) - divergence(θ["W"][0] - nudge)) / 2e-6
        assert gradient[a] == pytest.approx(-CONFIG.β * slope, rel=1e-4)
