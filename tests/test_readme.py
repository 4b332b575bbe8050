"""The README: every block of Python runs as printed, and every number comes from somewhere."""

import ast
import io
import json
import re
import textwrap
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autograd import grad
from readme import BLOCKS, README, run_block
from test_grpo import LINEAR, any_batch, literal_advantage
from test_references import (
    OTHER_COLOUR,
    WHOLE_BOARD,
    greedy_posterior_scores,
    hunt_and_target_scores,
    random_shots_score,
)

from microgrpo import Batch, GRPOConfig, Params

ROOT = Path(__file__).parents[1]
SOURCE = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / ".github" / "results.json").read_text(encoding="utf-8"))


def table(heading: str) -> list[list[str]]:
    """Give the cells of the table that follows a heading or a line, without its header."""
    rows = re.search(r"(?:^\|.*\n)+", README[README.index(heading) :], flags=re.MULTILINE)
    assert rows
    lines = rows.group().splitlines()[2:]
    return [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]


def spread(scores: list[float], digits: int = 3) -> list[str]:
    """Say the mean and the range of some scores as the README does."""
    low, high = min(scores), max(scores)
    return [f"{np.mean(scores):.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}"]


# %% The file


def test_the_file_fits_a_sitting() -> None:
    """At most 275 lines of code (not blank, comment or docstring), none wider than 100 columns."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(SOURCE).readline):
        if token.type not in layout | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    assert len(lines) <= 275
    assert max(map(len, SOURCE.splitlines())) <= 100


def test_the_code_beside_the_formulas_is_the_files() -> None:
    """Line by line, but for the comments between them."""
    bare = "\n".join(line for line in SOURCE.splitlines() if not line.lstrip().startswith("#"))
    excerpts = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    assert len(excerpts) == 3
    for excerpt in excerpts:
        code = textwrap.indent(textwrap.dedent(excerpt), "    ")
        assert code in re.sub(r"\n\n+", "\n", bare), code


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


def test_scores_of_the_reference_players_are_what_they_score() -> None:
    """In the table, in the file's first lines and in what it prints."""
    scores = dict(table("| player"))
    hunt, best_hunt = hunt_and_target_scores(WHOLE_BOARD), hunt_and_target_scores(OTHER_COLOUR)
    quoted = re.findall(r"0\.\d+", " ".join(list(scores.values())[:2] + list(scores.values())[-1:]))
    measured = [
        random_shots_score(),
        hunt.mean(),
        best_hunt.mean(),
        greedy_posterior_scores().mean(),
    ]
    np.testing.assert_allclose([float(score) for score in quoted], measured, atol=0.002)
    assert f"random shots: {random_shots_score():.3f}" in SOURCE
    assert f"score {random_shots_score():.2f} on average" in SOURCE
    assert f"hand-written strategy {hunt.mean():.2f}" in SOURCE


def test_ten_seeds_of_both_policies_are_quoted_as_measured() -> None:
    """Mean and range, and the mini-batches that it takes to a held-out score of 0.48."""
    quoted = [row[1] for row in table("| player")[2:4]]
    plain, symmetric = RESULTS["seeds"], RESULTS["symmetric"]
    for runs, cell in zip((plain, symmetric), quoted, strict=True):
        mean, extremes = spread([run["score"] for run in runs])
        assert len(runs) == 10
        assert cell == f"{mean}** ({extremes})"
    assert f"the network {np.mean([run['score'] for run in plain]):.2f} after" in SOURCE
    slow, fast = (np.mean([run["to_0.48"] for run in runs]) for runs in (plain, symmetric))
    assert f"takes {slow:.0f} mini-batches" in README
    assert f"this one {fast:.0f} (" in README
    assert min(run["score"] for run in plain) > 0.545
    assert min(run["score"] for run in symmetric) > 0.57


