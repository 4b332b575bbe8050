"""GRPO: rollouts, advantages, divergence and objective, beside the paper's formulas as loops."""

from collections.abc import Iterable
from dataclasses import replace
from math import log, sqrt
from types import SimpleNamespace
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, value_and_grad
from numpy.typing import NDArray

from microgrpo import (
    Batch,
    BattleshipEnv,
    GRPOConfig,
    Params,
    grpo_advantages,
    grpo_objective,
    kl_divergence,
    neural_battleship_policy,
    neural_battleship_policy_init,
    reference_battleship_policy,
    rollout,
)

Array = NDArray[Any]

BATTLESHIP = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy, G=4)


class Countdown:
    """With seed s, s % 4 + 1 steps of reward 1, seen as the number of steps that are left.

    What it returns after the end is NaN. It tells ends as integers, of even seeds as terminated
    and of odd ones as truncated, writes observations into one array, and keeps what it is given.
    """

    def reset(self, *, seed: Any) -> Any:
        """Start counting."""
        self.seeds = seed
        self.left = np.array(seed) % 4 + 1
        self.seen = 1.0 * self.left
        self.actions: list[Array] = []
        return self.seen, {}

    def step(self, actions: Array) -> Any:
        """Count down by 1, whatever the actions."""
        self.actions.append(actions)
        rewards = np.where(self.left > 0, 1.0, np.nan)
        self.left -= 1
        self.seen[:] = np.where(self.left > 0, self.left, np.nan)
        ended = 1 * (self.left == 0)
        odd = np.array(self.seeds) % 2
        return self.seen, rewards, ended * (1 - odd), ended * odd, {}


COUNTDOWN = GRPOConfig(lambda _: Countdown(), lambda _, o: np.tile([0.2, 0.3, 0.5], (len(o), 1)))

MINIMA = dict(ε=0, β=0, G=2, B=1, M=1, μ=1, R=1, max_steps=1, max_grad_norm=1e-9, num_val=1)


@pytest.mark.parametrize(("field", "minimum"), MINIMA.items())
def test_a_number_below_its_minimum_is_refused(field: str, minimum: Any) -> None:
    """So is NaN, which is not below anything; the message names the field and the value."""
    refused: Any
    for refused in (minimum - 1e-9, np.nan):
        with pytest.raises(ValueError, match=f"{field} .*{refused}"):
            replace(BATTLESHIP, **{field: refused})
    replace(BATTLESHIP, **{field: minimum})


# %% Rollout


def test_a_batch_holds_every_step_of_every_trajectory() -> None:
    """Its actions, in a new game of the same seed, bring the same boards and reward."""
    seeds = [11, 5, 5, 8]
    θ = neural_battleship_policy_init()
    batch = rollout(θ, BATTLESHIP, seeds)
    for i, seed in enumerate(seeds):
        environment = BattleshipEnv(1)
        board, _ = environment.reset(seed=[seed])
        total = 0.0
        for t, step in enumerate(np.flatnonzero(batch.trajectory == i)):
            action = batch.actions[step]
            np.testing.assert_array_equal(batch.observations[step], board[0])
            π = neural_battleship_policy(θ, board[0])
            assert batch.π_old[step] == pytest.approx(π[action], rel=1e-5)
            assert batch.π_ref[step] == pytest.approx(1 / (25 - t))
            board, reward, over, *_ = environment.step(np.array([action]))
            total += reward[0]
        assert over[0]
        assert batch.rewards[i] == total


def test_equal_arguments_give_equal_batches() -> None:
    """Another config.seed, or any other seed of a trajectory, draws other actions."""
    θ = neural_battleship_policy_init()
    one_shot = replace(BATTLESHIP, max_steps=1)  # at boards that look the same, whatever the seed
    first = rollout(θ, one_shot, [1, 2] * 20)
    for one, same in zip(first, rollout(θ, one_shot, [1, 2] * 20), strict=True):
        np.testing.assert_array_equal(one, same)
    others = [(1, [1, 2] * 20), (42, [2, 1] * 20), (42, [1, 2] * 19 + [1, 3])]
    for seed, seeds in others:
        other = rollout(θ, replace(one_shot, seed=seed), seeds)
        assert first.actions.tolist() != other.actions.tolist()


@pytest.mark.parametrize("seeds", [[4, 5, 6], range(4, 7), np.arange(4, 7)], ids=str)
def test_seeds_reach_the_environment_as_pythons_integers(seeds: Iterable[int]) -> None:
    """They may come as a list, a range or an array; Gymnasium refuses NumPy's integers."""
    environment = Countdown()
    rollout({}, replace(COUNTDOWN, environment=lambda _: environment), seeds)
    assert environment.seeds == [4, 5, 6]
    assert {type(seed) for seed in environment.seeds} == {int}


