"""Game and environment: fleets are uniform over all legal placements; scores follow from shots."""

import re
from typing import Any

import numpy as np
import pytest
from players import all_placements  # enumerated by code that shares nothing with the file

from microgrpo import BattleshipEnv, random_fleet


def draw(board: Any) -> str:
    """Draw a board in letters, row by row: x for 1, o for -1, and a dot for 0."""
    return "/".join("".join(".xo"[int(value)] for value in row) for row in board)


ON_3_BY_3 = (
    *("xx./.../...", ".xx/.../...", ".../xx./...", ".../.xx/...", ".../.../xx.", ".../.../.xx"),
    *("x../x../...", ".x./.x./...", "..x/..x/...", ".../x../x..", ".../.x./.x.", ".../..x/..x"),
)


@pytest.mark.parametrize(
    ("side", "ships", "fleets"), [(3, (2,), ON_3_BY_3), (2, (2, 2), ["xx/xx"])]
)
def test_random_fleet_draws_every_legal_fleet(side: int, ships: Any, fleets: Any) -> None:
    """A ship of 2 can lie in 12 ways on 3 x 3; two of them fill 2 x 2, as they may not overlap."""
    drawn = {draw(random_fleet(side, ships, seed)) for seed in range(300)}
    assert drawn == set(fleets)


def test_random_fleet_draws_all_placements_equally_often() -> None:
    """Ships of 3 and 2 have 36 placements on 3 x 3, and 20 of them cover the tile in the middle.

    To draw only the ship that overlaps again gives 22 / 36.
    """
    covered = [random_fleet(3, (3, 2), seed)[1, 1] for seed in range(4000)]
    assert np.mean(covered) == pytest.approx(20 / 36, abs=0.03)  # four standard deviations


def test_random_fleet_follows_from_its_seed() -> None:
    """The same fleet whenever a seed is given, and another for most other seeds."""
    first = [draw(random_fleet(5, (2, 3, 4), seed)) for seed in range(9)]
    getattr(random_fleet, "cache_clear", int)()  # what comes next is drawn anew
    again = [draw(random_fleet(5, (2, 3, 4), seed)) for seed in range(9)]
    assert again == first
    assert len(set(first)) > 5


@pytest.mark.parametrize(("side", "ships"), [(3, (2, 4)), (0, (2,)), (2, (2, 2, 2))])
def test_random_fleet_that_does_not_fit_is_an_error(side: int, ships: tuple[int, ...]) -> None:
    """One ship is too long, or all together are too many. The message gives board and ships."""
    with pytest.raises(ValueError, match=re.escape(str(ships))) as error:
        random_fleet(side, ships, seed=0)
    assert str(side) in str(error.value).replace(str(ships), "")


@pytest.mark.parametrize(("side", "ships"), [(3, (1, 2, 2)), (4, (2, 3))])
def test_random_fleet_is_uniform(side: int, ships: tuple[int, ...]) -> None:
    """Chi-square: a board comes up in proportion to the placements that look like it."""
    placements = all_placements(side, ships)
    boards, looks_like = np.unique(placements, axis=0, return_counts=True)
    expected = 50 * len(boards) * looks_like / len(placements)
    seen = dict.fromkeys((board.tobytes() for board in boards), 0)
    for seed in range(50 * len(boards)):
        seen[random_fleet(side, ships, seed).tobytes()] += 1

    surprise = np.sum((np.array(list(seen.values())) - expected) ** 2 / expected)
    freedom = len(boards) - 1
    assert abs(surprise - freedom) <= 4 * np.sqrt(2 * freedom)  # four standard deviations


def test_a_crowded_board_is_filled() -> None:
    """Whatever the seed: with this one, ships overlap in the first 9,282 draws."""
    assert random_fleet(4, (4, 3, 3, 3, 3), 214).all()


def test_count_of_fleets() -> None:
    """9,024 by default. Two ships fill four tiles as rows or as columns, either ship first."""
    assert len(all_placements()) == (all_placements().sum(axis=(1, 2)) == 9).sum() == 9024
    assert all_placements(2, (2, 2)).tolist() == [[[True, True], [True, True]]] * 4


