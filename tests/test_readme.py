"""The README: every block of Python runs as printed, and every number comes from somewhere."""

import ast
import io
import itertools
import json
import re
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_references import (
    OTHER_COLOUR,
    WHOLE_BOARD,
    greedy_posterior_scores,
    hunt_and_target_scores,
    random_shots_score,
)

from microgrpo import BattleshipEnv, GRPOConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / ".github" / "results.json").read_text(encoding="utf-8"))
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(marker: str, **changes: str) -> dict[str, Any]:
    """Execute the one block that contains a marker, as printed or with changes to its text."""
    (block,) = [block for block in BLOCKS if marker in block]
    for old, new in changes.items():
        assert block.count(old) == 1
        block = block.replace(old, new)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is our own README
    return names


def table(heading: str) -> list[list[str]]:
    """Give the cells of the table that follows a heading or a line, without its header."""
    after = README[README.index(heading) :]
    rows = re.search(r"(?:^\|.*\n)+", after, flags=re.MULTILINE)
    assert rows
    lines = rows.group().splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# %% The file


def code_lines() -> set[int]:
    """Find the lines of the script that are not blank, a comment or a docstring."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(SOURCE).readline):
        if token.type not in layout | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def test_the_file_fits_a_sitting() -> None:
    """At most 300 lines of code, none wider than 100 characters."""
    assert len(code_lines()) <= 300
    assert max(map(len, SOURCE.splitlines())) <= 100


def test_the_sections_have_the_lines_that_the_table_says() -> None:
    """One row per section, in order."""
    code = code_lines()
    text = SOURCE.splitlines()
    starts = [number for number, line in enumerate(text, 1) if line.startswith("# %% ")]
    names = ["(imports)"] + [text[start - 1].removeprefix("# %% ") for start in starts]
    bounds = [1, *starts, len(text) + 1]
    counts = [
        sum(first <= line < end for line in code) for first, end in itertools.pairwise(bounds)
    ]
    rows = [(row[0], int(row[1])) for row in table("## The file")]
    assert rows == list(zip(names, counts, strict=True))
    assert f"{len(code)} lines of code" in README


def test_the_table_of_the_configuration_is_true() -> None:
    """Every field, in order, with its default."""
    fields = GRPOConfig.__dataclass_fields__
    names: list[str] = []
    for first, default, _ in table("| field | default"):
        own = re.findall(r"`(\w+)`", first)
        names += own
        values = [fields[name].default for name in own if name not in ("environment", "policy")]
        shown = [str(value).replace("None", "`None`") for value in values]
        shown = [f'`"{text}"`' if isinstance(v, str) else text for v, text in zip(values, shown)]  # noqa: B905
        assert default == ", ".join(shown)
    assert names == list(fields)


def test_every_link_into_the_repository_leads_somewhere() -> None:
    """Files exist, and headings too."""
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


# %% Numbers


def test_the_reference_scores_are_those_of_the_reference_players() -> None:
    """What the README says of other players is what they score."""
    pattern = (
        r"score (0.\d+), hunt & target (0.\d+) \(at its best (0.\d+)\), .* posterior (0.\d+)\."
    )
    quoted = re.search(pattern, README.replace("\n", " "))
    assert quoted
    measured = [
        random_shots_score(),
        hunt_and_target_scores(WHOLE_BOARD).mean(),
        hunt_and_target_scores(OTHER_COLOUR).mean(),
        greedy_posterior_scores().mean(),
    ]
    np.testing.assert_allclose([float(score) for score in quoted.groups()], measured, atol=0.002)


def test_the_seeds_are_quoted_as_measured() -> None:
    """Ten runs of the default: mean, worst and best."""
    scores = [run["score"] for run in RESULTS["seeds"]]
    assert len(scores) == 10
    assert f"**{np.mean(scores):.3f}**" in README
    assert f"{min(scores):.3f} to {max(scores):.3f}" in README
    assert min(scores) > 0.57


def test_the_ablations_are_quoted_as_measured() -> None:
    """Mean and range of each variant."""
    rows = {row[0].strip("`"): row[1:] for row in table("| change | mean")}
    assert rows.keys() == RESULTS["ablations"].keys()
    for name, scores in RESULTS["ablations"].items():
        mean, extremes = rows[name]
        assert mean == f"{np.mean(scores):.3f}"
        assert extremes == f"{min(scores):.3f} to {max(scores):.3f}"


def test_the_larger_boards_are_quoted_as_measured() -> None:
    """Random play, hunt & target, and a few minutes of training."""
    rows = {row[0]: row[2:] for row in table("| board | ships")}
    assert rows.keys() == RESULTS["boards"].keys()
    for name, result in RESULTS["boards"].items():
        players = [f"{result[player]:.3f}" for player in ("random", "hunt & target", "trained")]
        assert rows[name] == [*players, f"{result['minutes']:.0f}"]


# %% Blocks


def test_every_block_is_tested_here() -> None:
    """A new block of Python needs a test below."""
    markers = ("M=300", "dr_grpo =", "board_size=10", "Frog", "CartPole", "What number")
    for block in BLOCKS:
        assert sum(marker in block for marker in markers) == 1
    assert len(BLOCKS) == len(markers)


def test_train_it_yourself(capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration trains."""
    names = run("M=300")
    assert names["rewards_val"][0] < 0.25
    assert names["rewards_val"][-1] > 0.45
    assert "Held-out score: 0." in capsys.readouterr().out


