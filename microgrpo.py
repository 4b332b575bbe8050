# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization (GRPO), the algorithm behind DeepSeek-R1, in one file.

A small neural network learns Battleship by playing it, in about a minute: `uv run microgrpo.py`.
A game without a miss scores 1. Random shots score 0.15 on average, the usual strategy (fire beside
hits, else anywhere) 0.40, and the trained network 0.57. Terms used below:

    policy        the network. It maps a board to the probability of each shot
    trajectory    one game. It starts from a hidden fleet. Each of its steps is an observation (a
                  board) and an action (a shot), and its reward is the score
    reference     a fixed policy to stay near. The KL divergence measures how far away the policy is

(For a language model: start = prompt, observation = the text so far, action = token, trajectory =
completion.) The algorithm, in which M, B, G, μ, ε and β are fields of `GRPOConfig`:

    repeat M times:
        draw B starts, and play each of them G times with the policy: B groups of G trajectories
        advantage A of a trajectory, and of each step in it =
            (its reward - mean of its group) / standard deviation of its group
        repeat μ times, to learn more from each game:
            ratio ρ of a step = probability of its action now / when it was taken
            J = mean over trajectories of (mean over their steps of
                (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL(policy ‖ reference)))
            take a gradient step that increases J

All games of a group face the same fleet. So a game that beats the mean of its group was played
better, or with more luck, but was not an easier one. Its actions become more likely, and those of
the worse games less. Not every shot of a good game is good, but over many games that averages out.

PPO, where the min and the clip come from, trains a second network to predict the reward; here the
mean of the group does that job. (There is no discount, and no GAE.) In a hurry? Skip to "GRPO".
"""

import os

# More threads only slow matrices this small down. Must be set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import autograd.numpy as anp  # NumPy, recorded so that it can be differentiated
import numpy as np
from autograd import value_and_grad
from autograd.tracer import getval

# Freed at once. From then on, glibc reuses memory of this size: a third faster on Linux.
np.empty(30 * 2**20, np.uint8)

Array = np.ndarray[Any, Any]
Params = dict[str, Any]  # named arrays of floats

# %% Game
# Game: Battleship for one player. A board of N x N tiles hides a fleet, each shot uncovers a tile,
# and the game ends when all ships are hit. Brackets such as [N, N] give the shape of an array.


@dataclass(frozen=True)
class BattleshipRules:
    """The side N of the board, and the length of each ship."""

    board_size: int = 5
    ships: tuple[int, ...] = (2, 3, 4)


@lru_cache(1024)  # all games of a group have the same fleet
def random_fleet(rules: BattleshipRules, seed: int) -> Array:
    """Draw a fleet uniformly from all legal placements: [N, N], True where a ship lies."""
    N = rules.board_size
    if max(rules.ships) > N:
        raise ValueError(f"a ship is longer than the board: {rules}")
    rng = np.random.default_rng(seed)
    for _ in range(10_000):
        fleet = np.zeros((N, N), bool)
        for length in rules.ships:
            line = rng.integers(N)
            first = rng.integers(N - length + 1)
            lines = fleet if rng.random() < 0.5 else fleet.T  # rows, or columns, of the same array
            lines[line, first : first + length] = True
        if fleet.sum() == sum(rules.ships):  # if not, ships overlap, and all are placed again
            fleet.flags.writeable = False  # the cache shares this array
            return fleet
    raise ValueError(f"the ships do not fit on the board: {rules}")


class BattleshipGame:
    """n games in lockstep, one for each of the fleets [n, N, N]."""

    def __init__(self, fleets: Array) -> None:
        self.fleets = fleets
        self.shots = np.zeros_like(fleets)

    def fire(self, tiles: Array) -> None:
        """Fire one shot in each game, at tiles [n] from 0 to N*N-1. Repeats change nothing."""
        row, column = np.unravel_index(tiles, self.shots.shape[1:])
        self.shots[np.arange(len(tiles)), row, column] = True

    def finished(self) -> Array:
        """Return which games are over, [n]."""
        return (self.fleets & ~self.shots).sum(axis=(1, 2)) == 0

    def score(self) -> Array:
        """Return 1 - misses / (tiles of water + 1) where a game is over, else 0, [n].

        The + 1 keeps the worst finished game above an unfinished one.
        """
        misses = (self.shots & ~self.fleets).sum(axis=(1, 2))
        water = (~self.fleets).sum(axis=(1, 2))
        return np.where(self.finished(), 1 - misses / (water + 1), 0.0)

    def __str__(self) -> str:
        """Draw the boards, stacked: 🌊 water, 🚢 ship, 💦 miss, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleets + self.shots]
        return "\n".join("".join(row) for board in emoji for row in board)


