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

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# %% Fleets


def ship_slots(board_size: int, length: int) -> list[Bools]:
    """Every way to lay one ship on an empty board, each a mask [board_size, board_size]."""
    slots = []
    for row, start in product(range(board_size), range(board_size - length + 1)):
        across = np.zeros((board_size, board_size), dtype=np.bool_)
        across[row, start : start + length] = True
        slots += [across, across.T]
    return slots


@cache
def all_placements(board_size: int = N, ships: tuple[int, ...] = SHIPS) -> Bools:
    """Every legal placement of the fleet [F, board_size, board_size], True where a ship lies."""
    fleets = [np.zeros((board_size, board_size), dtype=np.bool_)]
    for length in ships:
        pairs = product(fleets, ship_slots(board_size, length))
        fleets = [fleet | ship for fleet, ship in pairs if not (fleet & ship).any()]
    return np.stack(fleets)


@pytest.mark.parametrize(
    ("side", "ships", "placements", "boards"),
    [
        (2, (2,), 4, 4),  # two rows and two columns
        (2, (2, 2), 4, 1),  # both rows or both columns, either ship first: all fill the board
        (N, SHIPS, 9024, 8092),
    ],
)
def test_count_of_fleets(side: int, ships: tuple[int, ...], placements: int, boards: int) -> None:
    """The default rules allow 9,024 placements, which make 8,092 distinct boards."""
    fleets = all_placements(side, ships)
    assert len(fleets) == placements
    assert len(np.unique(fleets, axis=0)) == boards
    assert (fleets.sum(axis=(1, 2)) == sum(ships)).all()


# %% Random shots


def random_shots_score() -> float:
    """Exact mean score of uniformly random shots."""
    # A tile of water is shot before the last of 9 ship tiles with probability 9/10.
    misses = WATER_TILES * SHIP_TILES / (SHIP_TILES + 1)
    return 1 - misses / (WATER_TILES + 1)


def test_random_shots() -> None:
    """Random shots miss 14.4 times and score 0.153; they are also played, further below."""
    assert random_shots_score() == pytest.approx(0.153, abs=0.0005)


# %% Greedy play on the exact posterior


def posterior(observation: NDArray[Any]) -> Floats:
    """Probability of a ship on each tile [N, N], given a board [N, N] of 0 fog, -1 miss, +1 hit."""
    fired = observation != 0
    fleets = all_placements()
    consistent = (fleets[:, fired] == (observation[fired] == 1)).all(axis=1)
    probabilities: Floats = fleets[consistent].mean(axis=0)
    return probabilities


def greedy_posterior_scores() -> Floats:
    """Score on each fleet [F] of firing where a ship is most likely, at the first tile on ties."""
    fleets = all_placements().reshape(-1, N * N)
    misses = np.zeros(len(fleets))

    # A branch is the fleets that answered alike so far, and the tiles not fired at yet.
    branches = [(np.arange(len(fleets)), np.ones(N * N, dtype=np.bool_))]
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


def test_posterior() -> None:
    """The posterior knows the tiles fired at, and agrees with the average over the next answer."""
    observation = np.zeros((N, N))
    observation[1, 2], observation[3, 3] = 1, -1
    before = posterior(observation)
    assert (before[1, 2], before[3, 3]) == (1, 0)
    assert before.sum() == pytest.approx(SHIP_TILES)

    p_hit = before[2, 2]
    observation[2, 2] = 1
    after_hit = posterior(observation)
    observation[2, 2] = -1
    after_miss = posterior(observation)
    np.testing.assert_allclose(p_hit * after_hit + (1 - p_hit) * after_miss, before)


def test_greedy_posterior() -> None:
    """It scores 0.6146 on average, and what a new posterior before each shot makes of a fleet."""
    scores = greedy_posterior_scores()
    assert scores.mean() == pytest.approx(0.6146, abs=0.00005)
    for index in range(0, len(scores), 500):
        fleet = all_placements()[index]
        observation = np.zeros((N, N))
        while (fleet & (observation == 0)).any():
            tile = np.where(observation == 0, posterior(observation), -1).argmax()
            observation.flat[tile] = 1 if fleet.flat[tile] else -1
        assert scores[index] == 1 - (observation == -1).sum() / (WATER_TILES + 1)


# %% Hunt & target

WHOLE_BOARD = np.ones((N, N), dtype=np.bool_)
CORNER_COLOUR = np.indices((N, N)).sum(axis=0) % 2 == 0  # 13 tiles of the checkerboard
OTHER_COLOUR = ~CORNER_COLOUR  # 12 tiles


def beside_a_hit(observations: NDArray[Any]) -> Bools:
    """Tiles [..., N, N] with a hit above, below, left or right of them."""
    hit = observations == 1
    beside = np.zeros(hit.shape, dtype=np.bool_)
    beside[..., 1:, :] |= hit[..., :-1, :]
    beside[..., :-1, :] |= hit[..., 1:, :]
    beside[..., :, 1:] |= hit[..., :, :-1]
    beside[..., :, :-1] |= hit[..., :, 1:]
    return beside


def hunt_and_target_scores(
    hunting_ground: Bools, *, target: bool = True, games: int = 8, seed: int = 0
) -> Floats:
    """Scores [games, F] of playing every fleet a few times.

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


@pytest.mark.parametrize(
    ("hunting_ground", "target", "score"),
    [
        (WHOLE_BOARD, True, 0.3974),
        (CORNER_COLOUR, True, 0.4078),
        (OTHER_COLOUR, True, 0.4173),
        (WHOLE_BOARD, False, random_shots_score()),  # hunting without a target is random play
    ],
    ids=["whole board", "corner colour", "other colour", "without a target"],
)
def test_hunt_and_target(hunting_ground: Bools, *, target: bool, score: float) -> None:
    """Hunt & target scores 0.397, or on one colour of the checkerboard 0.408 or 0.417."""
    scores = hunt_and_target_scores(hunting_ground, target=target, games=4)
    # The standard error of a mean over 4 games on each of 9,024 fleets is about 0.0006.
    assert scores.mean() == pytest.approx(score, abs=4 * 0.0006)
