"""Draw the pictures of the pages: `uv run --group pictures tests/experiments/pictures.py`.

They are as wide as a column of text on a page, and are still legible at 390 pixels, as on a phone.
No colour of text has a contrast of 4.5:1 both on white and on GitHub's dark page. So the charts
have a background of their own. On a dark page, it turns dark, and their colours change with it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

sys.path.append(str(Path(__file__).parents[1]))

from animation import draw_games
from players import (
    greedy_posterior_scores,
    hunt_and_target_scores,
    posterior,
    random_shots_score,
)
from results import read_results

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / ".github"
BATCHES = 1300
PAGE, GREY, BLUE, ORANGE = "#ffffff", "#59636e", "#2563eb", "#bc4c00"  # at least 5.0:1 on white
DARK = {PAGE: "#0d1117", GREY: "#9198a1", BLUE: "#58a6ff", ORANGE: "#f0883e"}  # at least 6.5:1
HEAT = mpl.colormaps["Blues"].with_extremes(bad="#d5d9e0")
MARK, FRAME = "#24292f", "#ea6a10"  # on the heat, which is the same on all pages
mpl.rcParams |= {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "svg.hashsalt": "microgrpo",  # the same picture every time
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def save(name: str) -> None:
    """Write the picture, with colours for dark pages.

    Date and version are left out, so that it changes only with its content.
    """
    path = PICTURES / f"{name}.svg"
    plt.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close()
    rules = [
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"<style>\n@media (prefers-color-scheme: dark) {{\n{''.join(rules)}}}\n</style>\n"
    svg = path.read_text(encoding="utf-8").replace("</svg>", style + "</svg>")
    path.write_text(svg, encoding="utf-8")


def draw_learning_curve(plain: list[dict[str, Any]], symmetric: list[dict[str, Any]]) -> None:
    """Draw mean and range of the validation scores of ten seeds, and what to compare them with."""
    _, axes = plt.subplots(figsize=(3.7, 3.3))
    for runs, color in ((symmetric, ORANGE), (plain, BLUE)):
        curves = np.array([run["curve"] for run in runs])  # [seeds, points]
        points = curves.shape[1]
        batch = (np.arange(points) + 0.5) * BATCHES / points
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(batch, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(batch, curves.mean(axis=0), color=color)
    references = (
        random_shots_score(),
        hunt_and_target_scores().mean(),
        greedy_posterior_scores().mean(),
    )
    for score in references:
        axes.axhline(score, color=GREY, linestyle=":", linewidth=1)

    # The labels of the three highest lines stand a little apart, so that they do not touch.
    labels = (
        ("random shots", references[0], GREY),
        ("simple strategy", references[1], GREY),
        ("microgrpo.py", 0.552, BLUE),
        ("symmetric.py", 0.590, ORANGE),
        ("likeliest tile", 0.628, GREY),
    )
    for text, height, color in labels:
        axes.text(BATCHES * 1.02, height, text, color=color, va="center", fontsize=9.5)
    axes.set(xlabel="batches", ylabel="validation score", xlim=(0, BATCHES), ylim=(0.1, 0.65))
    axes.set_xticks(range(0, BATCHES, 400))
    save("learning-curve")


def draw_board(axes: Axes, heat: np.ndarray, observation: np.ndarray, tile: int) -> None:
    """Draw one board: heat on unknown tiles, shots so far, and a frame around the next shot."""
    shown = np.where(observation == 0, heat, np.nan)
    axes.imshow(shown, cmap=HEAT, vmin=0, vmax=np.nanmax(shown))
    for (row, column), seen in np.ndenumerate(observation):
        if seen > 0:
            axes.plot(column, row, "x", color=MARK, markersize=5)
        if seen < 0:
            axes.plot(column, row, "o", color=MARK, markersize=3)
    row, column = divmod(tile, 5)
    corner = (column - 0.4, row - 0.4)
    axes.add_patch(mpl.patches.Rectangle(corner, 0.8, 0.8, fill=False, color=FRAME, linewidth=1.5))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def draw_game(game: list[dict[str, Any]]) -> None:
    """Draw one game: where the policy would fire, above where the ships probably are."""
    columns = 6
    _, axes = plt.subplots(2, columns, figsize=(6, 2.2), gridspec_kw={"wspace": 0.1})
    for column, turn in enumerate(np.linspace(0, len(game) - 1, columns, dtype=int)):
        seen = np.array(game[turn]["board"]).reshape(5, 5)
        policy = np.array(game[turn]["policy"]).reshape(5, 5)
        shot = game[turn]["shot"]
        draw_board(axes[0, column], policy, seen, shot)
        draw_board(axes[1, column], posterior(seen), seen, shot)
        axes[0, column].set_title(f"shot {turn + 1}", fontsize=10)
    axes[0, 0].set_ylabel("network")
    axes[1, 0].set_ylabel("exact")
    save("game")


def draw_ablations(table: dict[str, dict[str, Any]]) -> None:
    """Draw the score of each row: every seed a dot, the mean a line."""
    _, axes = plt.subplots(figsize=(4, 5))
    for height, (name, row) in enumerate(reversed(table.items())):
        scores = row["score"]
        color = ORANGE if name == "GRPO" else BLUE
        axes.plot(scores, [height] * len(scores), "o", color=color, alpha=0.75, markersize=5)
        axes.plot([np.mean(scores)] * 2, [height - 0.3, height + 0.3], color=color, linewidth=2)
    axes.set_yticks(range(len(table)), reversed(list(table)))
    axes.set_xlabel("score after 150 batches")
    axes.grid(axis="x", color=GREY, alpha=0.3)
    save("ablations")


def draw_shell_game(curve: list[tuple[float, float]]) -> None:
    """Draw the share of right replies, and the tokens of a reply, in each batch of one seed."""
    right, tokens = np.array(curve).T
    batch = np.arange(len(curve)) + 1
    _, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(4.9, 1.8), gridspec_kw={"wspace": 0.3})
    left_axes.plot(batch, 100 * right, color=BLUE)
    left_axes.set_title("right replies, %", fontsize=10)
    left_axes.set_ylim(0, 102)
    right_axes.plot(batch, tokens, color=ORANGE)
    right_axes.set_title("tokens per reply", fontsize=10)
    right_axes.set_ylim(0, 10.2)
    for axes in (left_axes, right_axes):
        axes.set(xlabel="batches", xlim=(0, len(curve)))
    save("shell-game")


def draw_names(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Draw a's over KL: a dot for each seed, and a path for each run without a reference."""
    _, axes = plt.subplots(figsize=(3.9, 3.3))
    for run in rows["no reference"]:
        axes.plot(*np.transpose(run["path"]), color=ORANGE, linewidth=0.7)
    for name, runs in rows.items():
        kl = [run["kl"] for run in runs]
        a = [run["a"] for run in runs]
        color = {"before GRPO": GREY, "no reference": ORANGE}.get(name, BLUE)
        axes.plot(kl, a, "o", color=color, markersize=4, clip_on=False)
        if name == "before GRPO":  # in the corner, there is room only on the right
            axes.annotate(name, (0, np.mean(a)), (8, -4), textcoords="offset points", color=color)
        else:
            label = axes.annotate(name, (min(kl), max(a)), (-4, 3), textcoords="offset points")
            label.set(color=color, horizontalalignment="right")
    axes.set_xscale("symlog", linthresh=1)  # linear up to 1: before GRPO, KL is 0
    axes.set_yscale("log")
    axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.minorticks_off()
    axes.set(xlabel="KL from the GPT before GRPO, nats per name", ylabel="a's per name")
    axes.set(xlim=(0, 120), ylim=(0.6, 14))
    save("names")


if __name__ == "__main__":
    results = read_results()
    draw_learning_curve(results["seeds"], results["symmetric"])
    draw_ablations(results["ablations"])
    draw_game(results["seeds"][0]["game"])
    language_models = json.loads((HERE / "language_models.json").read_text())
    draw_shell_game(language_models["shell_game"][3]["curve"])  # the seed that the README quotes
    draw_names(language_models["names"])
    (PICTURES / "before-and-after.svg").write_text(draw_games(results["games"]))