def test_nothing_counts_after_the_end_of_a_trajectory() -> None:
    """Also if 1 is said for True. The last action is repeated; the array may be kept elsewhere."""
    environment = Countdown()
    batch = rollout({}, replace(COUNTDOWN, environment=lambda _: environment), range(8))
    assert batch.rewards.tolist() == [1, 2, 3, 4] * 2
    for i in range(8):
        own = batch.trajectory == i
        actions = batch.actions[own].tolist()
        actions += actions[-1:] * (4 - len(actions))
        assert batch.observations[own].tolist() == list(range(i % 4 + 1, 0, -1))
        assert [taken[i] for taken in environment.actions] == actions


def test_actions_are_drawn_from_the_policy() -> None:
    """Chi-square over pairs of first and second actions; probability 0 means never."""
    p = np.array([0.0, 0.5, 0.25, 0.0, 0.1875, 0.0625])
    config = replace(COUNTDOWN, policy=lambda _, seen: np.tile(p, (len(seen), 1)), max_steps=2)
    first, second = rollout({}, config, [1] * 20_000).actions.reshape(2, -1)
    counts = np.bincount(6 * first + second, minlength=36)
    expected = 20_000 * np.outer(p, p).ravel()
    possible = expected > 0
    assert not counts[~possible].any()
    surprise = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert surprise < 15 + 4 * np.sqrt(30)  # its mean is 15, and 4 of its standard deviations


def test_trajectories_are_cut_at_max_steps() -> None:
    """A game that is not finished counts as it stands: its score is 0."""
    batch = rollout(neural_battleship_policy_init(), replace(BATTLESHIP, max_steps=5), [1] * 4)
    assert np.bincount(batch.trajectory).tolist() == [5, 5, 5, 5]
    assert batch.rewards.tolist() == [0, 0, 0, 0]


def test_without_a_reference_its_probabilities_are_the_policys_own() -> None:
    """So that π_ref is always there, and the divergence from it is 0."""
    batch = rollout({}, COUNTDOWN, range(8))
    np.testing.assert_array_equal(batch.π_old, np.array([0.2, 0.3, 0.5])[batch.actions])
    np.testing.assert_array_equal(batch.π_ref, batch.π_old)


@pytest.mark.parametrize("wrong", [[2.0, 5.0], [0.5, 0.49], [1.5, -0.5], [np.nan, 0.5]], ids=str)
@pytest.mark.parametrize("rows", [slice(None), 0, -1], ids=["all", "first", "last"])
def test_a_policy_that_gives_no_probabilities_is_refused(wrong: list[float], rows: Any) -> None:
    """Logits, say, or NaN, also for a single observation: silence would train on nonsense."""

    def policy(_: Params, seen: Array) -> Array:
        π = np.full((len(seen), 2), 0.5)
        π[rows] = wrong
        return π

    with pytest.raises(ValueError, match="policy"):
        rollout({}, replace(COUNTDOWN, policy=policy, max_steps=1), [1, 2, 3])


@pytest.mark.parametrize("packed", [(np.zeros(2),), {"x": np.zeros(2)}], ids=["tuple", "dict"])
def test_observations_that_are_not_one_array_are_refused(packed: Any) -> None:
    """Gymnasium has environments with several arrays; the message says which kind came."""
    environment: Any = SimpleNamespace(reset=lambda **_: (packed, {}))
    with pytest.raises(ValueError, match=f"observations .*{type(packed).__name__}"):
        rollout({}, replace(COUNTDOWN, environment=lambda _: environment), [1, 2])


# %% Objective


