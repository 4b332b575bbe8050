"""The README: its code runs as printed, its excerpts are the file's, its numbers were measured."""

import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import players
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "tests" / "experiments" / "results.json").read_text())


def test_the_code_beside_the_formulas_is_the_files() -> None:
    """Line by line, apart from comments between them."""
    bare = "\n".join(line for line in SOURCE.splitlines() if not line.lstrip().startswith("#"))
    excerpts = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    assert len(excerpts) == 3
    for excerpt in excerpts:
        code = textwrap.indent(textwrap.dedent(excerpt), "    ")
        assert code in re.sub(r"\n\n+", "\n", bare), code


def test_links_into_the_repository_lead_somewhere() -> None:
    """Files exist, also those that commands name, and so do headings."""
    for page in (ROOT / "README.md", ROOT / "tests" / "experiments" / "README.md"):
        text = page.read_text(encoding="utf-8")
        headings = [title.lower().replace(" ", "-") for title in re.findall(r"\n#+ (.*)", text)]
        for path, heading in re.findall(r"\]\((?!https:)([^)#]*)#?([^)]*)\)", text):
            assert (page.parent / path).exists(), path
            assert path or heading in headings, heading
        for path in re.findall(r"uv run .*?(tests/[\w/]+\.py)", text):
            assert (ROOT / path).exists(), path


def test_greedy_posterior() -> None:
    """It scores 0.6146 on average, the same as with a new players.posterior before each shot."""
    scores = players.greedy_posterior_scores()
    assert scores.mean() == pytest.approx(0.6146, abs=0.00005)
    for fleet, score in zip(players.all_placements()[::500], scores[::500], strict=True):
        observation = np.zeros((5, 5))
        while (fleet & (observation == 0)).any():
            tile = np.where(observation == 0, players.posterior(observation), -1).argmax()
            observation.flat[tile] = 1 if fleet.flat[tile] else -1
        assert score == 1 - (observation == -1).sum() / 17


def test_hunt_and_target() -> None:
    """It scores 0.397. Without a target, it is random play, whose score is known exactly."""
    error = 4 * 0.0006  # four standard errors of a mean over 4 games on each fleet
    assert players.hunt_and_target_scores(games=4).mean() == pytest.approx(0.3974, abs=error)
    random = players.hunt_and_target_scores(target=False, games=4).mean()
    assert random == pytest.approx(players.random_shots_score(), abs=error)


def test_scores_are_those_of_the_players() -> None:
    """Played by code of the tests, or measured over ten seeds; also those in the file's header."""
    played = {
        "random shots": players.random_shots_score(),
        "simple strategy": players.hunt_and_target_scores().mean(),
        "the tile likeliest to hold a ship": players.greedy_posterior_scores().mean(),
    }
    # A game takes 9 hits, and a miss for each 1/17 that its score lacks.
    expected = {player: [score, 9 + 17 * (1 - score)] for player, score in played.items()}
    for player, section in ((r"\*\*`microgrpo.py`", "seeds"), ("`symmetric.py`, ten", "symmetric")):
        scores, shots = ([run[name] for run in RESULTS[section]] for name in ("score", "shots"))
        assert len(scores) == 10
        expected[player] = [np.mean(scores), min(scores), max(scores), np.mean(shots)]
    for player, values in expected.items():
        (row,) = re.findall(rf"^\| {player}.*", README, re.MULTILINE)
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", row)]
        np.testing.assert_allclose(numbers[:-1], values[:-1], atol=0.0006)  # rounding, and chance
        np.testing.assert_allclose(numbers[-1], values[-1], atol=0.053)

    header = re.findall(r"\b0\.\d\d\b", SOURCE[: SOURCE.index("Terms:")])
    ours = np.mean([run["score"] for run in RESULTS["seeds"]])
    measured = [played["random shots"], played["simple strategy"], ours]
    np.testing.assert_allclose(np.array(header, float), measured, atol=0.0051)


def test_blocks_run_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The frog learns the shortest way; what is appended to its file continues from there."""
    frog, appended = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "frog"}
    exec(compile(frog, "README.md", "exec"), names)  # noqa: S102 - it is our own README
    hops = [min(pad, 9 - pad) for pad in range(1, 9)]
    best = np.mean([1 - 0.1 * (n - 1) for n in hops])  # 0.1 less for each hop before the last
    assert f"{best:.2f} appears under validation" in README
    lines = capsys.readouterr().out.splitlines()
    rewards = [float(line.split()[3]) for line in lines]
    assert len(rewards) == 20
    assert rewards[0] < 0.82  # eight seeds: 0.70 to 0.78
    assert np.mean(rewards[10:]) > best - 0.03  # eight seeds: within 0.01
    names["config"] = replace(names["config"], M=5)
    exec(compile(appended, "README.md", "exec"), names)  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    rewards = [float(line) for line in lines if " " not in line]  # unlike lines of progress
    assert len(rewards) == 100
    assert rewards[0] < 0.5
    assert np.mean(rewards[-20:]) == pytest.approx(best, abs=0.05)
