# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization (GRPO), the algorithm behind DeepSeek-R1, in one file.

A small neural network learns Battleship from nothing but playing it: `uv run microgrpo.py`. A game
without a miss scores 1. Random shots score 0.15 on average, the usual hand-written strategy 0.40,
and the network 0.56 after about a minute of training. Terms used below:

    policy        the network; it maps a board to the probability of each shot
    trajectory    one game. Its start is a hidden fleet, each step a board and a shot, the action.
                  (For a language model: trajectory = completion, start = prompt, action = token.)
    reference     a fixed policy to stay near; the KL divergence measures how far away the policy is

The algorithm, in which M, B, G, μ, ε and β are fields of `GRPOConfig`:

    repeat M times:
        draw B starts and play each G times with the policy: B groups of G trajectories
        advantage A of a trajectory, and of each step in it =
            (its reward - mean of its group) / standard deviation of its group
        repeat μ times, to learn more from each game:
            ratio ρ of a step = probability of its action now / when it was taken
            J = mean over trajectories of the mean over their steps of
                min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL(policy ‖ reference)
            take a gradient step that increases J

So whatever the better trajectories of a group did becomes more likely. Not every shot of a good
game is a good shot, but over many games that averages out. The min and the clip come from PPO,
which trains a second network to predict the reward; here the mean of the group does that job.
There is no discount either, and no advantage estimation over time (GAE).
"""

import os

# Matrices this small are no faster on more threads, and much slower when the machine is busy. This
# must be set before NumPy is imported.
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
Params = dict[str, Any]  # named arrays of floats, or autograd's wrappers around them

# %% Game
# Battleship for one player: a board of N x N tiles hides a fleet, every shot uncovers one tile, and
# the game ends when the whole fleet is hit. Brackets such as [N, N] give the shape of an array.


@dataclass(frozen=True)
class BattleshipRules:
    """The side of the board, N tiles, and the length of each ship."""

    board_size: int = 5
    ships: tuple[int, ...] = (2, 3, 4)


@lru_cache(1024)  # a group shares its fleet, and held-out fleets are used again and again
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
        # Overlapping ships cover fewer tiles. If so, draw the whole fleet again.
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

        Firing at a tile again changes nothing, so it is harmless to repeat the last shot of a game
        that is over. A tile off the board raises ValueError.
        """
        if np.min(tiles) < 0 or np.max(tiles) >= self.board_size**2:
            raise ValueError(f"tiles must be 0 .. {self.board_size**2 - 1}, got {tiles}")
        self.shots[np.arange(len(self.shots)), tiles] = True

    def finished(self) -> Array:
        """Return which games are over, [n]."""
        return np.array((self.shots | ~self.fleets).all(axis=1))

    def score(self) -> Array:
        """Return 1 - misses / (tiles of water + 1) where the game is finished, else 0, [n].

        The + 1 keeps the worst finished game above an unfinished one.
        """
        misses = (self.shots & ~self.fleets).sum(axis=1)
        water = (~self.fleets).sum(axis=1)
        return np.where(self.finished(), 1 - misses / (water + 1), 0.0)

    def __str__(self) -> str:
        """Draw the boards, stacked: 🌊 water, 🚢 ship, 💦 miss, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleets + self.shots]
        rows = emoji.reshape(-1, self.board_size)
        return "\n".join("".join(row) for row in rows)


# %% Environment
# All that training asks of a game. From here on a game is a trajectory, and each of its steps is an
# observation and then an action.


class Environment(Protocol):
    """n trajectories in lockstep, with `reset` and `step` as in `gymnasium.vector.VectorEnv`.

    Equal seeds must give equal starts: that is how a group shares one. If an environment ignores
    its seeds, luck is taken for skill, and training silently gets worse. Trajectories that have
    ended are still stepped, with their last action; what is returned for them is ignored.
    """

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start a trajectory for each of n seeds; return observations [n, ...] and info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; return observations [n, ...], rewards, terminated, truncated, info.

        A trajectory ends when terminated (the game is over) or truncated (cut short), both [n].
        """


