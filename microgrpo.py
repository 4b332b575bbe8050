# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization (GRPO), the algorithm behind DeepSeek-R1, in one file.

A small neural network learns Battleship by playing it, in about a minute: `uv run microgrpo.py`.
A game without a miss scores 1. Random shots score 0.15 on average, a simple hand-written strategy
(fire next to a hit if there is one, else anywhere) 0.40, and the trained network 0.57.

To judge how well a game was played, GRPO plays a group of games from the same start and compares
each score with the group's mean. PPO, its predecessor, trains a second network for this: a critic,
which predicts from each board how the game will turn out. Here the group is the critic: its mean
says what to expect from that start, and every shot is judged by the whole game. Terms:

    policy        the network: it maps a board to the probability of each shot
    trajectory    one game, starting from a hidden fleet. Each of its steps is an observation (a
                  board) and an action (a shot). The trajectory's reward is the game's score
    reference     a fixed policy to stay close to; KL divergence measures how far the policy strays

(For a language model: start = prompt, observation = the text so far, action = token, trajectory =
completion.) The algorithm, where M, B, G, μ, ε and β are fields of `GRPOConfig`:

    repeat M times:
        draw B starts, and play each of them G times with the policy: B groups of G trajectories
        advantage A of a trajectory, and of each step in it =
            (its reward - mean of its group) / standard deviation of its group
        repeat μ times, to learn more from each game:
            ratio ρ of a step = (probability of its action now) / (probability when it was taken)
            J = mean over trajectories of (mean over their steps of
                (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL(policy ‖ reference)))
            take a gradient step that increases J

All games of a group face the same fleet. A game that beats the mean of its group was therefore
played better, or was luckier, but it did not face an easier fleet. So its actions become more
likely, and those of worse games (A < 0) less likely: the policy is trained like a classifier, with
its own actions as labels, each weighted by A. Not every shot of a good game is good. But over many
games, a good shot on a given board leads to good games more often than a bad one does. The min and
the clip, which come from PPO, leave no incentive to move ρ far from 1: games that one policy played
say little about a policy that plays differently. (In a hurry? Skip to "%% GRPO".)
"""

import os

# More threads hardly help with matrices this small. Set this before importing NumPy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import autograd.numpy as anp  # differentiable NumPy, for whatever depends on the parameters θ
import numpy as np
from autograd import value_and_grad
from autograd.tracer import getval

Array = np.ndarray[Any, Any]  # brackets in comments give an array's shape: [n, N, N]
Params = dict[str, Any]  # named arrays of floats

# %% Environment
# The environment is the game. For another game, write a class like it, and a policy.


class Environment(Protocol):
    """n trajectories in lockstep, with `reset` and `step` as in `gymnasium.vector.VectorEnv`.

    Equal seeds must give equal starts, so that a group shares its start; otherwise luck is mistaken
    for skill. A trajectory ends when terminated (the game is over) or truncated (cut short). Those
    that have ended are still stepped, with their last action, until all have ended; what `step`
    returns for them is ignored. An environment may store `actions` and overwrite what it returned.
    """

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start a trajectory for each of n seeds (ints); return observations [n, ...] and info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; return observations, rewards, terminated, truncated (n each), info."""


@lru_cache(1024)  # all games of a group have the same fleet
def random_fleet(board_size: int, ships: tuple[int, ...], seed: int) -> Array:
    """Draw a fleet uniformly from all legal placements: [N, N], True where there is a ship."""
    if max(ships) > board_size:
        raise ValueError(f"a ship is longer than the board: {ships=}, {board_size=}")
    rng = np.random.default_rng(seed)
    for _ in range(10_000):
        fleet = np.zeros((board_size, board_size), bool)
        for length in ships:
            line = rng.integers(board_size)
            first = rng.integers(board_size - length + 1)
            lines = fleet if rng.random() < 0.5 else fleet.T  # rows or columns (.T is a view)
            lines[line, first : first + length] = True
        if fleet.sum() == sum(ships):  # otherwise ships overlap: start over
            fleet.flags.writeable = False  # the cache shares this array
            return fleet
    raise ValueError(f"found no room for all ships: {ships=}, {board_size=}")


