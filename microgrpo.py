# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization (GRPO), the algorithm behind DeepSeek-R1, in one file.

A small neural network learns Battleship from nothing but playing it: `uv run microgrpo.py`. A game
without a miss scores 1. Random shots score 0.15 on average, firing beside every hit by hand-written
rules 0.40, and the network 0.56 after about a minute. The words of the algorithm:

    policy        the network: from a board to the probability of each shot
    trajectory    one game. Its start is a hidden fleet, each of its steps a shot, the action.
                  (For a language model: trajectory = completion, start = prompt, action = token.)
    reference     a fixed policy to stay near: KL measures how far the policy is from it

And the algorithm, whose letters are explained in `GRPOConfig`:

    repeat M times:
        play each of B starts G times with the policy: B groups of G trajectories
        advantage A of a trajectory, and of each step in it =
            (its reward - mean of its group) / standard deviation of its group
        repeat μ times, as playing is expensive:
            ratio ρ of a step = probability of its action now / when it was taken
            J = mean over trajectories of the mean over their steps of
                min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL(policy ‖ reference)
            take a gradient step that increases J

So whatever the better trajectories of a group did becomes more likely. Not every shot of a good
game is a good shot, but over many games that averages out. J is the clipped objective of PPO; what
is new is that the mean of the group takes the place of PPO's value network. There is no discount
either, and no advantage estimation over time.
"""

import os

# Matrices this small gain nothing from more threads, and lose a lot when other programs are busy.
# This must be set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import autograd.numpy as anp  # NumPy, recorded so that it can be differentiated
import numpy as np
from autograd import value_and_grad
from autograd.tracer import getval

Array = np.ndarray[Any, Any]
Params = dict[str, Any]  # named arrays of floats, or autograd's boxes around them

# %% Game
# Battleship for one player: a board of N x N tiles hides a fleet, every shot uncovers one tile, and
# the game ends when the whole fleet is hit. Brackets such as [N, N] give the shape of an array.


@dataclass(frozen=True)
class BattleshipRules:
    """The side of the board, N tiles, and the length of each ship."""

    board_size: int = 5
    ships: tuple[int, ...] = (2, 3, 4)


@lru_cache(1024)  # a group shares its fleet, and those of held-out games come back
def random_fleet(rules: BattleshipRules, seed: int) -> Array:
    """Draw a fleet uniformly from all legal placements: [N, N], True where a ship lies.

    Raises ValueError if a ship is longer than the board, or if 10,000 draws give no legal fleet.
    """
    N = rules.board_size
    if max(rules.ships) > N:
        raise ValueError(f"a ship is longer than the board: {rules}")
    rng = np.random.default_rng(seed)
    for _ in range(10_000):
        fleet = np.zeros((N, N), bool)
        for length in rules.ships:
            line = rng.integers(N)
            start = rng.integers(N - length + 1)
            lines = fleet if rng.random() < 0.5 else fleet.T  # rows or columns of the same array
            lines[line, start : start + length] = True
        # Overlapping ships cover fewer tiles: then the whole fleet is drawn again.
        if fleet.sum() == sum(rules.ships):
            fleet.flags.writeable = False  # the cache gives everyone the same array
            return fleet
    raise ValueError(f"the ships do not fit on the board together: {rules}")


class BattleshipGame:
    """n games in lockstep, one for each of n fleets, [n, N, N]."""

    def __init__(self, fleets: Array) -> None:
        self.board_size = fleets.shape[-1]
        self.fleets = fleets.reshape(len(fleets), -1)  # [n, N*N] where the ships are
        self.shots = np.zeros_like(self.fleets)  # [n, N*N] where shots fell

    def fire(self, tiles: Array) -> None:
        """Fire one shot in every game, at tiles [n], numbers from 0 to N*N-1.

        Firing at a tile again changes nothing, so a finished game may be stepped on with its last
        shot. A tile off the board raises ValueError.
        """
        if np.min(tiles) < 0 or np.max(tiles) >= self.board_size**2:
            raise ValueError(f"tiles must be 0 .. {self.board_size**2 - 1}, got {tiles}")
        self.shots[np.arange(len(self.shots)), tiles] = True

    def finished(self) -> Any:
        """Return which games are over, [n]."""
        return (self.shots | ~self.fleets).all(axis=1)

    def score(self) -> Array:
        """Return 1 - misses / (tiles of water + 1) where the game is finished, else 0, [n].

        The + 1 keeps the worst finished game above an unfinished one.
        """
        misses = (self.shots & ~self.fleets).sum(axis=1)
        water = (~self.fleets).sum(axis=1)
        return np.where(self.finished(), 1 - misses / (water + 1), 0.0)

    def __str__(self) -> str:
        """Draw the boards one below the other: 🌊 water, 🚢 ship, 💦 miss, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleets + self.shots]
        rows = emoji.reshape(-1, self.board_size)
        return "\n".join("".join(row) for row in rows)


