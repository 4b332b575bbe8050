"""Battleship with a policy that knows the board: it learns faster than the plain network.

Turn or mirror a Battleship board, and the best shot turns with it. The plain network has to learn
this from games. Here it is built in: every hidden unit comes in eight copies, one for each way to
turn or mirror the board, and the copies share their parameters. GRPO itself stays as it is.

`uv run tests/examples/symmetric.py` trains for about a minute. It prints progress, then score and
shots per game before and after training, in games that training has not played.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

from functools import lru_cache
from typing import Any

import autograd.numpy as anp
import numpy as np

import microgrpo as m


@lru_cache  # the policy asks for the same orders again and again
def eight_views(board_size: int) -> m.Array:
    """Return the order in which each of eight viewers reads the tiles of a board, [N*N, 8].

    Take a board with the tiles 0 1 2 / 3 4 5 / 6 7 8. To someone who sits on its left, it reads
    2 5 8 / 1 4 7 / 0 3 6. There are four sides to sit on, and four more for the mirrored board.
    """
    board = np.arange(board_size**2).reshape(board_size, board_size)
    views = [np.rot90(tiles, turns) for tiles in (board, board.T) for turns in range(4)]
    return np.stack([view.ravel() for view in views], axis=1)


def symmetric_battleship_policy_init(
    board_size: int = 5, hidden: int = 16, seed: int = 42
) -> m.Params:
    """Draw the parameters θ of a network with 8 * hidden units, in groups of eight copies."""
    θ = m.neural_battleship_policy_init(board_size, hidden, seed)
    W1 = θ["W1"].reshape(2, -1, hidden)  # [2, N*N, hidden]: from hits and misses on each tile
    W2 = θ["W2"].T / 8**0.5  # [N*N, hidden]: smaller, because eight copies add up
    return {"W1": W1, "b1": θ["b1"], "W2": W2}


def symmetric_battleship_policy(θ: m.Params, observation: m.Array) -> Any:
    """Map boards [..., N, N] to the probability of each next shot, [..., N*N]."""
    tiles = observation.shape[-1] ** 2
    views = eight_views(observation.shape[-1])  # [N*N, 8]
    eight_copies = {
        "W1": θ["W1"][:, views].reshape(2 * tiles, -1),  # from [2, N*N, 8, hidden]
        "b1": anp.tile(θ["b1"], 8),
        "W2": θ["W2"][views].reshape(tiles, -1).T,  # from [N*N, 8, hidden]
    }
    return m.neural_battleship_policy(eight_copies, observation)


if __name__ == "__main__":
    np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py
    config = m.GRPOConfig(
        environment=m.BattleshipEnv,
        policy=symmetric_battleship_policy,
        reference_policy=m.reference_battleship_policy,
    )
    θ_init = symmetric_battleship_policy_init()
    θ_star, _ = m.train_grpo(m.AdamWOptimizer(θ_init), config)

    test_seeds = range(2**31, 2**31 + 2000)  # training uses only smaller seeds
    for when, θ in {"Before": θ_init, "After": θ_star}.items():
        games = m.rollout(θ, config, test_seeds)
        shots = len(games.actions) / len(test_seeds)
        print(f"{when} training: score {games.rewards.mean():.3f}, {shots:.1f} shots per game")