@dataclass
class BattleshipEnv:
    """Battleship for one player: fire until every tile of every hidden ship is hit.

    An action is a tile to fire at, 0 .. N*N-1 on a board of N x N. Observations are boards, float32
    [n, N, N]: 0 not fired at, -1 miss, +1 hit. At first all boards look the same; the seed decides
    which fleet is hidden. The reward is 0 until the fleet is sunk, then 1 - misses / (water + 1).
    """

    num_envs: int  # games in lockstep, n
    board_size: int = 5  # N
    ships: tuple[int, ...] = (2, 3, 4)  # the length of each

    def reset(self, *, seed: Iterable[int]) -> tuple[Array, dict[str, Any]]:
        """Hide a fleet for each of n seeds; no shots have been fired."""
        fleets = [random_fleet(self.board_size, self.ships, s) for s in seed]
        self.fleets = np.stack(fleets)  # [n, N, N], True where there is a ship
        self.shots = np.zeros_like(self.fleets)  # [n, N, N], True where a shot was fired
        return self.observations(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Fire one shot in each game. A tile off the board is an error."""
        row, column = np.unravel_index(actions, self.shots.shape[1:])
        self.shots[np.arange(len(actions)), row, column] = True
        finished = ~(self.fleets & ~self.shots).any(axis=(1, 2))
        misses = (self.shots & ~self.fleets).sum(axis=(1, 2))
        water = self.board_size**2 - sum(self.ships)
        score = 1 - misses / (water + 1)  # + 1: the worst finished game beats an unfinished one
        truncated = np.zeros(self.num_envs, bool)  # no game is cut short
        return self.observations(), finished * score, finished, truncated, {}

    def observations(self) -> Array:
        """Return what the shots have revealed, [n, N, N]."""
        return (np.where(self.fleets, 1, -1) * self.shots).astype(np.float32)

    def __str__(self) -> str:
        """Draw the boards, stacked: 🌊 water, 💦 miss, 🚢 ship, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleets + self.shots]
        return "\n".join("".join(row) for board in emoji for row in board)


# %% Policy
# The policy is a network: hits and misses in, a tanh layer, a softmax over tiles not fired at.


def neural_battleship_policy_init(board_size: int = 5, hidden: int = 128, seed: int = 42) -> Params:
    """Draw the parameters θ, float32, of a network that initially plays almost at random."""
    rng = np.random.default_rng(seed)
    tiles = board_size**2
    # W1: inputs of hidden units have variance 1 with half of the board known. W2: logits near 0.
    W1 = rng.normal(scale=(tiles / 2) ** -0.5, size=(2 * tiles, hidden))
    W2 = rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, tiles))
    θ = {"W1": W1, "b1": np.zeros(hidden), "W2": W2}
    return {name: value.astype(np.float32) for name, value in θ.items()}


def neural_battleship_policy(θ: Params, observation: Array) -> Any:
    """Map boards [..., N, N] to the probability of each next shot, [..., N*N]."""
    board = observation.reshape(*observation.shape[:-2], -1)  # [..., N*N]
    hits_and_misses = np.concatenate([board == 1, board == -1], axis=-1, dtype=np.float32)
    h = anp.tanh(hits_and_misses @ θ["W1"] + θ["b1"])  # [..., hidden]
    logits = h @ θ["W2"]  # [..., N*N]
    # Tiles already fired at lose 1e9, so exp underflows, and their probability is 0. This mask is
    # part of the policy, not of the sampling: training must see the same probabilities as play.
    logits = logits - 1e9 * abs(board)
    # Softmax. Subtracting the maximum keeps exp from overflowing. It cancels out, so it needs no
    # gradient: getval(logits) is logits.detach() in PyTorch.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> Array:
    """Fire at random: equal probabilities [..., N*N] for all tiles not fired at.

    For a language model, the reference is the model before GRPO, and staying near it keeps the
    policy from forgetting how to write. Here it is random play, which keeps the policy exploring.
    """
    unknown = observation.reshape(*observation.shape[:-2], -1) == 0
    return unknown / unknown.sum(axis=-1, keepdims=True)


# %% GRPO
# GRPO as in DeepSeekMath (arXiv 2402.03300, section 4.1), but with the reference fixed.


@dataclass(frozen=True)
class GRPOConfig:
    """What to train, and how."""

    environment: Callable[[int], "Environment"]  # n -> n trajectories in lockstep
    policy: Callable[[Params, Array], Any]  # (θ, observations) -> probabilities [n, actions]
    reference_policy: Callable[[Array], Array] | None = None  # observations -> probabilities
    ε: float = 0.2  # probability ratios are clipped to 1-ε .. 1+ε
    β: float = 0.001  # weight of the KL divergence; unused without a reference policy
    G: int = 8  # trajectories per group, all with the same start
    B: int = 64  # groups per batch
    M: int = 1300  # batches
    μ: int = 2  # gradient steps per batch
    max_steps: int = 1000  # longer trajectories are cut off
    max_grad_norm: float = 0.2  # larger gradients are scaled down to this norm
    num_val: int = 64  # validation trajectories after each batch, with seeds 0 .. num_val-1
    seed: int = 42  # determines all randomness in training

    def __post_init__(self) -> None:
        # With G = 1, each reward would be the mean of its group, and every advantage 0.
        minima = dict(ε=1e-9, β=0, G=2, B=1, M=1, μ=1, max_steps=1, max_grad_norm=1e-9, num_val=1)
        for name, minimum in minima.items():
            if not getattr(self, name) >= minimum:  # also rejects NaN
                raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")