def test_the_variants_are_valid() -> None:
    """Each is a configuration that differs from plain GRPO."""
    names = run("dr_grpo =")
    for variant in ("dr_grpo", "dapo", "magistral", "rloo"):
        assert names[variant] != names["grpo"]
        assert names[variant].environment is BattleshipEnv


def test_other_boards() -> None:
    """Ten by ten tiles, by changing one argument."""
    names = run("board_size=10")
    assert names["rewards_val"][0] < 0.1
    assert names["rewards_val"][-1] > 0.09  # four seeds reached 0.124 to 0.167


def test_a_game_of_your_own() -> None:
    """The frog learns the shortest way: 1 for the fly, less 0.1 for each hop before the last."""
    names = run("class Frog")
    hops = [abs(frog - fly) for frog in range(9) for fly in range(9) if frog != fly]
    best = np.mean([1 - 0.1 * (n - 1) for n in hops])
    assert f"{best:.2f}, which no policy can beat" in README
    assert names["rewards_val"][0] < 0
    assert names["rewards_val"][-1] > best - 0.08  # 64 games of it


def test_any_gymnasium_game() -> None:
    """The pole is held for more than 400 of 500 steps."""
    names = run("CartPole")
    assert names["before"] < 100
    assert names["after"] > 400


@pytest.mark.parametrize("seed", range(10))
def test_a_language_model_that_learns_to_say_5(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """After training, at least 95% of 1,000 replies are exactly "5", whatever the seed."""
    names = run("What number", **{"seed = 42": f"seed = {seed}"})
    assert names["before"] < 0.04
    assert names["after"] >= 0.95
    lines = capsys.readouterr().out.splitlines()
    M, μ = names["config"].M, names["config"].μ
    assert lines.count("-- Generating rollouts") == lines.count("-- Training") == M
    rollouts = [line for line in lines if re.fullmatch(r"Reward: \d\.\d{3}; Response: .*", line)]
    assert len(rollouts) == 25 * M
    steps = [line for line in lines if re.fullmatch(r"Grad step .* Objective: -?\d\.\d{6}", line)]
    assert len(steps) == M * μ
    assert steps[0] == f"Grad step 1/{μ} in train step 1/{M} completed. Objective: 0.000000"
    for line in rollouts:
        reward, response = line.removeprefix("Reward: ").split("; Response: ")
        digit = len(response) == 1 and response in "0123456789"
        assert float(reward) == pytest.approx(
            1 - abs(int(response) - 5) / 9 if digit else 0, abs=5e-4
        )