def test_ablations_are_quoted_as_measured() -> None:
    """Each row with its learning rate, mean and range; two rows stand side by side."""
    cells = [row[i : i + 4] for row in table("| change") for i in (0, 4) if row[i]]
    rows = {name: rest for name, *rest in cells}
    assert rows.keys() == RESULTS["ablations"].keys()
    for name, result in RESULTS["ablations"].items():
        assert rows[name] == [f"{result['learning_rate']:g}", *spread(result["scores"])]


def test_larger_boards_are_quoted_as_measured() -> None:
    """Some minutes of training, beside random play and hunt & target."""
    for name, result in RESULTS["boards"].items():
        others = f"random shots {result['random']:.3f}, hunt & target {result['hunt & target']:.3f}"
        trained = rf"{result['trained']:.3f} in {result['minutes']:.0f} minutes \({others}\)"
        assert re.search(rf"{name} with ships of [\d, ]+ {trained}", README)


def test_other_games_are_quoted_as_measured() -> None:
    """Mean and range of three seeds, and the yardstick beside them."""
    rows = {row[0]: row[1:] for row in table("| game |")}
    assert rows.keys() == RESULTS["elsewhere"].keys()
    for name, runs in RESULTS["elsewhere"].items():
        untrained, trained, beside, steps, seconds = rows[name]
        digits = len(untrained.split(".")[1])
        mean, extremes = spread([run["after"] for run in runs], digits)
        assert untrained == f"{np.mean([run['before'] for run in runs]):.{digits}f}"
        assert trained == f"{mean} ({extremes})"
        assert f"{runs[0]['yardstick']:.{digits}f}" in beside or str(runs[0]["yardstick"]) in beside
        assert steps == f"{np.mean([run['steps'] for run in runs]) / 1e6:.1f} million"
        assert seconds == f"{np.mean([run['seconds'] for run in runs]):.0f} s"


# %% Variants