# %% Environment
# All that training asks of a game. From here on a game is a trajectory, and each of its steps is an
# observation and then an action.


class Environment(Protocol):
    """n trajectories in lockstep, with the methods of `gymnasium.vector.VectorEnv`.

    Equal seeds must give equal starts: that is how a group shares one. If an environment ignores
    its seed, luck is taken for skill: training gets worse, without any error. Trajectories that
    have ended are still stepped, with their last action; what is returned for them is ignored.
    """

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start a trajectory for each of n seeds; return observations [n, ...] and info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; return observations [n, ...], rewards, terminated, truncated, info.

        Trajectories end where terminated [n], the game being over, or truncated [n], cut short.
        """


class BattleshipEnv:
    """Battleship: an action is a tile to fire at, the reward is the score once the game is over.

    Observations are boards, float32 [n, N, N]: 0 not fired at, -1 miss, +1 hit. All boards look the
    same at first: the start, which the seed decides and a group shares, is the fleet they hide.
    """

    def __init__(self, num_envs: int, rules: BattleshipRules = BattleshipRules()) -> None:
        self.num_envs = num_envs
        self.rules = rules

    def reset(self, *, seed: Iterable[int]) -> tuple[Array, dict[str, Any]]:
        """Hide a fleet for each of n seeds."""
        fleets = np.stack([random_fleet(self.rules, one_seed) for one_seed in seed])
        self.game = BattleshipGame(fleets)
        return self.observations(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Fire one shot in each game."""
        self.game.fire(actions)
        terminated = self.game.finished()
        truncated = np.zeros(self.num_envs, bool)
        return self.observations(), self.game.score(), terminated, truncated, {}

    def observations(self) -> Array:
        """Show what the shots uncovered, [n, N, N]."""
        N = self.rules.board_size
        boards = np.where(self.game.fleets, 1, -1) * self.game.shots
        return boards.astype(np.float32).reshape(-1, N, N)


# %% Policy
# A network with one hidden layer, from a board to the probability of firing at each tile next.


def neural_battleship_policy_init(
    rules: BattleshipRules = BattleshipRules(), seed: int = 42, hidden: int = 128
) -> Params:
    """Draw the parameters θ, float32, of a network that plays almost at random."""
    rng = np.random.default_rng(seed)
    tiles = rules.board_size**2
    W1 = rng.normal(scale=(tiles / 2) ** -0.5, size=(2 * tiles, hidden))  # half of them fired at
    W2 = rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, tiles))  # 0.1: logits close to 0
    return {
        "W1": W1.astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "W2": W2.astype(np.float32),
    }


def neural_battleship_policy(θ: Params, observation: Array) -> Any:
    """Map boards [..., N, N] to the probability of each next shot, [..., N*N]."""
    board = observation.reshape(*observation.shape[:-2], -1)  # [..., N*N]
    hits_and_misses = np.concatenate([board == 1, board == -1], axis=-1).astype(np.float32)
    h = anp.tanh(hits_and_misses @ θ["W1"] + θ["b1"])  # [..., hidden]
    logits = h @ θ["W2"]  # [..., N*N]

    # Tiles fired at get probability exp(-1e9), which is 0. The mask is in the policy and not in the
    # sampling, so that training sees the same probabilities as play.
    logits = logits - np.float32(1e9) * (board != 0)
    # Softmax. The shift by the maximum cancels out; it keeps exp in range, and needs no gradient:
    # getval(logits) is logits.detach() in PyTorch.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> Any:
    """Fire at random: equal probabilities [..., N*N] for all tiles not fired at.

    For a language model the reference is the model before training, so that the trained model does
    not forget how to write. Here it is random play, and a policy kept near it keeps exploring.
    """
    possible = observation.reshape(*observation.shape[:-2], -1) == 0
    return possible / possible.sum(axis=-1, keepdims=True)


