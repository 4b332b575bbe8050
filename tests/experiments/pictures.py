# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.9", "numpy>=2", "pytest>=8"]
# ///
"""Draw the README's pictures from `results.json`: `uv run .github/pictures.py`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))

from test_references import (
    WHOLE_BOARD,
    greedy_posterior_scores,
    hunt_and_target_scores,
    posterior,
    random_shots_score,
)

BLUE, ORANGE, GREY = "#3b82f6", "#f97316", "#808890"  # all three show on white and on black
HEAT = mpl.colormaps["Blues"].with_extremes(bad="#d5d9e0")
mpl.rcParams |= {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "savefig.transparent": True,
    "svg.hashsalt": "microgrpo",  # the same picture every time
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def save(name: str) -> None:
    """Write the picture, without the date, so that it only changes when its content does."""
    plt.savefig(HERE / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close()


def draw_learning_curve(plain: list[dict[str, Any]], symmetric: list[dict[str, Any]]) -> None:
    """Draw mean and range of both policies' held-out scores, and what they are compared with."""
    _, axes = plt.subplots(figsize=(8, 4))
    for seeds, color, name in (
        (symmetric, ORANGE, "GRPO, policy that\nknows the board"),
        (plain, BLUE, "GRPO, plain network"),
    ):
        curves = np.array([run["curve"] for run in seeds])  # [seeds, points]
        points = curves.shape[1]
        mini_batch = np.linspace(0, 2000, 2 * points + 1)[1::2]
        axes.fill_between(
            mini_batch, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.2
        )
        axes.plot(mini_batch, curves.mean(axis=0), color=color)
        height = 0.582 if color == ORANGE else 0.542
        axes.text(2010, height, name, color=color, va="center")
    for score, name in (
        (random_shots_score(), "random shots"),
        (hunt_and_target_scores(WHOLE_BOARD).mean(), "hunt & target"),
        (greedy_posterior_scores().mean(), "greedy on the\nexact posterior"),
    ):
        axes.axhline(score, color=GREY, linestyle=":", linewidth=1)
        axes.text(2010, score, name, va="center" if score < 0.6 else "bottom")
    axes.set(xlabel="mini-batches", ylabel="held-out score", xlim=(0, 2000), ylim=(0.1, 0.65))
    save("learning-curve")


def draw_board(axes: Axes, heat: np.ndarray, observation: np.ndarray, tile: int) -> None:
    """Draw one board: heat on unknown tiles, shots so far, and a frame around the next shot."""
    shown = np.where(observation == 0, heat, np.nan)
    axes.imshow(shown, cmap=HEAT, vmin=0, vmax=max(float(np.nanmax(shown)), 1e-9))
    for (row, column), seen in np.ndenumerate(observation):
        if seen:
            marker, color = ("X", ORANGE) if seen > 0 else ("o", GREY)
            axes.plot(column, row, marker, color=color, markersize=7 if seen > 0 else 4)
    row, column = divmod(tile, 5)
    frame = mpl.patches.Rectangle(
        (column - 0.5, row - 0.5), 1, 1, fill=False, color=ORANGE, linewidth=2
    )
    axes.add_patch(frame)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def draw_game(game: list[dict[str, Any]]) -> None:
    """Draw one game: where the policy would fire, beside where the ships probably are."""
    boards = []
    for step in game:
        seen = np.array(step["board"]).reshape(5, 5)
        policy = np.array(step["policy"]).reshape(5, 5)
        boards.append((policy, posterior(seen), seen, step["shot"]))

    shown = np.linspace(0, len(boards) - 1, 7, dtype=int)
    _, axes = plt.subplots(2, len(shown), figsize=(10, 3.1), gridspec_kw={"wspace": 0.1})
    for column, shot in enumerate(shown):
        policy, chances, seen, tile = boards[shot]
        draw_board(axes[0, column], policy, seen, tile)
        draw_board(axes[1, column], chances, seen, tile)
        axes[0, column].set_title(f"shot {shot + 1}", fontsize=11)
    axes[0, 0].set_ylabel("policy")
    axes[1, 0].set_ylabel("posterior")
    save("game")


def draw_ablations(table: dict[str, dict[str, Any]]) -> None:
    """Draw the score of each row: every seed a dot, the mean a line."""
    _, axes = plt.subplots(figsize=(8, 6))
    for height, row in enumerate(reversed(table.values())):
        scores = row["scores"]
        color = ORANGE if height == len(table) - 1 else BLUE
        axes.plot(scores, [height] * len(scores), "o", color=color, alpha=0.6, markersize=6)
        axes.plot([np.mean(scores)] * 2, [height - 0.3, height + 0.3], color=color, linewidth=2)
    axes.set_yticks(range(len(table)), reversed(list(table)))
    axes.set_xlabel("score after 300 mini-batches")
    axes.grid(axis="x", color=GREY, alpha=0.3)
    save("ablations")


if __name__ == "__main__":
    results = json.loads((HERE / "results.json").read_text())
    draw_learning_curve(results["seeds"], results["symmetric"])
    draw_ablations(results["ablations"])
    draw_game(results["seeds"][0]["game"])
