"""Any Gymnasium game: real environments behind the Protocol, with real automatic resets."""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from microgrpo import AdamWOptimizer, Environment, GRPOConfig, Params, collect_batch, train_grpo


def make(name: str, **options: Any) -> Callable[[int], Environment]:
    """Give an environment factory, as a user would write it."""

    def environment(n: int) -> Any:
        return gymnasium.make_vec(name, n, vectorization_mode="sync", **options)

    return environment


def random_policy(actions: int) -> Callable[[Params, Any], Any]:
    """Play at random, whatever is observed."""
    return lambda _, observation: np.full((len(observation), actions), 1 / actions)


GAMES = [
    ("CartPole-v1", 2, {}),  # floats [4]; ends by termination
    ("CartPole-v1", 2, {"max_episode_steps": 20}),  # or by truncation, whichever is first
    ("MountainCar-v0", 3, {}),  # rewards of -1 at every step; ends by truncation after 200
    ("Acrobot-v1", 3, {"max_episode_steps": 40}),  # floats [6], negative rewards
    ("FrozenLake-v1", 4, {}),  # integers; a reward at the end, if at all
    ("CliffWalking-v1", 4, {"max_episode_steps": 60}),  # integers; rewards of -1 and -100
]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("name", "actions", "options"), GAMES)
def test_trajectories_are_those_of_the_game_alone(
    name: str, actions: int, options: dict[str, Any], mode: AutoresetMode
) -> None:
    """Replayed in a single environment without resets, each gives its observations and reward."""
    environment = make(name, vector_kwargs={"autoreset_mode": mode}, **options)
    config = GRPOConfig(environment, random_policy(actions), β=0, G=4)
    seeds = [7, 8]
    batch = collect_batch({}, config, seeds)
    game = gymnasium.make(name, **options)
    lengths = set()
    for i in range(8):
        observation, _ = game.reset(seed=seeds[i // 4])
        played, total = batch.trajectory == i, 0.0
        lengths.add(int(played.sum()))
        for seen, action in zip(batch.observations[played], batch.actions[played], strict=True):
            np.testing.assert_array_equal(seen, observation)
            observation, reward, terminated, truncated, _ = game.step(action)
            total += float(reward)
        assert terminated or truncated
        assert batch.rewards[i // 4, i % 4] == pytest.approx(total)
    if name in ("CartPole-v1", "FrozenLake-v1"):
        assert len(lengths) > 1  # some end early, and their environments are reset meanwhile


def test_max_steps_cuts_before_the_game_ends() -> None:
    """Rewards of the steps that were played count, and no others."""
    config = GRPOConfig(make("MountainCar-v0"), random_policy(3), β=0, G=3, max_steps=17)
    batch = collect_batch({}, config, [1])
    np.testing.assert_array_equal(batch.rewards, -17.0)
    assert len(batch.actions) == 3 * 17


def test_members_of_a_group_share_their_start() -> None:
    """The same seed resets a Gymnasium game to the same state."""
    config = GRPOConfig(make("CartPole-v1"), random_policy(2), β=0, G=3)
    batch = collect_batch({}, config, [5, 6])
    first = [batch.observations[batch.trajectory == i][0] for i in range(6)]
    for i in range(6):
        np.testing.assert_array_equal(first[i], first[i // 3 * 3])
    assert (first[0] != first[3]).any()


def tabular_policy(θ: Params, observation: Any) -> Any:
    """Look up the preferences for actions in a table with one row for each state."""
    p = anp.exp(θ["table"][observation])
    return p / anp.sum(p, axis=-1, keepdims=True)


def test_frozen_lake_is_learned_from_integers() -> None:
    """A table and a reward of 1 at the end are enough to cross the ice."""
    config = GRPOConfig(
        make("FrozenLake-v1", is_slippery=False),
        tabular_policy,
        β=0,
        G=16,
        B=4,
        M=25,
        num_val=20,
    )
    optimizer = AdamWOptimizer({"table": np.zeros((16, 4))}, learning_rate=0.3)
    _, rewards_val = train_grpo(optimizer, config, report=lambda *_: None)
    assert rewards_val[0] < 0.5
    assert rewards_val[-1] > 0.9