def literal_variant(name: str, θ: Params, batch: Batch, config: GRPOConfig, now: Params) -> float:
    """Compute a paper's formula as loops over trajectories and steps; weights are taken at now."""
    ε, G, n, S = config.ε, config.G, len(batch.rewards), len(batch.actions)
    steps = [[s for s in range(S) if batch.trajectory[s] == i] for i in range(n)]
    groups = [[float(r) for r in batch.rewards[g * G : (g + 1) * G]] for g in range(n // G)]
    mixed = sum(max(group) > min(group) for group in groups)

    def π(θ: Params, s: int) -> float:
        return float(config.policy(θ, batch.observations[s])[batch.actions[s]])

    def surrogate(ρ: float, A: float, high: float) -> float:
        return min(ρ * A, min(max(ρ, 1 - ε), 1 + high) * A)

    total = 0.0
    for i in range(n):
        group, reward = groups[i // G], float(batch.rewards[i])
        centred = reward - sum(group) / G
        A = literal_advantage(batch.rewards, i, G)
        mean_log_ρ = sum(np.log(π(θ, s) / batch.π_old[s]) for s in steps[i]) / len(steps[i])
        steps_of_group = sum(len(steps[j]) for j in range(n) if j // G == i // G)
        counts = max(group) > min(group)
        for s in steps[i]:
            ρ, log_π = π(θ, s) / batch.π_old[s], np.log(π(θ, s))
            k2 = (log_π - np.log(batch.π_ref[s])) ** 2 / 2
            total += {
                "dr_grpo": surrogate(ρ, centred, ε) / (n * config.max_steps),
                "dapo": surrogate(ρ, A, 0.28) * counts / steps_of_group / mixed,
                "gspo": surrogate(np.exp(mean_log_ρ), A, ε) / n / len(steps[i]),
                "cispo": min(π(now, s) / batch.π_old[s], 1 + ε) * A * log_π / S,
                "rloo": (reward - (sum(group) - reward) / (G - 1)) * log_π / n,
                "k2": (surrogate(ρ, A, ε) - config.β * k2) / len(steps[i]) / n,
            }[name]
    return total


@pytest.mark.parametrize("name", ["dr_grpo", "dapo", "gspo", "cispo", "rloo", "k2"])
def test_a_variant_is_its_papers_formula(name: str) -> None:
    """Value and gradient, in groups of which one has equal rewards."""
    θ, batch = any_batch(np.append(np.random.default_rng(1).normal(size=8), [0.3] * 4))
    objective = run_block("def dapo_objective")[f"{name}_objective"]
    expected = literal_variant(name, θ, batch, LINEAR, θ)
    assert float(objective(θ, batch, LINEAR)) == pytest.approx(expected, rel=1e-9)
    gradient = grad(objective)(θ, batch, LINEAR)["W"]
    for index in np.ndindex(4, 3):
        nudge = np.zeros((4, 3))
        nudge[index] = 1e-6
        above = literal_variant(name, {"W": θ["W"] + nudge}, batch, LINEAR, θ)
        below = literal_variant(name, {"W": θ["W"] - nudge}, batch, LINEAR, θ)
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-8)


# %% Blocks


def test_your_own_training_objective_report_and_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """The first block trains, and the blocks after it go on from its names."""
    train, objective, report_and_loop = BLOCKS[:3]
    names: dict[str, Any] = {}
    exec(train, names)  # noqa: S102 - it is our own README
    assert names["rewards_val"][-5:].mean() > 0.33
    assert names["rewards_val"][0] < 0.25
    exec(train.replace("M=100", "M=6") + objective + report_and_loop, names)  # noqa: S102
    assert [set(metrics) >= {"reward", "objective", "clipped"} for metrics in names["history"]]
    assert len(names["history"]) == 6
    assert 0 <= names["history"][-1]["clipped"] < 1
    assert "5: reward 0." in capsys.readouterr().out


def test_a_policy_that_knows_the_board() -> None:
    """It gives a turned or mirrored board the turned or mirrored answer, and learns fast."""
    names = run_block("def symmetric_battleship_policy")
    assert names["rewards_val"][-10:].mean() > 0.48
    policy, θ = names["symmetric_battleship_policy"], names["θ_star"]
    rng = np.random.default_rng(1)
    boards = rng.choice(np.array([0, 0, 0, 1, -1], np.float32), size=(20, 5, 5))
    answer = policy(θ, boards).reshape(boards.shape)
    assert answer.dtype == np.float32
    for turns in range(4):
        for flip in (1, -1):
            seen = np.rot90(boards, turns, axes=(1, 2))[:, :, ::flip]
            expected = np.rot90(answer, turns, axes=(1, 2))[:, :, ::flip]
            np.testing.assert_allclose(policy(θ, seen).reshape(seen.shape), expected, atol=1e-4)
    assert abs(answer - answer[:, ::-1]).max() > 0.01


def test_a_game_of_your_own() -> None:
    """The frog learns the shortest way: 1 for the fly, less 0.1 for each hop before the last."""
    names = run_block("class Frog")
    hops = [abs(frog - fly) for frog in range(9) for fly in range(9) if frog != fly]
    best = np.mean([1 - 0.1 * (n - 1) for n in hops])
    assert f"{best:.2f}, which no policy can beat" in README
    assert names["rewards_val"][0] < 0.5
    assert names["rewards_val"][-1] > best - 0.08  # 64 games of it


def test_any_gymnasium_game() -> None:
    """The pole is held for more than 400 of 500 steps."""
    assert run_block("CartPole")["after"] > 400


@pytest.mark.parametrize("seed", range(10))
def test_a_language_model_learns_to_say_5(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """After training, at least 95% of 1,000 replies are exactly "5", whatever the seed."""
    names = run_block("What number", **{"seed = 42": f"seed = {seed}"})
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
        earned = 1 - abs(int(response) - 5) / 9 if digit else 0
        assert float(reward) == pytest.approx(earned, abs=5e-4)