# %% Environment
# Environment: all that training asks of a game. From here on, a game is a trajectory.


class Environment(Protocol):
    """n trajectories in lockstep, with `reset` and `step` as in `gymnasium.vector.VectorEnv`.

    Equal seeds must give equal starts: that is how a group shares one. If not, luck is taken for
    skill, and training silently gets worse. Trajectories that have ended repeat their last action
    until all have ended; what is returned for them is ignored.
    """

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start a trajectory for each of n seeds; return observations [n, ...] and info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; return observations, rewards, terminated, truncated [n] and info.

        A trajectory ends when terminated (the game is over) or truncated (cut short).
        """


class BattleshipEnv:
    """Battleship. An action is a tile to fire at, and the score of the game is its only reward.

    Observations are boards, float32 [n, N, N]: 0 not fired at, -1 miss, +1 hit. At first all boards
    look the same; the seed decides which fleet is hidden.
    """

    def __init__(self, num_envs: int, rules: BattleshipRules = BattleshipRules()) -> None:
        self.num_envs = num_envs
        self.rules = rules

    def reset(self, *, seed: Iterable[int]) -> tuple[Array, dict[str, Any]]:
        """Hide a fleet for each of n seeds."""
        self.game = BattleshipGame(np.stack([random_fleet(self.rules, s) for s in seed]))
        return self.observations(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Fire one shot in each game."""
        self.game.fire(actions)
        truncated = np.zeros(self.num_envs, bool)
        return self.observations(), self.game.score(), self.game.finished(), truncated, {}

    def observations(self) -> Array:
        """Show what the shots uncovered, [n, N, N]."""
        return (np.where(self.game.fleets, 1, -1) * self.game.shots).astype(np.float32)


# %% Policy
# Policy: a network with one hidden layer, from a board to the probability of each next shot.


def neural_battleship_policy_init(
    rules: BattleshipRules = BattleshipRules(), seed: int = 42, hidden: int = 128
) -> Params:
    """Draw the parameters θ, float32, of a network that plays almost at random."""
    rng = np.random.default_rng(seed)
    tiles = rules.board_size**2
    W1 = rng.normal(scale=(tiles / 2) ** -0.5, size=(2 * tiles, hidden))  # half the tiles are seen
    W2 = rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, tiles))  # 0.1: logits close to 0
    θ = {"W1": W1, "b1": np.zeros(hidden), "W2": W2}
    return {name: value.astype(np.float32) for name, value in θ.items()}


def neural_battleship_policy(θ: Params, observation: Array) -> Any:
    """Map boards [..., N, N] to the probability of each next shot, [..., N*N]."""
    board = observation.reshape(*observation.shape[:-2], -1)  # [..., N*N]
    hits_and_misses = np.concatenate([board == 1, board == -1], axis=-1, dtype=np.float32)
    h = anp.tanh(hits_and_misses @ θ["W1"] + θ["b1"])  # [..., hidden]

    # Tiles already fired at get probability 0, as exp underflows. The mask is part of the policy,
    # and not of the sampling, so that training sees the same probabilities as play.
    logits = h @ θ["W2"] - 1e9 * abs(board)  # [..., N*N]
    # Softmax. Subtracting the maximum keeps exp from overflowing, and cancels out, so it needs no
    # gradient: getval(logits) is logits.detach() in PyTorch.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> Array:
    """Fire at random: equal probabilities [..., N*N] for all tiles not fired at.

    For a language model, the reference is the model before GRPO, so that the policy does not forget
    how to write. Here it is random play, and staying near it keeps the policy exploring.
    """
    unknown = observation.reshape(*observation.shape[:-2], -1) == 0
    return unknown / unknown.sum(axis=-1, keepdims=True)


# %% GRPO
# GRPO: the algorithm of DeepSeekMath (arXiv 2402.03300, section 4.1), mostly with its symbols.


