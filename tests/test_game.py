"""The game: fleets are uniform over all legal placements, and a score follows from the shots."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgrpo import BattleshipGame, BattleshipRules


def placements(rules: BattleshipRules) -> list[tuple[frozenset[tuple[int, int]], ...]]:
    """List every legal fleet, tile by tile, as a literal reading of the rules."""
    n = rules.board_size
    places: list[list[frozenset[tuple[int, int]]]] = []
    for length in rules.ships:
        ship = []
        for row, column in itertools.product(range(n), range(n)):
            if column + length <= n:
                ship.append(frozenset((row, column + k) for k in range(length)))
            if row + length <= n and length > 1:
                ship.append(frozenset((row + k, column) for k in range(length)))
        places.append(ship)
    tiles = sum(rules.ships)
    return [fleet for fleet in itertools.product(*places) if len(frozenset.union(*fleet)) == tiles]


@pytest.mark.parametrize(
    "rules",
    [
        BattleshipRules(3, (2, 3)),
        BattleshipRules(2, (2, 2)),
        BattleshipRules(3, (1, 2)),
        BattleshipRules(4, (2, 3)),
    ],
)
def test_fleets_are_uniform_over_all_legal_placements(rules: BattleshipRules) -> None:
    """Chi-square: boards come as often as there are placements that look like them."""
    expected: dict[bytes, float] = {}
    fleets = placements(rules)
    for fleet in fleets:
        board = np.zeros((rules.board_size, rules.board_size), bool)
        board[tuple(np.array(list(frozenset.union(*fleet))).T)] = True
        expected[board.tobytes()] = expected.get(board.tobytes(), 0) + 1 / len(fleets)
    draws = 200 * len(expected)
    seen = dict.fromkeys(expected, 0)
    for seed in range(draws):
        seen[rules.random_fleet(seed).tobytes()] += 1

    surprise = sum((seen[b] - draws * p) ** 2 / (draws * p) for b, p in expected.items())
    freedom = len(expected) - 1
    assert abs(surprise - freedom) < 4 * np.sqrt(2 * freedom) + 4  # 4 standard deviations


def test_default_rules_reach_every_kind_of_placement() -> None:
    """On the 5 x 5 board each tile is as often a ship as the 9,024 placements say."""
    fleets = placements(BattleshipRules())
    assert len(fleets) == 9024
    share = np.zeros((5, 5))
    for fleet in fleets:
        share[tuple(np.array(list(frozenset.union(*fleet))).T)] += 1 / len(fleets)
    draws = 20_000
    drawn = np.mean([BattleshipRules().random_fleet(seed) for seed in range(draws)], axis=0)
    np.testing.assert_allclose(drawn, share, atol=4.5 * np.sqrt(0.25 / draws))


def test_the_same_seed_hides_the_same_fleet() -> None:
    """A fleet is a function of the rules and the seed, and different seeds differ."""
    fleets = [BattleshipRules().random_fleet(seed) for seed in range(10)]
    np.testing.assert_array_equal(fleets[3], BattleshipRules().random_fleet(3))
    assert len({fleet.tobytes() for fleet in fleets}) > 5


def test_the_full_game_can_be_set_up() -> None:
    """The board of the box: 10 x 10 with five ships."""
    fleet = BattleshipRules(10, (5, 4, 3, 3, 2)).random_fleet(seed=1)
    assert fleet.shape == (10, 10)
    assert fleet.sum() == 17


@pytest.mark.parametrize(
    ("board_size", "ships"),
    [(2, (2, 2, 2)), (3, (3, 3, 3, 1)), (5, (5,) * 6), (10, (4,) * 25), (10, (1,) * 120)],
)
def test_fleets_that_cannot_be_placed_are_refused_at_once(
    board_size: int, ships: tuple[int, ...]
) -> None:
    """Each ship alone would fit, all together do not."""
    with pytest.raises(ValueError, match="ships"):
        BattleshipRules(board_size, ships)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("board_size", 0),
        ("board_size", -5),
        ("board_size", 5.0),
        ("board_size", float("nan")),
        ("board_size", True),
        ("board_size", "5"),
        ("ships", ()),
        ("ships", [2, 3]),
        ("ships", 3),
        ("ships", (2, 0)),
        ("ships", (2, 6)),
        ("ships", (2.0,)),
        ("ships", ("2",)),
        ("ships", (float("nan"),)),
    ],
)
def test_rules_out_of_range_name_the_field(field: str, value: object) -> None:
    """Every wrong field is a ValueError that says which."""
    with pytest.raises(ValueError, match=field):
        BattleshipRules(**{field: value})  # type: ignore[arg-type]


def test_score_counts_misses() -> None:
    """With the default rules, a game with m misses scores 1 - m/17, and an unfinished one 0."""
    ships = BattleshipRules().random_fleet(seed=0)
    water = np.argwhere(~ships)
    for misses in range(17):
        shots = ships.copy()
        shots[tuple(water[:misses].T)] = True
        assert BattleshipGame(ships, shots).score() == pytest.approx(1 - misses / 17)
    shots[tuple(np.argwhere(ships)[0])] = False
    assert BattleshipGame(ships, shots).score() == 0


@settings(deadline=None)  # a busy machine is no failure
@given(seed=st.integers(0, 2**32), order=st.permutations(range(25)))
def test_any_order_of_shots_ends_with_the_last_hit(seed: int, order: list[int]) -> None:
    """The game ends with the shot at its last ship tile, and the score never changes after."""
    ships = BattleshipRules().random_fleet(seed)
    game = BattleshipGame(ships, np.zeros_like(ships))
    left = set(np.flatnonzero(ships).tolist())
    misses = 0
    for tile in order:
        assert game.finished == (not left)
        if left:
            misses += tile not in left
            left.discard(tile)
        game = game.fire(np.array(tile))
        assert game.score() == pytest.approx(0 if left else 1 - misses / 17)


def test_a_batch_of_games_is_the_games_one_by_one() -> None:
    """Leading dimensions are batch dimensions: [2, 3] games move as each would alone."""
    rules = BattleshipRules(4, (2, 3))
    ships = np.stack([rules.random_fleet(seed) for seed in range(6)])
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(16), (6, 1)), axis=1)
    batch = BattleshipGame(ships.reshape(2, 3, 4, 4), np.zeros((2, 3, 4, 4), bool))
    singles = [BattleshipGame(fleet, np.zeros_like(fleet)) for fleet in ships]
    for shot in range(12):
        batch = batch.fire(orders[:, shot].reshape(2, 3))
        singles = [game.fire(order[shot]) for game, order in zip(singles, orders, strict=True)]
        np.testing.assert_array_equal(batch.score().ravel(), [g.score() for g in singles])
        np.testing.assert_array_equal(batch.finished.ravel(), [g.finished for g in singles])


def test_a_board_is_drawn_in_emoji() -> None:
    """Sea, ship, splash and hit; a batch is drawn side by side."""
    ships = np.array([[True, True], [False, False]])
    shots = np.array([[True, False], [False, True]])
    assert str(BattleshipGame(ships, shots)) == "💥🚢\n🌊💦"
    assert str(BattleshipGame(ships, shots).fire(1)) == "💥💥\n🌊💦"
    pair = BattleshipGame(np.stack([ships, ships]), np.stack([shots, ~shots]))
    assert str(pair) == "💥🚢  🚢💥\n🌊💦  💦🌊"