class BattleshipEnv:
    """Battleship: an action is a tile to fire at, the reward is 0 until the game is over.

    From then on, every step returns the score. Observations are boards, float32 [n, N, N]: 0 not
    fired at, -1 miss, +1 hit. All boards look the same at first; the seed decides the hidden fleet,
    which a group shares.
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
    W1 = rng.normal(scale=(tiles / 2) ** -0.5, size=(2 * tiles, hidden))  # half the tiles are known
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

    # Tiles fired at get probability 0, as exp underflows. The mask is in the policy and not in the
    # sampling, so that training sees the same probabilities as play.
    logits = logits - np.float32(1e9) * (board != 0)
    # Softmax. The shift by the maximum cancels out; it keeps exp in range, and needs no gradient:
    # getval(logits) is logits.detach() in PyTorch.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> Any:
    """Fire at random: equal probabilities [..., N*N] for all tiles not fired at.

    For a language model, the reference is the model as it was before GRPO, so that it does not
    forget how to write. Here it is random play, and a policy kept near it keeps exploring.
    """
    unknown = observation.reshape(*observation.shape[:-2], -1) == 0
    return unknown / unknown.sum(axis=-1, keepdims=True)


# %% GRPO
# The algorithm of DeepSeekMath (arXiv 2402.03300, section 4.1), mostly with its symbols.


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
    R: int = 1  # each gradient step uses one of the last R mini-batches, drawn at random
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
    """All S steps of n trajectories, first steps first, and the n rewards.

    In training, trajectory i is in group i // G. A group of G = 2 in a shorter game, with invented
    numbers, in which trajectory 0 took three steps and trajectory 1 took one:

        observations   actions   π_old   π_ref   trajectory
        a board             12    0.04    0.04            0
        a board              3    0.05    0.04            1
        a board             13    0.31    0.04            0
        a board             17    0.66    0.04            0

        rewards = [0.2, 0.8], so that A is about [-1, 1]
    """

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] probability of the action under the reference, or π_old if there is none
    trajectory: Array  # [S] which trajectory the step belongs to, 0 .. n-1
    rewards: Array  # [n] sum of the rewards of the trajectory's steps


def rollout(θ: Params, config: GRPOConfig, seeds: Iterable[int]) -> Batch:
    """Play n trajectories, one per seed, with actions drawn from the policy.

    The same θ, config and seeds give the same trajectories; equal seeds differ only in the actions
    drawn. Raises ValueError if the policy does not give probabilities, or if observations are not
    one array but, for example, a dictionary of them.
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
    played: dict[str, list[Array]] = defaultdict(list)  # keys are fields of Batch
    for _ in range(config.max_steps):
        seen = observations[running]
        π = config.policy(θ, seen)  # [running.size, actions]
        if not (π.min() >= 0 and abs(π.sum(axis=-1) - 1).max() < 1e-3):  # NaN is refused too
            raise ValueError(f"policy must give probabilities that sum to 1, got {π}")
        # Draw actions by an exponential race: if action a arrives after a time E_a / π_a, where E_a
        # is Exponential(1), it comes first with probability π_a. argmin(E / π) is argmax(π / E).
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
        if not running.size:
            break

    columns = {name: np.concatenate(pieces) for name, pieces in played.items()}  # [S, ...] each
    π_ref = columns["π_old"]  # without a reference, so that the divergence is 0
    if config.reference_policy is not None:
        reference = config.reference_policy(columns["observations"])  # [S, actions]
        π_ref = reference[np.arange(len(reference)), columns["actions"]]
    return Batch(**columns, π_ref=π_ref, rewards=rewards)


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """Return how much better than the mean of its group each trajectory did, [n] -> [n].

    Advantages are in standard deviations of the group, so that the scale of rewards hardly matters.
    """
    groups = rewards.reshape(-1, config.G)  # [B, G]
    mean = groups.mean(axis=1, keepdims=True)
    std = groups.std(axis=1, keepdims=True)
    # Where all rewards of a group are equal, 1e-4 makes the advantages 0 instead of 0 / 0.
    advantages: Array = (groups - mean) / (std + 1e-4)
    return advantages.reshape(-1)


