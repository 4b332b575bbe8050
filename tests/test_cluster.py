"""The cluster: two workers of Ray, on this machine and its loopback, beside a single process."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from autograd import value_and_grad
from questions import ROOT
from test_examples import EXAMPLES, run_example
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

CONFIG = replace(BATTLESHIP, B=3, G=4, M=2, num_val=5)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Any]]:
    """Start Ray and two workers, and stop them when all tests here are done."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{EXAMPLES}")
        ray.init("local", num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1")
        yield cluster.start_workers(CONFIG, 2)
        ray.shutdown()


def test_objective_and_gradient_are_those_of_a_single_process(workers: list[Any]) -> None:
    """On the same trajectories, of which one worker played two groups and the other just one."""
    θ_old = m.neural_battleship_policy_init()
    rng = np.random.default_rng(0)
    θ = {name: value + rng.normal(scale=0.1, size=value.shape) for name, value in θ_old.items()}
    first, second = (m.rollout(θ_old, CONFIG, np.repeat(s, 4)) for s in ([71, 72], [73]))
    second = second._replace(trajectory=second.trajectory + 8)
    everything = m.Batch(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    rewards = cluster.play(workers, θ_old, np.array([71, 72, 73]), CONFIG.G)
    J, gradient = cluster.differentiate(workers, θ)
    expected, expected_gradient = value_and_grad(m.grpo_objective)(θ, everything, CONFIG)
    assert rewards.tolist() == everything.rewards.tolist()
    assert pytest.approx(expected, rel=1e-9) == J
    for name, value in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-6, atol=1e-12)


def test_a_single_worker_learns_what_one_process_learns(workers: list[Any]) -> None:
    """It gets the same parameters and validation rewards, as it draws the same actions."""
    expected, optimizer = (m.AdamWOptimizer(m.neural_battleship_policy_init()) for _ in range(2))
    for _ in range(2):  # the second time with other starts
        _, expected_rewards = m.train_grpo(expected, CONFIG, report=lambda *_: None)
        rewards_val = cluster.train_grpo_on_cluster(optimizer, CONFIG, workers[:1])
        np.testing.assert_allclose(rewards_val, expected_rewards)
    for name, value in expected.params.items():
        np.testing.assert_allclose(optimizer.params[name], value, atol=1e-5)


def test_workers_that_have_to_wait_for_cores(workers: Any, monkeypatch: Any, capsys: Any) -> None:
    """A line says so. Two of the four cores are taken, so three workers wait, and two do not."""
    cluster.play(workers, m.neural_battleship_policy_init(), np.arange(2), G=1)  # both have started
    monkeypatch.setattr(cluster, "RemoteWorker", Mock())
    cluster.start_workers(CONFIG, 2)
    assert not capsys.readouterr().out
    cluster.start_workers(CONFIG, 3)
    waiting = "Waiting for 3 free cores. The cluster has 4, of which 2 are free.\n"
    assert capsys.readouterr().out == waiting


@pytest.mark.usefixtures("workers")
def test_the_script_joins_a_cluster(monkeypatch: Any) -> None:
    """It trains with two workers of the cluster at RAY_ADDRESS, here with M=2."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    output = run_example("cluster.py", old="M=50", new="M=2")
    assert len(re.findall(r"\d/2: reward 0\.\d{3}, validation 0\.\d{3}\n", output)) == 2


def test_a_worker_that_dies_is_an_error(workers: list[Any]) -> None:
    """It is named, and the optimizer keeps the parameters of its last gradient step."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    cluster.train_grpo_on_cluster(optimizer, replace(CONFIG, M=1), workers)
    learned = dict(optimizer.params)
    ray.kill(workers[1])
    with pytest.raises(ray.exceptions.RayActorError, match="died"):
        cluster.train_grpo_on_cluster(optimizer, CONFIG, workers)
    np.testing.assert_equal(optimizer.params, learned)