# %% GRPO
# The algorithm of DeepSeekMath (arXiv 2402.03300, section 4.1), with its symbols.


@dataclass(frozen=True)
class GRPOConfig:
    """What to learn, and how. Raises ValueError for a number below its minimum, or NaN."""

    environment: Callable[[int], Environment]  # n -> n trajectories in lockstep
    policy: Callable[[Params, Array], Any]  # (θ, observations) -> probabilities [n, actions]
    reference_policy: Callable[[Array], Array] | None = None  # observations -> probabilities
    ε: float = 0.2  # probability ratios are clipped to 1-ε .. 1+ε
    β: float = 0.001  # weight of the KL divergence from the reference policy, if there is one
    G: int = 8  # trajectories per group, all from the same start
    B: int = 32  # groups per mini-batch
    M: int = 2000  # mini-batches: rounds of playing and learning
    μ: int = 2  # gradient steps per mini-batch
    R: int = 1  # each gradient step draws one of the last R mini-batches; R > 1 replays old games
    max_steps: int = 1000  # longer trajectories are cut
    max_grad_norm: float = 0.2  # larger gradients are scaled down to this norm
    num_val: int = 64  # held-out trajectories played after each mini-batch
    seed: int = 42  # everything random in training follows from it

    def __post_init__(self) -> None:
        # With G = 1 every advantage would be 0. max_grad_norm must be above 0.
        minima = dict(ε=0, β=0, G=2, B=1, M=1, μ=1, R=1, max_steps=1, max_grad_norm=1e-9, num_val=1)
        for name, minimum in minima.items():
            value = getattr(self, name)
            if not value >= minimum:  # so that NaN is refused too
                raise ValueError(f"{name} must be at least {minimum}, got {value}")


class Batch(NamedTuple):
    """All S steps of n trajectories, in the order played, and the n rewards.

    In training, trajectory i is in group i // G. With invented numbers, a group of G = 2 whose
    trajectory 0 took three steps and whose trajectory 1 took one:

        observations   actions   π_old   π_ref   trajectory
        a board             12    0.04    0.04            0
        a board              3    0.05    0.04            1        rewards = [0.2, 0.8]
        a board             13    0.31    0.04            0        so that A = [-1, 1]
        a board             17    0.66    0.05            0
    """

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] probability of the action under the reference; if there is none, π_old
    trajectory: Array  # [S] which trajectory the step belongs to, 0 .. n-1
    rewards: Array  # [n] sum of the rewards of the trajectory's steps


def rollout(θ: Params, config: GRPOConfig, seeds: Iterable[int]) -> Batch:
    """Play n trajectories, one per seed, with actions drawn from the policy.

    The same θ, config and seeds give the same trajectories. Raises ValueError if the policy does
    not give probabilities, or if the environment's observations are not one array.
    """
    seeds = [int(seed) for seed in seeds]  # Gymnasium insists on Python ints
    n = len(seeds)
    rng = np.random.default_rng([config.seed, *seeds])
    environment = config.environment(n)
    observations, _ = environment.reset(seed=seeds)
    if not isinstance(observations, np.ndarray):
        raise ValueError(f"observations must be one array, got {type(observations)}")

    running = np.arange(n)  # the trajectories that have not ended
    actions = np.zeros(n, int)
    rewards = np.zeros(n)
    played: dict[str, list[Array]] = defaultdict(list)
    for _ in range(config.max_steps):
        seen = observations[running]
        π = config.policy(θ, seen)  # [running, actions]
        if not (π.min() >= 0 and abs(π.sum(axis=-1) - 1).max() < 1e-3):  # NaN is refused too
            raise ValueError(f"policy must give probabilities that sum to 1, got {π}")
        # Exact sampling: of arrival times Exponential(1) / π, that of action a is the smallest with
        # probability π_a, and never where π_a = 0. The smallest time has the largest inverse.
        sampled = (π / rng.standard_exponential(π.shape)).argmax(axis=-1)
        played["observations"].append(seen)
        played["actions"].append(sampled)
        played["π_old"].append(π[np.arange(running.size), sampled])
        played["trajectory"].append(running)

        actions[running] = sampled  # the others repeat their last action
        observations, step_rewards, terminated, truncated, _ = environment.step(actions.copy())
        rewards[running] += step_rewards[running]
        ended = np.logical_or(terminated, truncated)  # [n]
        running = running[~ended[running]]
        if running.size == 0:
            break

    columns = {name: np.concatenate(pieces) for name, pieces in played.items()}  # [S, ...] each
    π_ref = columns["π_old"]
    if config.reference_policy is not None:
        reference = config.reference_policy(columns["observations"])  # [S, actions]
        π_ref = reference[np.arange(len(reference)), columns["actions"]]
    return Batch(**columns, π_ref=π_ref, rewards=rewards)


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """Return how much better than the mean of its group each trajectory did, [n] -> [n].

    Advantages are in standard deviations of the group, so the scale of rewards does not matter, and
    groups whose rewards hardly differ count like all others.
    """
    groups = rewards.reshape(-1, config.G)  # [B, G]
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, keepdims=True)
    # Where all rewards of a group are equal, 1e-4 makes the advantages 0 instead of 0 / 0.
    advantages: Array = (groups - mean) / (std + 1e-4)
    return advantages.reshape(-1)