class Batch(NamedTuple):
    """All S steps of n trajectories (all first steps, all second steps, ...; no padding).

    In training, trajectory i is in group i // G. Here is a group of G = 2, on a board of 5 x 5
    with a ship on tile 3 only (π_old is invented). Trajectory 0 took three steps, trajectory 1 one:

        observations   actions   π_old   π_ref   step_rewards   trajectory
        a board             12    0.05    0.04           0.00            0
        a board              3    0.04    0.04           1.00            1
        a board             13    0.04    0.04           0.00            0
        a board              3    0.06    0.04           0.92            0

        rewards = [0.92, 1.0], so A is about [-1, 1]. (24 tiles of water: 0.92 = 1 - 2/25)
    """

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] its probability under the reference policy (π_old if there is none)
    step_rewards: Array  # [S]
    trajectory: Array  # [S] index of its trajectory, 0 .. n-1 (renumber when joining batches)
    rewards: Array  # [n] sum of the rewards of the trajectory's steps


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """Return (reward - group's mean) / (group's standard deviation + 1e-4): [n] -> [n]."""
    groups = rewards.reshape(-1, config.G)  # [B, G]
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, keepdims=True)
    # After this division, the scale of rewards hardly matters. If all rewards of a group are equal,
    # there is nothing to learn from them: 1e-4 turns 0 / 0 into 0.
    return ((groups - mean) / (std + 1e-4)).reshape(-1)


