"""Game and policies: fleets are uniform over legal placements, and π allows possible shots only."""

import re
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from players import all_placements  # enumerated by code that shares nothing with the file

import microgrpo as m

ON_3_BY_3 = (
    *("xx./.../...", ".xx/.../...", ".../xx./...", ".../.xx/...", ".../.../xx.", ".../.../.xx"),
    *("x../x../...", ".x./.x./...", "..x/..x/...", ".../x../x..", ".../.x./.x.", ".../..x/..x"),
)


def draw(board: Any) -> str:
    """Draw a board in letters, row by row: x for 1, o for -1, and a dot for 0."""
    return "/".join("".join(".xo"[int(value)] for value in row) for row in board)


@pytest.mark.parametrize(
    ("side", "ships", "fleets"), [(3, (2,), ON_3_BY_3), (2, (2, 2), ["xx/xx"])]
)
def test_random_fleet_draws_every_legal_fleet(side: int, ships: Any, fleets: Any) -> None:
    """A ship of 2 fits on 3 x 3 in 12 ways; two such ships fill 2 x 2, as they may not overlap."""
    drawn = {draw(m.random_fleet(side, ships, seed)) for seed in range(300)}
    assert drawn == set(fleets)


def test_random_fleet_draws_all_placements_equally_often() -> None:
    """Ships of 3 and 2 have 36 placements on 3 x 3, and 20 of them cover the tile in the middle."""
    covered = [m.random_fleet(3, (3, 2), seed)[1, 1] for seed in range(4000)]
    # Redrawing only the ship that overlaps gives 22 / 36. The margin is four standard errors.
    assert np.mean(covered) == pytest.approx(20 / 36, abs=0.03)


def test_random_fleet_follows_from_its_seed() -> None:
    """A seed always gives the same fleet, and most other seeds give another."""
    first = [draw(m.random_fleet(5, (2, 3, 4), seed)) for seed in range(9)]
    getattr(m.random_fleet, "cache_clear", int)()  # what comes next is drawn anew
    again = [draw(m.random_fleet(5, (2, 3, 4), seed)) for seed in range(9)]
    assert again == first
    assert len(set(first)) > 5


@pytest.mark.parametrize(("side", "ships"), [(3, (2, 4)), (0, (2,)), (2, (2, 2, 2))])
def test_random_fleet_that_does_not_fit_is_an_error(side: int, ships: tuple[int, ...]) -> None:
    """One ship is too long, or there are too many. The message gives the board and the ships."""
    with pytest.raises(ValueError, match=re.escape(str(ships))) as error:
        m.random_fleet(side, ships, seed=0)
    assert str(side) in str(error.value).replace(str(ships), "")


@pytest.mark.parametrize(("side", "ships"), [(3, (1, 2, 2)), (4, (2, 3))])
def test_random_fleet_is_uniform(side: int, ships: tuple[int, ...]) -> None:
    """Chi-square: a board comes up in proportion to the placements that look like it."""
    placements = all_placements(side, ships)
    boards, looks_like = np.unique(placements, axis=0, return_counts=True)
    expected = 50 * len(boards) * looks_like / len(placements)
    seen = dict.fromkeys((board.tobytes() for board in boards), 0)
    for seed in range(50 * len(boards)):
        seen[m.random_fleet(side, ships, seed).tobytes()] += 1
    surprise = np.sum((np.array(list(seen.values())) - expected) ** 2 / expected)
    freedom = len(boards) - 1
    assert abs(surprise - freedom) <= 4 * np.sqrt(2 * freedom)  # four standard deviations


def test_a_crowded_board_is_filled() -> None:
    """Even if ships overlap in the first 9,282 draws. The cache shares it, so it is read-only."""
    fleet = m.random_fleet(4, (4, 3, 3, 3, 3), 214)
    assert (bool(fleet.all()), fleet.flags.writeable) == (True, False)


def test_battleship_env_reset_hides_a_fleet_for_each_seed() -> None:
    """Fleets come from random_fleet. No shot has been fired, so all boards are float32 zeros."""
    environment = m.BattleshipEnv(3, 6, (2, 5))
    boards, info = environment.reset(seed=[7, 7, 8])
    expected = [draw(m.random_fleet(6, (2, 5), seed)) for seed in (7, 7, 8)]
    assert [draw(fleet) for fleet in environment.fleets] == expected
    assert (boards.shape, str(boards.dtype), info) == ((3, 6, 6), "float32", {})
    assert np.count_nonzero(boards) == np.count_nonzero(environment.shots) == 0
    environment.fleets[:] = True  # this changes no later game
    assert draw(m.random_fleet(6, (2, 5), 7)) == expected[0]


def test_battleship_env_step_by_hand() -> None:
    """Shots at tiles 8, 0 and 1 earn 0, 0 and 1 - 1/8: one miss, and 7 tiles of water plus 1."""
    environment = m.BattleshipEnv(1, board_size=3, ships=(2,))
    environment.reset(seed=[0])
    environment.fleets = np.array([[[1, 1, 0], [0, 0, 0], [0, 0, 0]]], bool)
    for tile, board, reward, over in (
        (8, ".../.../..o", 0, False),
        (0, "x../.../..o", 0, False),
        (1, "xx./.../..o", 1 - 1 / 8, True),
    ):
        now, rewards, terminated, truncated, _ = environment.step(np.array([tile]))
        obtained = dict(board=draw(now[0]), reward=rewards[0], over=terminated[0], cut=truncated[0])
        assert obtained == dict(board=board, reward=reward, over=over, cut=False)
    assert str(environment) == "💥💥🌊\n🌊🌊🌊\n🌊🌊💦"


