"""GRPO: rollouts, advantages and the objective, beside the papers' formulas as plain loops."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, value_and_grad
from autograd.extend import defvjp, primitive
from numpy.typing import NDArray

from microgrpo import (
    Batch,
    BattleshipEnv,
    BattleshipRules,
    GRPOConfig,
    Params,
    collect_batch,
    grpo_advantages,
    grpo_objective,
    neural_battleship_policy,
    neural_battleship_policy_init,
    reference_battleship_policy,
)

NAN, INF = float("nan"), float("inf")

BATTLESHIP = GRPOConfig(
    environment=BattleshipEnv,
    policy=neural_battleship_policy,
    reference_policy=reference_battleship_policy,
)


def linear_policy(θ: Params, observation: Any) -> Any:
    """Softmax of a linear map: small enough to differentiate by hand, in float64."""
    weights = anp.exp(observation @ θ["W"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


def uniform_policy(observation: NDArray[Any]) -> NDArray[Any]:
    """Three actions, equally likely."""
    return np.full((*observation.shape[:-1], 3), 1 / 3)


LINEAR = GRPOConfig(
    environment=BattleshipEnv,  # not used: the batches below are made by hand
    policy=linear_policy,
    reference_policy=uniform_policy,
    β=0.1,
    max_steps=9,
)


def some_batch(seed: int = 0) -> tuple[Params, Batch]:
    """Draw parameters and the steps, shuffled, of 3 groups of 4 trajectories of 1 to 6 steps."""
    rng = np.random.default_rng(seed)
    trajectory = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 7, size=12)))
    steps = len(trajectory)
    batch = Batch(
        observations=rng.normal(size=(steps, 4)),
        actions=rng.integers(3, size=steps),
        π_old=rng.uniform(0.2, 0.6, size=steps),
        π_ref=np.full(steps, 1 / 3),
        trajectory=trajectory,
        rewards=rng.normal(size=(3, 4)),
    )
    return {"W": rng.normal(scale=0.3, size=(4, 3))}, batch


def literal_advantage(rewards: NDArray[Any], group: int, member: int, scale_rewards: str) -> float:
    """Compute the advantage of one trajectory with nothing but sums."""
    own_group = [float(r) for r in rewards[group]]
    mean = sum(own_group) / len(own_group)
    everyone = own_group if scale_rewards == "group" else [float(r) for r in rewards.ravel()]
    center = sum(everyone) / len(everyone)
    std = (sum((r - center) ** 2 for r in everyone) / len(everyone)) ** 0.5
    scale = 1.0 if scale_rewards == "none" else std + 1e-4
    return (own_group[member] - mean) / scale


def literal_objective(θ: Params, batch: Batch, config: GRPOConfig) -> float:
    """Compute equation 3 of DeepSeekMath as it is printed: groups, their outputs, their tokens."""
    groups, members = batch.rewards.shape
    n, all_steps = groups * members, len(batch.actions)
    high = config.ε if config.ε_high is None else config.ε_high
    total = 0.0
    for group in range(groups):
        for member in range(members):
            advantage = literal_advantage(batch.rewards, group, member, config.scale_rewards)
            own = [s for s in range(all_steps) if batch.trajectory[s] == group * members + member]
            for s in own:
                π = float(config.policy(θ, batch.observations[s])[batch.actions[s]])
                ratio = π / float(batch.π_old[s])
                clipped = min(max(ratio, 1 - config.ε), 1 + high)
                surrogate = min(ratio * advantage, clipped * advantage)
                kl = 0.0
                if config.β:
                    to_ref = float(batch.π_ref[s]) / π
                    kl = to_ref - float(np.log(to_ref)) - 1
                divisor = {
                    "grpo": n * len(own),
                    "dapo": all_steps,
                    "dr_grpo": n * config.max_steps,
                }[config.loss_type]
                total += (surrogate - config.β * kl) / divisor
    return total


VARIANTS: list[dict[str, Any]] = [
    {},
    {"ε": 0.05},
    {"ε": 0.05, "ε_high": 0.3},
    {"ε": 1e9},
    {"β": 0.0},
    {"β": 0.0, "reference_policy": None},
    {"scale_rewards": "batch"},
    {"scale_rewards": "none"},
    {"loss_type": "dapo"},
    {"loss_type": "dr_grpo"},
    {"loss_type": "dr_grpo", "scale_rewards": "none", "ε_high": 0.28, "β": 0.02},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_objective_is_the_papers_formula(variant: dict[str, Any], seed: int) -> None:
    """Every option agrees with the nested loops, steps in any order."""
    config = replace(LINEAR, **variant)
    θ, batch = some_batch(seed)
    expected = literal_objective(θ, batch, config)
    assert float(grpo_objective(θ, batch, config)) == pytest.approx(expected, rel=1e-9)


def test_every_option_changes_the_objective() -> None:
    """No option is decoration: each variant of some strength gives a value of its own."""
    θ, batch = some_batch()
    values = [float(grpo_objective(θ, batch, replace(LINEAR, **v))) for v in VARIANTS]
    without_reference = values.pop(5)
    assert without_reference == values[4]  # β = 0 and no reference are the same thing
    assert len({round(value, 9) for value in values}) == len(values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_is_that_of_finite_differences(variant: dict[str, Any]) -> None:
    """Autograd goes through minimum, clip and the KL, for every option."""
    config = replace(LINEAR, **variant)
    θ, batch = some_batch()
    gradient = grad(grpo_objective)(θ, batch, config)["W"]
    for index in np.ndindex(4, 3):
        nudge = np.zeros((4, 3))
        nudge[index] = 1e-6
        above = literal_objective({"W": θ["W"] + nudge}, batch, config)
        below = literal_objective({"W": θ["W"] - nudge}, batch, config)
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.bool_])
def test_equal_observations_side_by_side_are_shown_to_the_policy_once(dtype: Any) -> None:
    """And yet every step counts, in the objective and in its gradient, in whatever order."""
    θ, batch = some_batch()
    rng = np.random.default_rng(0)
    few = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1]], dtype)
    which = rng.integers(3, size=len(batch.actions))
    shown = []

    def watched(θ: Params, observation: Any) -> Any:
        shown.append(len(observation))
        return linear_policy(θ, observation)

    nudge = np.zeros((4, 3))
    nudge[1, 2] = 1e-6
    for order in (which, np.sort(which)):
        some = batch._replace(observations=few[order])
        J, gradient = value_and_grad(grpo_objective)(θ, some, replace(LINEAR, policy=watched))
        assert float(J) == pytest.approx(literal_objective(θ, some, LINEAR), rel=1e-9)
        above = literal_objective({"W": θ["W"] + nudge}, some, LINEAR)
        below = literal_objective({"W": θ["W"] - nudge}, some, LINEAR)
        assert gradient["W"][1, 2] == pytest.approx((above - below) / 2e-6, rel=1e-4)
    assert 3 < shown[0] <= len(which)
    assert shown[1] == 3


def test_the_policy_is_shown_every_board_of_a_mini_batch_once() -> None:
    """While playing; and later too, as equal boards stand side by side in the batch."""
    shown: list[tuple[float, ...]] = []

    def watched(θ: Params, observation: Any) -> Any:
        shown.extend(tuple(board.ravel()) for board in observation)
        return neural_battleship_policy(θ, observation)

    config = replace(BATTLESHIP, policy=watched)
    batch = collect_batch(neural_battleship_policy_init(), config, seeds=range(16))
    boards = [tuple(board.ravel()) for board in batch.observations]
    changes = sum(here != before for before, here in pairwise(boards))
    assert set(shown) == set(boards)
    assert changes + 1 == len(shown) == len(set(boards)) < len(boards)


def test_an_observation_may_be_a_number() -> None:
    """Observations [S] of a discrete space, a state each, with a table for a policy."""

    def tabular(θ: Params, state: Any) -> Any:
        weights = anp.exp(θ["W"][state])
        return weights / anp.sum(weights, axis=-1, keepdims=True)

    config = replace(LINEAR, policy=tabular)
    θ, batch = some_batch()
    states = np.random.default_rng(0).integers(4, size=len(batch.actions))
    batch = batch._replace(observations=states)
    expected = literal_objective(θ, batch, config)
    assert float(grpo_objective(θ, batch, config)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_are_the_papers(scale_rewards: Any) -> None:
    """Rewards [B, G] relative to their group, by population standard deviations."""
    config = replace(LINEAR, scale_rewards=scale_rewards)
    rewards = np.random.default_rng(0).normal(size=(5, 3))
    advantages = grpo_advantages(rewards, config)
    for group, member in np.ndindex(5, 3):
        expected = literal_advantage(rewards, group, member, scale_rewards)
        assert advantages[group, member] == pytest.approx(expected)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_a_group_of_equals_teaches_nothing(scale_rewards: Any) -> None:
    """If every reward in a group is equal, its advantages are 0, not 0 / 0."""
    config = replace(LINEAR, scale_rewards=scale_rewards)
    rewards = np.array([[0.1, 0.1, 0.1], [0.0, 0.5, 1.0]])
    advantages = grpo_advantages(rewards, config)
    np.testing.assert_allclose(advantages[0], 0, atol=1e-12)
    assert abs(advantages[1]).max() > 0.4


def test_the_objective_of_battleship_is_the_papers_formula() -> None:
    """The real thing: the default configuration on a batch that the network played."""
    config = replace(BATTLESHIP, G=3, β=0.05)
    θ = neural_battleship_policy_init(hidden=2)
    batch = collect_batch(θ, config, seeds=[1, 2])
    rng = np.random.default_rng(0)
    moved = {k: v + rng.normal(scale=0.1, size=v.shape).astype(np.float32) for k, v in θ.items()}
    expected = literal_objective(moved, batch, config)
    assert float(grpo_objective(moved, batch, config)) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_stays_float32() -> None:
    """A float64 in the backward pass of the network would double the time of training."""
    config = replace(BATTLESHIP, G=2)
    θ = neural_battleship_policy_init(hidden=2)
    batch = collect_batch(θ, config, seeds=[1])
    assert batch.observations.dtype == batch.π_old.dtype == batch.π_ref.dtype == np.float32
    seen_on_the_way_back = []

    @primitive  # type: ignore[untyped-decorator]
    def probe(probabilities: Any) -> Any:
        return probabilities

    def note(_answer: Any, _probabilities: Any) -> Any:
        return lambda g: seen_on_the_way_back.append(g.dtype) or g  # type: ignore[func-returns-value]

    defvjp(probe, note)
    config = replace(config, policy=lambda θ, seen: probe(neural_battleship_policy(θ, seen)))
    gradient = grad(grpo_objective)(θ, batch, config)
    assert {value.dtype for value in gradient.values()} == {np.dtype(np.float32)}
    assert seen_on_the_way_back == [np.dtype(np.float32)]


def test_the_ratio_is_1_on_the_first_step() -> None:
    """The policy that learns is the policy that played, illegal moves and all."""
    θ = neural_battleship_policy_init()
    batch = collect_batch(θ, BATTLESHIP, seeds=range(16))
    steps = np.arange(len(batch.actions))
    ratio = neural_battleship_policy(θ, batch.observations)[steps, batch.actions] / batch.π_old
    np.testing.assert_allclose(ratio, 1, rtol=1e-6)  # BLAS may round differently in the last bit

    def tabular(θ: Params, observation: Any) -> Any:  # no BLAS, no last bit
        weights = anp.exp(θ["logits"]) * (observation.reshape(len(observation), 25) == 0)
        return weights / anp.sum(weights, axis=-1, keepdims=True)

    logits = np.random.default_rng(0).normal(size=25).astype(np.float32)
    batch = collect_batch({"logits": logits}, replace(BATTLESHIP, policy=tabular), seeds=range(16))
    steps = np.arange(len(batch.actions))
    ratio = tabular({"logits": logits}, batch.observations)[steps, batch.actions] / batch.π_old
    assert (ratio == 1).all()


def test_the_objective_starts_at_0_with_a_gradient() -> None:
    """With ρ = 1 the advantages of a group cancel; how they change with θ does not."""
    config = replace(BATTLESHIP, β=0.0)
    θ = neural_battleship_policy_init()
    batch = collect_batch(θ, config, seeds=range(16))
    assert float(grpo_objective(θ, batch, config)) == pytest.approx(0, abs=1e-6)
    assert abs(grad(grpo_objective)(θ, batch, config)["W2"]).max() > 1e-5


def test_the_divergence_is_never_negative_and_0_at_the_reference() -> None:
    """With equal rewards the objective is the KL term alone: -β times a mean of k3 estimates."""
    θ, batch = some_batch()
    batch = batch._replace(rewards=np.zeros((3, 4)))
    for scale in (0.1, 1, 3):
        assert grpo_objective({"W": θ["W"] * scale}, batch, LINEAR) < 0
    at_reference = {"W": np.zeros((4, 3))}
    assert grpo_objective(at_reference, batch, LINEAR) == pytest.approx(0, abs=1e-12)


def test_a_batch_holds_every_step_of_every_trajectory() -> None:
    """Replaying the actions of each trajectory in the game gives its observations and reward."""
    config = replace(BATTLESHIP, G=4)
    seeds = [11, 5, 8]
    batch = collect_batch(neural_battleship_policy_init(), config, seeds)
    assert batch.rewards.shape == (3, 4)
    assert set(batch.trajectory) == set(range(12))
    for i in range(12):
        environment = BattleshipEnv(1)
        observation, _ = environment.reset(seed=[seeds[i // 4]])
        played, total = batch.trajectory == i, 0.0
        for seen, action in zip(batch.observations[played], batch.actions[played], strict=True):
            np.testing.assert_array_equal(seen, observation[0])
            observation, reward, over, *_ = environment.step(np.array([action]))
            total += reward[0]
        assert over.all()
        assert batch.rewards[i // 4, i % 4] == pytest.approx(total)


def test_members_of_a_group_share_their_start_but_not_their_actions() -> None:
    """Only the sampled actions differ within a group."""
    batch = collect_batch(neural_battleship_policy_init(), BATTLESHIP, seeds=[3, 3])
    orders = {tuple(batch.actions[batch.trajectory == i]) for i in range(32)}
    assert len(orders) == 32


def test_collect_batch_is_a_pure_function() -> None:
    """The same θ, config and seeds give the same batch; another seed of either gives another."""
    θ = neural_battleship_policy_init()

    def actions(config: GRPOConfig, seeds: Sequence[int]) -> tuple[int, ...]:
        return tuple(collect_batch(θ, config, seeds).actions)

    first = actions(BATTLESHIP, [1, 2])
    assert first == actions(BATTLESHIP, [1, 2])
    assert first != actions(replace(BATTLESHIP, seed=1), [1, 2])
    assert first != actions(BATTLESHIP, [1, 3])
    one_shot = replace(BATTLESHIP, max_steps=1)  # into the same fog, whatever the seed
    assert actions(one_shot, [1]) != actions(one_shot, [2])
    assert actions(one_shot, [1, 2]) != actions(one_shot, [1, 3])
    assert first == actions(BATTLESHIP, range(1, 3))
    assert first == actions(BATTLESHIP, np.array([1, 2]))  # type: ignore[arg-type]


def test_actions_are_sampled_from_the_policy() -> None:
    """Chi-square over many first shots, and no shot where the probability is 0."""
    p = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625] + [0] * 20)
    config = GRPOConfig(
        lambda n: BattleshipEnv(n, BattleshipRules(5, (1,))),
        policy=lambda _, seen: np.broadcast_to(p, (len(seen), 25)),
        β=0,
        G=10_000,
        max_steps=1,
    )
    counts = np.bincount(collect_batch({}, config, seeds=[0]).actions, minlength=25)
    assert not counts[5:].any()
    surprise = ((counts[:5] - 10_000 * p[:5]) ** 2 / (10_000 * p[:5])).sum()
    assert surprise < 4 + 5 * np.sqrt(8)  # mean 4, 5 standard deviations


def test_trajectories_are_cut_at_max_steps() -> None:
    """An unfinished game counts as it stands: its score is 0."""
    batch = collect_batch(neural_battleship_policy_init(), replace(BATTLESHIP, max_steps=5), [1])
    assert np.bincount(batch.trajectory).tolist() == [5] * 16
    assert not batch.rewards.any()


def test_without_a_reference_its_probabilities_are_ones() -> None:
    """π_ref [S] is always there."""
    config = replace(BATTLESHIP, reference_policy=None, β=0)
    batch = collect_batch(neural_battleship_policy_init(), config, [1])
    np.testing.assert_array_equal(batch.π_ref, 1)
    batch = collect_batch(neural_battleship_policy_init(), BATTLESHIP, [1])
    known = (batch.observations != 0).sum(axis=(1, 2))
    np.testing.assert_allclose(batch.π_ref, 1 / (25 - known), rtol=1e-6)


@pytest.mark.parametrize("seeds", [[-1], [0.5], [float("nan")], ["1"], [True]])
def test_seeds_out_of_range_are_named(seeds: list[int]) -> None:
    """Seeds are integers from 0 up."""
    with pytest.raises(ValueError, match="seed"):
        collect_batch(neural_battleship_policy_init(), BATTLESHIP, seeds)


@pytest.mark.parametrize("wrong", [2.0, 0.01, NAN, [1.5, -0.5] + 23 * [0]])
@pytest.mark.parametrize("rows", [slice(None), slice(1), slice(-1, None)])
def test_a_policy_that_is_no_distribution_is_refused(wrong: Any, rows: slice) -> None:
    """Logits instead of probabilities, or a NaN, would otherwise train in silence."""

    def policy(_: Params, observation: Any) -> Any:
        probabilities = reference_battleship_policy(observation)
        if len(observation) > 1:  # not at the start, where all boards are equal
            probabilities[rows] = wrong
        return probabilities

    with pytest.raises(ValueError, match="policy"):
        collect_batch({}, replace(BATTLESHIP, policy=policy), [1])


def test_a_reference_that_rules_out_an_action_is_refused() -> None:
    """The divergence from a probability of 0 is infinite."""
    config = replace(BATTLESHIP, reference_policy=lambda o: np.zeros((len(o), 25)))
    with pytest.raises(ValueError, match="π_ref"):
        collect_batch(neural_battleship_policy_init(), config, [1])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("environment", [None, 5]),
        ("policy", [None, "policy"]),
        ("reference_policy", [None, 0.5]),
        ("ε", [-0.1, NAN, INF, "0.2", None]),
        ("ε_high", [-0.1, NAN, INF, "0.2", "", False]),
        ("β", [-0.1, NAN, INF, None]),
        ("G", [1, 0, -1, 2.5, NAN, "16", True]),
        ("B", [0, -1, 1.5, NAN, None]),
        ("M", [0, -1, 1.5, NAN]),
        ("μ", [0, -1, 1.5, NAN]),
        ("R", [0, -1, 1.5, NAN]),
        ("max_steps", [0, -1, 1.5, NAN, INF]),
        ("num_val", [0, -1, 1.5, NAN]),
        ("seed", [-1, 1.5, NAN, None]),
        ("max_grad_norm", [-0.1, 0, NAN, INF, None]),
        ("scale_rewards", ["std", None, True, NAN]),
        ("loss_type", ["bnpo", None, 0]),
        ("lr_schedule", ["cosine", None]),
    ],
)
def test_every_field_of_the_config_is_checked(field: str, values: list[Any]) -> None:
    """A wrong field is a ValueError that names it and shows the value."""
    for value in values:
        with pytest.raises(ValueError, match=field) as error:
            replace(BATTLESHIP, **{field: value})
        assert repr(value) in str(error.value)


def test_beta_needs_a_reference() -> None:
    """The default β > 0 cannot do without a reference policy; β = 0 can."""
    with pytest.raises(ValueError, match=r"reference_policy .* β=0.001, got None"):
        GRPOConfig(BattleshipEnv, neural_battleship_policy)
    GRPOConfig(BattleshipEnv, neural_battleship_policy, β=0)
    with pytest.raises(ValueError, match=r"reference_policy .* got 'random'"):
        GRPOConfig(BattleshipEnv, neural_battleship_policy, "random", β=0)  # type: ignore[arg-type]


def test_ends_may_be_integers() -> None:
    """An environment that says 1 for True is understood."""

    class ThreeSteps:
        def __init__(self, num_envs: int) -> None:
            self.n, self.steps = num_envs, 0

        def reset(self, *, seed: Any) -> Any:
            return np.zeros((len(seed), 1)), {}

        def step(self, actions: Any) -> Any:
            self.steps += 1
            end = np.full(self.n, int(self.steps == 3))
            return np.zeros((self.n, 1)), np.ones(self.n, int), end, 0 * actions, {}

    config = GRPOConfig(ThreeSteps, lambda _, seen: np.full((len(seen), 2), 0.5), β=0)
    np.testing.assert_array_equal(collect_batch({}, config, [1]).rewards, 3.0)


def test_an_environment_may_keep_the_actions_it_is_given() -> None:
    """What an environment has stored does not change when the game goes on."""
    kept: list[NDArray[Any]] = []

    class Recording(BattleshipEnv):
        def step(self, actions: NDArray[Any]) -> Any:
            kept.append(actions)
            return super().step(actions)

    config = replace(BATTLESHIP, environment=Recording, G=2)
    batch = collect_batch(neural_battleship_policy_init(), config, [1])
    for i in (0, 1):
        actions = batch.actions[batch.trajectory == i]
        np.testing.assert_array_equal([step[i] for step in kept[: len(actions)]], actions)
