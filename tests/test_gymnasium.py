"""Gymnasium: its vector environments are drop-ins, and nothing leaks out of their resets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, TimeAwareObservation
from numpy.typing import NDArray

from microgrpo import AdamWOptimizer, GRPOConfig, Params, rollout, train_grpo

Array = NDArray[Any]
Make = Callable[[], Any]  # makes a single plain environment, which never resets by itself


def maker(name: str, *wrappers: Callable[[Any], Any], **options: Any) -> Make:
    """Tell how to make one of Gymnasium's games."""

    def make() -> Any:
        environment: Any = gymnasium.make(name, **options)
        for wrapper in wrappers:
            environment = wrapper(environment)
        return environment

    return make


def at_random(make: Make, **changes: Any) -> GRPOConfig:
    """Configure play with equal probabilities for all actions."""
    actions = make().action_space.n
    config = GRPOConfig(
        environment=lambda n: SyncVectorEnv([make] * n),
        policy=lambda _, seen: np.full((len(seen), actions), 1 / actions),
    )
    return replace(config, **changes)


def replay(make: Make, seed: int, actions: Sequence[int]) -> tuple[Array, float, str]:
    """Take all these actions; return what was seen before each, the reward and how it ended."""
    environment = make()
    seen, _ = environment.reset(seed=seed)
    observations, total, end = [], 0.0, "not"
    for action in actions:
        assert end == "not"
        observations.append(seen)
        seen, reward, terminated, truncated, _ = environment.step(action)
        total += float(reward)
        end = "terminated" if terminated else "truncated" if truncated else "not"
    return np.stack(observations), total, end


# %% Trajectories

BOTH = {"terminated", "truncated"}
GAMES = {
    "vectors": (maker("CartPole-v1"), {"terminated"}),
    "matrices": (maker("CartPole-v1", lambda e: FrameStackObservation(e, 3)), {"terminated"}),
    "a time limit": (maker("CartPole-v1", max_episode_steps=20), BOTH),
    "nothing but a time limit": (maker("Acrobot-v1", max_episode_steps=30), {"truncated"}),
    "integers": (maker("FrozenLake-v1", is_slippery=False), {"terminated"}),
    "integers, steps at random": (maker("FrozenLake-v1"), {"terminated"}),
    "three integers in one array": (maker("Blackjack-v1", FlattenObservation), {"terminated"}),
}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("make", "ends"), GAMES.values(), ids=GAMES.keys())
def test_a_trajectory_is_one_episode_of_a_single_environment(
    make: Make, ends: set[str], mode: AutoresetMode
) -> None:
    """The same seed and actions in a plain environment: the same observations, reward and end.

    Episodes end at different times, so most of them are reset while others still run. The vector
    environment may write all its observations into the same array.
    """
    config = at_random(
        make, environment=lambda n: SyncVectorEnv([make] * n, autoreset_mode=mode, copy=False)
    )
    seeds = np.repeat([3, 1, 4, 1000], 6)
    batch = rollout({}, config, seeds)
    seen_ends = set()
    for i, seed in enumerate(seeds.tolist()):
        own = batch.trajectory == i
        observations, reward, end = replay(make, seed, batch.actions[own].tolist())
        np.testing.assert_array_equal(batch.observations[own], observations)
        assert batch.observations.dtype == observations.dtype
        assert batch.rewards[i] == reward
        seen_ends.add(end)
    assert seen_ends == ends


@pytest.mark.parametrize("max_steps", [1, 7])
def test_max_steps_cuts_before_the_game_ends(max_steps: int) -> None:
    """A trajectory then has the first steps of its episode: a pole needs 8 to fall."""
    batch = rollout({}, at_random(maker("CartPole-v1"), max_steps=max_steps), range(4))
    assert batch.rewards.tolist() == [max_steps] * 4
    for i in range(4):
        *_, end = replay(maker("CartPole-v1"), i, batch.actions[batch.trajectory == i].tolist())
        assert end == "not"


