"""The players a trained policy is compared with, and their scores.

`uv run tests/experiments/players.py` prints them in a few seconds. Nothing comes from
`microgrpo.py`, so these numbers cannot share its mistakes. They hold for the default rules, and
every mean gives each legal placement of the fleet the same weight.
"""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
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


# %% Hunt & target


def beside_a_hit(observations: Array) -> Array:
    """Tiles [..., N, N] with a hit above, below, left or right of them."""
    hit = observations == 1
    beside = np.zeros(hit.shape, bool)
    beside[..., 1:, :] |= hit[..., :-1, :]
    beside[..., :-1, :] |= hit[..., 1:, :]
    beside[..., :, 1:] |= hit[..., :, :-1]
    beside[..., :, :-1] |= hit[..., :, 1:]
    return beside


def hunt_and_target_scores(*, target: bool = True, games: int = 16) -> Array:
    """Return scores [games, F] of playing every fleet a few times.

    A shot is uniform over the unfired tiles beside a hit. If there are none, or target is False,
    it is uniform over all unfired tiles.
    """
    rng = np.random.default_rng(0)
    fleets = np.tile(all_placements(), (games, 1, 1))  # [games * F, N, N]
    observations = np.zeros(fleets.shape, dtype=np.int8)
    misses = np.zeros(len(fleets))
    game = np.arange(len(fleets))
    for _ in range(N * N):
        finished = (observations == 1).sum(axis=(1, 2)) == SHIP_TILES

        # The integer part ranks the kinds of tile, the random fraction draws among the best kind.
        kind = target & beside_a_hit(observations)
        rank = np.where(observations == 0, kind + rng.random(fleets.shape), -1)
        row, column = np.divmod(rank.reshape(-1, N * N).argmax(axis=1), N)

        hit = fleets[game, row, column]
        observations[game, row, column] = np.where(hit, 1, -1)
        misses += ~hit & ~finished
    return (1 - misses / (WATER_TILES + 1)).reshape(games, -1)


if __name__ == "__main__":
    for name, score in (
        ("random shots", random_shots_score()),
        ("simple strategy (hunt & target)", hunt_and_target_scores().mean()),
        ("likeliest tile (exact posterior)", greedy_posterior_scores().mean()),
    ):
        shots = SHIP_TILES + (WATER_TILES + 1) * (1 - score)  # each miss costs 1/17
        print(f"{name}: score {score:.3f}, {shots:.1f} shots")
