"""The cluster: two workers of Ray, on this machine and its loopback, beside a single process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from autograd import value_and_grad
from test_grpo import BATTLESHIP

import microgrpo as m

# Before Ray is imported:
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no reports to its makers
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # workers share the environment of the tests
os.environ["RAY_AUTH_MODE"] = "disabled"  # no token in the home folder
ray: Any = pytest.importorskip(
    "ray", reason="Ray is not installed: uv run --group cluster pytest tests/test_cluster.py"
)
import cluster  # noqa: E402 - it imports Ray

ROOT = Path(__file__).parents[1]
CONFIG = replace(BATTLESHIP, B=3, G=4, M=2, num_val=5)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Any]]:
    """Start Ray and two workers, and stop them when all tests here are done."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'examples'}")
        ray.init("local", num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1")
        yield [cluster.RemoteWorker.remote(CONFIG) for _ in range(2)]
        ray.shutdown()


def test_objective_and_gradient_are_those_of_a_single_process(workers: list[Any]) -> None:
    """On the same trajectories, of which one worker has played two groups and the other one."""
    θ_old = m.neural_battleship_policy_init()
    rng = np.random.default_rng(0)
    θ = {name: value + rng.normal(scale=0.1, size=value.shape) for name, value in θ_old.items()}
    first = m.rollout(θ_old, CONFIG, [71, 71, 71, 71, 72, 72, 72, 72])
    second = m.rollout(θ_old, CONFIG, [73, 73, 73, 73])
    second = second._replace(trajectory=second.trajectory + 8)
    everything = m.Batch(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))

    rewards = cluster.play(workers, θ_old, np.array([71, 72, 73]), CONFIG.G)
    J, gradient = cluster.differentiate(workers, θ)
    expected, expected_gradient = value_and_grad(m.grpo_objective)(θ, everything, CONFIG)
    assert rewards.tolist() == everything.rewards.tolist()
    assert pytest.approx(expected, rel=1e-9) == J
    for name, value in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-6, atol=1e-12)


def test_a_single_worker_learns_what_train_grpo_learns(workers: list[Any]) -> None:
    """The same parameters and validation rewards, as it draws the same actions."""
    expected = m.AdamWOptimizer(m.neural_battleship_policy_init())
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    for _ in range(2):  # the second time with other starts
        _, expected_rewards = m.train_grpo(expected, CONFIG, report=lambda *_: None)
        rewards_val = cluster.train_grpo_on_cluster(optimizer, CONFIG, workers[:1])
        np.testing.assert_allclose(rewards_val, expected_rewards)
    for name, value in expected.params.items():
        np.testing.assert_allclose(optimizer.params[name], value, atol=1e-5)


def test_what_is_not_finite_is_an_error(workers: list[Any], monkeypatch: Any) -> None:
    """It is named, and no step is taken."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    monkeypatch.setattr(cluster, "differentiate", lambda _, θ: (np.nan, θ))
    with pytest.raises(FloatingPointError, match="batch 1: J is nan"):
        cluster.train_grpo_on_cluster(optimizer, CONFIG, workers)
    assert optimizer.t == 0


def test_the_script_joins_a_cluster(workers: list[Any], tmp_path: Path) -> None:
    """It trains with two workers of the cluster at RAY_ADDRESS, here with M=2."""
    assert len(workers) == 2
    source = (ROOT / "tests" / "examples" / "cluster.py").read_text(encoding="utf-8")
    assert source.count("M=50") == 1
    (tmp_path / "cluster.py").write_text(source.replace("M=50", "M=2"), encoding="utf-8")
    address = ray.get_runtime_context().gcs_address
    output = subprocess.check_output(
        [sys.executable, "cluster.py"],
        cwd=tmp_path,
        env=os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)},
        encoding="utf-8",
    )
    assert len(re.findall(r"\d/2: reward 0\.\d{3}, validation 0\.\d{3}\n", output)) == 2


def test_a_worker_that_dies_is_an_error(workers: list[Any]) -> None:
    """Here after the first batch. The optimizer keeps the parameters of its last gradient step."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    steps: list[m.Params] = []

    def step(gradient: m.Params, lr_scale: float) -> None:
        m.AdamWOptimizer.step(optimizer, gradient, lr_scale)
        steps.append(optimizer.params.copy())
        if len(steps) == CONFIG.μ:
            ray.kill(workers[1])

    died = pytest.raises(ray.exceptions.RayActorError, match="died")
    with patch.object(optimizer, "step", step), died:
        cluster.train_grpo_on_cluster(optimizer, CONFIG, workers)
    assert len(steps) == CONFIG.μ
    assert optimizer.params["W1"] is steps[-1]["W1"]