@pytest.mark.parametrize(("side", "ships"), [(5, (2, 3, 4)), (6, (2, 5))])
def test_battleship_env_step_agrees_with_sets_of_tiles(side: int, ships: tuple[int, ...]) -> None:
    """With m misses in w tiles of water, the last hit earns 1 - m / (w + 1), earlier shots 0."""
    environment = m.BattleshipEnv(6) if side == 5 else m.BattleshipEnv(6, side, ships)
    environment.reset(seed=[1, 2, 3, 4, 5, 1])
    ship_tiles = [set(np.flatnonzero(fleet).tolist()) for fleet in environment.fleets]
    fired: list[set[int]] = [set() for _ in range(6)]
    for shots in np.random.default_rng(0).integers(side**2, size=(20 * side**2, 6)):
        boards, rewards, terminated, truncated, info = environment.step(shots)
        assert (boards.dtype, truncated.tolist(), info) == (np.float32, [False] * 6, {})
        for i, shot in enumerate(shots.tolist()):
            fired[i].add(shot)
            misses = fired[i] - ship_tiles[i]
            assert set(np.flatnonzero(boards[i] == 1).tolist()) == fired[i] & ship_tiles[i]
            assert set(np.flatnonzero(boards[i] == -1).tolist()) == misses
            assert terminated[i] == (ship_tiles[i] <= fired[i])
            score = 1 - len(misses) / (side**2 - sum(ships) + 1)
            assert rewards[i] == pytest.approx(terminated[i] * score)
    assert terminated.all()


@pytest.mark.parametrize("tile", [-1, 9])
def test_battleship_env_step_refuses_a_tile_off_the_board(tile: int) -> None:
    """NumPy would count -1 from the end. The message gives the tile, and no shot is fired."""
    environment = m.BattleshipEnv(2, 3, (2,))
    environment.reset(seed=[1, 2])
    with pytest.raises((ValueError, IndexError), match=f"{tile}"):
        environment.step(np.array([0, tile]))
    assert not environment.shots.any()


rng = np.random.default_rng(0)
BOARDS = rng.choice([0, 0, 0, 1, -1], size=(20, 4, 4)).astype(np.float32)  # games in progress
BOARDS[0], BOARDS[0, 3, 1] = -1, 0  # only one tile is left
POSSIBLE = BOARDS.reshape(20, 16) == 0
SHAPES = {"W1": (32, 3), "b1": (3,), "W2": (3, 16)}
OPINIONS = {name: rng.normal(size=shape).astype("f4") for name, shape in SHAPES.items()}
LARGER = dict(board_size=10, hidden=300)
SHOTS = np.arange(20), POSSIBLE.argmax(axis=1)


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


@pytest.mark.parametrize(("logit", "p"), [(np.log(3), [0, 0.75, 0.25, 0]), (1000, [0, 1, 0, 0])])
def test_neural_battleship_policy_by_hand(logit: float, p: list[float]) -> None:
    """Two boards have tiles 1 and 2 left, with logits of log 3 and 0, so π is 3/4 and 1/4.

    The one hidden unit is tanh(1 from the hit + 0.5 from the miss - 1 from b1). With a logit of
    1,000, exp overflows to infinity, unless the greatest logit is subtracted from all of them.
    """
    θ = {"W1": np.zeros((8, 1)), "b1": np.array([-1.0]), "W2": np.array([[9.0, 0.0, 0.0, 9.0]])}
    θ["W1"][0], θ["W1"][4 + 3] = 1, 0.5
    θ["W2"][0, 1] = logit / np.tanh(0.5)
    boards = np.array([[[1, 0], [0, -1]]] * 2, np.float32)  # tile 0 was a hit, and tile 3 a miss
    π = m.neural_battleship_policy(θ, boards)
    assert np.round(π, 4).tolist() == [p, p]


@pytest.mark.parametrize("some", [np.s_[:], np.s_[0], np.s_[np.newaxis]], ids=str)
def test_reference_battleship_policy_by_hand(some: Any) -> None:
    """Two tiles left get 1/2 each, and four get 1/4 each, whatever the shape before [N, N]."""
    boards = np.array([[[1, 0], [0, -1]], [[0, 0], [0, 0]]])
    expected = np.array([[0, 0.5, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    assert m.reference_battleship_policy(boards[some]).tolist() == expected[some].tolist()


@pytest.mark.parametrize("some", [np.s_[:], np.s_[7], np.s_[np.newaxis]], ids=str)
def test_neural_battleship_policy_is_a_softmax_of_a_layer_of_tanh(some: Any) -> None:
    """The softmax is over the tiles not fired at, whatever the shape before [N, N]."""
    π = m.neural_battleship_policy(OPINIONS, BOARDS[some])
    np.testing.assert_allclose(π, literal_policy(OPINIONS)[some], rtol=1e-4)


def test_neural_battleship_policy_has_the_gradient_of_finite_differences() -> None:
    """It is that of log π of some shots, in a random direction for each array of parameters."""
    gradient_of = grad(lambda θ: anp.sum(anp.log(m.neural_battleship_policy(θ, BOARDS)[SHOTS])))
    for name, gradient in gradient_of(OPINIONS).items():
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
        assert (value.shape, value.dtype) == (shape, np.float32)
        assert (value == first[name]).all()
        assert (value != other[name]).any()
        standard_error = scale / np.sqrt(value.size)
        assert abs(value.mean()) < 4 * standard_error
        assert abs(value.std() - scale) < 4 * standard_error / np.sqrt(2)