def kl_divergence(π: Any, π_ref: Array) -> Any:
    """Estimate KL(π ‖ π_ref) at each step from the probabilities of the action taken: [S] -> [S].

    DeepSeekMath's equation 4, known as k3. The divergence is the mean of -log ratio over actions
    drawn from π. Adding ratio - 1, which is 0 on average, does not change that mean and makes each
    term at least 0, since x - 1 >= log x. In J it only stands in for the divergence: actions were
    drawn from π_old, and even where that is π, its gradient is on average that of KL(π_ref ‖ π).
    """
    ratio = π_ref / π
    return ratio - anp.log(ratio) - 1


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return J, which is to be maximised: DeepSeekMath's equation 3.

    J = 1/n Σ_i 1/|o_i| Σ_t (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL): the mean over n trajectories of
    the mean over the |o_i| steps of each.
    """
    every_step = np.arange(len(batch.actions))
    π = config.policy(θ, batch.observations)[every_step, batch.actions]  # [S]
    ρ = π / batch.π_old  # [S]
    A = grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]

    # At the first gradient step ρ is 1, and the mean of A is 0. The gradient is not: it is the mean
    # of A ∇log π, which makes an action likelier where A > 0 and less likely where A < 0.
    #
    # Later ρ moves away from 1, and a batch is a guide only near the policy that played it. So if
    # A > 0, nothing is gained by moving ρ above 1+ε; if A < 0, nothing by moving it below 1-ε. If ρ
    # has moved the wrong way, the minimum keeps the worse value, so that ρ is pulled back.
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)  # [S]
    if config.reference_policy is not None:
        per_step = per_step - config.β * kl_divergence(π, batch.π_ref)

    length = np.bincount(batch.trajectory)  # [n] |o_i|
    # Dividing by |o_i| makes a step count less in a long trajectory than in a short one. Dr. GRPO
    # (arXiv 2503.20783) drops this, and the division by the standard deviation.
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


# %% Train
# Play, compare, adjust, repeat.


@dataclass
class AdamWOptimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), as in `torch.optim.AdamW`: it minimises.

    β1, β2 and ε are Adam's own, not the β and ε of GRPOConfig.
    """

    params: Params
    learning_rate: float = 3e-4
    β1: float = 0.9
    β2: float = 0.999
    ε: float = 1e-8
    λ: float = 0.01  # weight decay

    def __post_init__(self) -> None:
        self.params = {name: value.copy() for name, value in self.params.items()}
        self.m = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.params.items()}
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
            decayed = (1 - α * self.λ) * self.params[name]
            self.params[name] = decayed - α * m_hat / (np.sqrt(v_hat) + self.ε)


