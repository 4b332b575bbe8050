"""Policy: a network with one hidden layer gives probabilities of the shots that are possible."""

from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

import microgrpo as m

rng = np.random.default_rng(0)
BOARDS = rng.choice([0, 0, 0, 1, -1], size=(20, 4, 4)).astype(np.float32)  # games in progress
BOARDS[0], BOARDS[0, 3, 1] = -1, 0  # only one tile is left
POSSIBLE = BOARDS.reshape(20, 16) == 0
INITIAL = m.neural_battleship_policy_init(m.BattleshipRules(4, (2, 3)), hidden=3)
OPINIONS = {name: rng.normal(size=value.shape).astype("f4") for name, value in INITIAL.items()}
SHOTS = np.arange(20), m.neural_battleship_policy(OPINIONS, BOARDS).argmax(axis=1)


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


def log_likelihood(θ: Any) -> Any:
    """Sum log π of the shots: its gradient is what training needs."""
    return anp.sum(anp.log(m.neural_battleship_policy(θ, BOARDS)[SHOTS]))


def test_policies_are_what_they_say() -> None:
    """A softmax of a layer of tanh, or equal probabilities, over the tiles not fired at."""
    same_for_each = np.array([[tile and 1 / sum(row) for tile in row] for row in POSSIBLE])
    for some in (np.s_[:], np.s_[7], np.s_[np.newaxis]):  # boards [20], one alone, boards [1, 20]
        π = m.neural_battleship_policy(OPINIONS, BOARDS[some])
        np.testing.assert_allclose(π, literal_policy(OPINIONS)[some], rtol=1e-4)
        np.testing.assert_allclose(m.reference_battleship_policy(BOARDS[some]), same_for_each[some])


def test_the_gradient_agrees_with_finite_differences() -> None:
    """In a random direction for each array of parameters."""
    for name, gradient in grad(log_likelihood)(OPINIONS).items():
        nudge = 1e-4 * rng.normal(size=gradient.shape)
        above = np.log(literal_policy(OPINIONS | {name: OPINIONS[name] + nudge})[SHOTS]).sum()
        below = np.log(literal_policy(OPINIONS | {name: OPINIONS[name] - nudge})[SHOTS]).sum()
        assert (gradient * nudge).sum() == pytest.approx((above - below) / 2, rel=1e-3)


def test_a_tile_is_never_fired_at_twice() -> None:
    """However sure the network is, π is exactly 0 where a shot fell, and nothing overflows."""
    θ = OPINIONS | {"W2": np.float32(100) * OPINIONS["W2"]}
    with np.errstate(all="raise", under="ignore"):
        grad(log_likelihood)(θ)
        π = m.neural_battleship_policy(θ, BOARDS)
    np.testing.assert_array_equal(π[~POSSIBLE], 0)
    np.testing.assert_allclose(π.sum(axis=1), 1, rtol=1e-6)


LARGER = dict(rules=m.BattleshipRules(10), hidden=300)


@pytest.mark.parametrize(("given", "tiles", "hidden"), [({}, 25, 128), (LARGER, 100, 300)])
def test_initial_parameters(given: dict[str, Any], tiles: int, hidden: int) -> None:
    """With half the tiles seen, W1 gives tanh inputs of variance 1; W2 keeps logits close to 0."""
    default = m.neural_battleship_policy_init(**given)
    first, other = (m.neural_battleship_policy_init(**given, seed=seed) for seed in (42, 2))
    assert not default["b1"].any()
    for name, shape, scale in (
        ("W1", (2 * tiles, hidden), np.sqrt(2 / tiles)),
        ("W2", (hidden, tiles), 0.1 / np.sqrt(hidden)),
    ):
        value = default[name]
        assert value.shape == shape
        assert (value == first[name]).all()
        assert (value != other[name]).any()
        standard_error = scale / np.sqrt(value.size)
        assert abs(value.mean()) < 4 * standard_error
        assert abs(value.std() - scale) < 4 * standard_error / np.sqrt(2)