@dataclass(frozen=True)
class GRPOConfig:
    """What to train, and its hyperparameters."""

    environment: Callable[[int], "Environment"]  # n -> n trajectories in lockstep
    policy: Callable[[Params, Array], Any]  # (θ, observations) -> probabilities [n, actions]
    reference_policy: Callable[[Array], Array] | None = None  # observations -> probabilities
    ε: float = 0.2  # probability ratios are clipped to 1-ε .. 1+ε
    β: float = 0.001  # weight of the KL divergence from the reference policy, if there is one
    G: int = 8  # trajectories per group, all with the same start
    B: int = 64  # groups per batch
    M: int = 1300  # batches
    μ: int = 2  # gradient steps per batch
    max_steps: int = 1000  # longer trajectories are cut
    max_grad_norm: float = 0.2  # larger gradients are scaled down to this norm
    num_val: int = 64  # validation trajectories, played after each batch
    seed: int = 42  # everything random in training follows from it

    def __post_init__(self) -> None:
        # Alone in its group, with G = 1, every trajectory would have an advantage of 0.
        minima = dict(ε=0, β=0, G=2, B=1, M=1, μ=1, max_steps=1, max_grad_norm=1e-9, num_val=1)
        for name, minimum in minima.items():
            if not getattr(self, name) >= minimum:  # so that NaN is refused too
                raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")


class Batch(NamedTuple):
    """All S steps of n trajectories, in the order of play, and the n rewards.

    In training, trajectory i is in group i // G. Here is a group of G = 2 with invented numbers, in
    which trajectory 0 took three steps and trajectory 1 took one:

        observations   actions   π_old   π_ref   step_rewards   trajectory
        a board             12    0.04    0.04            0.0            0
        a board              3    0.05    0.04            0.8            1
        a board             13    0.31    0.04            0.0            0
        a board             17    0.66    0.04            0.2            0

        rewards = [0.2, 0.8], so that A is about [-1, 1]

    Libraries for language models pad to [n, longest] and mask. A list of steps needs neither.
    """

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] its probability under the reference policy (π_old if there is none)
    step_rewards: Array  # [S]
    trajectory: Array  # [S] which trajectory the step belongs to, 0 .. n-1
    rewards: Array  # [n] sum of the rewards of the trajectory's steps


def check_probabilities(name: str, π: Array) -> None:
    """Raise ValueError for logits, say, with which training would silently go wrong."""
    valid = (π >= 0).all(axis=-1) & (abs(π.sum(axis=-1) - 1) < 1e-3)  # False for NaN
    if not valid.all():
        raise ValueError(f"{name} must give probabilities that sum to 1, got {π[~valid][0]}")


def rollout(θ: Params, config: GRPOConfig, seeds: Iterable[int]) -> Batch:
    """Play one trajectory for each of n seeds, with actions drawn from the policy.

    Trajectories with equal seeds have the same start, but draw their own actions. The same
    arguments give the same batch again.
    """
    seeds = [int(seed) for seed in seeds]  # Gymnasium insists on Python's integers
    n = len(seeds)
    rng = np.random.default_rng([config.seed, *seeds])
    environment = config.environment(n)
    observations, _ = environment.reset(seed=seeds)
    running = np.ones(n, bool)  # the trajectories that have not ended; only they are recorded
    actions = np.zeros(n, int)
    columns: dict[str, list[Array]] = defaultdict(list)  # by field of Batch
    for _ in range(config.max_steps):
        seen = observations[running]
        seen.flags.writeable = False  # a policy that changes it would do so again in training
        π = config.policy(θ, seen)  # [running, actions]
        π_ref = config.reference_policy(seen) if config.reference_policy else π
        check_probabilities("policy", π)
        check_probabilities("reference_policy", π_ref)

        # In each row, draw the first action whose cumulative probability exceeds a random number.
        cumulative = π.cumsum(axis=-1)
        cumulative /= cumulative[:, -1:]  # ends at exactly 1 now, in spite of rounding
        chosen = (cumulative > rng.random((len(π), 1))).argmax(axis=-1)
        actions[running] = chosen  # the others repeat their last action
        row = np.arange(len(π))
        columns["observations"].append(seen)
        columns["actions"].append(chosen)
        columns["π_old"].append(π[row, chosen])
        columns["π_ref"].append(π_ref[row, chosen])
        columns["trajectory"].append(np.flatnonzero(running))

        observations, rewards, terminated, truncated, _ = environment.step(actions.copy())
        columns["step_rewards"].append(rewards[running])
        running &= ~np.logical_or(terminated, truncated)
        if not running.any():
            break

    steps = {name: np.concatenate(parts) for name, parts in columns.items()}  # [S, ...] each
    return Batch(**steps, rewards=np.bincount(steps["trajectory"], steps["step_rewards"]))


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """Return each reward minus the mean of its group, in its standard deviations: [n] -> [n]."""
    groups = rewards.reshape(-1, config.G)  # [B, G]
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, keepdims=True)
    # If all rewards of a group are equal, there is nothing to learn: 1e-4 turns 0 / 0 into 0.
    # (TRL takes the sample deviation, which divides by G-1.)
    return ((groups - mean) / (std + 1e-4)).reshape(-1)