def literal_advantage(rewards: Array, i: int, G: int) -> float:
    """Compare trajectory i with its group by nothing but sums."""
    group = [float(reward) for reward in rewards[i // G * G : (i // G + 1) * G]]
    mean = sum(group) / G
    std = sqrt(sum((reward - mean) ** 2 for reward in group) / G)
    return (float(rewards[i]) - mean) / (std + 1e-4)


def test_advantages_are_the_papers() -> None:
    """Neighbours are a group, and where all of it have equal rewards, 0 / 0 becomes 0."""
    rewards = np.random.default_rng(0).normal(size=30)
    rewards[5:10] = 0.1
    with np.errstate(all="raise"):
        advantages = grpo_advantages(rewards, replace(BATTLESHIP, G=5))
    expected = [literal_advantage(rewards, i, G=5) for i in range(30)]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(advantages[5:10], 0, atol=1e-12)


def test_the_divergence_is_right_on_average_and_never_negative() -> None:
    """Its mean over all actions, each as often as π has it, is Σ π log(π / π_ref); at π_ref, 0."""
    rng = np.random.default_rng(0)
    π = rng.dirichlet(np.ones(6), size=100)
    π_ref = rng.dirichlet(np.ones(6), size=100)
    estimates = kl_divergence(π, π_ref)
    np.testing.assert_allclose((π * estimates).sum(axis=1), (π * np.log(π / π_ref)).sum(axis=1))
    assert estimates.min() >= 0
    assert not kl_divergence(π, π).any()


def linear_policy(θ: Params, observation: Any) -> Any:
    """Softmax of a linear map: small enough to differentiate by hand, in float64."""
    weights = anp.exp(observation @ θ["W"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


LINEAR = replace(COUNTDOWN, policy=linear_policy, reference_policy=lambda seen: seen, β=0.1, G=4)


def literal_objective(θ: Params, batch: Batch, config: GRPOConfig) -> float:
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
            if config.reference_policy is not None:
                to_reference = float(batch.π_ref[step]) / π
                term -= config.β * (to_reference - log(to_reference) - 1)
            total += term / len(own) / n
    return total


def check_formula(θ: Params, batch: Batch, config: GRPOConfig) -> None:
    """Compare value and gradient with the literal loops and their differences, in float64."""
    J, gradient = value_and_grad(grpo_objective)(θ, batch, config)
    assert float(J) == pytest.approx(literal_objective(θ, batch, config), rel=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        nudge = {name: 1e-6 * rng.normal(size=value.shape) for name, value in θ.items()}
        above = literal_objective({name: θ[name] + nudge[name] for name in θ}, batch, config)
        below = literal_objective({name: θ[name] - nudge[name] for name in θ}, batch, config)
        slope = sum(float((gradient[name] * nudge[name]).sum()) for name in θ)
        assert slope == pytest.approx((above - below) / 2, rel=1e-4)


def any_batch(rewards: Array) -> tuple[Params, Batch]:
    """Draw parameters, and 12 trajectories of 1 to 6 steps each, the steps in any order."""
    rng = np.random.default_rng(0)
    trajectory = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 7, size=12)))
    S = len(trajectory)
    batch = Batch(
        observations=rng.normal(size=(S, 4)),
        actions=rng.integers(3, size=S),
        π_old=rng.uniform(0.2, 0.6, size=S),
        π_ref=rng.uniform(0.1, 0.9, size=S),
        trajectory=trajectory,
        rewards=rewards,
    )
    return {"W": rng.normal(scale=0.3, size=(4, 3))}, batch


CHANGES = [{}, {"ε": 0}, {"ε": 9}, {"β": 0}, {"G": 6}, {"reference_policy": None, "β": 2}]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_objective_is_the_papers_formula(changes: dict[str, Any]) -> None:
    """Value and gradient, of steps in any order; without a reference policy, whatever β is."""
    θ, batch = any_batch(rewards=np.random.default_rng(1).normal(size=12))
    check_formula(θ, batch, replace(LINEAR, **changes))


def test_the_objective_of_battleship_is_the_papers_formula() -> None:
    """On games that the network played, after a change of its parameters."""
    rng = np.random.default_rng(0)
    θ = neural_battleship_policy_init(hidden=3)
    batch = rollout(θ, BATTLESHIP, np.repeat([1, 2], 4))
    moved = {name: value + rng.normal(scale=0.2, size=value.shape) for name, value in θ.items()}
    check_formula(moved, batch, replace(BATTLESHIP, β=0.05))


def test_the_first_gradient_is_that_of_the_plain_policy_gradient() -> None:
    """The policy that learns is still the one that played: ρ is 1, and J is 0 but for rounding."""
    θ = neural_battleship_policy_init()
    config = replace(BATTLESHIP, reference_policy=None)
    batch = rollout(θ, config, np.repeat([1, 2, 3], 4))
    steps = np.arange(len(batch.actions))
    π = config.policy(θ, batch.observations)[steps, batch.actions]
    np.testing.assert_allclose(π / batch.π_old, 1, rtol=1e-6)  # BLAS may round the last bit off

    def plain(θ: Params) -> Any:
        log_π = anp.log(config.policy(θ, batch.observations)[steps, batch.actions])
        means = [anp.mean(log_π[batch.trajectory == i]) for i in range(12)]
        return sum(literal_advantage(batch.rewards, i, 4) * means[i] for i in range(12)) / 12

    J, gradient = value_and_grad(grpo_objective)(θ, batch, config)
    assert float(J) == pytest.approx(0, abs=1e-6)
    assert abs(gradient["W2"]).max() > 1e-4
    for name, expected in grad(plain)(θ).items():
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-3, atol=1e-7)
        assert gradient[name].dtype == π.dtype == np.float32  # float64 would take twice the time


@pytest.mark.parametrize("ρ", [0.7, 0.9, 1.1, 1.3])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_clip_stops_what_has_gone_far_enough(sign: int, ρ: float) -> None:
    """Good actions up to 1 + ε, bad ones down to 1 - ε; what went the wrong way is pulled back."""
    θ = {"W": np.array([[0.3, -0.2, 0.1], [0.0, 0.4, -0.5]])}
    seen = np.array([[1.0, 2.0], [0.0, 0.0]])  # nothing to learn from the second: it sees zeros
    π = linear_policy(θ, seen)
    π_old = π[[0, 1], [2, 0]] / [ρ, 1]
    batch = Batch(seen, np.array([2, 0]), π_old, π_old, np.array([0, 1]), np.array([sign, -sign]))
    gradient = grad(grpo_objective)(θ, batch, replace(LINEAR, G=2, reference_policy=None))
    slope = np.outer(seen[0], [0, 0, 1] - π[0])  # ∇ log π of a softmax of a linear map
    learned = 0 if (sign, ρ) in [(1, 1.3), (-1, 0.7)] else sign / 1.0001 * ρ * slope / 2
    np.testing.assert_allclose(gradient["W"], learned, atol=1e-12)
