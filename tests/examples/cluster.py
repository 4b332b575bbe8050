"""GRPO on several cores or machines, with Ray: for environments that are slow.

Groups are independent of one another. So every worker plays its share of a batch's groups and
differentiates J on them. Only parameters, rewards and gradients travel. J is a mean over
trajectories, so its gradient is the mean of the workers' gradients, weighted by their shares.

`uv run --group cluster tests/examples/cluster.py 4` trains on Battleship with four workers on this
machine (the default is two), and prints rewards. If RAY_ADDRESS is set, it joins the cluster there,
and waits until each worker has a core. Under `uv run`, Ray copies this folder to every machine and
installs the project, which takes some seconds. For a game as fast as Battleship it is not worth it:
one process takes no longer.
"""

import os
import sys
from typing import Any

import numpy as np
import ray
from autograd import value_and_grad

import microgrpo as m


class Worker:
    """A process that plays trajectories, keeps them, and differentiates J on them."""

    def __init__(self, config: m.GRPOConfig) -> None:
        self.config = config

    def play(self, θ: m.Params, seeds: m.Array) -> m.Array:
        """Play a trajectory for each of n seeds; return their rewards, [n]."""
        self.batch = m.rollout(θ, self.config, seeds)
        return self.batch.rewards

    def differentiate(self, θ: m.Params) -> tuple[int, float, m.Params]:
        """Return n, J and the gradient of J on the n trajectories played last."""
        J, gradient = value_and_grad(m.grpo_objective)(θ, self.batch, self.config)
        return len(self.batch.rewards), J, gradient


RemoteWorker = ray.remote(num_cpus=1)(Worker)  # each takes a core, on any machine of the cluster


def start_workers(config: m.GRPOConfig, n: int) -> list[Any]:
    """Start n workers; say so if some of them have to wait for a free core."""
    cores = ray.cluster_resources().get("CPU", 0)
    free = ray.available_resources().get("CPU", 0)
    if n > free:  # not an error: other programs may end, and some clusters add machines
        line = f"Waiting for {n} free cores. The cluster has {cores:g}, of which {free:g} are free."
        print(line, flush=True)
    return [RemoteWorker.remote(config) for _ in range(n)]


def play(workers: list[Any], θ: m.Params, starts: m.Array, G: int) -> m.Array:
    """Share starts among the workers, which play each of them G times; return all rewards."""
    shares = np.array_split(starts, len(workers))
    pairs = zip(workers, shares, strict=True)
    rewards = [worker.play.remote(θ, np.repeat(share, G)) for worker, share in pairs]
    return np.concatenate(ray.get(rewards))


def differentiate(workers: list[Any], θ: m.Params) -> tuple[float, m.Params]:
    """Return J and its gradient on all trajectories that the workers have played last."""
    results = ray.get([worker.differentiate.remote(θ) for worker in workers])
    n, Js, gradients = zip(*results, strict=True)
    J = np.average(Js, weights=n)
    gradient = {name: np.average([g[name] for g in gradients], axis=0, weights=n) for name in θ}
    return J, gradient


def train_grpo_on_cluster(
    optimizer: m.AdamWOptimizer, config: m.GRPOConfig, workers: list[Any]
) -> m.Array:
    """Train as `train_grpo` does; return the validation reward after each batch, [M].

    To stay short, this has no arguments for objective and report, and no check for NaN. Several
    workers draw different actions than one process would. Use at most min(B, num_val) of them.
    If one of them dies, this raises ray.exceptions.RayActorError, and optimizer.params are those
    after the last gradient step.
    """
    rng = np.random.default_rng([config.seed, optimizer.t])
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, config.B)
        rewards = play(workers, optimizer.params, starts, config.G)
        for _ in range(config.μ):
            _, gradient = differentiate(workers, optimizer.params)
            norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
            shrink = max(1.0, norm / config.max_grad_norm)
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)
        rewards_val[i] = play(workers, optimizer.params, np.arange(config.num_val), G=1).mean()
        line = f"{i + 1}/{config.M}: reward {rewards.mean():.3f}, validation {rewards_val[i]:.3f}"
        print(line, flush=True)
    return rewards_val


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    if "RAY_ADDRESS" in os.environ:
        ray.init()  # joins the cluster at this address
    else:
        ray.init("local", num_cpus=n)
    config = m.GRPOConfig(
        environment=m.BattleshipEnv,
        policy=m.neural_battleship_policy,
        reference_policy=m.reference_battleship_policy,
        M=50,
    )
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    workers = start_workers(config, n)
    train_grpo_on_cluster(optimizer, config, workers)
    ray.shutdown()
