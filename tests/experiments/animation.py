"""Draw two games against the same fleet side by side, shot by shot, as an SVG that CSS animates.

Each shot is a group: its mark, and a counter that covers the one before. An animation hides the
group until its turn comes. If the reader prefers no motion, all groups show, and so does the end
of both games.

White and yellow stand on blue panels, because no colour of text has a contrast of 4.5:1 both on
white and on GitHub's dark page (#0d1117): the best has 4.35. On the panel, text has 5.8:1 and
yellow 4.1:1; the panel has 5.8:1 on white and 3.2:1 on dark.
"""

from typing import Any

BOARD, TILE, MARGIN, TOP = 5, 44, 16, 50  # the board in tiles, the rest in pixels
PANEL, GAP = BOARD * TILE + 2 * MARGIN, 16
BOTTOM = TOP + BOARD * TILE
HEIGHT = BOTTOM + 50
START, SHOT, PAUSE = 1.2, 0.45, 5.0  # seconds: before the first shot, for each, after the last

STYLE = """
text { font: 600 20px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #fff }
.panel { fill: #1d5fd0 }
.grid { stroke: #a9c8ff }
.ship { fill: none; stroke: #fff; stroke-width: 2.5; stroke-dasharray: 5 4 }
.hit { fill: #ffd34d }
.cross { stroke: #1b1f24; stroke-width: 5; stroke-linecap: round }
.miss { fill: #fff }
.end { fill: none; stroke: #ffd34d; stroke-width: 5 }"""


def draw_games(games: dict[str, Any]) -> str:
    """Return the SVG for the section "games" of `results.json`."""
    most = max(len(shots) for shots in games["shots"].values())
    seconds = START + most * SHOT + PAUSE
    keyframes = []
    for number in range(1, most + 1):
        turn = f"{100 * (START + number * SHOT) / seconds:.1f}%"
        keyframes.append(f"@keyframes s{number} {{ 0% {{ opacity: 0 }} {turn} {{ opacity: 1 }} }}")
    panels = []
    for k, (name, shots) in enumerate(games["shots"].items()):
        panels.append(f'<g transform="translate({k * (PANEL + GAP)})">')
        panels += draw_game(name, games["fleet"], shots)
        panels.append("</g>")
    outcome = " and ".join(f"{len(shots)} shots {name}" for name, shots in games["shots"].items())
    title = f"Two games of Battleship: sinking the same hidden ships takes {outcome}."
    size = f'width="{2 * PANEL + GAP}" height="{HEIGHT}" viewBox="0 0 {2 * PANEL + GAP} {HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{STYLE}",
        f".shot {{ animation: {seconds:.2f}s step-end infinite }}",
        *keyframes,
        "@media (prefers-reduced-motion: reduce) { .shot { animation: none } }",
        "</style>",
        *panels,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def corner(tile: int) -> tuple[int, int]:
    """Return x and y of the tile's upper left corner."""
    row, column = divmod(tile, BOARD)
    return MARGIN + column * TILE, TOP + row * TILE


def counter(text: str) -> str:
    """Return text that stands below the board."""
    return f'<text x="{MARGIN}" y="{BOTTOM + 33}">{text}</text>'


def draw_game(name: str, fleet: list[int], shots: list[int]) -> list[str]:
    """Draw the title, the board with its ships, and a group for each shot."""
    lines = [
        f'<rect class="panel" width="{PANEL}" height="{HEIGHT}" rx="12"/>',
        f'<text x="{MARGIN}" y="33">{name}</text>',
        counter("0 shots"),
    ]
    for line in range(BOARD + 1):
        along, across = MARGIN + line * TILE, TOP + line * TILE
        path = f"M{along} {TOP}V{BOTTOM}M{MARGIN} {across}H{PANEL - MARGIN}"
        lines.append(f'<path class="grid" d="{path}"/>')
    for tile in fleet:
        x, y = corner(tile)
        lines.append(f'<rect class="ship" x="{x + 5}" y="{y + 5}" width="34" height="34" rx="8"/>')

    cover = f'<rect class="panel" x="{MARGIN}" y="{BOTTOM + 9}" width="220" height="34"/>'
    for number, tile in enumerate(shots, 1):
        x, y = corner(tile)
        lines.append(f'<g class="shot" style="animation-name: s{number}">')
        if tile in fleet:
            place = f'x="{x + 3}" y="{y + 3}"'
            lines.append(f'<rect class="hit" {place} width="38" height="38" rx="8"/>')
            lines.append(f'<path class="cross" d="M{x + 14} {y + 14}l16 16m0-16l-16 16"/>')
        else:
            lines.append(f'<circle class="miss" cx="{x + 22}" cy="{y + 22}" r="6"/>')
        text = f"{number} shots" if number > 1 else "1 shot"
        if number == len(shots):
            frame = f'x="2.5" y="2.5" width="{PANEL - 5}" height="{HEIGHT - 5}" rx="10"'
            lines.append(f'<rect class="end" {frame}/>')
            text += ": all sunk"
        lines.append(cover + counter(text) + "</g>")
    return lines
