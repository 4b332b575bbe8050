"""The ten questions of `tests/README.md`: read their snippets from the page, and run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "tests" / "README.md"


def read_questions(page: str) -> tuple[str, dict[str, str]]:
    """Return the opening, and for each snippet the text below it, which has the answer."""
    (section,) = re.findall(r"^## Ten questions\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    _, opening, _, *rest = re.split(r"```(?:python|sh)\n(.*?)```\n", section, flags=re.DOTALL)
    return opening, dict(zip(rest[::2], rest[1::2], strict=True))


def run_code(code: str, *arguments: str) -> str:
    """Run code in a new process that finds the file and the examples; return what it prints."""
    paths = [str(ROOT), str(ROOT / "tests" / "examples")]
    return subprocess.check_output(
        [sys.executable, "-", *arguments],
        input=code,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"},
        encoding="utf-8",
    )


def run_snippet(code: str, seed: int) -> list[float]:
    """Run an opening and a snippet as a reader would; return the numbers that they print."""
    output = run_code(code.replace("seed=0", f"seed={seed}"))
    return [float(number) for number in re.findall(r"-?\d+\.\d+", output)]
