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
SHAPES = {"W1": (32, 3), "b1": (3,), "W2": (3, 16)}
OPINIONS = {name: rng.normal(size=shape).astype("f4") for name, shape in SHAPES.items()}
SHOTS = np.arange(20), POSSIBLE.argmax(axis=1)
SHAPES_BEFORE = {"20": np.s_[:], "one": np.s_[7], "1 x 20": np.s_[np.newaxis]}


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


TWO_BOARDS = np.array([[[1, 0], [0, -1]]] * 2, np.float32)  # tile 0 was a hit, and tile 3 a miss


@pytest.mark.parametrize(
    ("logit", "expected"),
    [(np.log(3), [0, 0.75, 0.25, 0]), (1000, [0, 1, 0, 0])],
    ids=["log 3", "1000"],
)
def test_neural_battleship_policy_by_hand(logit: float, expected: list[float]) -> None:
    """Two boards with tiles 1 and 2 left, and logits of log 3 and 0 for them: 3/4 and 1/4.

    The one hidden unit is tanh(1 from the hit + 0.5 from the miss - 1 from b1). With a logit of
    1,000, exp overflows to infinity, unless the greatest logit is subtracted from all of them.
    """
    θ = {"W1": np.zeros((8, 1)), "b1": np.array([-1.0]), "W2": np.array([[9.0, 0.0, 0.0, 9.0]])}
    θ["W1"][0], θ["W1"][4 + 3] = 1, 0.5
    θ["W2"][0, 1] = logit / np.tanh(0.5)
    π = m.neural_battleship_policy(θ, TWO_BOARDS)
    assert np.round(π, 4).tolist() == [expected, expected]


def test_reference_battleship_policy_by_hand() -> None:
    """Two boards of 2 x 2 with tiles 1 and 2 left: 1/2 each."""
    assert m.reference_battleship_policy(TWO_BOARDS).tolist() == [[0, 0.5, 0.5, 0]] * 2


@pytest.mark.parametrize("some", SHAPES_BEFORE.values(), ids=SHAPES_BEFORE)
def test_neural_battleship_policy_is_a_softmax_of_a_layer_of_tanh(some: Any) -> None:
    """Over the tiles not fired at, whatever the shape before [N, N]."""
    π = m.neural_battleship_policy(OPINIONS, BOARDS[some])
    np.testing.assert_allclose(π, literal_policy(OPINIONS)[some], rtol=1e-4)


@pytest.mark.parametrize("some", SHAPES_BEFORE.values(), ids=SHAPES_BEFORE)
def test_reference_battleship_policy_gives_all_possible_shots_the_same(some: Any) -> None:
    """Whatever the shape before [N, N]."""
    expected = np.array([[tile and 1 / sum(row) for tile in row] for row in POSSIBLE])
    np.testing.assert_allclose(m.reference_battleship_policy(BOARDS[some]), expected[some])


def test_neural_battleship_policy_has_the_gradient_of_finite_differences() -> None:
    """In a random direction for each array of parameters."""
    for name, gradient in grad(log_likelihood)(OPINIONS).items():
        nudge = 1e-4 * rng.normal(size=gradient.shape)
        above = np.log(literal_policy(OPINIONS | {name: OPINIONS[name] + nudge})[SHOTS]).sum()
        below = np.log(literal_policy(OPINIONS | {name: OPINIONS[name] - nudge})[SHOTS]).sum()
        assert (gradient * nudge).sum() == pytest.approx((above - below) / 2, rel=1e-3)


def test_neural_battleship_policy_never_fires_at_a_tile_twice() -> None:
    """However sure the network is, π is exactly 0 where a shot fell, and nothing overflows."""
    θ = OPINIONS | {"W2": np.float32(100) * OPINIONS["W2"]}
    with np.errstate(all="raise", under="ignore"):
        grad(lambda θ: anp.sum(m.neural_battleship_policy(θ, BOARDS)[SHOTS]))(θ)
        π = m.neural_battleship_policy(θ, BOARDS)
    np.testing.assert_array_equal(π[~POSSIBLE], 0)
    np.testing.assert_allclose(π.sum(axis=1), 1, rtol=1e-6)


LARGER = dict(board_size=10, hidden=300)


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
        assert value.dtype == np.float32
        assert (value == first[name]).all()
        assert (value != other[name]).any()
        standard_error = scale / np.sqrt(value.size)
        assert abs(value.mean()) < 4 * standard_error
        assert abs(value.std() - scale) < 4 * standard_error / np.sqrt(2)
