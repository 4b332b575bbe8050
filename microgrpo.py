# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization (GRPO), the algorithm behind DeepSeek-R1, in one file.

A small neural network learns Battleship by playing it, in about a minute: `uv run microgrpo.py`.
A game without a miss scores 1. Random shots score 0.15 on average, a simple hand-written strategy
(fire next to a hit if there is one, else anywhere) 0.40, and the trained network 0.57. Terms:

    policy        the network: it maps a board to the probability of each shot
    trajectory    one game, starting from a hidden fleet. Each of its steps is an observation (a
                  board) and an action (a shot). Its reward is the score of the whole game
    reference     a fixed policy to stay close to; KL divergence measures how far the policy strays

(For a language model: start = prompt, observation = the text so far, action = token, trajectory =
completion.) The algorithm, whose M, B, G, μ, ε and β are fields of `GRPOConfig`:

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
played better, or was luckier, but it was no easier. Its actions become more likely, and those of
worse games less likely. Not every shot of a good game is good, but over many games it averages out.

The min and the clip, which leave no incentive to move ρ far from 1, come from PPO. PPO trains a
second network, the critic, to predict how a game will turn out; here the mean of the group does
that job. (For those who know PPO: there is no discount and no GAE.) In a hurry? Skip to "%% GRPO".
"""

import os

# Extra threads only slow down matrices this small. Must be set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import autograd.numpy as anp  # differentiable NumPy, for whatever depends on the parameters θ
import numpy as np
from autograd import value_and_grad
from autograd.tracer import getval

# For speed only: this is freed at once, and then glibc keeps freed memory. Saves 30% on Linux.
np.empty(30 * 2**20, np.uint8)

Array = np.ndarray[Any, Any]
Params = dict[str, Any]  # named arrays of floats

# %% Game
# The game is Battleship for one player. A board of N x N tiles hides a fleet. Each shot uncovers a
# tile, until every tile of every ship is hit. Brackets such as [N, N] give the shape of an array.


@dataclass(frozen=True)
class BattleshipRules:
    """The side N of the board, and the length of each ship."""

    board_size: int = 5
    ships: tuple[int, ...] = (2, 3, 4)


@lru_cache(1024)  # all games of a group have the same fleet
def random_fleet(rules: BattleshipRules, seed: int) -> Array:
    """Draw a fleet uniformly from all legal placements: [N, N], True where there is a ship."""
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
        if fleet.sum() == sum(rules.ships):  # otherwise ships overlap: start over
            fleet.flags.writeable = False  # the cache shares this array
            return fleet
    raise ValueError(f"the ships do not fit on the board: {rules}")


class BattleshipGame:
    """n games in lockstep, one for each of the fleets [n, N, N]."""

    def __init__(self, fleets: Array) -> None:
        self.fleets = fleets
        self.shots = np.zeros_like(fleets)

    def fire(self, tiles: Array) -> None:
        """Fire a shot in each game, at tiles [n] from 0 to N*N-1. Repeated shots change nothing."""
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
        return self.finished() * (1 - misses / (water + 1))

    def __str__(self) -> str:
        """Draw the boards, stacked: 🌊 water, 💦 miss, 🚢 ship, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleets + self.shots]
        return "\n".join("".join(row) for board in emoji for row in board)


# %% Environment
# An environment is what training needs from a game. From here on, a game is called a trajectory.


class Environment(Protocol):
    """n trajectories in lockstep, with `reset` and `step` as in `gymnasium.vector.VectorEnv`.

    Equal seeds must give equal starts, so that a group shares its start. Otherwise luck is mistaken
    for skill, and training silently gets worse. Trajectories that have ended are still stepped,
    with their last action, until all have ended; what `step` returns for them is ignored.
    """

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start a trajectory for each of n seeds; return observations [n, ...] and info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; return observations, rewards, terminated, truncated (each [n]), info.

        A trajectory ends when terminated (the game is over) or truncated (cut short).
        """


class BattleshipEnv:
    """Battleship. An action is a tile to fire at; the reward is 0 until the end, then the score.

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
        """Return what the shots have revealed, [n, N, N]."""
        return (np.where(self.game.fleets, 1, -1) * self.game.shots).astype(np.float32)


# %% Policy
# The policy is a network with one hidden layer. It maps a board to the probability of each shot.


