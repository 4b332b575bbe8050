"""Policy: a network with one hidden layer gives probabilities of the shots that are possible."""

from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from microgrpo import (
    BattleshipRules,
    neural_battleship_policy,
    neural_battleship_policy_init,
    reference_battleship_policy,
)

rng = np.random.default_rng(0)
BOARDS = rng.choice([0, 0, 0, 1, -1], size=(20, 4, 4)).astype(np.float32)  # amid their games
BOARDS[0], BOARDS[0, 3, 1] = -1, 0  # only one tile is left
POSSIBLE = BOARDS.reshape(20, 16) == 0
INITIAL = neural_battleship_policy_init(BattleshipRules(4, (2, 3)), hidden=3)
OPINIONS = {name: rng.normal(size=value.shape).astype("f4") for name, value in INITIAL.items()}
SHOTS = np.arange(20), neural_battleship_policy(OPINIONS, BOARDS).argmax(axis=1)


def literal_policy(θ: Any) -> Any:
    """Work out the probabilities [20, 16] of all boards, weight by weight."""
    logits = np.zeros((20, 16))
    for board, row in zip(BOARDS, logits, strict=True):
        seen = np.flatnonzero([board == 1, board == -1])
        for unit in range(3):
            h = np.tanh(θ["b1"][unit] + sum(θ["W1"][i, unit] for i in seen))
            for tile in range(16):
                row[tile] += h * θ["W2"][unit, tile]
    weights = np.exp(logits) * POSSIBLE
    return weights / weights.sum(axis=1, keepdims=True)


def gradient(θ: Any, boards: Any = BOARDS) -> Any:
    """Differentiate the sum of log π of the shots."""
    return grad(lambda θ: anp.sum(anp.log(neural_battleship_policy(θ, boards)[SHOTS])))(θ)


def test_policies_are_what_they_say() -> None:
    """A softmax of a layer of tanh, or equal probabilities, over the tiles not fired at."""
    same_for_each = np.array([[tile and 1 / sum(row) for tile in row] for row in POSSIBLE])
    for some in (np.s_[:], np.s_[7], np.s_[np.newaxis]):  # boards [20], one alone, boards [1, 20]
        π = neural_battleship_policy(OPINIONS, BOARDS[some])
        np.testing.assert_allclose(π, literal_policy(OPINIONS)[some], rtol=1e-4)
        np.testing.assert_allclose(reference_battleship_policy(BOARDS[some]), same_for_each[some])


def test_the_gradient_agrees_with_finite_differences() -> None:
    """That of the log-probability, which is what training needs, in each single parameter."""
    for name, g in gradient(OPINIONS).items():
        for index in np.ndindex(g.shape):
            θ = {name: value.astype(float) for name, value in OPINIONS.items()}
            θ[name][index] += 1e-4
            above = np.log(literal_policy(θ)[SHOTS]).sum()
            θ[name][index] -= 2e-4
            below = np.log(literal_policy(θ)[SHOTS]).sum()
            assert g[index] == pytest.approx((above - below) / 2e-4, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("boards", [BOARDS, BOARDS.astype(np.int8), BOARDS.astype(float)])
def test_all_is_float32(boards: Any) -> None:
    """Parameters, probabilities and gradient, whatever the board: float64 takes twice as long."""
    π = neural_battleship_policy(INITIAL, boards)
    arrays = [π, *INITIAL.values(), *gradient(INITIAL, boards).values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_a_tile_is_never_fired_at_twice() -> None:
    """However sure the network is, π is exactly 0 where a shot fell, and nothing overflows."""
    θ = OPINIONS | {"W2": np.float32(100) * OPINIONS["W2"]}
    with np.errstate(all="raise", under="ignore"):
        gradient(θ)
        π = neural_battleship_policy(θ, BOARDS)
    np.testing.assert_array_equal(π[~POSSIBLE], 0)
    np.testing.assert_allclose(π.sum(axis=1), 1, rtol=1e-6)


def test_training_starts_close_to_random_play() -> None:
    """The initial network has no opinion on any board, and follows from the seed."""
    boards = np.random.default_rng(0).choice([0, 0, 0, 1, -1], size=(100, 5, 5))
    first, again, other = (neural_battleship_policy_init(seed=seed) for seed in (1, 1, 2))
    π = neural_battleship_policy(first, boards)
    np.testing.assert_allclose(π, reference_battleship_policy(boards), rtol=0.5)  # 0.22 of 5 seeds
    assert all((first[name] == again[name]).all() for name in first)
    assert all((first[name] != other[name]).any() for name in ("W1", "W2"))
