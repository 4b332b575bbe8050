"""Game and environment: fleets are uniform over all legal placements; scores follow from shots."""

import numpy as np
import pytest
from players import all_placements  # enumerated by code that shares nothing with the file

from microgrpo import BattleshipEnv, BattleshipGame, BattleshipRules, random_fleet


@pytest.mark.parametrize(("side", "ships"), [(3, (1, 2, 2)), (4, (2, 3))])
def test_fleets_are_uniform_over_all_legal_placements(side: int, ships: tuple[int, ...]) -> None:
    """Chi-square: a board comes up in proportion to the placements that look like it."""
    placements = all_placements(side, ships)
    boards, looks_like = np.unique(placements, axis=0, return_counts=True)
    expected = 50 * len(boards) * looks_like / len(placements)
    seen = dict.fromkeys((board.tobytes() for board in boards), 0)
    for seed in range(50 * len(boards)):
        seen[random_fleet(BattleshipRules(side, ships), seed).tobytes()] += 1

    surprise = np.sum((np.array(list(seen.values())) - expected) ** 2 / expected)
    freedom = len(boards) - 1
    assert abs(surprise - freedom) <= 4 * np.sqrt(2 * freedom)  # four standard deviations


def test_count_of_fleets() -> None:
    """9,024 by default. Two ships fill four tiles as rows or as columns, either ship first."""
    assert len(all_placements()) == (all_placements().sum(axis=(1, 2)) == 9).sum() == 9024
    assert all_placements(2, (2, 2)).tolist() == [[[True, True], [True, True]]] * 4


def test_a_fleet_follows_from_its_seed_and_cannot_be_changed() -> None:
    """A group shares one array, so it is read-only. Without the cache, it would be the same."""
    fleet = random_fleet(BattleshipRules(), 0)
    with pytest.raises(ValueError, match="read-only"):
        fleet[0, 0] = True
    random_fleet.cache_clear()
    np.testing.assert_array_equal(random_fleet(BattleshipRules(), 0), fleet)


def test_a_crowded_board_is_filled() -> None:
    """Whatever the seed: with this one, ships overlap in the first 9,282 draws."""
    assert random_fleet(BattleshipRules(4, (4, 3, 3, 3, 3)), 214).all()


@pytest.mark.parametrize(("side", "ships"), [(3, (2, 4)), (0, (2,)), (2, (2, 2, 2))])
def test_a_fleet_that_does_not_fit_is_an_error(side: int, ships: tuple[int, ...]) -> None:
    """One ship is too long, or all together are too many. The message gives board and ships."""
    with pytest.raises(ValueError, match="ship") as error:
        random_fleet(BattleshipRules(side, ships), seed=0)
    assert f"board_size={side}, ships={ships}" in str(error.value)


@pytest.mark.parametrize("rules", [None, BattleshipRules(6, (2, 5))], ids=["default", "6x6"])
def test_games_agree_with_sets_of_tiles(rules: BattleshipRules | None) -> None:
    """With m misses in w tiles of water, the last hit scores 1 - m / (w + 1); 0 until then."""
    n = 6
    environment = BattleshipEnv(n, rules) if rules else BattleshipEnv(n)
    rules = rules or BattleshipRules(5, (2, 3, 4))
    tiles = rules.board_size**2
    seeds = [1, 2, 3, 4, 5, 1]
    ships = [set(np.flatnonzero(random_fleet(rules, seed)).tolist()) for seed in seeds]
    fired: list[set[int]] = [set() for _ in range(n)]
    boards, info = environment.reset(seed=seeds)
    assert (boards.dtype, info) == (np.float32, {})
    assert boards.shape == (n, rules.board_size, rules.board_size)
    assert not boards.any()
    for shots in np.random.default_rng(0).integers(tiles, size=(20 * tiles, n)):  # some repeated
        boards, rewards, terminated, truncated, info = environment.step(shots)
        assert boards.dtype == np.float32
        assert info == {}
        assert truncated.tolist() == [False] * n
        for i, shot in enumerate(shots.tolist()):
            fired[i].add(shot)
            assert set(np.flatnonzero(boards[i] == 1).tolist()) == fired[i] & ships[i]
            assert set(np.flatnonzero(boards[i] == -1).tolist()) == fired[i] - ships[i]
            over = ships[i] <= fired[i]
            assert terminated[i] == over
            score = 1 - len(fired[i] - ships[i]) / (tiles - sum(rules.ships) + 1) if over else 0
            assert rewards[i] == pytest.approx(score)
    assert terminated.all()


@pytest.mark.parametrize("tile", [-1, 9])
def test_a_tile_off_the_board_is_an_error(tile: int) -> None:
    """NumPy would count -1 from the end. The message gives the tile, and no shot is fired."""
    game = BattleshipGame(np.zeros((2, 3, 3), bool))
    with pytest.raises(ValueError, match=f"{tile}"):
        game.fire(np.array([0, tile]))
    assert not game.shots.any()
