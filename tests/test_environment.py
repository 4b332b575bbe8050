"""Environment: Battleship behind the signatures of a Gymnasium vector environment."""

import inspect

import gymnasium
import numpy as np
import pytest

from microgrpo import BattleshipEnv, BattleshipRules, Environment, random_fleet


@pytest.mark.parametrize("rules", [BattleshipRules(), BattleshipRules(6, (2, 5))])
def test_a_new_game_shows_nothing(rules: BattleshipRules) -> None:
    """Whatever the fleet, the boards are float32 [n, N, N], all zero before the first shot."""
    observations, info = BattleshipEnv(3, rules).reset(seed=[1, 2, 3])
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations, np.zeros((3, rules.board_size, rules.board_size)))
    assert info == {}


def test_equal_seeds_give_equal_starts() -> None:
    """A group shares its start: in each game the same shots uncover the fleet of its own seed."""
    seeds = [7, 8, 7]
    environment = BattleshipEnv(3)
    environment.reset(seed=seeds)
    for tile in range(25):
        observations, *_ = environment.step(np.full(3, tile))
    fleets = [random_fleet(BattleshipRules(), seed) for seed in seeds]
    np.testing.assert_array_equal(observations == 1, fleets)
    np.testing.assert_array_equal(observations == -1, ~np.array(fleets))


def test_a_game_told_shot_by_shot() -> None:
    """+1 hit, -1 miss; the last hit ends it with its score, and the last shot can be repeated."""
    rules = BattleshipRules(3, (2,))
    fleet = random_fleet(rules, seed=5).ravel()
    miss, *_ = np.flatnonzero(~fleet)
    first_hit, last_hit = np.flatnonzero(fleet)

    environment = BattleshipEnv(2, rules)
    environment.reset(seed=[5, 5])
    board = np.zeros((3, 3), np.float32)
    for tile, symbol, score in (
        (miss, -1, 0),
        (first_hit, 1, 0),
        (last_hit, 1, 1 - 1 / 8),
        (last_hit, 1, 1 - 1 / 8),
    ):
        # The second game only ever fires at the first tile of water.
        observations, rewards, *ends, info = environment.step(np.array([tile, miss]))
        board.flat[tile] = symbol
        np.testing.assert_array_equal(observations[0], board)
        assert observations.dtype == np.float32
        np.testing.assert_allclose(rewards, [score, 0])
        np.testing.assert_array_equal(ends, [[score > 0, False], [False, False]])
        assert info == {}


def test_it_can_be_exchanged_for_any_vector_environment_of_gymnasium() -> None:
    """Both keep to the Protocol, as mypy finds, and their arguments have the same names."""
    acrobots = gymnasium.make_vec("Acrobot-v1", 2, vectorization_mode="sync")
    environments: list[Environment] = [BattleshipEnv(2), acrobots]
    for environment in environments:
        observations, _ = environment.reset(seed=[1, 2])
        steps = environment.step(np.zeros(2, int))
        assert [len(array) for array in (observations, *steps[:4])] == [2] * 5
        assert [array.dtype.kind for array in steps[2:4]] == ["b", "b"]
    for name in ("reset", "step"):
        gymnasiums = inspect.signature(getattr(gymnasium.vector.VectorEnv, name)).parameters
        for ours in (Environment, BattleshipEnv):
            for parameter in inspect.signature(getattr(ours, name)).parameters.values():
                assert parameter.kind == gymnasiums[parameter.name].kind
