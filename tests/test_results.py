"""Every number in the tables of `tests/experiments/README.md` is one that was measured."""

import re

import pytest
from tables import PAGE, update


def test_tables() -> None:
    """Were all numbers in them wiped out, filling in what was measured would give the same page."""
    page = PAGE.read_text(encoding="utf-8")
    rows = re.compile(r"^(\| [^|]+)(\|.*\d.*)$(?!\n\|--)", re.MULTILINE)  # without headers
    wiped = rows.sub(lambda row: row[1] + re.sub(r"-?\d", "0", row[2]), page)
    assert len(rows.findall(page)) > 60
    assert update(wiped) == page
    with pytest.raises(ValueError, match="Say 5: the table has"):
        update(page.replace("| say_five.py |", "| another |"))
