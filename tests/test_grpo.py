"""GRPO: rollouts, advantages, divergence and objective, against the paper's formulas as loops."""

from dataclasses import FrozenInstanceError, replace
from math import log, sqrt
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import value_and_grad

import microgrpo as m


class Countdown:
    """With seed s, steps earn s % 4 + 1, s % 4, ... 1, and observations are equal to the rewards.

    It does whatever is allowed: even seeds end terminated and odd ones truncated, observations
    share one array, what follows the end is NaN, and actions are kept.
    """

    def reset(self, *, seed: Any) -> Any:
        """Start counting."""
        self.actions: list[m.Array] = []
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


def linear_policy(θ: m.Params, observation: Any) -> Any:
    """Softmax of a linear map: small enough to differentiate by hand, in float64."""
    weights = anp.exp(observation @ θ["W"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


BATTLESHIP = m.GRPOConfig(
    m.BattleshipEnv, m.neural_battleship_policy, m.reference_battleship_policy
)
COUNTDOWN = m.GRPOConfig(lambda _: Countdown(), same_for_all(0.2, 0.3, 0.5))
LINEAR = replace(COUNTDOWN, policy=linear_policy, reference_policy=lambda seen: seen, β=0.1, G=4)
REWARDS = np.random.default_rng(1).normal(size=12)
REWARDS[4:8] = 0.1  # in a group of equal rewards, advantages are 0
CHANGES = [{}, {"ε": 0.01}, {"ε": 9}, {"β": 1e-3}, {"G": 6}, {"reference_policy": None}, {"β": 0}]
TOO_SMALL = dict(ε=0, β=-1e-9, G=1, B=0, M=0, μ=0, max_steps=0, max_grad_norm=0, num_val=0)
NAN = dict.fromkeys(TOO_SMALL, np.nan)


def literal_advantage(rewards: m.Array, i: int, G: int) -> float:
    """Compare trajectory i with its group, using nothing but sums."""
    group = [float(reward) for reward in rewards[i // G * G : (i // G + 1) * G]]
    mean = sum(group) / G
    std = sqrt(sum((reward - mean) ** 2 for reward in group) / G)
    return (float(rewards[i]) - mean) / (std + 1e-4)


def test_defaults() -> None:
    """The results were measured with these. A config can be replaced, but not changed."""
    config = m.GRPOConfig(m.BattleshipEnv, m.neural_battleship_policy)
    numbers: Any = dict(ε=0.2, β=0.001, G=8, B=64, M=1300, μ=2, max_steps=1000, max_grad_norm=0.2)
    assert config == replace(config, reference_policy=None, num_val=64, seed=42, **numbers)
    with pytest.raises(FrozenInstanceError):
        config.β = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(("field", "value"), [*TOO_SMALL.items(), *NAN.items()])
def test_a_number_that_is_too_small_is_refused(field: str, value: Any) -> None:
    """So is NaN, which is not below anything; the message names the field and the value."""
    with pytest.raises(ValueError, match=rf"\b{field}\b.*{value}"):
        replace(BATTLESHIP, **{field: value})


def test_grpo_advantages_by_hand() -> None:
    """Groups of 2 have means 2 and 5. Deviations (dividing by 2, not 1) are 2 and 0, plus 1e-4."""
    advantages = m.grpo_advantages(np.array([0.0, 4.0, 5.0, 5.0]), replace(COUNTDOWN, G=2))
    assert advantages.tolist() == pytest.approx([-2 / 2.0001, 2 / 2.0001, 0, 0])


@pytest.mark.parametrize("G", [2, 3, 4, 6])
def test_grpo_advantages_are_those_of_loops(G: int) -> None:
    """They agree on random rewards, and on small differences, where the 1e-4 matters."""
    rewards = np.random.default_rng(G).normal(size=12) * np.repeat([1, 1e-4], 6)
    advantages = m.grpo_advantages(rewards, replace(COUNTDOWN, G=G)).tolist()
    expected = [literal_advantage(rewards, i, G) for i in range(12)]
    assert advantages == pytest.approx(expected, rel=1e-9)


def test_kl_divergence_by_hand() -> None:
    """k3 is ratio - log(ratio) - 1, where ratio = π_ref / π is 1, 1/2 and 2: one value per step."""
    estimates = m.kl_divergence(np.array([0.4, 0.4, 0.4]), np.array([0.4, 0.2, 0.8]))
    assert np.atleast_1d(estimates).tolist() == pytest.approx([0, log(2) - 1 / 2, 1 - log(2)])


def test_kl_divergence_is_0_only_where_the_policies_agree() -> None:
    """Weighted by π, estimates add up to what defines the divergence, Σ π log(π / π_ref)."""
    π, π_ref = np.random.default_rng(0).dirichlet(np.ones(5), size=2)
    definition = sum(p * log(p / q) for p, q in zip(π, π_ref, strict=True))
    assert sum(π * m.kl_divergence(π, π_ref)) == pytest.approx(definition)
    assert min(m.kl_divergence(π, π_ref)) > 0


def objective_by_hand(ρ: list[float], trajectory: list[int], **changes: Any) -> float:
    """Return J of two trajectories, the first with A = 1, the second with A = -1."""
    steps = len(ρ)
    numbers, π_old = np.arange(steps), np.full(steps, 0.4)
    rewards, zeros = np.array([1.0, -1.0]), np.zeros(steps, int)
    batch = m.Batch(numbers, zeros, π_old, π_old / 2, zeros, np.array(trajectory), rewards)
    changes["policy"] = lambda θ, numbers: 0.4 * θ["ρ"][numbers][..., np.newaxis]
    config = replace(COUNTDOWN, G=2, ε=0.2, **changes)
    return float(m.grpo_objective({"ρ": np.array(ρ)}, batch, config))


def test_grpo_objective_averages_each_trajectory_and_then_all() -> None:
    """Trajectory 0 is only the second of four steps, with ρ = π / π_old = 1.1. Others have A = -1.

    The means of ρ A are 1.1 and -1, so J is +(1.1 - 1) / 2: not (1.1 - 3) / 4, and not -0.05.
    """
    objective = objective_by_hand(ρ=[1, 1.1, 1, 1], trajectory=[1, 0, 1, 1])
    assert objective == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("ρ", "better", "worse"), [(1, 1, -1), (0.5, 0.5, -0.8), (1.5, 1.2, -1.5)])
def test_grpo_objective_min_and_clip(ρ: float, better: float, worse: float) -> None:
    """A step with that ρ adds `better` in the trajectory with A = 1, and `worse` where A = -1."""
    first = 2 * objective_by_hand([ρ, 1], [0, 1]) + 1  # the other step contributes -1
    second = 2 * objective_by_hand([1, ρ], [0, 1]) - 1
    assert (first, second) == pytest.approx((better, worse), abs=1e-3)


@pytest.mark.parametrize(
    ("reference", "β", "J"), [(True, 0.1, -0.1 * (log(2) - 1 / 2)), (True, 0, 0), (False, 0.1, 0)]
)
def test_grpo_objective_penalises_divergence(reference: bool, β: float, J: float) -> None:  # noqa: FBT001
    """With π_ref = π / 2, a reference policy lowers J from 0 by β (log 2 - 1/2)."""
    reference_policy = same_for_all(1) if reference else None
    objective = objective_by_hand([1, 1], [0, 1], β=β, reference_policy=reference_policy)
    assert objective == pytest.approx(J, abs=1e-6)


def literal_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> float:
    """Compute equation 3 of DeepSeekMath as printed: over trajectories, and over their steps."""
    n = len(batch.rewards)
    total = 0.0
    for i in range(n):
        advantage = literal_advantage(batch.rewards, i, config.G)
        own = np.flatnonzero(batch.trajectory == i)
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


def check_formula(objective: Any, literal: Any, θ: m.Params, *given: Any) -> None:
    """Compare value and gradient with literal loops and their finite differences, in float64."""
    J, gradient = value_and_grad(objective)(θ, *given)
    assert float(J) == pytest.approx(literal(θ, *given), rel=1e-9)
    for nudge in 1e-6 * np.random.default_rng(0).normal(size=(5, *θ["W"].shape)):
        above, below = (literal({"W": W}, *given) for W in (θ["W"] + nudge, θ["W"] - nudge))
        slope = float((gradient["W"] * nudge).sum())
        assert slope == pytest.approx((above - below) / 2, rel=1e-4)


def any_batch(rewards: m.Array) -> tuple[m.Params, m.Batch]:
    """Draw parameters, and 12 trajectories of 1 to 6 steps each, with the steps in any order."""
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


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_grpo_objective_is_the_papers_formula(changes: dict[str, Any]) -> None:
    """Value and gradient agree, in any order of steps. With β=0, π_ref may be 0 (0 ∞ is NaN)."""
    θ, batch = any_batch(REWARDS)
    batch.π_ref[::2] *= changes != {"β": 0}
    check_formula(m.grpo_objective, literal_objective, θ, batch, replace(LINEAR, **changes))


def test_rollout_by_hand() -> None:
    """Three trajectories have rewards of 1; 2 and 1; 4, 3 and 2. Observations are equal to them.

    All first steps come first. Nothing is recorded of a trajectory that has ended (0 is terminated,
    1 truncated): what the environment returns for it after that is NaN. 2 is cut off by max_steps.
    """
    batch = m.rollout({}, replace(COUNTDOWN, max_steps=3), [0, 1, 3])
    assert batch.trajectory.tolist() == [0, 1, 2, 1, 2, 2]
    assert batch.rewards.tolist() == [1, 2 + 1, 4 + 3 + 2]
    assert batch.observations.tolist() == batch.step_rewards.tolist() == [1, 2, 4, 1, 3, 2]


def test_rollout_draws_actions_from_the_policy() -> None:
    """Each of 1,000 trajectories with equal seeds draws its own, as often as π says."""
    batch = m.rollout({}, COUNTDOWN, [0] * 1000)
    counts = np.bincount(batch.actions, minlength=3)
    assert counts.tolist() == pytest.approx([200, 300, 500], abs=64)  # four standard deviations
    assert batch.π_old.tolist() == np.array([0.2, 0.3, 0.5])[batch.actions].tolist()


def test_rollout_with_equal_arguments_gives_equal_batches() -> None:
    """Other seeds of the trajectories give other actions, and so does another config.seed."""
    first, again, other_seeds, other_config = (
        m.rollout({}, replace(COUNTDOWN, seed=config_seed), [seed] * 30).actions.tolist()
        for config_seed, seed in [(0, 0), (0, 0), (0, 4), (1, 0)]
    )
    assert again == first
    assert other_seeds != first
    assert other_config != first


def test_rollout_records_all_until_the_end() -> None:
    """The last action is repeated until all trajectories have ended, and no longer."""
    environment = Countdown()  # keeps the actions: each step has to pass an array of its own
    π, π_ref = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 5))
    config = m.GRPOConfig(
        environment=lambda _: environment,
        policy=lambda _, seen: π[seen.astype(int)],
        reference_policy=lambda seen: π_ref[seen.astype(int)],
        max_steps=9,
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
        assert [int(taken[i]) for taken in environment.actions] == actions


def test_rollout_draws_as_often_as_probabilities_say() -> None:
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
    assert surprise < 15 + 4 * np.sqrt(30)  # its mean plus 4 of its standard deviations


# Log-probabilities, logits, ones, a sum below 1, a negative value, NaN: in all rows, or in one.
ROWS = np.array([[-0.7, -0.7], [2, 5], [1, 1], [0.5, 0.497], [1.5, -0.5], [np.nan, 0.5]])
WRONG: list[Any] = [(row, np.tile(row, (8, 1))) for row in ROWS]
WRONG += [(row, np.vstack([np.full((7, 2), 0.5), row])) for row in ROWS]
WRONG += [(s, np.full(s, 1 / s[-1])) for s in [(1, 2), (8,), (8, 2, 1), (16,), (4, 2)]]


@pytest.mark.parametrize("name", ["policy", "reference_policy"])
@pytest.mark.parametrize(("shown", "π"), WRONG)
def test_rollout_refuses_what_is_no_probability(name: str, shown: Any, π: m.Array) -> None:
    """Nor does it take one row for all: all would act alike. The message says who gave what."""
    changes = {"policy": same_for_all(0.5, 0.5), name: lambda *_: π}
    with pytest.raises(ValueError, match=rf"\b{name}\b") as error:
        m.rollout({}, replace(COUNTDOWN, max_steps=1, **changes), range(8))
    assert str(shown) in str(error.value)


def test_rollout_refuses_a_reference_with_other_actions() -> None:
    """It has two where the policy has three, so π_ref would belong to other actions."""
    config = replace(COUNTDOWN, reference_policy=same_for_all(0.5, 0.5))
    with pytest.raises(ValueError, match=r"\(8, 3\).*\(8, 2\)") as error:
        m.rollout({}, config, range(8))
    assert "reference_policy" in str(error.value)


def test_rollout_shows_read_only_observations() -> None:
    """A policy that normalises in place would do so again in training: ρ would not start at 1."""
    in_place = replace(COUNTDOWN, policy=lambda _, seen: np.subtract(seen, 0.5, out=seen))
    with pytest.raises(ValueError, match="read-only"):
        m.rollout({}, in_place, [1, 2])


def test_training_starts_from_the_policy_that_played() -> None:
    """So ρ is 1, and J is 0 but for rounding. All stays float32, as float64 takes twice as long."""
    θ = m.neural_battleship_policy_init()
    config = replace(BATTLESHIP, reference_policy=None)
    batch = m.rollout(θ, config, np.repeat([1, 2, 3], 8))
    π = config.policy(θ, batch.observations)[np.arange(len(batch.actions)), batch.actions]
    np.testing.assert_allclose(π / batch.π_old, 1, rtol=1e-6)  # BLAS may change the last bit
    J, gradient = value_and_grad(m.grpo_objective)(θ, batch, config)
    assert float(J) == pytest.approx(0, abs=1e-6)
    assert {value.dtype for value in (π, *gradient.values())} == {np.dtype(np.float32)}