def print_progress(i: int, metrics: dict[str, Any]) -> None:
    """Keep one line up to date in a terminal; elsewhere, print a line every tenth of the way."""
    done = i + 1
    M = metrics["M"]
    line = f"mini-batch {done:4d}/{M}"
    for name in ("reward", "reward_val", "kl", "entropy"):
        line += f"  {name} {metrics[name]:.3f}"
    if sys.stdout.isatty() and done < M:
        print(line, end="  \r", flush=True)
    elif done in (1, M) or done % max(1, M // 10) == 0:
        print(line)


def train_grpo(
    optimizer: AdamWOptimizer,
    config: GRPOConfig,
    objective: Callable[..., Any] | None = None,
    report: Callable[..., None] = print_progress,
) -> tuple[Params, Array]:
    """Train for M mini-batches; return the parameters and the held-out reward after each, [M].

    The objective, to be maximised, is grpo_objective unless another is passed. After mini-batch i,
    report(i, metrics) gets a dictionary of

        reward        mean over the trajectories of the mini-batch
        reward_val    mean over held-out seeds, played after the gradient steps
        kl, entropy   mean over the steps of the mini-batch, in nats
        length        mean number of steps of a trajectory
        flat_groups   share of groups whose rewards are all equal, so that all advantages are 0
        grad_norm     norm of the last gradient, before it is scaled down
        objective     list of J at each gradient step
        batch         the mini-batch itself
        M             number of mini-batches in all

    To continue, even after an interruption, call it again with the same optimizer: starts are new,
    the learning rate and the replay buffer start over. Raises FloatingPointError if a gradient is
    not finite, and leaves the last finite parameters in the optimizer.
    """
    objective = objective or grpo_objective  # the latest one, if its notebook cell was run again
    rng = np.random.default_rng([config.seed, optimizer.t])  # another call, other starts
    replay_buffer: deque[Batch] = deque(maxlen=config.R)
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, size=config.B)  # above the held-out seeds
        batch = rollout(optimizer.params, config, np.repeat(starts, config.G))  # G of each start
        replay_buffer.append(batch)

        objectives = []
        for _ in range(config.μ):
            drawn = replay_buffer[rng.integers(len(replay_buffer))]  # R = 1: the one above
            J, gradient = value_and_grad(objective)(optimizer.params, drawn, config)
            objectives.append(float(J))
            norm = float(np.sqrt(sum(np.sum(g**2) for g in gradient.values())))
            if not np.isfinite(norm):
                raise FloatingPointError(f"mini-batch {i + 1}: the norm of the gradient is {norm}")
            # Gradient clipping: a rare action can have a huge π_ref / π.
            shrink = max(1.0, norm / config.max_grad_norm)
            # J is to be maximised and the optimizer minimises: hence the minus.
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)  # falls linearly towards 0

        # The same seeds each time, so that rewards compare. They are not starts that training never
        # met: a board as small as the default one has only 9,024 placements of its fleet.
        held_out = rollout(optimizer.params, config, range(config.num_val))
        rewards_val[i] = held_out.rewards.mean()
        groups = batch.rewards.reshape(-1, config.G)
        metrics = {
            "reward": float(batch.rewards.mean()),
            "reward_val": float(rewards_val[i]),
            "kl": float(kl_divergence(batch.π_old, batch.π_ref).mean()),
            "entropy": float(-np.log(batch.π_old).mean()),
            "length": len(batch.actions) / len(batch.rewards),
            "flat_groups": float((np.ptp(groups, axis=1) == 0).mean()),
            "grad_norm": norm,
            "objective": objectives,
            "batch": batch,
            "M": config.M,
        }
        report(i, metrics)
    return optimizer.params.copy(), rewards_val  # a copy: the optimizer may go on


# %% Run

if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can show a ship
    grpo_config = GRPOConfig(
        environment=BattleshipEnv,
        policy=neural_battleship_policy,
        reference_policy=reference_battleship_policy,
    )
    θ_init = neural_battleship_policy_init()
    θ_star, rewards_val = train_grpo(AdamWOptimizer(θ_init, learning_rate=1.5e-2), grpo_config)
    np.savez("battleship_policy.npz", **θ_star)

    test_seeds = range(2**31, 2**31 + 2000)  # training draws from the seeds below
    score = rollout(θ_star, grpo_config, test_seeds).rewards.mean()
    print(f"Mean score of {len(test_seeds)} new games: {score:.3f}; of random shots: 0.153")

    shots = rollout(θ_star, grpo_config, test_seeds[:1]).actions
    game = BattleshipGame(random_fleet(BattleshipRules(), test_seeds[0])[np.newaxis])
    for number, tile in enumerate(shots, start=1):
        game.fire(tile)
        if number % 4 == 0 or game.finished():
            print(f"Another game on the first of these boards, after {number} shots:\n{game}")