def neural_battleship_policy_init(
    rules: BattleshipRules = BattleshipRules(), seed: int = 42, hidden: int = 128
) -> Params:
    """Draw the parameters θ, float32, of a network that initially plays almost at random."""
    rng = np.random.default_rng(seed)
    tiles = rules.board_size**2
    W1 = rng.normal(scale=(tiles / 2) ** -0.5, size=(2 * tiles, hidden))  # variance 1 in midgame
    W2 = rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, tiles))  # 0.1: logits close to 0
    θ = {"W1": W1, "b1": np.zeros(hidden), "W2": W2}
    return {name: value.astype(np.float32) for name, value in θ.items()}


def neural_battleship_policy(θ: Params, observation: Array) -> Any:
    """Map boards [..., N, N] to the probability of each next shot, [..., N*N]."""
    board = observation.reshape(*observation.shape[:-2], -1)  # [..., N*N]
    hits_and_misses = np.concatenate([board == 1, board == -1], axis=-1, dtype=np.float32)
    h = anp.tanh(hits_and_misses @ θ["W1"] + θ["b1"])  # [..., hidden]
    logits = h @ θ["W2"]  # [..., N*N]
    # Tiles already fired at get probability 0, because exp underflows. This mask is part of the
    # policy, not of the sampling, so that training sees the same probabilities as play.
    logits = logits - 1e9 * abs(board)
    # Softmax. Subtracting the maximum keeps exp from overflowing. It cancels out, so it needs no
    # gradient: getval(logits) is logits.detach() in PyTorch.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> Array:
    """Fire at random: equal probabilities [..., N*N] for all tiles not fired at.

    For a language model, the reference is the model before GRPO: staying near it keeps the policy
    from forgetting how to write. Here it is random play, and staying near it means exploring.
    """
    unknown = observation.reshape(*observation.shape[:-2], -1) == 0
    return unknown / unknown.sum(axis=-1, keepdims=True)


# %% GRPO
# GRPO as in DeepSeekMath (arXiv 2402.03300, section 4.1), mostly in the paper's notation.


@dataclass(frozen=True)
class GRPOConfig:
    """What to train, and its hyperparameters."""

    environment: Callable[[int], "Environment"]  # n -> n trajectories in lockstep
    policy: Callable[[Params, Array], Any]  # (θ, observations) -> probabilities [n, actions]
    reference_policy: Callable[[Array], Array] | None = None  # observations -> probabilities
    ε: float = 0.2  # probability ratios are clipped to 1-ε .. 1+ε
    β: float = 0.001  # weight of the KL divergence; unused without a reference policy
    G: int = 8  # trajectories per group, all with the same start
    B: int = 64  # groups per batch
    M: int = 1300  # batches
    μ: int = 2  # gradient steps per batch
    max_steps: int = 1000  # trajectories are cut off after this many steps
    max_grad_norm: float = 0.2  # larger gradients are scaled down to this norm
    num_val: int = 64  # validation trajectories, played after each batch
    seed: int = 42  # determines all randomness in training

    def __post_init__(self) -> None:
        # With G = 1, each reward would equal the mean of its group, and every advantage would be 0.
        minima = dict(ε=0, β=0, G=2, B=1, M=1, μ=1, max_steps=1, max_grad_norm=1e-9, num_val=1)
        for name, minimum in minima.items():
            if not getattr(self, name) >= minimum:  # so that NaN is refused too
                raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")


class Batch(NamedTuple):
    """All S steps of n trajectories (all first steps, all second steps, ...), and the n rewards.

    In training, trajectory i is in group i // G. Here is a group of G = 2, on a board of 5 x 5
    with a ship on tile 3 only (π_old is invented). Trajectory 0 took three steps, trajectory 1 one:

        observations   actions   π_old   π_ref   step_rewards   trajectory
        a board             12    0.05    0.04           0.00            0
        a board              3    0.04    0.04           1.00            1
        a board             13    0.04    0.04           0.00            0
        a board              3    0.06    0.04           0.92            0

        rewards = [0.92, 1.0], so that A is about [-1, 1]

    Language-model libraries often pad to [n, longest] and mask the padding. Here there is none.
    """

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] its probability under the reference policy (π_old if there is none)
    step_rewards: Array  # [S]
    trajectory: Array  # [S] which trajectory the step belongs to, 0 .. n-1
    rewards: Array  # [n] sum of the rewards of the trajectory's steps


def check_probabilities(name: str, π: Array) -> None:
    """Raise ValueError unless rows are probabilities: logits would silently ruin training."""
    valid = (π >= 0).all(axis=-1) & (abs(π.sum(axis=-1) - 1) < 1e-3)  # False for NaN
    if not valid.all():
        raise ValueError(f"{name} must give probabilities that sum to 1, got {π[~valid][0]}")


