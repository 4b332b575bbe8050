"""The README's blocks of Python, for the tests and for the scripts that measure what it quotes."""

import re
from pathlib import Path
from typing import Any

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run_block(marker: str, **changes: str) -> dict[str, Any]:
    """Execute the one block that contains a marker, as printed or with changes to its text."""
    (block,) = [block for block in BLOCKS if marker in block]
    for old, new in changes.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is our own README
    return names
