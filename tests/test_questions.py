"""The ten questions: their snippets run as printed, and the answers are those measured."""

import re

import pytest
from questions import QUESTIONS, read_questions, run_snippet
from results import read_results
from tables import CELL, update_answers

PAGE = QUESTIONS.read_text(encoding="utf-8")
OPENING, ANSWERS = read_questions(PAGE)
# names.py takes long, and test_language_models.py runs it.
SNIPPETS = [snippet for snippet in ANSWERS if not snippet.startswith("uv run")]


def test_answers() -> None:
    """Were all numbers in them wiped out, filling in what was measured would give the same page."""
    wiped = CELL.sub(lambda cell: re.sub(r"-?\d", "0", cell[0]), PAGE)
    assert len(ANSWERS) == 1 + 10  # the first is where all start from
    assert update_answers(wiped) == PAGE
    with pytest.raises(ValueError, match="numbers for"):
        update_answers(CELL.sub("", PAGE, count=1))


@pytest.mark.parametrize("number", range(len(SNIPPETS)))  # as ids: -k should not find the code
def test_two_batches(number: int) -> None:
    """Each snippet runs, and prints as many numbers as were measured."""
    code = re.sub(r"\bM=\d+", "M=2", OPENING + SNIPPETS[number])
    (run, *_) = read_results()["questions"][OPENING][SNIPPETS[number]]
    assert len(run_snippet(code, seed=0)) == len(run) > 0
