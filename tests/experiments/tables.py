"""Copy what was measured into two pages: `uv run tests/experiments/tables.py`.

On the page of results, it fills the tables. On that of the tests, it fills the answers to the ten
questions, wherever they say "mean (low–high)", in the order in which the snippet prints numbers.

A cell keeps its form: the number of decimals, and whether it is a mean alone or "mean (low–high)".
To change the form, edit a cell by hand and run this again.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from questions import QUESTIONS, read_questions
from results import read_results

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
CELL = re.compile(r"-?[\d.]+ \(-?[\d.]+(?:–| to )-?[\d.]+\)")  # mean (low–high)

Rows = dict[str, dict[str, Any]]  # what was measured, by row and column: a number, or one per seed


def by_column(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all runs measured: a list of values, one per run, for each name."""
    return {name: [run[name] for run in runs] for name in runs[-1]}  # only the first has a game


def gymnasium(games: Rows) -> Rows:
    """Return what was measured on Gymnasium's games, beside the published agent or the optimum."""
    rows: Rows = {}
    for name, game in games.items():
        more = {"seeds": len(game["runs"]), "compare with": game["compare with"]}
        rows[name] = by_column(game["runs"]) | more
    return rows


def shell_game(models: dict[str, Any]) -> Rows:
    """Return what was measured on the shell game."""
    trained_by = {
        "GRPO": models["shell_game"],
        "GRPO, 600 steps of pre-training": models["control"]["600"],
        "GRPO, 300 steps of pre-training": models["control"]["300"],
        "GRPO with β=0.001": models["divergence"],
        "imitation online": models["imitation"],
        "imitation of the base model": models["rejection"],
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


def say_five(shares: dict[str, float]) -> Rows:
    """Return how many replies say 5."""
    fives = 100 * np.array(list(shares.values()))
    row = {"seeds": len(fives), "exactly 5, %": fives, "seeds with at least 95 %": sum(fives >= 95)}
    return {"say_five.py": row}


def names(models: dict[str, Any]) -> Rows:
    """Return what was measured on names that are rewarded for their a's."""
    rows: Rows = {}
    for name, runs in models.items():
        measured = by_column(runs)
        rows[name] = {
            "a's": measured["a"],
            "KL": measured["kl"],
            "real, %": 100 * np.array(measured["real"]),
            "different, %": 100 * np.array(measured["different"]),
        }
    return rows


def tables() -> dict[str, Rows]:
    """Return what belongs in the table below each heading."""
    results = read_results()
    models = json.loads((HERE / "language_models.json").read_text())
    return {
        "Ten seeds": {
            "plain": by_column(results["seeds"]),
            "symmetric": by_column(results["symmetric"]),
        },
        "Ablations": results["ablations"],
        "Learning rates tried": results["learning_rates"],
        "Larger boards": results["boards"],
        "Gymnasium": gymnasium(results["elsewhere"]),
        "The shell game": shell_game(models),
        "Say 5": say_five(models["say_five"]),
        "Names": names(models["names"]),
        "A batch": results["speed"]["parts"],
        "A gradient step": results["speed"]["gradient step"],
        "Memory": results["speed"]["memory"],
        "More than one process": results["cluster"],
    }


def fill(cell: str, value: Any) -> str:
    """Put the mean of some values into a cell, and the lowest and highest if it has room."""
    statistics = iter([np.mean(value), np.min(value), np.max(value)])

    def number(match: re.Match[str]) -> str:
        decimals = len(match[0].partition(".")[2])
        return f"{next(statistics):{',' if ',' in match[0] else ''}.{decimals}f}"

    return re.sub(r"-?\d[\d,]*\.?\d*", number, cell)


def update(page: str) -> str:
    """Return the page with all numbers of its tables as they were measured."""
    for heading, rows in tables().items():
        (below,) = re.findall(rf"^#+ {heading}\n.*?(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
        header, _, *lines = [line for line in below.splitlines() if line.startswith("|")]
        columns = header.strip("| ").split(" | ")
        names = [line.strip("| ").split(" | ")[0] for line in lines]
        if sorted(names) != sorted(rows):
            raise ValueError(f"{heading}: the table has {names}, the results have {list(rows)}")
        updated = below
        for name, line in zip(names, lines, strict=True):
            cells = zip(columns[1:], line.strip("| ").split(" | ")[1:], strict=True)
            filled = [fill(cell, rows[name][column]) for column, cell in cells]
            updated = updated.replace(line, f"| {' | '.join([name, *filled])} |")
        page = page.replace(below, updated)
    return page


def update_answers(page: str) -> str:
    """Return the page with the answers to its questions as they were measured."""
    opening, answers = read_questions(page)
    measured = read_results()["questions"][opening]  # a KeyError if the code has changed since
    names = json.loads((HERE / "language_models.json").read_text())["names"]
    rows = [by_column(names[row]) for row in ("before GRPO", "no reference", "β=0.5", "β=1")]
    for snippet, answer in answers.items():
        if snippet == "uv run tests/examples/names.py\n":
            values = [v for row in rows for v in (row["a"], 100 * np.array(row["real"]))]
        else:
            values = list(zip(*measured[snippet], strict=True))
        cells = CELL.findall(answer)
        if len(cells) != len(values):
            raise ValueError(f"{len(cells)} numbers for {len(values)} measured ones: {answer}")
        filled = [*map(fill, cells, values), ""]
        page = page.replace(answer, "".join(map(str.__add__, CELL.split(answer), filled)))
    return page


if __name__ == "__main__":
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    answered = update_answers(QUESTIONS.read_text(encoding="utf-8"))
    QUESTIONS.write_text(answered, encoding="utf-8")
