"""Game: fleets are uniform over all legal placements, and a score follows from the shots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_references import all_placements  # listed by code that shares nothing with the file

from microgrpo import BattleshipGame, BattleshipRules, random_fleet

# %% Fleets


@pytest.mark.parametrize(("side", "ships"), [(4, (4,) * 4), (3, (1, 2, 2)), (4, (2, 3))])
def test_fleets_are_uniform_over_all_legal_placements(side: int, ships: tuple[int, ...]) -> None:
    """Chi-square: a board comes as often as there are placements that look like it."""
    placements = all_placements(side, ships)
    boards, looks_like = np.unique(placements, axis=0, return_counts=True)
    expected = 50 * len(boards) * looks_like / len(placements)
    seen = dict.fromkeys((board.tobytes() for board in boards), 0)
    for seed in range(50 * len(boards)):
        seen[random_fleet(BattleshipRules(side, ships), seed).tobytes()] += 1

    surprise = np.sum((np.array(list(seen.values())) - expected) ** 2 / expected)
    freedom = len(boards) - 1
    assert abs(surprise - freedom) <= 4 * np.sqrt(2 * freedom)  # four standard deviations


def test_the_default_board_has_9024_placements() -> None:
    """Each pair of tiles, and each tile, is as often covered as in a list of all placements."""
    placements = all_placements().reshape(9024, 25).astype(float)
    drawn = np.array([random_fleet(BattleshipRules(), seed).ravel() for seed in range(5_000)])
    p = placements.T @ placements / 9024  # [25, 25], on the diagonal the tiles
    difference = drawn.T @ drawn.astype(float) / 5_000 - p
    assert (abs(difference) < 5 * np.sqrt(p * (1 - p) / 5_000)).all()  # five standard deviations


def test_the_same_seed_hides_the_same_fleet() -> None:
    """A fleet follows from rules and seed, also after the cache has forgotten it."""
    fleets = [random_fleet(BattleshipRules(), seed).tobytes() for seed in range(10)]
    random_fleet.cache_clear()
    assert fleets == [random_fleet(BattleshipRules(), seed).tobytes() for seed in range(10)]
    assert len(set(fleets)) == 10


def test_a_fleet_cannot_be_changed() -> None:
    """All games of a group get the same array, so no one may write into it."""
    for seed in range(10):
        with pytest.raises(ValueError, match="read-only"):
            random_fleet(BattleshipRules(), seed)[0, 0] = True


@pytest.mark.parametrize(("side", "ships"), [(3, (2, 4)), (0, (2,)), (2, (2, 2, 2))])
def test_a_fleet_that_does_not_fit_is_an_error(side: int, ships: tuple[int, ...]) -> None:
    """One ship is too long, or all together are too many: the message names ships and board."""
    with pytest.raises(ValueError, match="ships") as error:
        random_fleet(BattleshipRules(side, ships), seed=0)
    assert all(part in str(error.value) for part in ("board", str(side), str(ships)))


# %% Shots and scores


RULES = BattleshipRules(), BattleshipRules(3, (2,)), BattleshipRules(2, (2, 2))


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(RULES), st.integers(0, 2**32), st.permutations(range(25)))
def test_a_game_ends_with_its_last_hit(rules: BattleshipRules, seed: int, order: list[int]) -> None:
    """With m misses in w tiles of water it scores 1 - m / (w + 1) then, and 0 until then."""
    fleet = random_fleet(rules, seed)
    game = BattleshipGame(fleet[np.newaxis])
    left = set(np.flatnonzero(fleet).tolist())
    water = set(range(fleet.size)) - left
    misses = 0
    for tile in (tile for tile in order if tile < fleet.size):
        assert game.finished() == (not left)
        game.fire(np.array([tile]))
        misses += tile in water
        left.discard(tile)
        assert game.score() == pytest.approx(0 if left else 1 - misses / (len(water) + 1))
    assert game.finished()


def test_to_fire_at_a_tile_again_changes_nothing() -> None:
    """Games that are over can be stepped on with their last shot, and no one has to look."""
    game = BattleshipGame(random_fleet(BattleshipRules(), seed=0)[np.newaxis])
    for last in range(25):
        game.fire(np.array([last]))
        before = str(game), game.score()
        for tile in range(last + 1):
            game.fire(np.array([tile]))
        assert (str(game), game.score()) == before


def test_n_games_are_the_games_one_by_one() -> None:
    """Shots fired at the same time fall each on a board of its own."""
    fleets = np.stack([random_fleet(BattleshipRules(4, (2, 3)), seed) for seed in range(6)])
    games, alone = BattleshipGame(fleets), [BattleshipGame(fleet[np.newaxis]) for fleet in fleets]
    for tiles in np.random.default_rng(0).integers(16, size=(40, 6)):
        games.fire(tiles)
        for game, tile in zip(alone, tiles, strict=True):
            game.fire(tile)
        assert str(games) == "\n".join(str(game) for game in alone)
        np.testing.assert_array_equal(games.score(), np.concatenate([g.score() for g in alone]))


@pytest.mark.parametrize("tile", [-1, 9])
def test_a_tile_off_the_board_is_an_error(tile: int) -> None:
    """NumPy would count -1 from the end. The message names the shots, and none of them falls."""
    game = BattleshipGame(np.zeros((2, 3, 3), bool))
    with pytest.raises(ValueError, match=f"tiles.*{tile}"):
        game.fire(np.array([0, tile]))
    assert not game.shots.any()


def test_boards_are_drawn_one_below_the_other() -> None:
    """Water, ship, miss and hit each have a sign. One miss in two tiles of water scores 2/3."""
    fleet = np.array([[True, True], [False, False]])
    game = BattleshipGame(np.stack([fleet, fleet.T]))
    assert str(game) == "🚢🚢\n🌊🌊\n🚢🌊\n🚢🌊"
    for tiles in ([0, 3], [2, 2], [1, 2]):
        game.fire(np.array(tiles))
    assert str(game) == "💥💥\n💦🌊\n🚢🌊\n💥💦"
    assert game.score() == pytest.approx([2 / 3, 0])