def kl_divergence(π: Any, π_ref: Array) -> Any:
    """Estimate KL(π ‖ π_ref) at each step, from the probabilities of the action taken: [S] -> [S].

    The divergence is the mean of -log(ratio) over actions drawn from π, where ratio = π_ref / π.
    The estimator k3 (equation 4 of DeepSeekMath) adds ratio - 1. This is 0 on average, because the
    mean of ratio is Σ π (π_ref / π) = Σ π_ref = 1. As log x <= x - 1, no estimate is negative.

    As a penalty, k3 has a biased gradient, (1 - ratio) ∇log π. Even for actions drawn from π, as at
    the first gradient step, its mean is -Σ π_ref ∇log π, since Σ π ∇log π = 0. This is the gradient
    of KL(π_ref ‖ π), with the arguments swapped. Still, each estimate has its minimum, 0, at
    π = π_ref, so the penalty pulls the policy there.
    """
    ratio = π_ref / π
    return ratio - anp.log(ratio) - 1


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return J, to be maximised: equation 3 of DeepSeekMath.

    J = 1/n Σ_i 1/|o_i| Σ_t (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL)

    where i runs over the n = B G trajectories, and t over the |o_i| steps of i. No KL if β = 0.
    """
    row = np.arange(len(batch.actions))
    π = config.policy(θ, batch.observations)[row, batch.actions]  # [S]
    ρ = π / batch.π_old  # [S]
    A = grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]

    # At the first gradient step on a batch, π = π_old and ρ = 1. Leaving the divergence aside, J is
    # then 0, because the advantages of a group sum to 0. So J says nothing about progress. But ∇J
    # is not 0: ∇ρ = ∇π / π_old = ∇log π, so ∇J is the mean of A ∇log π, as for a classifier with
    # actions as labels and A as weights. (This is essentially REINFORCE with a baseline.)
    #
    # With μ = 1, ρ stays 1. At a second step, π is no longer π_old, and ρ corrects for that. On a
    # given board, the mean of ρ A over shots drawn from π_old is Σ π_old ρ A = Σ π A, the mean of A
    # over shots drawn from π (importance sampling). But this corrects only one shot. The board it
    # was fired on and the shots that followed still come from π_old: trust J only while π ≈ π_old.
    #
    # Once ρ has passed 1 ± ε in the right direction (up if A > 0, down if A < 0), the minimum is
    # constant, with gradient 0. Other gradients may still move ρ: only the incentive is gone. If ρ
    # has gone the wrong way, the gradient pulls it back: with A > 0, ρ = 0.5 and ε = 0.2, the
    # minimum is 0.5 A; the clip alone would be 0.8 A, a constant.
    #
    #                ρ < 1-ε       between       ρ > 1+ε
    #     A > 0      raise ρ       raise ρ      leave it
    #     A < 0     leave it       lower ρ       lower ρ
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)  # [S]
    if config.reference_policy and config.β > 0:
        per_step = per_step - config.β * kl_divergence(π, batch.π_ref)

    # Two known biases: dividing by |o_i| makes a step count less in a long trajectory (here, a bad
    # game), and dividing by the standard deviation gives groups with nearly equal rewards as much
    # weight as any other. Dr. GRPO (arXiv 2503.20783) drops both divisions.
    length = np.bincount(batch.trajectory)  # [n] |o_i|
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


# %% Rollout
# A rollout uses the policy to play n trajectories in lockstep, and returns them as a batch.


def check_probabilities(who: str, π: Array, shape: tuple[int, int]) -> None:
    """Accept only probabilities of this shape: logits would silently ruin training."""
    bad = (π < 0).any(axis=-1) | ~(abs(π.sum(axis=-1) - 1) < 1e-3)  # True for NaN
    if π.shape != shape or bad.any():
        raise ValueError(f"{who} must give {shape} probabilities, got {π.shape}, bad rows {π[bad]}")


def rollout(θ: Params, config: GRPOConfig, seeds: Iterable[int]) -> Batch:
    """Play one trajectory for each of n seeds, with actions drawn from the policy.

    Trajectories with equal seeds share their start, but each draws its own actions. Equal arguments
    give equal batches. Policies get read-only observations, and what they return is checked.
    """
    seeds = [int(seed) for seed in seeds]  # Gymnasium requires Python ints
    n = len(seeds)
    rng = np.random.default_rng([config.seed, *seeds])
    environment = config.environment(n)
    observations, _ = environment.reset(seed=seeds)
    actions = np.zeros(n, int)
    running = np.arange(n)  # the trajectories that have not ended: only these are recorded
    steps: list[dict[str, Array]] = []
    while running.size and len(steps) < config.max_steps:
        seen = observations[running]  # [r, ...], where r trajectories are running
        seen.flags.writeable = False  # the batch keeps this array, so no policy may change it
        π = config.policy(θ, seen)  # [r, num_actions]
        π_ref = config.reference_policy(seen) if config.reference_policy else π
        shape = (len(seen), π.shape[-1])
        check_probabilities("policy", π, shape)
        check_probabilities("reference_policy", π_ref, shape)

        # Draw an action per row: the first whose cumulative probability exceeds a random number.
        cumulative = π.cumsum(axis=-1)
        cumulative = cumulative / cumulative[:, -1:]  # ends at exactly 1, despite rounding
        chosen = (cumulative > rng.random((len(π), 1))).argmax(axis=-1)  # [r]
        actions[running] = chosen  # trajectories that have ended repeat their last action
        observations, step_rewards, terminated, truncated, _ = environment.step(actions.copy())
        row = np.arange(len(π))
        step = dict(
            observations=seen,
            actions=chosen,
            π_old=π[row, chosen],
            π_ref=π_ref[row, chosen],
            step_rewards=step_rewards[running],
            trajectory=running,
        )
        steps.append(step)
        ended = terminated | truncated
        running = running[~ended[running]]  # drop those that have just ended

    columns = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    rewards = np.bincount(columns["trajectory"], weights=columns["step_rewards"])  # [n] sums
    return Batch(**columns, rewards=rewards)


# %% Train
# Training repeatedly plays a batch and takes a few gradient steps on it.


@dataclass
class AdamWOptimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), like torch.optim.AdamW. It minimises."""

    params: Params
    learning_rate: float = 2e-2
    β1: float = 0.9
    β2: float = 0.999
    ε: float = 1e-8  # β1, β2 and ε are Adam's own, not the β and ε of GRPOConfig
    λ: float = 0.01  # weight decay

    def __post_init__(self) -> None:
        self.params = dict(self.params)  # leave the caller's dictionary unchanged
        self.m: Params = dict.fromkeys(self.params, 0.0)  # running mean of gradients, initially 0
        self.v: Params = dict.fromkeys(self.params, 0.0)  # running mean of their squares
        self.t = 0

    def step(self, gradient: Params, lr_scale: float = 1.0) -> None:
        """Take one step against the gradient, at lr_scale times the learning rate."""
        self.t += 1
        α = self.learning_rate * lr_scale
        for name, g in gradient.items():
            self.m[name] = self.β1 * self.m[name] + (1 - self.β1) * g
            self.v[name] = self.β2 * self.v[name] + (1 - self.β2) * g**2
            m_hat = self.m[name] / (1 - self.β1**self.t)  # corrects for starting at 0
            v_hat = self.v[name] / (1 - self.β2**self.t)
            old = self.params[name]
            new = (1 - α * self.λ) * old - α * m_hat / (np.sqrt(v_hat) + self.ε)
            self.params[name] = new.astype(old.dtype)  # a new array; float32 stays float32