def rollout(θ: Params, config: GRPOConfig, seeds: Iterable[int]) -> Batch:
    """Play one trajectory for each of n seeds, with actions drawn from the policy.

    Trajectories with equal seeds share their start, but each draws its own actions. Equal arguments
    give equal batches.
    """
    seeds = [int(seed) for seed in seeds]  # Gymnasium requires Python ints
    n = len(seeds)
    rng = np.random.default_rng([config.seed, *seeds])
    environment = config.environment(n)
    observations, _ = environment.reset(seed=seeds)
    running = np.ones(n, bool)  # which trajectories have not ended: only these are recorded
    actions = np.zeros(n, int)
    columns: dict[str, list[Array]] = defaultdict(list)  # one list per field of Batch but the last
    for _ in range(config.max_steps):
        seen = observations[running]
        seen.flags.writeable = False  # the batch keeps this array, so no policy may change it
        π = config.policy(θ, seen)  # [r, num_actions], where r trajectories are running
        π_ref = config.reference_policy(seen) if config.reference_policy else π
        check_probabilities("policy", π)
        check_probabilities("reference_policy", π_ref)

        # Draw an action per row: the first whose cumulative probability exceeds a random number.
        cumulative = π.cumsum(axis=-1)
        cumulative = cumulative / cumulative[:, -1:]  # ends at exactly 1, despite rounding
        chosen = (cumulative > rng.random((len(π), 1))).argmax(axis=-1)  # [r]
        row = np.arange(len(π))
        columns["observations"].append(seen)
        columns["actions"].append(chosen)
        columns["π_old"].append(π[row, chosen])
        columns["π_ref"].append(π_ref[row, chosen])
        columns["trajectory"].append(np.flatnonzero(running))

        actions[running] = chosen  # the others repeat their last action
        observations, step_rewards, terminated, truncated, _ = environment.step(actions.copy())
        columns["step_rewards"].append(step_rewards[running])
        running &= ~(terminated | truncated)
        if not running.any():
            break

    steps = {name: np.concatenate(parts) for name, parts in columns.items()}  # [S, ...] each
    rewards = np.bincount(steps["trajectory"], weights=steps["step_rewards"])  # [n] sums
    return Batch(**steps, rewards=rewards)


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """Return (reward - mean of its group) / standard deviation of its group: [n] -> [n]."""
    groups = rewards.reshape(-1, config.G)  # [B, G]
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, keepdims=True)
    # After this division, the scale of rewards hardly matters. If all rewards of a group are equal,
    # there is nothing to learn: 1e-4 turns 0 / 0 into 0. (TRL uses the sample deviation: G - 1.)
    return ((groups - mean) / (std + 1e-4)).reshape(-1)