def test_battleship_env_reset_hides_a_fleet_for_each_seed() -> None:
    """Those of random_fleet. No shot has been fired, so all boards look the same: float32 zeros.

    What happens to the fleets of one game changes no later game.
    """
    environment = BattleshipEnv(3, 6, (2, 5))
    boards, info = environment.reset(seed=[7, 8, 7])
    expected = [draw(random_fleet(6, (2, 5), seed)) for seed in (7, 8, 7)]
    assert [draw(fleet) for fleet in environment.fleets] == expected
    assert (boards.shape, str(boards.dtype), info) == ((3, 6, 6), "float32", {})
    assert not boards.any()
    assert not environment.shots.any()
    assert str(environment).splitlines()[:6] == [
        row.replace("x", "🚢").replace(".", "🌊") for row in expected[0].split("/")
    ]
    environment.fleets[:] = True
    assert draw(random_fleet(6, (2, 5), 7)) == expected[0]


def test_battleship_env_step_by_hand() -> None:
    """Shots at 8, 0 and 1. The reward is 0, then 1 - 1/8: one miss, and 7 + 1 tiles of water."""
    environment = BattleshipEnv(1, board_size=3, ships=(2,))
    environment.reset(seed=[0])
    environment.fleets = np.array([[[1, 1, 0], [0, 0, 0], [0, 0, 0]]], bool)
    for tile, board, reward, over in (
        (8, ".../.../..o", 0, False),
        (0, "x../.../..o", 0, False),
        (1, "xx./.../..o", 1 - 1 / 8, True),
    ):
        seen, rewards, terminated, truncated, _ = environment.step(np.array([tile]))
        obtained = dict(
            board=draw(seen[0]), reward=rewards[0], terminated=terminated[0], truncated=truncated[0]
        )
        assert obtained == dict(board=board, reward=reward, terminated=over, truncated=False)
    assert str(environment) == "💥💥🌊\n🌊🌊🌊\n🌊🌊💦"


@pytest.mark.parametrize(("side", "ships"), [(5, (2, 3, 4)), (6, (2, 5))])
def test_battleship_env_step_agrees_with_sets_of_tiles(side: int, ships: tuple[int, ...]) -> None:
    """With m misses in w tiles of water, the last hit scores 1 - m / (w + 1); 0 until then."""
    n = 6
    environment = BattleshipEnv(n) if side == 5 else BattleshipEnv(n, side, ships)
    tiles = side**2
    seeds = [1, 2, 3, 4, 5, 1]
    ship_tiles = [set(np.flatnonzero(random_fleet(side, ships, s)).tolist()) for s in seeds]
    fired: list[set[int]] = [set() for _ in range(n)]
    environment.reset(seed=seeds)
    for shots in np.random.default_rng(0).integers(tiles, size=(20 * tiles, n)):  # some repeated
        boards, rewards, terminated, truncated, info = environment.step(shots)
        assert boards.dtype == np.float32
        assert info == {}
        assert truncated.tolist() == [False] * n
        for i, shot in enumerate(shots.tolist()):
            fired[i].add(shot)
            assert set(np.flatnonzero(boards[i] == 1).tolist()) == fired[i] & ship_tiles[i]
            assert set(np.flatnonzero(boards[i] == -1).tolist()) == fired[i] - ship_tiles[i]
            over = ship_tiles[i] <= fired[i]
            assert terminated[i] == over
            score = 1 - len(fired[i] - ship_tiles[i]) / (tiles - sum(ships) + 1) if over else 0
            assert rewards[i] == pytest.approx(score)
    assert terminated.all()


@pytest.mark.parametrize("tile", [-1, 9])
def test_battleship_env_step_refuses_a_tile_off_the_board(tile: int) -> None:
    """NumPy would count -1 from the end. The message gives the tile, and no shot is fired."""
    environment = BattleshipEnv(2, 3, (2,))
    environment.reset(seed=[1, 2])
    with pytest.raises((ValueError, IndexError), match=f"{tile}"):
        environment.step(np.array([0, tile]))
    assert not environment.shots.any()