def print_progress(
    i: int, config: GRPOConfig, batch: Batch, reward_val: float, grad_norm: float
) -> None:
    """For 20 of the batches, print reward, validation reward afterwards, and gradient norm."""
    if (i + 1) * 20 // config.M > i * 20 // config.M:  # or all, if M < 20
        rewards = f"reward {batch.rewards.mean():<6.3g}  validation {reward_val:<6.3g}"
        print(f"batch {i + 1:4d}/{config.M}  {rewards}  gradient {grad_norm:.3g}", flush=True)


def train_grpo(
    optimizer: AdamWOptimizer,
    config: GRPOConfig,
    objective: Callable[[Params, Batch, GRPOConfig], Any] = grpo_objective,
    report: Callable[[int, GRPOConfig, Batch, float, float], None] = print_progress,
) -> tuple[Params, Array]:
    """Train on M batches; return a copy of the parameters, and validation rewards after each, [M].

    The learning rate falls linearly towards 0. To train on M more batches, call this again with the
    same optimizer: it draws new starts, and the learning rate starts over. `report` gets the norm
    of a batch's last gradient, before clipping. Raises FloatingPointError if J or ∇J is not finite.
    """
    rng = np.random.default_rng([config.seed, optimizer.t])  # a second call draws new starts
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, config.B)  # smaller seeds are for validation
        batch = rollout(optimizer.params, config, np.repeat(starts, config.G))  # each G times
        for _ in range(config.μ):
            # J and its gradient with respect to the first argument, the parameters.
            J, gradient = value_and_grad(objective)(optimizer.params, batch, config)
            norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
            if not np.isfinite(J + norm):
                raise FloatingPointError(f"batch {i + 1}: J is {J}, its gradient has norm {norm}")
            # Clip the norm: π_ref / π, and ρ where A < 0 (not clipped above), can make it huge.
            shrink = max(1.0, norm / config.max_grad_norm)
            # Minus, because the optimizer minimises, and J is to be maximised.
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)

        # These seeds are never trained on, but nearly all of their fleets turn up in training.
        rewards_val[i] = rollout(optimizer.params, config, range(config.num_val)).rewards.mean()
        report(i, config, batch, rewards_val[i], norm)
    return dict(optimizer.params), rewards_val


# %% Run
# Running the file trains the network on Battleship, and shows what was learned.

if __name__ == "__main__":
    np.empty(30 * 2**20, np.uint8)  # freed at once; Linux then reuses freed memory: 30% faster
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # so that emoji survive a pipe
    grpo_config = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy)
    θ_init = neural_battleship_policy_init()
    optimizer = AdamWOptimizer(θ_init)
    try:
        train_grpo(optimizer, grpo_config)
    except KeyboardInterrupt:
        print("Interrupted. This is what was learned so far:")

    test_seeds = range(2**31, 2**31 + 2000)  # training uses only smaller seeds
    for when, θ in (("Before", θ_init), ("After", optimizer.params)):
        games = rollout(θ, grpo_config, test_seeds)
        shots = len(games.actions) / len(test_seeds)
        print(f"{when} training: score {games.rewards.mean():.3f}, {shots:.1f} shots per game")
        # One group. Training raises its scores and their mean: advantages still sum to 0.
        group = rollout(θ, grpo_config, [test_seeds[0]] * grpo_config.G)
        advantages = grpo_advantages(group.rewards, grpo_config)
        print("  scores of a group", *(f"{score:5.2f}" for score in group.rewards))
        print("  their advantages ", *(f"{A:+5.2f}" for A in advantages))

    # `games` now holds the games of the trained policy. Replay the first.
    game = BattleshipEnv(1)
    game.reset(seed=test_seeds[:1])
    print("A game after training (💥 hit, 💦 miss, 🚢 ship, 🌊 water):")
    actions = games.actions[games.trajectory == 0]
    for number, tile in enumerate(actions, 1):
        game.step(np.array([tile]))
        if number % 4 == 0 or number == len(actions):
            print(f"{number} shots\n{game}")
    np.savez("battleship_policy.npz", **optimizer.params)
