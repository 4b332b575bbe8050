"""The policy: probabilities of legal shots, the same from whatever side the board is looked at."""

import numpy as np
import pytest
from autograd import elementwise_grad
from numpy.typing import NDArray

from microgrpo import (
    BattleshipRules,
    Params,
    neural_battleship_policy,
    neural_battleship_policy_init,
    reference_battleship_policy,
    tanh,
)


def some_parameters(seed: int = 0, hidden: int = 8) -> Params:
    """Draw parameters of a policy with opinions: far from uniform, unlike the initial one."""
    rng = np.random.default_rng(seed)
    θ = neural_battleship_policy_init(hidden=hidden)
    return {name: rng.normal(size=value.shape).astype(np.float32) for name, value in θ.items()}


def some_boards(*shape: int, side: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Draw boards [*shape, side, side] in the middle of a game."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 0, 0, 1, -1], np.float32), size=(*shape, side, side))


def test_probabilities_are_float32_and_sum_to_1() -> None:
    """float32 from end to end: a network that turns float64 takes twice as long."""
    boards = some_boards(100)
    for probabilities in (
        neural_battleship_policy(some_parameters(), boards),
        reference_battleship_policy(boards),
    ):
        assert probabilities.shape == (100, 25)
        assert probabilities.dtype == np.float32
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    assert all(value.dtype == np.float32 for value in neural_battleship_policy_init().values())


def test_a_tile_is_never_fired_at_twice() -> None:
    """Illegal moves have probability 0 exactly, however much the network would like them."""
    boards = some_boards(100)
    for scale in (1, 100):
        θ = {name: scale * value for name, value in some_parameters().items()}
        probabilities = neural_battleship_policy(θ, boards)
        assert np.isfinite(probabilities).all()
        assert (probabilities[boards.reshape(100, 25) != 0] == 0).all()
    assert (reference_battleship_policy(boards)[boards.reshape(100, 25) != 0] == 0).all()


def test_the_last_tile_is_certain() -> None:
    """With one tile left there is nothing to choose."""
    board = np.full((5, 5), -1, np.float32)
    board[3, 1] = 0
    for probabilities in (
        neural_battleship_policy(some_parameters(), board),
        reference_battleship_policy(board),
    ):
        np.testing.assert_array_equal(probabilities, np.eye(25)[16])


def test_one_board_and_many_go_through_the_same_line() -> None:
    """Leading dimensions are batch dimensions, none of them included."""
    θ, boards = some_parameters(), some_boards(2, 3)
    for policy in (lambda seen: neural_battleship_policy(θ, seen), reference_battleship_policy):
        together = policy(boards)
        assert together.shape == (2, 3, 25)
        for i, j in np.ndindex(2, 3):
            np.testing.assert_allclose(policy(boards[i, j]), together[i, j], rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5, 6])
def test_a_turned_board_gets_a_turned_answer(side: int) -> None:
    """All eight symmetries of the square are built in, and the network sees more than symmetry."""
    rng = np.random.default_rng(1)
    θ = neural_battleship_policy_init(BattleshipRules(side, (2,)))
    θ = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in θ.items()}
    boards = some_boards(20, side=side)
    answers = neural_battleship_policy(θ, boards).reshape(boards.shape)
    for turns in range(4):
        for mirror in (False, True):
            turned = np.rot90(boards, turns, axes=(1, 2))
            expected = np.rot90(answers, turns, axes=(1, 2))
            if mirror:
                turned, expected = turned[:, :, ::-1], expected[:, :, ::-1]
            answer = neural_battleship_policy(θ, turned).reshape(boards.shape)
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-6)
    assert (abs(answers - answers[:, ::-1]).max(axis=(1, 2)) > 0.01).any()


def test_the_network_is_the_one_its_docstring_describes() -> None:
    """Eight copies of each hidden unit, written as loops over copies, units and tiles."""
    θ, board = some_parameters(hidden=2), some_boards()
    tiles = np.arange(25).reshape(5, 5)
    symmetries = []
    for turns in range(4):
        symmetries += [np.rot90(tiles, turns).ravel(), np.rot90(tiles.T, turns).ravel()]
    logits = np.zeros(25)
    for reordered in symmetries:
        for unit in range(2):
            z = float(θ["b1"][unit])
            for tile, seen in enumerate(board.ravel()):
                z += θ["W1"][0, reordered[tile], unit] * (seen == 1)
                z += θ["W1"][1, reordered[tile], unit] * (seen == -1)
            for tile in range(25):
                logits[tile] += np.tanh(z) * θ["W2"][reordered[tile], unit]
    weights = np.exp(logits) * (board.ravel() == 0)
    expected = weights / weights.sum()
    np.testing.assert_allclose(neural_battleship_policy(θ, board), expected, rtol=1e-4, atol=1e-7)


def test_tanh_has_its_own_derivative() -> None:
    """The closed form 1 / cosh², also far out, where cosh² overflows float32."""
    z = np.array([-100, -50, -3, -0.5, 0, 1e-3, 0.7, 4, 50, 100], np.float32)
    with np.errstate(all="raise"):
        derivative = elementwise_grad(tanh)(z)
    assert derivative.dtype == np.float32
    np.testing.assert_allclose(derivative, 1 / np.cosh(z.astype(float)) ** 2, rtol=1e-4, atol=1e-7)


def test_the_reference_policy_is_uniform_over_unknown_tiles() -> None:
    """Random play, as the policy starts and as the KL divergence remembers it."""
    board = np.zeros((5, 5), np.float32)
    board[0, :2] = [1, -1]
    np.testing.assert_allclose(reference_battleship_policy(board)[2:], 1 / 23, rtol=1e-6)


def test_the_initial_policy_is_close_to_random_play() -> None:
    """Training starts from about 15%, not from a lucky or an unlucky opinion."""
    boards = some_boards(100)
    ratio = neural_battleship_policy(neural_battleship_policy_init(), boards)
    legal = boards.reshape(100, 25) == 0
    ratio = ratio[legal] / reference_battleship_policy(boards)[legal]
    assert 0.7 < ratio.min() < ratio.max() < 1.4


def test_initial_parameters_follow_from_the_seed() -> None:
    """The same seed draws the same network, another seed another."""
    first, again, other = (neural_battleship_policy_init(seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["W1"], again["W1"])
    assert (first["W1"] != other["W1"]).any()


@pytest.mark.parametrize("field", ["seed", "hidden"])
@pytest.mark.parametrize("value", [-1, 0.5, float("nan"), "1", None])
def test_arguments_out_of_range_are_named(field: str, value: object) -> None:
    """The initialisation checks its arguments."""
    with pytest.raises(ValueError, match=field):
        neural_battleship_policy_init(**{field: value})  # type: ignore[arg-type]