def test_equal_seeds_share_their_start_and_their_chance() -> None:
    """Each seed starts elsewhere, and all that is random can be had again, slippery ice too."""
    starts = rollout({}, at_random(maker("CartPole-v1"), max_steps=1), [5, 6, 5]).observations
    assert starts[0].tolist() == starts[2].tolist() != starts[1].tolist()
    first, again = (rollout({}, at_random(maker("FrozenLake-v1")), range(9)) for _ in range(2))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (maker("Blackjack-v1"), "tuple"),
        (maker("CartPole-v1", lambda e: TimeAwareObservation(e, flatten=False)), "dict"),
    ],
    ids=["tuple", "dict"],
)
def test_several_arrays_are_refused(make: Make, kind: str) -> None:
    """A wrapper of Gymnasium's makes one array of them: see the games above."""
    with pytest.raises(ValueError, match=f"observations .*{kind}"):
        rollout({}, at_random(make), [1, 2])


# %% Learning


def softmax(logits: Any) -> Any:
    """Turn preferences [..., actions] into probabilities."""
    p = anp.exp(logits)
    return p / anp.sum(p, axis=-1, keepdims=True)


def table(θ: Params, state: Array) -> Any:
    """Look up what to do: integers [...] to probabilities [..., actions]."""
    return softmax(θ["table"][state])


def network(θ: Params, observation: Array) -> Any:
    """Think for one layer: floats [..., 4] to probabilities [..., 2]."""
    return softmax(anp.tanh(observation @ θ["W1"]) @ θ["W2"])


def learn(θ_init: Params, learning_rate: float, config: GRPOConfig) -> tuple[float, float]:
    """Train, and measure the mean reward before and after on seeds that training never met."""
    θ_star, _ = train_grpo(AdamWOptimizer(θ_init, learning_rate), config, report=lambda *_: None)
    seeds = range(2**31, 2**31 + 50)
    before, after = (rollout(θ, config, seeds).rewards.mean() for θ in (θ_init, θ_star))
    return float(before), float(after)


def many(name: str, **options: Any) -> Callable[[int], Any]:
    """Tell how to make a vector environment, in the words of Gymnasium's manual."""
    return lambda n: gymnasium.make_vec(name, n, vectorization_mode="sync", **options)


def test_a_table_learns_to_cross_the_lake() -> None:
    """FrozenLake: integers, and a single 1 for those who find the other shore."""
    lake = many("FrozenLake-v1", is_slippery=False)
    config = GRPOConfig(lake, table, G=32, B=1, M=40, μ=2, num_val=1, max_steps=50)
    before, after = learn({"table": np.zeros((16, 4))}, 0.3, config)
    assert before < 0.2
    assert after > 0.8  # eight seeds: 0.98 to 1.00


def test_a_table_learns_to_stay_away_from_the_cliff() -> None:
    """CliffWalking: -1 for each of 60 steps, and -100 for each fall."""
    cliff = many("CliffWalking-v1", max_episode_steps=60)
    config = GRPOConfig(cliff, table, G=16, B=1, M=20, μ=2, num_val=1)
    before, after = learn({"table": np.zeros((48, 4))}, 0.3, config)
    assert before < -400
    assert after > -80  # eight seeds: -66 to -60


def test_a_network_learns_to_balance_a_pole() -> None:
    """CartPole: floats, and 1 for each step until the pole falls, or until step 100."""
    rng = np.random.default_rng(0)
    θ_init = {"W1": rng.normal(size=(4, 16)), "W2": 0.1 * rng.normal(size=(16, 2))}
    poles = many("CartPole-v1", max_episode_steps=100)
    config = GRPOConfig(poles, network, G=8, B=4, M=20, μ=4, num_val=1)
    before, after = learn(θ_init, 0.02, config)
    assert before < 40
    assert after > 80  # eight seeds: 99 to 100
