"""The scores a trained policy is compared with, each worked out by code of this file alone.

Nothing comes from `microgrpo.py`, so these numbers cannot share its mistakes. They hold for the
default rules, and every mean gives each legal placement of the fleet the same weight.
"""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

N = 5
SHIPS = (2, 3, 4)
SHIP_TILES = sum(SHIPS)
WATER_TILES = N * N - SHIP_TILES

Array = NDArray[Any]

# %% Fleets


@cache
def all_placements(board_size: int = N, ships: tuple[int, ...] = SHIPS) -> Array:
    """Return every legal placement [F, board_size, board_size], True where a ship lies."""
    fleets = [np.zeros((board_size, board_size), bool)]
    for length in ships:
        slots = []  # every way to lay this ship on an empty board
        for row, start in product(range(board_size), range(board_size - length + 1)):
            across = np.zeros((board_size, board_size), bool)
            across[row, start : start + length] = True
            slots += [across, across.T]
        pairs = product(fleets, slots)
        fleets = [fleet | ship for fleet, ship in pairs if not (fleet & ship).any()]
    return np.stack(fleets)


def test_count_of_fleets() -> None:
    """The default rules allow 9,024 placements, which make 8,092 distinct boards."""
    assert len(all_placements()) == 9024
    assert len(np.unique(all_placements(), axis=0)) == 8092
    assert (all_placements().sum(axis=(1, 2)) == SHIP_TILES).all()
    # Two ships on four tiles: both rows or both columns, either ship first.
    assert all_placements(2, (2, 2)).tolist() == [[[True, True], [True, True]]] * 4


def random_shots_score() -> float:
    """Return the exact mean score of uniformly random shots."""
    # A tile of water is shot before the last of 9 ship tiles with probability 9/10.
    misses = WATER_TILES * SHIP_TILES / (SHIP_TILES + 1)
    return 1 - misses / (WATER_TILES + 1)


# %% Greedy play on the exact posterior


def posterior(observation: Array) -> Array:
    """Return the probability of a ship on each tile, from a board [N, N] of 0, -1 miss, +1 hit."""
    fired = observation != 0
    fleets = all_placements()
    consistent = (fleets[:, fired] == (observation[fired] == 1)).all(axis=1)
    return fleets[consistent].mean(axis=0)


def greedy_posterior_scores() -> Array:
    """Score on each fleet [F] of firing where a ship is most likely, at the first tile on ties."""
    fleets = all_placements().reshape(-1, N * N)
    misses = np.zeros(len(fleets))

    # A branch is the fleets that answered alike so far, and the tiles not fired at yet.
    branches = [(np.arange(len(fleets)), np.ones(N * N, bool))]
    while branches:
        consistent, unfired = branches.pop()
        afloat = fleets[consistent] & unfired
        if afloat.any():
            tile = afloat.sum(axis=0).argmax()
            hit = afloat[:, tile]
            misses[consistent[~hit]] += 1
            unfired_next = unfired & (np.arange(N * N) != tile)
            branches += [(consistent[hit], unfired_next), (consistent[~hit], unfired_next)]
    return 1 - misses / (WATER_TILES + 1)


def test_greedy_posterior() -> None:
    """It scores 0.6146 on average, the same as with a new posterior before each shot."""
    scores = greedy_posterior_scores()
    assert scores.mean() == pytest.approx(0.6146, abs=0.00005)
    for index in range(0, len(scores), 500):
        fleet = all_placements()[index]
        observation = np.zeros((N, N))
        while (fleet & (observation == 0)).any():
            p = posterior(observation)
            assert p[observation != 0].tolist() == fleet[observation != 0].tolist()
            assert p.sum() == pytest.approx(SHIP_TILES)
            tile = np.where(observation == 0, p, -1).argmax()
            observation.flat[tile] = 1 if fleet.flat[tile] else -1
        assert scores[index] == 1 - (observation == -1).sum() / (WATER_TILES + 1)


# %% Hunt & target

WHOLE_BOARD = np.ones((N, N), bool)
CORNER_COLOUR = np.indices((N, N)).sum(axis=0) % 2 == 0  # 13 tiles of the checkerboard
OTHER_COLOUR = ~CORNER_COLOUR  # 12 tiles


def beside_a_hit(observations: Array) -> Array:
    """Tiles [..., N, N] with a hit above, below, left or right of them."""
    hit = observations == 1
    beside = np.zeros(hit.shape, bool)
    beside[..., 1:, :] |= hit[..., :-1, :]
    beside[..., :-1, :] |= hit[..., 1:, :]
    beside[..., :, 1:] |= hit[..., :, :-1]
    beside[..., :, :-1] |= hit[..., :, 1:]
    return beside


def hunt_and_target_scores(
    hunting_ground: Array, *, target: bool = True, games: int = 8, seed: int = 0
) -> Array:
    """Return scores [games, F] of playing every fleet a few times.

    A shot is uniform over the unfired tiles beside a hit (unless target is False); if there are
    none, over those of the hunting ground [N, N]; and if there are none, over all of them.
    """
    rng = np.random.default_rng(seed)
    fleets = np.tile(all_placements(), (games, 1, 1))  # [games * F, N, N]
    observations = np.zeros(fleets.shape, dtype=np.int8)
    misses = np.zeros(len(fleets))
    game = np.arange(len(fleets))
    for _ in range(N * N):
        finished = (observations == 1).sum(axis=(1, 2)) == SHIP_TILES

        # The integer part ranks the kinds of tile, the random fraction draws among the best kind.
        kind = np.where(target & beside_a_hit(observations), 2, hunting_ground)
        rank = np.where(observations == 0, kind + rng.random(fleets.shape), -1)
        row, column = np.divmod(rank.reshape(-1, N * N).argmax(axis=1), N)

        hit = fleets[game, row, column]
        observations[game, row, column] = np.where(hit, 1, -1)
        misses += ~hit & ~finished
    return (1 - misses / (WATER_TILES + 1)).reshape(games, -1)


def test_hunt_and_target() -> None:
    """It scores 0.397, or 0.408 or 0.417 on one colour. Hunting without a target is random play."""
    # The standard error of a mean over 4 games on each of 9,024 fleets is about 0.0006.
    error = 4 * 0.0006
    grounds = (WHOLE_BOARD, CORNER_COLOUR, OTHER_COLOUR)
    means = [hunt_and_target_scores(ground, games=4).mean() for ground in grounds]
    assert means == pytest.approx([0.3974, 0.4078, 0.4173], abs=error)
    without_a_target = hunt_and_target_scores(WHOLE_BOARD, target=False, games=4)
    assert without_a_target.mean() == pytest.approx(random_shots_score(), abs=error)