def kl_divergence(π: Any, π_ref: Array) -> Any:
    """Estimate KL(π ‖ π_ref) at each step, from the probabilities of the action taken: [S] -> [S].

    The divergence is the mean of -log(ratio) over actions drawn from π, where ratio = π_ref / π.
    Equation 4 of DeepSeekMath, also called k3, adds ratio - 1. That is 0 on average, because ratio
    has the mean Σ π (π_ref / π) = Σ π_ref = 1. And since log x <= x - 1, no estimate is negative.

    As a penalty in J it is not exact: the actions come from π_old, and even at π = π_old, its
    gradient is on average that of KL(π_ref ‖ π), the reverse divergence. Both are 0 at π = π_ref.
    """
    ratio = π_ref / π
    return ratio - anp.log(ratio) - 1


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return J, to be maximised: equation 3 of DeepSeekMath.

    J = 1/n Σ_i 1/|o_i| Σ_t (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL)

    where i runs over the n trajectories, and t over the |o_i| steps of trajectory i.
    """
    row = np.arange(len(batch.actions))
    π = config.policy(θ, batch.observations)[row, batch.actions]  # [S]
    ρ = π / batch.π_old  # [S]
    A = grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]

    # At the first gradient step on a batch, π = π_old and ρ = 1. Leaving the divergence aside, J is
    # then 0, because the advantages of a group sum to 0. But ∇J is not: ∇ρ = ∇π / π_old = ∇log π,
    # so ∇J is the mean of A ∇log π. A classifier is trained in the same way, with the action as the
    # label and A as its weight: where A > 0, the action becomes more likely; where A < 0, less so.
    #
    # After that step, ρ moves away from 1, and a batch says little about policies far from the one
    # that played it. So once ρ has gone far enough the right way (up if A > 0, down if A < 0), the
    # minimum is constant, with gradient 0. If ρ went the wrong way, a gradient still pulls it back:
    # with A > 0 and ρ = 0.5, the minimum is 0.5 A; the clip alone would be 0.8 A, a constant. So:
    #
    #                ρ < 1-ε       between       ρ > 1+ε
    #     A > 0      raise ρ       raise ρ      leave it
    #     A < 0     leave it       lower ρ       lower ρ
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)  # [S]
    if config.reference_policy and config.β > 0:
        per_step = per_step - config.β * kl_divergence(π, batch.π_ref)

    # Two known biases: dividing by |o_i| makes a step count less in a long trajectory, and dividing
    # by the standard deviation gives a group whose rewards hardly differ as much weight as any.
    # Dr. GRPO (arXiv 2503.20783) drops both divisions.
    length = np.bincount(batch.trajectory)  # [n] |o_i|
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


# %% Train
# Training: play, compare, adjust, repeat.


@dataclass
class AdamWOptimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), like torch.optim.AdamW. It minimises.

    β1, β2 and ε are Adam's own, not the β and ε of GRPOConfig.
    """

    params: Params
    learning_rate: float = 2e-2
    β1: float = 0.9
    β2: float = 0.999
    ε: float = 1e-8
    λ: float = 0.01  # weight decay

    def __post_init__(self) -> None:
        self.params = dict(self.params)  # leave the caller's dictionary unchanged
        self.m: Params = dict.fromkeys(self.params, 0.0)  # running mean of gradients, initially 0
        self.v = self.m.copy()  # running mean of their squares
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
    """Print about twenty batches. Reward, KL and entropy are from before their gradient steps."""
    if i == 0:
        print("      batch      reward  validation    gradient          KL     entropy")
    if i == 0 or (i + 1) % max(1, config.M // 20) == 0:
        kl = kl_divergence(batch.π_old, batch.π_ref).mean()
        print(
            f"{i + 1:5d}/{config.M:<5d}{batch.rewards.mean():12.3f}{reward_val:12.3f}"
            f"{grad_norm:12.3f}{kl:12.3f}{-np.log(batch.π_old).mean():12.3f}",
            flush=True,
        )


def train_grpo(
    optimizer: AdamWOptimizer,
    config: GRPOConfig,
    objective: Callable[[Params, Batch, GRPOConfig], Any] = grpo_objective,
    report: Callable[[int, GRPOConfig, Batch, float, float], None] = print_progress,
) -> tuple[Params, Array]:
    """Train on M batches; return the parameters, and the validation reward after each batch, [M].

    The learning rate falls linearly towards 0. To train on M more batches, call this again with the
    same optimizer, even after an interruption; the learning rate starts over. `report` is called
    after each batch. Raises FloatingPointError if J or its gradient is not finite.
    """
    rng = np.random.default_rng([config.seed, optimizer.t])  # a second call draws new starts
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, config.B)  # smaller seeds are for validation
        batch = rollout(optimizer.params, config, np.repeat(starts, config.G))  # each G times
        for _ in range(config.μ):
            J, gradient = value_and_grad(objective)(optimizer.params, batch, config)
            norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
            if not np.isfinite(J + norm):
                raise FloatingPointError(f"batch {i + 1}: J is {J}, its gradient has norm {norm}")
            # Clip the norm: π_ref / π, and ρ where A < 0, can make the gradient huge.
            shrink = max(1.0, norm / config.max_grad_norm)
            # Minus, because the optimizer minimises, and J is to be maximised.
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)

        # Always the same seeds, never trained on. (Training does meet nearly all of the fleets.)
        rewards_val[i] = rollout(optimizer.params, config, range(config.num_val)).rewards.mean()
        report(i, config, batch, rewards_val[i], norm)
    return dict(optimizer.params), rewards_val


# %% Run
# Running the file trains the network on Battleship, and shows what was learned.

if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # so that emoji survive a pipe
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
    for when, θ in (("Before", θ_init), ("After", optimizer.params)):
        games = rollout(θ, grpo_config, test_seeds)
        shots = len(games.actions) / len(test_seeds)
        print(f"{when} training: score {games.rewards.mean():.3f}, {shots:.1f} shots per game")

    # `games` now holds those after training. Replay the first.
    game = BattleshipGame(random_fleet(BattleshipRules(), test_seeds[0])[np.newaxis])
    for number, tile in enumerate(games.actions[games.trajectory == 0], 1):
        game.fire(np.array([tile]))
        if number % 4 == 0 or game.finished():
            print(f"After {number} shots (💥 hit, 💦 miss, 🚢 ship, 🌊 water):\n{game}")
    np.savez("battleship_policy.npz", **optimizer.params)
