"""GRPO: rollouts, advantages, divergence and objective, beside the paper's formulas as loops."""

from dataclasses import FrozenInstanceError, replace
from math import log, sqrt
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import value_and_grad

import microgrpo as m

BATTLESHIP = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
)


class Countdown:
    """With seed s, steps of reward s % 4 + 1, s % 4, ... 1, and observations equal to the rewards.

    Whatever is allowed, it does: even seeds end terminated and odd ones truncated, observations
    share one array, what follows the end is NaN, and actions are kept.
    """

    def __init__(self, _: int = 0) -> None:
        self.actions: list[m.Array] = []

    def reset(self, *, seed: Any) -> Any:
        """Start counting."""
        self.seeds = seed
        self.left = np.array(seed) % 4 + 1.0
        return self.left, {}

    def step(self, actions: m.Array) -> Any:
        """Count down by 1, whatever the actions."""
        self.actions.append(actions)
        rewards = self.left.copy()
        self.left -= 1
        over = self.left == 0
        odd = np.array(self.seeds) % 2 == 1
        self.left[over] = np.nan
        return self.left, rewards, over & ~odd, over & odd, {}


def same_for_all(*π: float) -> Any:
    """Make a policy, or a reference policy, that gives the same probabilities in every row."""
    return lambda *args: np.tile(π, (len(args[-1]), 1))


COUNTDOWN = m.GRPOConfig(Countdown, same_for_all(0.2, 0.3, 0.5))


def test_defaults() -> None:
    """Those that the results were measured with. A config can be replaced, but not changed."""
    config = m.GRPOConfig(m.BattleshipEnv, m.neural_battleship_policy)
    numbers: Any = dict(ε=0.2, β=0.001, G=8, B=64, M=1300, μ=2, max_steps=1000, max_grad_norm=0.2)
    assert config == replace(config, reference_policy=None, num_val=64, seed=42, **numbers)
    with pytest.raises(FrozenInstanceError):
        config.β = 0.5  # type: ignore[misc]


TOO_SMALL = dict(ε=-0.01, β=-1e-9, G=1, B=0, M=0, μ=0, max_steps=0, max_grad_norm=0, num_val=0)


@pytest.mark.parametrize(("field", "value"), TOO_SMALL.items())
def test_a_number_that_is_too_small_is_refused(field: str, value: Any) -> None:
    """So is NaN, which is not below anything; the message names the field and the value."""
    refused: Any
    for refused in (value, np.nan):
        with pytest.raises(ValueError, match=f"^{field} .*{refused}"):
            replace(BATTLESHIP, **{field: refused})


def test_a_batch_holds_every_step_and_nothing_after_the_end() -> None:
    """The last action is repeated until all trajectories have ended."""
    environment = Countdown()
    π = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    π_ref = np.random.default_rng(1).dirichlet(np.ones(3), size=5)
    config = m.GRPOConfig(
        environment=lambda _: environment,
        policy=lambda _, seen: π[seen.astype(int)],
        reference_policy=lambda seen: π_ref[seen.astype(int)],
    )
    batch = m.rollout({}, config, np.arange(40))
    assert environment.seeds == list(range(40))
    assert {type(seed) for seed in environment.seeds} == {int}  # Gymnasium refuses NumPy's
    assert batch.rewards.tolist() == [1, 1 + 2, 1 + 2 + 3, 1 + 2 + 3 + 4] * 10
    for i in range(40):
        own = batch.trajectory == i
        left = list(range(i % 4 + 1, 0, -1))
        actions = batch.actions[own].tolist()
        assert batch.observations[own].tolist() == batch.step_rewards[own].tolist() == left
        assert batch.π_old[own].tolist() == π[left, actions].tolist()
        assert batch.π_ref[own].tolist() == π_ref[left, actions].tolist()
        actions += actions[-1:] * (4 - len(actions))
        assert [taken[i] for taken in environment.actions] == actions


def test_actions_are_drawn_from_the_policy() -> None:
    """Chi-square over pairs of first and second actions; probability 0 means never."""
    p = np.array([0.0, 0.5, 0.25, 0.0, 0.1875, 0.0625])
    rounded = np.outer(np.linspace(1, 0.9995, 20_000), p)
    config = replace(COUNTDOWN, policy=lambda *_: rounded, max_steps=2)
    batch = m.rollout({}, config, [3] * 20_000)
    np.testing.assert_array_equal(batch.π_ref, batch.π_old)  # as there is no reference
    first, second = batch.actions.reshape(2, -1)
    counts = np.bincount(6 * first + second, minlength=36)
    expected = 20_000 * np.outer(p, p).ravel()
    possible = expected > 0
    assert not counts[~possible].any()
    surprise = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert surprise < 15 + 4 * np.sqrt(30)  # its mean is 15, and 4 of its standard deviations
    certain = m.rollout({}, replace(COUNTDOWN, policy=same_for_all(0, 1)), [3])  # in integers
    assert certain.actions.tolist() == [1] * 4


# Log-probabilities, logits, ones, a sum below 1, a negative one, NaN.
WRONG = [[-0.7, -0.7], [2.0, 5.0], [1.0, 1.0], [0.5, 0.497], [1.5, -0.5], [np.nan, 0.5]]