def kl_divergence(π: Any, π_ref: Array) -> Any:
    """Estimate KL(π ‖ π_ref) at each step, from the probabilities of the action taken: [S] -> [S].

    The divergence is the mean of -log(ratio) over actions drawn from π, where ratio = π_ref / π.
    Equation 4 of DeepSeekMath, also called k3, adds ratio - 1. Its mean is 0, as probabilities sum
    to 1, so the mean stays as it is, and every term becomes non-negative.

    As a penalty it is only a stand-in: its gradient, (1 - ratio) ∇log π, is on average that of
    KL(π_ref ‖ π), which pulls in the same direction, though not with the same force.
    """
    ratio = π_ref / π
    return ratio - anp.log(ratio) - 1


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return J, to be maximised: equation 3 of DeepSeekMath.

    J = 1/n Σ_i 1/|o_i| Σ_t (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL)

    with a sum over the n trajectories, and a sum over the |o_i| steps of trajectory i.
    """
    π = config.policy(θ, batch.observations)[np.arange(len(batch.actions)), batch.actions]  # [S]
    ρ = π / batch.π_old  # [S]
    A = grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]

    # At the first gradient step on a batch ρ = 1, so J is 0 but for the divergence. Its gradient is
    # not, as ∇ρ = ∇π / π_old = ∇log π: it is the mean of A ∇log π. That is how a classifier learns,
    # with the action taken as the label and A as its weight: where A > 0 the action becomes more
    # likely, where A < 0 less.
    #
    # Then ρ moves, and a batch says little about policies far from the one that played it. So once
    # ρ has moved far enough in the right direction, the minimum has gradient 0. Moved in the wrong
    # direction, it still has one, which the clip alone would not have:
    #
    #                ρ < 1-ε       between       ρ > 1+ε
    #     A > 0      raise ρ       raise ρ      leave it
    #     A < 0     leave it       lower ρ       lower ρ
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)  # [S]
    if config.reference_policy and config.β > 0:
        per_step = per_step - config.β * kl_divergence(π, batch.π_ref)

    # Two known biases: dividing by |o_i| makes a step count less in a long trajectory, and dividing
    # by the standard deviation gives groups with almost equal rewards as much weight as all others.
    # Dr. GRPO (arXiv 2503.20783) drops both divisions.
    length = np.bincount(batch.trajectory)  # [n] |o_i|
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


# %% Train
# Train: play, compare, adjust, repeat.


@dataclass
class AdamWOptimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), like torch.optim.AdamW. It minimises.

    β1, β2 and ε are Adam's own, not those of GRPOConfig.
    """

    params: Params
    learning_rate: float = 2e-2
    β1: float = 0.9
    β2: float = 0.999
    ε: float = 1e-8
    λ: float = 0.01  # weight decay

    def __post_init__(self) -> None:
        self.params = dict(self.params)
        self.m: Params = dict.fromkeys(self.params, 0.0)  # running mean of the gradient
        self.v = self.m.copy()  # running mean of its square
        self.t = 0

    def step(self, gradient: Params, lr_scale: float = 1.0) -> None:
        """Take one step against the gradient, at lr_scale times the learning rate."""
        self.t += 1
        α = self.learning_rate * lr_scale
        for name, g in gradient.items():
            self.m[name] = self.β1 * self.m[name] + (1 - self.β1) * g
            self.v[name] = self.β2 * self.v[name] + (1 - self.β2) * g**2
            m_hat = self.m[name] / (1 - self.β1**self.t)
            v_hat = self.v[name] / (1 - self.β2**self.t)
            old = self.params[name]
            new = (1 - α * self.λ) * old - α * m_hat / (np.sqrt(v_hat) + self.ε)
            self.params[name] = new.astype(old.dtype)  # float32 stays float32


