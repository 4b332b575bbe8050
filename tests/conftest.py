"""Run the tests on one BLAS thread, as the script does, and those of single functions first."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # has to come before the first import of NumPy

FIRST = ["test_game.py", "test_grpo.py", "test_train.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With -x, a broken function fails in its own tests, not in those of its callers."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else 9)
