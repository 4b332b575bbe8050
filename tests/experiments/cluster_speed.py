"""Measure two workers of `cluster.py` beside a single process, on a slow environment.

`uv run --group cluster tests/experiments/cluster_speed.py` prints seconds per batch, in about half
a minute. Every game takes a millisecond for a step, as if it waited for a simulator. It needs an
idle machine: where other programs keep all cores busy, two workers are no faster than one process.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import cluster
import numpy as np
import ray

import microgrpo as m


class SlowBattleshipEnv(m.BattleshipEnv):
    """Battleship in which n games take n milliseconds for a step."""

    def step(self, actions: m.Array) -> tuple[Any, ...]:
        """Wait, and fire one shot in each game."""
        time.sleep(0.001 * self.num_envs)
        return super().step(actions)


CONFIG = m.GRPOConfig(
    environment=SlowBattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
    G=8,
    B=4,
    num_val=8,
    M=5,
)


def measure_cluster() -> dict[str, float]:
    """Return the seconds that a batch takes in one process, and with two workers."""
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    start = time.perf_counter()
    m.train_grpo(optimizer, CONFIG)
    one_process = (time.perf_counter() - start) / CONFIG.M

    import_cluster = {"PYTHONPATH": str(Path(cluster.__file__).parent)}
    ray.init("local", num_cpus=2, runtime_env={"env_vars": import_cluster})
    workers = [cluster.RemoteWorker.remote(CONFIG) for _ in range(2)]
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    cluster.play(workers, optimizer.params, np.arange(2), G=1)  # waits until both have started
    start = time.perf_counter()
    cluster.train_grpo_on_cluster(optimizer, CONFIG, workers)
    two_workers = (time.perf_counter() - start) / CONFIG.M
    ray.shutdown()
    return {"one process": round(one_process, 3), "two workers": round(two_workers, 3)}


if __name__ == "__main__":
    seconds = measure_cluster()
    print(seconds, f"{seconds['one process'] / seconds['two workers']:.2f} times as fast")
