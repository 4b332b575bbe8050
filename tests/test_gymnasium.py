"""Gymnasium: its vector environments are drop-ins, and nothing leaks out of their resets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import make
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

from microgrpo import GRPOConfig, rollout

Maker = Callable[[], Any]  # makes a single plain environment, which never resets by itself


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
    """Given the same seed and actions, although most are reset while others still run."""
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
        plain, end = maker(), "not"
        seen, _ = plain.reset(seed=seed)
        own = batch.trajectory == i
        columns = (batch.observations[own], batch.actions[own].tolist(), batch.step_rewards[own])
        for observation, action, reward in zip(*columns, strict=True):
            assert end == "not"
            np.testing.assert_array_equal(observation, seen)
            assert observation.dtype == np.asarray(seen).dtype
            seen, expected, terminated, truncated, _ = plain.step(action)
            assert reward == expected
            end = "terminated" if terminated else "truncated" if truncated else "not"
        assert batch.rewards[i] == batch.step_rewards[own].sum()
        assert end != "not" or own.sum() == 20
        seen_ends.add(end)
    assert seen_ends == ends