@pytest.mark.parametrize("name", ["policy", "reference_policy"])
@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("rows", [slice(None), 700], ids=["all", "one"])
def test_what_is_no_probability_is_refused(name: str, wrong: list[float], rows: Any) -> None:
    """Also in one row of a large batch: training would go wrong silently. The message shows it."""
    π = np.full((1000, 2), 0.5)
    π[rows] = wrong
    changes = {"policy": same_for_all(0.5, 0.5), name: lambda *_: π}
    with pytest.raises(ValueError, match=f"^{name} ") as error:
        m.rollout({}, replace(COUNTDOWN, max_steps=1, **changes), range(1000))
    assert str(np.array(wrong)) in str(error.value)


def test_what_a_policy_is_shown_is_read_only() -> None:
    """One that normalises in place would do so again in training, and ρ would not start at 1."""
    in_place = replace(COUNTDOWN, policy=lambda _, seen: np.subtract(seen, 0.5, out=seen))
    with pytest.raises(ValueError, match="read-only"):
        m.rollout({}, in_place, [1, 2])


def literal_advantage(rewards: m.Array, i: int, G: int) -> float:
    """Compare trajectory i with its group by nothing but sums."""
    group = [float(reward) for reward in rewards[i // G * G : (i // G + 1) * G]]
    mean = sum(group) / G
    std = sqrt(sum((reward - mean) ** 2 for reward in group) / G)
    return (float(rewards[i]) - mean) / (std + 1e-4)


def linear_policy(θ: m.Params, observation: Any) -> Any:
    """Softmax of a linear map: small enough to differentiate by hand, in float64."""
    weights = anp.exp(observation @ θ["W"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


LINEAR = replace(COUNTDOWN, policy=linear_policy, reference_policy=lambda seen: seen, β=0.1, G=4)


def literal_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> float:
    """Compute equation 3 of DeepSeekMath as it is printed: trajectories, and their steps."""
    n = len(batch.rewards)
    total = 0.0
    for i in range(n):
        advantage = literal_advantage(batch.rewards, i, config.G)
        own = [step for step in range(len(batch.actions)) if batch.trajectory[step] == i]
        for step in own:
            π = float(config.policy(θ, batch.observations[step])[batch.actions[step]])
            ratio = π / float(batch.π_old[step])
            clipped = min(max(ratio, 1 - config.ε), 1 + config.ε)
            term = min(ratio * advantage, clipped * advantage)
            if config.reference_policy is not None and config.β != 0:
                to_reference = float(batch.π_ref[step]) / π
                term -= config.β * (to_reference - log(to_reference) - 1)
            total += term / len(own) / n
    return total


def check_formula(objective: Any, literal: Any, θ: m.Params) -> None:
    """Compare value and gradient with literal loops and their finite differences, in float64."""
    J, gradient = value_and_grad(objective)(θ)
    assert float(J) == pytest.approx(literal(θ), rel=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        nudge = 1e-6 * rng.normal(size=θ["W"].shape)
        difference = literal({"W": θ["W"] + nudge}) - literal({"W": θ["W"] - nudge})
        assert float((gradient["W"] * nudge).sum()) == pytest.approx(difference / 2, rel=1e-4)


def any_batch(rewards: m.Array) -> tuple[m.Params, m.Batch]:
    """Draw parameters, and 12 trajectories of 1 to 6 steps each, the steps in any order."""
    rng = np.random.default_rng(0)
    trajectory = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 7, size=12)))
    S = len(trajectory)
    batch = m.Batch(
        observations=rng.normal(size=(S, 4)),
        actions=rng.integers(3, size=S),
        π_old=rng.uniform(0.2, 0.6, size=S),
        π_ref=rng.uniform(0.1, 0.9, size=S),
        step_rewards=(rewards / np.bincount(trajectory))[trajectory],
        trajectory=trajectory,
        rewards=rewards,
    )
    return {"W": rng.normal(scale=0.3, size=(4, 3))}, batch


CHANGES = [{}, {"ε": 0}, {"ε": 9}, {"β": 1e-3}, {"G": 6}, {"reference_policy": None}, {"β": 0}]
REWARDS = np.random.default_rng(1).normal(size=12)
REWARDS[4:8] = 0.1  # in a group of equal rewards, advantages are 0


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_objective_is_the_papers_formula(changes: dict[str, Any]) -> None:
    """Value and gradient, of steps in any order. With β=0, π_ref may be 0: 0 times ∞ is NaN."""
    θ, batch = any_batch(REWARDS)
    batch.π_ref[::2] *= changes != {"β": 0}
    given = (batch, replace(LINEAR, **changes))
    check_formula(lambda θ: m.grpo_objective(θ, *given), lambda θ: literal_objective(θ, *given), θ)


def test_the_first_gradient_step_starts_from_the_policy_that_played() -> None:
    """So ρ is 1, J is 0 but for rounding, and all stays float32: float64 takes twice as long."""
    θ = m.neural_battleship_policy_init()
    config = replace(BATTLESHIP, reference_policy=None)
    batch = m.rollout(θ, config, np.repeat([1, 2, 3], 8))
    π = config.policy(θ, batch.observations)[np.arange(len(batch.actions)), batch.actions]
    np.testing.assert_allclose(π / batch.π_old, 1, rtol=1e-6)  # BLAS may change the last bit
    J, gradient = value_and_grad(m.grpo_objective)(θ, batch, config)
    assert float(J) == pytest.approx(0, abs=1e-6)
    assert {value.dtype for value in (π, *gradient.values())} == {np.dtype(np.float32)}
