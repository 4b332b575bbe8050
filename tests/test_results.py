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

Rows = dict[str, dict[str, Any]]  # what was measured, by row and column: a number, or one per seed


def cells(line: str) -> list[str]:
    """Split a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_table(heading: str) -> dict[str, dict[str, str]]:
    """Return the table below a heading: its cells by row and column, both by name."""
    (below,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    header, _, *rows = [cells(line) for line in below.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def by_column(runs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn a list of runs into a list of values, one per run, for each thing measured."""
    return {name: [run[name] for run in runs] for name in runs[0]}


def gymnasium() -> Rows:
    """Return what was measured on Gymnasium's games, beside the published agent or the optimum."""
    rows: Rows = {}
    for name, game in RESULTS["elsewhere"].items():
        rows[name] = by_column(game["runs"])
        rows[name]["seeds"] = len(game["runs"])
        rows[name]["compare with"] = game["compare with"]
    return rows


TABLES: dict[str, Rows] = {
    "Ten seeds": {
        "plain": by_column(RESULTS["seeds"]),
        "symmetric": by_column(RESULTS["symmetric"]),
    },
    "Ablations": RESULTS["ablations"],
    "Learning rates tried": RESULTS["learning_rates"],
    "Larger boards": RESULTS["boards"],
    "Gymnasium": gymnasium(),
    "A batch": RESULTS["speed"]["parts"],
    "A gradient step": RESULTS["speed"]["gradient step"],
    "Memory": RESULTS["speed"]["memory"],
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
            value = measured[name][column]
            expected = [np.mean(value), np.min(value), np.max(value)]
            found = numbers(cell)
            assert len(found) == 3 if "(" in cell else len(found) == 1, cell
            for (number, tolerance), exact in zip(found, expected, strict=False):
                assert abs(number - exact) <= tolerance, f"{name}, {column}: {cell}"
