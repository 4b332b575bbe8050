"""The page of results: numbers in its tables are those measured, and its code does what it says."""

import re
from math import log
from typing import Any

import pytest
from tables import PAGE, update
from test_grpo import LINEAR, REWARDS, any_batch, linear_policy, literal_advantage

import microgrpo as m


def test_tables() -> None:
    """Were all numbers in them wiped out, filling in what was measured would give the same page."""
    page = PAGE.read_text(encoding="utf-8")
    rows = re.compile(r"^(\| [^|]+)(\|.*\d.*)$(?!\n\|--)", re.MULTILINE)  # without headers
    wiped = rows.sub(lambda row: row[1] + re.sub(r"-?\d", "0", row[2]), page)
    assert len(rows.findall(page)) > 60
    assert update(wiped) == page
    with pytest.raises(ValueError, match="Say 5: the table has"):
        update(page.replace("| say_five.py |", "| another |"))


def test_diagnostics(capsys: Any) -> None:
    """They run as printed, and on any batch they are those of loops. Clipped: ρ has no effect."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
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
