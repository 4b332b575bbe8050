"""Keep what was measured in `results.json` beside this file."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


def read_results() -> dict[str, Any]:
    """Return everything measured so far, by section."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def write_section(section: str, result: Any) -> None:
    """Add a section, or replace the one that was measured before."""
    results = read_results()
    results[section] = result
    RESULTS.write_text(json.dumps(results) + "\n")
