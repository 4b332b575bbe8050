"""The pages: code runs as printed, excerpts are the file's, numbers and pictures as measured."""

import re
import textwrap
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import players
import pytest
from animation import draw_games
from questions import QUESTIONS, ROOT, read_questions, run_snippet
from results import read_results
from tables import CELL, PAGE, update, update_answers
from test_grpo import LINEAR, REWARDS, any_batch, linear_policy, literal_advantage

import microgrpo as m

SOURCE = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = PAGE.read_text(encoding="utf-8")
LEARN = QUESTIONS.read_text(encoding="utf-8")
RESULTS = read_results()
OPENING, ANSWERS = read_questions(LEARN)
SNIPPETS = [snippet for snippet in ANSWERS if "names.py" not in snippet]  # it is run elsewhere


def test_the_code_beside_the_formulas_is_the_files() -> None:
    """They agree line by line, apart from comments in between."""
    bare = "\n".join(line for line in SOURCE.splitlines() if not line.lstrip().startswith("#"))
    bare = re.sub(r"\n\n+", "\n", bare)
    excerpts = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    assert len(excerpts) == 3
    for excerpt in excerpts:
        lines = bare.count(textwrap.indent(textwrap.dedent(excerpt), "    "))
        assert lines == 1, f"the README quotes other lines:\n{excerpt}"


def test_links_into_the_repository_lead_somewhere() -> None:
    """Linked files and headings exist, and so do the files that commands name."""
    for text, folder in ((README, ROOT), (EXPERIMENTS, PAGE.parent)):
        headings = [title.lower().replace(" ", "-") for title in re.findall(r"\n#+ (.*)", text)]
        for path, heading in re.findall(r"\]\((?!https:)([^)#]*)#?([^)]*)\)", text):
            assert (folder / path).exists(), path
            assert path or heading in headings, heading
        for path in re.findall(r"uv run .*?(tests/[\w/]+\.py)", text):
            assert (ROOT / path).exists(), path


def test_greedy_posterior() -> None:
    """Its scores are those of computing players.posterior anew before each shot."""
    scores = players.greedy_posterior_scores()
    for fleet, score in zip(players.all_placements()[::500], scores[::500], strict=True):
        observation = np.zeros((5, 5))
        while (fleet & (observation == 0)).any():
            tile = np.where(observation == 0, players.posterior(observation), -1).argmax()
            observation.flat[tile] = 1 if fleet.flat[tile] else -1
        assert score == 1 - (observation == -1).sum() / 17


def test_scores_are_those_of_the_players() -> None:
    """Each is computed here or measured over ten seeds, and the file's header quotes the same."""
    assert f"all {len(players.all_placements()):,} placements" in README
    # Without a target, the simple strategy is random play, here of four games on each fleet.
    random = players.hunt_and_target_scores(target=False, games=4).mean()
    assert random == pytest.approx(players.random_shots_score(), abs=4 * 0.0006)
    played = {
        "random shots": players.random_shots_score(),
        "simple strategy": players.hunt_and_target_scores().mean(),
        "the tile likeliest to hold a ship": players.greedy_posterior_scores().mean(),
    }
    # A game takes 9 hits, and one miss for each 1/17 that its score is below 1.
    expected = {player: [score, 9 + 17 * (1 - score)] for player, score in played.items()}
    for player, section in ((r"\*\*`microgrpo.py`", "seeds"), ("`symmetric.py` .us", "symmetric")):
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
    rewards = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
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


def test_tables_and_answers() -> None:
    """With all their numbers wiped out, filling in what was measured gives the same page."""
    rows = re.compile(r"^(\| [^|]+)(\|.*\d.*)$(?!\n\|--)", re.MULTILINE)  # without headers
    wiped = rows.sub(lambda row: row[1] + re.sub(r"-?\d", "0", row[2]), EXPERIMENTS)
    assert len(rows.findall(EXPERIMENTS)) > 60
    assert update(wiped) == EXPERIMENTS
    with pytest.raises(ValueError, match="Say 5: the table has"):
        update(EXPERIMENTS.replace("| say_five.py |", "| another |"))

    # The same holds for the ten answers, and for the scores that all questions start from.
    wiped = CELL.sub(lambda cell: re.sub(r"-?\d", "0", cell[0]), LEARN)
    assert len(ANSWERS) == 1 + 10
    assert update_answers(wiped) == LEARN
    with pytest.raises(ValueError, match="numbers for"):
        update_answers(CELL.sub("", LEARN, count=1))


@pytest.mark.parametrize("number", range(len(SNIPPETS)))  # so that -k does not find the code
def test_two_batches(number: int) -> None:
    """Each snippet runs, and prints as many numbers as were measured."""
    code = re.sub(r"\bM=\d+", "M=2", OPENING + SNIPPETS[number])
    (run, *_) = RESULTS["questions"][OPENING][SNIPPETS[number]]
    assert len(run_snippet(code, seed=0)) == len(run) > 0


def test_diagnostics(capsys: Any) -> None:
    """They run as printed, and agree with loops on any batch. Clipped means: ρ has no effect."""
    (code,) = re.findall(r"```python\n(.*?)```", EXPERIMENTS, re.DOTALL)
    names: dict[str, Any] = {"__name__": "diagnostics"}
    exec(compile(code, PAGE, "exec"), names)  # noqa: S102 - it is our own page
    assert len(capsys.readouterr().out.splitlines()) == 20

    θ, batch = any_batch(REWARDS)
    kl = entropy = clipped = 0.0
    S = len(batch.actions)
    for step in range(S):
        π_old = float(batch.π_old[step])
        to_ref = float(batch.π_ref[step]) / π_old
        kl += (to_ref - log(to_ref) - 1) / S
        entropy -= log(π_old) / S
        A = literal_advantage(batch.rewards, batch.trajectory[step], LINEAR.G)
        ρ = linear_policy(θ, batch.observations[step])[batch.actions[step]] / π_old
        less, more = (min(r * A, min(max(r, 0.8), 1.2) * A) for r in (0.999 * ρ, 1.001 * ρ))
        clipped += (A != 0 and less == more) / S
    names["diagnose"](m.AdamWOptimizer(θ), 7, LINEAR, batch, 0.5, 0.1)
    line = f"8: KL {kl:.3f}, entropy {entropy:.3f}, clipped {clipped:.1%}\n"
    assert capsys.readouterr().out == line


def test_animation() -> None:
    """Two real games of average length: the last shot of each sinks the fleet."""
    games = RESULTS["games"]
    svg = (ROOT / ".github" / "before-and-after.svg").read_text(encoding="utf-8")
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
    assert f"{before:.1f} shots before training, and {after:.1f} after" in EXPERIMENTS
    assert f"seed is `2**31 + {games['seed'] - 2**31}`" in EXPERIMENTS