def print_progress(
    i: int, config: GRPOConfig, batch: Batch, reward_val: float, grad_norm: float
) -> None:
    """Print a line after the first batch, and about twenty more in all."""
    if i == 0:
        print("      batch      reward  validation    gradient          KL     entropy")
    if i == 0 or (i + 1) % max(1, config.M // 20) == 0:
        kl = kl_divergence(batch.π_old, batch.π_ref).mean()
        entropy = -np.log(batch.π_old).mean()
        print(
            f"{i + 1:5d}/{config.M:<5d}{batch.rewards.mean():12.3f}{reward_val:12.3f}"
            f"{grad_norm:12.3f}{kl:12.3f}{entropy:12.3f}",
            flush=True,
        )


def train_grpo(
    optimizer: AdamWOptimizer,
    config: GRPOConfig,
    objective: Callable[..., Any] = grpo_objective,
    report: Callable[..., None] = print_progress,
) -> tuple[Params, Array]:
    """Train on M batches; return the parameters, and the validation reward after each batch, [M].

    The learning rate falls linearly to 0. Calling this again with the same optimizer, even after an
    interruption, trains on M more batches, and the learning rate starts over. If J or its gradient
    is not finite, FloatingPointError is raised before the step, so the parameters stay finite.
    """
    rng = np.random.default_rng([config.seed, optimizer.t])  # a second call draws other starts
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, config.B)
        batch = rollout(optimizer.params, config, np.repeat(starts, config.G))
        for _ in range(config.μ):
            J, gradient = value_and_grad(objective)(optimizer.params, batch, config)
            norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
            if not np.isfinite(J + norm):
                raise FloatingPointError(f"batch {i + 1}: J is {J}, its gradient has norm {norm}")
            # Clip the norm: where π has become tiny, π_ref / π makes the gradient huge.
            shrink = max(1.0, norm / config.max_grad_norm)
            # J is to be maximised, and the optimizer minimises: hence the minus.
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)

        # Validation always plays the same seeds, smaller than those of training. Only the seeds are
        # held out: training meets nearly all 9,024 placements of the default fleet.
        validation = rollout(optimizer.params, config, range(config.num_val))
        rewards_val[i] = validation.rewards.mean()
        report(i, config, batch, rewards_val[i], norm)
    return dict(optimizer.params), rewards_val


# %% Run
# Run: train on Battleship, and show what was learned.

if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # for emoji, also in a pipe
    grpo_config = GRPOConfig(
        environment=BattleshipEnv,
        policy=neural_battleship_policy,
        reference_policy=reference_battleship_policy,
    )
    θ_init = neural_battleship_policy_init()
    optimizer = AdamWOptimizer(θ_init)
    try:
        train_grpo(optimizer, grpo_config)
    except KeyboardInterrupt:
        print("Interrupted. This is what was learned so far:")

    test_seeds = range(2**31, 2**31 + 2000)  # training uses only smaller seeds
    for when, θ in {"Before": θ_init, "After": optimizer.params}.items():
        games = rollout(θ, grpo_config, test_seeds)
        shots = len(games.actions) / len(test_seeds)
        print(f"{when} training: score {games.rewards.mean():.3f}, {shots:.1f} shots per game")

    game = BattleshipGame(random_fleet(BattleshipRules(), test_seeds[0])[np.newaxis])
    for shot, tile in enumerate(games.actions[games.trajectory == 0], 1):
        game.fire(np.array([tile]))
        if shot % 4 == 0 or game.finished():
            print(f"After {shot} shots (💥 hit, 💦 miss, 🚢 ship, 🌊 water):\n{game}")
    np.savez("battleship_policy.npz", **optimizer.params)
