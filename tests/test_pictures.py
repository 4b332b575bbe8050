"""The animated picture shows two real games, and they are as long as games are on average."""

from pathlib import Path

import numpy as np
from animation import draw_games
from results import read_results
from tables import PAGE

import microgrpo as m


def test_animation() -> None:
    """Replayed on the game, the last shot of each sinks the fleet, and its counter ends there."""
    games = read_results()["games"]
    picture = Path(__file__).parents[1] / ".github" / "before-and-after.svg"
    svg = picture.read_text(encoding="utf-8")
    assert svg == draw_games(games)
    for name, shots in games["shots"].items():
        env = m.BattleshipEnv(1)
        env.reset(seed=[games["seed"]])
        assert np.flatnonzero(env.fleets).tolist() == games["fleet"]
        finished = [bool(env.step(np.array([tile]))[2][0]) for tile in shots]
        assert finished == [False] * (len(shots) - 1) + [True]
        assert len(set(shots)) == len(shots)
        assert abs(len(shots) - games["mean shots"][name]) <= 0.5
        game = svg.split(f">{name}</text>")[1].split("translate")[0]
        assert f">{len(shots)} shots: all sunk<" in game
        assert game.count('class="hit"') == 9
        assert game.count('class="miss"') == len(shots) - 9

    before, after = games["mean shots"].values()
    page = PAGE.read_text(encoding="utf-8")
    assert f"{before:.1f} shots before training, and {after:.1f} after" in page
    assert f"seed is `2**31 + {games['seed'] - 2**31}`" in page
