"""The environment: Battleship behind the signatures of a Gymnasium vector environment."""

from typing import Any

import numpy as np
import pytest

from microgrpo import BattleshipEnv, BattleshipRules, Environment


def test_a_reset_hides_everything_in_fog() -> None:
    """Observations are float32 [n, N, N], all zero before the first shot."""
    environment: Environment = BattleshipEnv(3)
    observations, _ = environment.reset(seed=[1, 2, 3])
    assert observations.dtype == np.float32
    assert observations.shape == (3, 5, 5)
    assert not observations.any()


def test_equal_seeds_hide_equal_fleets() -> None:
    """The members of a group share their start: the same shots uncover the same tiles."""
    environment = BattleshipEnv(4)
    environment.reset(seed=[7, 7, 7, 8])
    for tile in range(25):
        observations, *_ = environment.step(np.full(4, tile))
        np.testing.assert_array_equal(observations[0], observations[1])
        np.testing.assert_array_equal(observations[0], observations[2])
    assert (observations[0] != observations[3]).any()


def test_an_episode_told_shot_by_shot() -> None:
    """+1 hit, -1 miss; the last hit brings the score, and nothing happens to the game after it."""
    rules = BattleshipRules(3, (2,))
    ships = rules.random_fleet(seed=5).ravel()
    environment = BattleshipEnv(1, rules)
    environment.reset(seed=[5])
    first_miss, *other_water = np.flatnonzero(~ships).tolist()
    first_hit, last_hit = np.flatnonzero(ships).tolist()

    expected = np.zeros(9, np.float32)
    for tile, symbol, reward, over in (
        (first_miss, -1, 0, False),
        (first_hit, 1, 0, False),
        (last_hit, 1, 1 - 1 / 8, True),
    ):
        expected[tile] = symbol
        observations, rewards, terminated, truncated, _ = environment.step(np.array([tile]))
        np.testing.assert_array_equal(observations.ravel(), expected)
        assert observations.dtype == np.float32
        assert rewards == pytest.approx(reward)
        assert terminated == over
        assert not truncated.any()

    for tile in (other_water[0], first_hit, -1):  # once over, not even illegal shots matter
        observations, rewards, terminated, *_ = environment.step(np.array([tile]))
        np.testing.assert_array_equal(observations.ravel(), expected)
        assert rewards == 0
        assert terminated.all()


def test_games_of_a_batch_end_one_by_one() -> None:
    """Rewards come to each game once, when it is over, and are its score."""
    environment = BattleshipEnv(50)
    environment.reset(seed=range(50))
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(25), (50, 1)), axis=1)
    total, was_over = np.zeros(50), np.zeros(50, bool)
    for shots in orders.T:
        observations, rewards, terminated, *_ = environment.step(shots)
        assert not rewards[was_over | ~terminated].any()
        misses = (observations == -1).sum(axis=(1, 2))
        just_over = terminated & ~was_over
        np.testing.assert_allclose(rewards[just_over], 1 - misses[just_over] / 17)
        total += rewards
        was_over = terminated
    assert was_over.all()
    assert 0.05 < total.mean() < 0.25  # random play


@pytest.mark.parametrize(
    "actions",
    [[0, 25], [0, -1], [0, 0.5], [0, np.nan], [0], [0, 1, 2], [[0, 1]], 3, [0, 2**40]],
)
def test_impossible_shots_are_refused(actions: object) -> None:
    """Off the board, between two tiles, or not one for each game."""
    environment = BattleshipEnv(2)
    environment.reset(seed=[0, 1])
    with pytest.raises(ValueError, match="actions"):
        environment.step(np.array(actions))


def test_a_tile_cannot_be_fired_at_twice() -> None:
    """A policy that does not mask its moves is told so, instead of playing on in silence."""
    environment = BattleshipEnv(2)
    environment.reset(seed=[0, 1])
    environment.step(np.array([3, 4]))
    with pytest.raises(ValueError, match=r"actions .* \[4\]"):
        environment.step(np.array([5, 4]))


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, float("nan"), "2", None])
def test_num_envs_out_of_range_is_named(num_envs: object) -> None:
    """The constructor checks how many games there are to be."""
    with pytest.raises(ValueError, match="num_envs"):
        BattleshipEnv(num_envs)  # type: ignore[arg-type]


def test_rules_of_the_wrong_type_are_named() -> None:
    """The constructor checks the rules too."""
    with pytest.raises(ValueError, match="rules"):
        BattleshipEnv(1, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seed",
    [3, None, [0], [0, 1, 2], [0, -1], [0, 0.5], [0, float("nan")], [0, "1"], [0, 1.0], [0, True]],
)
def test_seeds_out_of_range_are_named(seed: Any) -> None:
    """One integer from 0 up for each game, also when the fleet of an equal number is known."""
    BattleshipEnv(2).reset(seed=[0, 1])
    with pytest.raises(ValueError, match="seed"):
        BattleshipEnv(2).reset(seed=seed)
