"""Every number in the tables of `tests/experiments/README.md` is one that was measured."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent / "experiments"
PAGE = (HERE / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((HERE / "results.json").read_text())
MODELS = json.loads((HERE / "language_models.json").read_text())

Rows = dict[str, dict[str, Any]]  # what was measured, by row and column: a number, or one per seed


def read_table(heading: str) -> dict[str, dict[str, str]]:
    """Return the table below a heading: its cells by row and column, both by name."""
    (below,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in below.splitlines() if line.startswith("|")]
    header, _, *rows = [re.split(r" *\| *", line.strip("| ")) for line in lines]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def by_column(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all runs measured: a list of values, one per run, for each name."""
    return {name: [run[name] for run in runs] for name in runs[-1]}  # only the first has a game


def gymnasium() -> Rows:
    """Return what was measured on Gymnasium's games, beside the published agent or the optimum."""
    rows: Rows = {}
    for name, game in RESULTS["elsewhere"].items():
        more = {"seeds": len(game["runs"]), "compare with": game["compare with"]}
        rows[name] = by_column(game["runs"]) | more
    return rows


def language_models() -> Rows:
    """Return what was measured on the shell game."""
    trained_by = {
        "GRPO": MODELS["shell_game"],
        "GRPO, 600 steps of pre-training": MODELS["control"]["600"],
        "GRPO, 300 steps of pre-training": MODELS["control"]["300"],
        "GRPO with β=0.001": MODELS["divergence"],
        "imitation online": MODELS["imitation"],
        "imitation of the base model": MODELS["rejection"],
    }
    rows: Rows = {}
    for name, runs in trained_by.items():
        rows[name] = {"seeds": len(runs)}
        for when in {"before", "after"} & runs[0].keys():
            shares = by_column([run[when] for run in runs])
            rows[name][f"right {when}, %"] = 100 * np.array(shares["right"])
            rows[name][f"once in 8 {when}, %"] = 100 * np.array(shares["once_in_8"])
            rows[name][f"tokens {when}"] = shares["tokens"]
    return rows


def say_five() -> Rows:
    """Return how many replies say 5."""
    fives = 100 * np.array(list(MODELS["say_five"].values()))
    row = {"seeds": len(fives), "exactly 5, %": fives, "seeds with at least 95 %": sum(fives >= 95)}
    return {"say_five.py": row}


TABLES: dict[str, Rows] = {
    "Ten seeds": {
        "plain": by_column(RESULTS["seeds"]),
        "symmetric": by_column(RESULTS["symmetric"]),
    },
    "Ablations": RESULTS["ablations"],
    "Learning rates tried": RESULTS["learning_rates"],
    "Larger boards": RESULTS["boards"],
    "Gymnasium": gymnasium(),
    "The shell game": language_models(),
    "Say 5": say_five(),
    "A batch": RESULTS["speed"]["parts"],
    "A gradient step": RESULTS["speed"]["gradient step"],
    "Memory": RESULTS["speed"]["memory"],
    "More than one process": RESULTS["cluster"],
}


def numbers(cell: str) -> list[tuple[float, float]]:
    """Return each number in a cell, and how far rounding can have moved it."""
    found = re.findall(r"-?\d[\d,]*\.?\d*", cell)
    return [(float(n.replace(",", "")), 0.501 * 10 ** -len(n.partition(".")[2])) for n in found]


@pytest.mark.parametrize("heading", TABLES)
def test_table(heading: str) -> None:
    """A table has a row for all that was measured, and prints it: "mean" or "mean (low–high)"."""
    measured = TABLES[heading]
    printed = read_table(heading)
    assert printed.keys() == measured.keys()
    for name, row in printed.items():
        for column, cell in row.items():
            if cell == "–":
                assert column not in measured[name]
                continue
            value = measured[name][column]
            expected = [np.mean(value), np.min(value), np.max(value)]
            found = numbers(cell)
            assert len(found) == 3 if "(" in cell else len(found) == 1, cell
            for (number, tolerance), exact in zip(found, expected, strict=False):
                assert abs(number - exact) <= tolerance, f"{name}, {column}: {cell}"