def kl_divergence(π: Any, π_ref: Array) -> Any:
    """Estimate KL(π ‖ π_ref) at each step from the probabilities of the action taken: [S] -> [S].

    DeepSeekMath's equation 4, also called k3. With ratio = π_ref / π, the divergence is the mean of
    -log ratio over actions drawn from π. Adding ratio - 1, which is 0 on average, does not change
    that mean, and makes each term at least 0.

    A caveat: in J this is not the exact penalty. The actions come from π_old, and even at π = π_old
    the gradient, (1 - ratio) ∇log π, is on average that of KL(π_ref ‖ π).
    """
    ratio = π_ref / π
    return ratio - anp.log(ratio) - 1


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Return J, which is to be maximised: DeepSeekMath's equation 3.

    J = 1/n Σ_i 1/|o_i| Σ_t (min(ρ A, clip(ρ, 1-ε, 1+ε) A) - β KL), where n is the number of
    trajectories and |o_i| the number of steps of trajectory i.
    """
    steps = np.arange(len(batch.actions))
    π = config.policy(θ, batch.observations)[steps, batch.actions]  # [S]
    ρ = π / batch.π_old  # [S]
    A = grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]

    # At the first gradient step on a new batch ρ is 1, and the mean of ρ A is that of A, which is
    # 0. Its gradient is not 0: there ∇ρ = ∇π / π_old = ∇log π, so it is the mean of A ∇log π, which
    # makes an action more likely if A > 0 and less likely if A < 0.
    #
    # Later ρ moves away from 1, and a batch says little about policies far from the one that played
    # it. So if A > 0, nothing is gained by moving ρ above 1+ε; if A < 0, nothing by moving it below
    # 1-ε. If ρ has moved the wrong way, the minimum keeps the worse value and pulls it back: with
    # A > 0 and ρ = 0.5, it is 0.5 A and not 0.8 A, so that the gradient still raises ρ.
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)  # [S]
    if config.reference_policy is not None:
        per_step = per_step - config.β * kl_divergence(π, batch.π_ref)

    # Two known biases: dividing by |o_i| makes a step count less in a long trajectory than in a
    # short one, and dividing A by the standard deviation makes groups whose rewards hardly differ
    # count like all others. Dr. GRPO (arXiv 2503.20783) drops both.
    length = np.bincount(batch.trajectory)  # [n] |o_i|
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
        α = float(self.learning_rate * lr_scale)  # NumPy's would turn float32 into float64
        for name, g in gradient.items():
            self.m[name] = self.β1 * self.m[name] + (1 - self.β1) * g
            self.v[name] = self.β2 * self.v[name] + (1 - self.β2) * g**2
            m_hat = self.m[name] / (1 - self.β1**self.t)
            v_hat = self.v[name] / (1 - self.β2**self.t)
            decayed = (1 - α * self.λ) * self.params[name]
            self.params[name] = decayed - α * m_hat / (np.sqrt(v_hat) + self.ε)


def print_progress(i: int, metrics: dict[str, Any]) -> None:
    """Keep one line up to date in a terminal; elsewhere, print about ten lines in all."""
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
        kl, entropy   in nats, estimated from the actions taken in the mini-batch
        length        mean number of steps of a trajectory
        flat_groups   share of groups whose rewards are all equal, so that all advantages are 0
        grad_norm     norm of the last gradient, before it is scaled down
        objective     list of J at each gradient step (close to 0 at the first)
        batch         the mini-batch itself
        M             number of mini-batches in all

    The learning rate falls linearly towards 0. To continue, even after an interruption, call this
    again with the same optimizer: it draws new starts, and the learning rate starts over. Raises
    FloatingPointError if a gradient is not finite; the optimizer keeps the last finite parameters.
    """
    objective = objective or grpo_objective  # so that a notebook may redefine grpo_objective
    rng = np.random.default_rng([config.seed, optimizer.t])  # a second call draws other starts
    replay_buffer: deque[Batch] = deque(maxlen=config.R)
    rewards_val = np.zeros(config.M)
    for i in range(config.M):
        starts = rng.integers(config.num_val, 2**31, config.B)  # not held-out seeds
        batch = rollout(optimizer.params, config, np.repeat(starts, config.G))  # each G times
        replay_buffer.append(batch)

        objectives = []
        for _ in range(config.μ):
            drawn = replay_buffer[rng.integers(len(replay_buffer))]  # R = 1: this batch
            J, gradient = value_and_grad(objective)(optimizer.params, drawn, config)
            objectives.append(float(J))
            norm = float(np.sqrt(sum(np.sum(g**2) for g in gradient.values())))
            if not np.isfinite(norm):
                raise FloatingPointError(f"mini-batch {i + 1}: the norm of the gradient is {norm}")
            # Clip the gradient's norm: a rare action can have a huge π_ref / π in its divergence.
            shrink = max(1.0, norm / config.max_grad_norm)
            # J is to be maximised and the optimizer minimises: hence the minus.
            descent = {name: -g / shrink for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / config.M)

        # Always the same seeds, so that rewards are comparable. Only the seeds are held out: the
        # default board has just 9,024 placements of the fleet, and training meets most of them.
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
    return optimizer.params.copy(), rewards_val  # a copy: the optimizer may be used again


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

    test_seeds = range(2**31, 2**31 + 2000)  # training uses only smaller seeds
    score = rollout(θ_star, grpo_config, test_seeds).rewards.mean()
    print(f"Mean score of {len(test_seeds)} other games: {score:.3f}; random shots: 0.153")

    shots = rollout(θ_star, grpo_config, test_seeds[:1]).actions
    game = BattleshipGame(random_fleet(BattleshipRules(), test_seeds[0])[np.newaxis])
    for number, tile in enumerate(shots, 1):
        game.fire(tile)
        if number % 4 == 0 or game.finished():
            print(f"A game on the first of these boards, after {number} shots:\n{game}")
