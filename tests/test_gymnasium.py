"""Gymnasium: its vector environments are drop-ins, and nothing leaks out of their resets."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import make
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

from microgrpo import Array, GRPOConfig, rollout

Maker = Callable[[], Any]  # makes a single plain environment, which never resets by itself


def replay(maker: Maker, seed: int, actions: Sequence[int]) -> tuple[Array, list[float], str]:
    """Take all these actions; return what was seen before each, the rewards and how it ended."""
    environment = maker()
    seen, _ = environment.reset(seed=seed)
    observations, rewards, end = [], [], "not"
    for action in actions:
        assert end == "not"
        observations.append(seen)
        seen, reward, terminated, truncated, _ = environment.step(action)
        rewards.append(float(reward))
        end = "terminated" if terminated else "truncated" if truncated else "not"
    return np.stack(observations), rewards, end


GAMES: dict[str, tuple[Maker, set[str]]] = {
    "vectors": (partial(make, "CartPole-v1"), {"terminated", "not"}),
    "time limit": (partial(make, "CartPole-v1", max_episode_steps=19), {"terminated", "truncated"}),
    "only a time limit": (partial(make, "Acrobot-v1", max_episode_steps=9), {"truncated"}),
    "matrices": (lambda: FrameStackObservation(make("CartPole-v1"), 3), {"terminated", "not"}),
    "integers, steps at random": (partial(make, "FrozenLake-v1"), {"terminated"}),
    "tuples": (lambda: FlattenObservation(make("Blackjack-v1")), {"terminated"}),
}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("maker", "ends"), GAMES.values(), ids=GAMES.keys())
def test_a_trajectory_is_one_episode_of_a_single_environment(
    maker: Maker, ends: set[str], mode: AutoresetMode
) -> None:
    """The same seed and actions in a plain environment: the same observations, rewards and end.

    Episodes end at different times, so most of them are reset while others still run.
    """
    actions = maker().action_space.n
    config = GRPOConfig(
        environment=lambda n: SyncVectorEnv([maker] * n, autoreset_mode=mode, copy=False),
        policy=lambda _, seen: np.full((len(seen), actions), 1 / actions),
        max_steps=20,
    )
    seeds = np.repeat([3, 1, 4, 1000], 6)
    batch = rollout({}, config, seeds)
    seen_ends = set()
    for i, seed in enumerate(seeds.tolist()):
        own = batch.trajectory == i
        observations, rewards, end = replay(maker, seed, batch.actions[own].tolist())
        np.testing.assert_array_equal(batch.observations[own], observations)
        assert batch.observations.dtype == observations.dtype
        assert batch.step_rewards[own].tolist() == rewards
        assert batch.rewards[i] == sum(rewards)
        assert end != "not" or len(rewards) == 20
        seen_ends.add(end)
    assert seen_ends == ends
