# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "numpy>=2"]
# ///
"""Group Relative Policy Optimization, all of it, in one file that you can read in one sitting.

A small neural network learns Battleship from nothing but playing it: it plays several games from
the same start, and whatever the better ones did becomes more likely. Below are the game, the
environment, the policy, the GRPO objective and the training loop; nothing refers downward.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Protocol, get_args

if __name__ == "__main__":
    # Matrices this small gain nothing from BLAS threads, and suffer when other programs are busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import autograd.numpy as anp  # NumPy that records what it computes, to differentiate it
import numpy as np
from autograd import value_and_grad
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Any]  # named float arrays, or autograd's boxes around them


def check(kind: type[Any], low: float, high: float = np.inf, **fields: Any) -> None:
    """Raise a ValueError naming the field unless each is a number of this kind in [low, high)."""
    for name, value in fields.items():
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value < high:
            raise ValueError(f"{name} must be {kind.__name__} in [{low}, {high}), got {value!r}")


# %% Game
# A board of N x N tiles hides a fleet; every shot uncovers one tile, until the whole fleet is hit.


@lru_cache
def ship_slots(board_size: int, length: int) -> NDArray[np.int8]:
    """List every place where a ship of this length fits, as zeros and ones [slots, N, N]."""
    tile, start = np.arange(board_size), np.arange(board_size - length + 1)[:, None]
    line = (start <= tile) & (tile < start + length)  # [starts, N]
    # Each such line in each row: [N * starts, N, N].
    across = np.kron(np.eye(board_size, dtype=np.int8), line).reshape(-1, board_size, board_size)
    return np.concatenate([across, across.swapaxes(1, 2)])


@dataclass(frozen=True)
class BattleshipRules:
    """Side of the board in tiles, and the length of each ship; ValueError unless they fit."""

    board_size: int = 5
    ships: tuple[int, ...] = (2, 3, 4)

    def __post_init__(self) -> None:
        check(Integral, 1, board_size=self.board_size)
        if not isinstance(self.ships, tuple) or not self.ships:
            raise ValueError(f"ships must be a tuple of lengths, got {self.ships!r}")
        for length in self.ships:
            check(Integral, 1, self.board_size + 1, ships=length)
        check(Integral, 1, self.board_size**2 + 1, tiles_of_ships=sum(self.ships))
        self.random_fleet(seed=0)  # raises a ValueError unless they fit

    @lru_cache(maxsize=4096, typed=True)  # noqa: B019 - held-out fleets come back again and again
    def random_fleet(self, seed: int) -> NDArray[np.bool_]:
        """Draw a fleet [N, N], all legal placements alike: throw ships until none overlap.

        Raises ValueError if none of 100,000 throws is legal: the ships fit rarely or never.
        """
        check(Integral, 0, seed=seed)
        rng = np.random.default_rng(seed)
        slots = [ship_slots(self.board_size, length) for length in self.ships]
        for throws in (32, 100_000):
            fleets = np.sum([slot[rng.integers(len(slot), size=throws)] for slot in slots], axis=0)
            legal = (fleets <= 1).all(axis=(1, 2))
            if legal.any():
                return np.asarray(fleets[legal.argmax()], np.bool_)
        raise ValueError(f"ships={self.ships} fit board_size={self.board_size} rarely or never")


@dataclass(frozen=True, eq=False)
class BattleshipGame:
    """Solo games played in lockstep; leading dimensions, if any, are batch dimensions."""

    fleet: NDArray[np.bool_]  # [..., N, N] where the ships are
    shots: NDArray[np.bool_]  # [..., N, N] where the shots fell

    @cached_property
    def finished(self) -> NDArray[np.bool_]:
        """Whether the whole fleet is hit, [...]."""
        return np.asarray((self.shots | ~self.fleet).all(axis=(-2, -1)))

    def score(self) -> NDArray[np.float64]:
        """1 - misses / (tiles of water + 1) for a finished game, 0 for any other, [...]."""
        misses = (self.shots & ~self.fleet).sum(axis=(-2, -1))
        return np.where(self.finished, 1 - misses / ((~self.fleet).sum(axis=(-2, -1)) + 1), 0.0)

    def fire(self, tiles: Array | int) -> "BattleshipGame":
        """Shoot at one of the N*N tiles of each game, tiles [...]; finished games stay as they are.

        Raises ValueError for a tile that is off the board or was fired at before.
        """
        shot = np.equal.outer(tiles, np.arange(self.fleet.shape[-1] ** 2)).reshape(self.fleet.shape)
        legal = self.finished | (shot & ~self.shots).any(axis=(-2, -1))
        if not legal.all():
            raise ValueError(f"actions must be unknown tiles, got {np.asarray(tiles)[~legal]}")
        return BattleshipGame(self.fleet, self.shots | (shot & ~self.finished[..., None, None]))

    def __str__(self) -> str:
        """Draw the boards side by side: 🌊 no ship, 🚢 ship, 💦 miss, 💥 hit."""
        emoji = np.array(["🌊", "💦", "🚢", "💥"])[2 * self.fleet + self.shots]
        lines = emoji.reshape(-1, *emoji.shape[-2:]).swapaxes(0, 1)  # [N, boards, N]
        return "\n".join("  ".join(map("".join, line)) for line in lines)


# %% Environment
# All that training asks of a game: episodes that are reset and stepped together.


class Environment(Protocol):
    """n episodes in lockstep, with the signatures of `gymnasium.vector.VectorEnv`."""

    def reset(self, *, seed: Any) -> tuple[Array, dict[str, Any]]:
        """Start n episodes from n seeds, alike if equal; give observations [n, ...], info."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take actions [n]; give observations [n, ...], rewards, terminated, truncated, info."""


class BattleshipEnv:
    """Games of Battleship for a single player; the last shot of a game is rewarded with its score.

    Observations are float32 [n, N, N]: 0 fog of war, -1 miss, +1 hit. Actions are tiles to fire at.
    """

    def __init__(self, num_envs: int, rules: BattleshipRules = BattleshipRules()) -> None:
        check(Integral, 1, num_envs=num_envs)
        if not isinstance(rules, BattleshipRules):
            raise ValueError(f"rules must be BattleshipRules, got {rules!r}")
        self.num_envs, self.rules = num_envs, rules

    def reset(self, *, seed: Sequence[int]) -> tuple[Array, dict[str, Any]]:
        """Hide a fleet for each of the n seeds, integers from 0; ValueError for anything else."""
        if np.shape(seed) != (self.num_envs,):
            raise ValueError(f"seed must hold num_envs={self.num_envs} integers, got {seed!r}")
        fleet = np.array([self.rules.random_fleet(fleet_seed) for fleet_seed in seed])
        self.game = BattleshipGame(fleet, shots=np.zeros_like(fleet))
        return np.zeros(fleet.shape, np.float32), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Fire one shot in every game, ignored where it is over; ValueError for an illegal one."""
        if np.shape(actions) != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {actions!r}")
        before, self.game = self.game, self.game.fire(actions)
        shots, fleet = self.game.shots, self.game.fleet
        observations = np.subtract(shots & fleet, shots & ~fleet, dtype=np.float32)
        rewards, terminated = self.game.score() * ~before.finished, self.game.finished
        return observations, rewards, terminated, np.zeros_like(terminated), {}


# %% Policy
# A network from what is known of a board to the probabilities of the next shot.


# anp.tanh, but its derivative is taken from h = tanh(z) itself: autograd's needs a cosh, which is
# slow. The inner function turns the gradient with respect to h into the one with respect to z.
tanh = primitive(np.tanh)
defvjp(tanh, lambda h, _: lambda g: g * (1 - h * h))


@lru_cache
def board_symmetries(board_size: int) -> NDArray[np.float32]:
    """Turn and mirror a board in 8 ways: which tile comes to each place, one-hot [N, N, 8, N*N]."""
    board = np.eye(board_size**2, dtype=np.float32).reshape(board_size, board_size, -1)
    return np.stack([np.rot90(b, k) for b in (board, board.swapaxes(0, 1)) for k in range(4)], 2)


def neural_battleship_policy_init(
    rules: BattleshipRules = BattleshipRules(), seed: int = 42, hidden: int = 16
) -> Params:
    """Draw the parameters of a network of 8 * hidden units that plays almost at random.

    They are W1 [2, N*N, hidden] for hits and misses, b1 [hidden] and W2 [N*N, hidden].
    """
    check(Integral, 0, seed=seed)
    check(Integral, 1, hidden=hidden)
    rng, tiles = np.random.default_rng(seed), rules.board_size**2
    W1 = rng.normal(scale=(2 * tiles) ** -0.5, size=(2, tiles, hidden)).astype(np.float32)
    W2 = rng.normal(scale=0.1 * (8 * hidden) ** -0.5, size=(tiles, hidden)).astype(np.float32)
    return {"W1": W1, "b1": np.zeros(hidden, np.float32), "W2": W2}


def neural_battleship_policy(θ: Params, observation: Array) -> Any:
    """Map boards [..., N, N] to the probabilities [..., N*N] of the next shot, 0 where one fell.

    What helps on one side of the board helps on the others: every hidden unit comes in eight
    copies, one for each symmetry of the board, that share their weights.
    """
    board = observation.reshape(*observation.shape[:-2], -1)  # [..., N*N]
    hits_and_misses = np.concatenate([board == 1, board == -1], axis=-1).astype(np.float32)
    # The product writes each unit's weights in eight orders, the reshape makes each order a unit.
    symmetries = board_symmetries(observation.shape[-1]).reshape(-1, board.shape[-1])
    W1 = (symmetries @ θ["W1"]).reshape(hits_and_misses.shape[-1], -1)  # [2 * N*N, 8 * hidden]
    W2 = (symmetries @ θ["W2"]).reshape(board.shape[-1], -1)  # [N*N, 8 * hidden]
    h = tanh(hits_and_misses @ W1 + anp.tile(θ["b1"], 8))  # [..., 8 * hidden]
    logits = h @ W2.T + np.float32(-3e38) * (board != 0)  # exp makes 0 of what is fired at
    # A shift cancels out of the softmax: it keeps exp in range, and needs no gradient.
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def reference_battleship_policy(observation: Array) -> NDArray[np.float32]:
    """Play at random: equal probabilities [..., N*N] for all tiles not fired at."""
    unknown = (observation.reshape(*observation.shape[:-2], -1) == 0).astype(np.float32)
    return np.asarray(unknown / unknown.sum(axis=-1, keepdims=True))


# %% GRPO
# DeepSeekMath (arXiv 2402.03300): play each start several times, and judge every trajectory by the
# others of its group. No value network, no discount, no advantage estimation over time.


@dataclass(frozen=True)
class GRPOConfig:
    """What to learn, and how. A value that makes no sense is a ValueError naming the field."""

    environment: Callable[[int], Environment]  # called with n: n episodes in lockstep
    policy: Callable[[Params, Array], Any]  # (θ, observations) -> probabilities [..., actions]
    reference_policy: Callable[[Array], Array] | None = None  # observations -> probabilities
    ε: float = 0.2  # probability ratios are clipped to 1-ε .. 1+ε
    ε_high: float | None = None  # or to 1-ε .. 1+ε_high: DAPO's clip-higher (arXiv 2503.14476)
    β: float = 0.001  # weight of the KL divergence from the reference policy; set 0 without one
    G: int = 16  # trajectories per group, all from the same start
    B: int = 16  # groups per mini-batch
    M: int = 2000  # mini-batches
    μ: int = 4  # gradient steps per mini-batch
    R: int = 1  # replay buffer: each gradient step draws one of the last R mini-batches
    max_steps: int = 1000  # trajectories are cut there
    scale_rewards: Literal["group", "batch", "none"] = "group"  # whose std divides the advantages
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "grpo"  # how steps are weighed
    lr_schedule: Literal["constant", "linear"] = "constant"  # "linear" falls to 0 by the end
    max_grad_norm: float = 0.2  # a rare action can cause a long gradient: shorten it to this
    num_val: int = 64  # held-out episodes played after each mini-batch
    seed: int = 42  # everything random in training follows from it

    def __post_init__(self) -> None:
        check(Integral, 1, B=self.B, M=self.M, μ=self.μ, R=self.R, max_steps=self.max_steps)
        check(Integral, 1, num_val=self.num_val)
        check(Integral, 2, G=self.G)  # a trajectory alone in its group has nothing to beat
        check(Integral, 0, seed=self.seed)
        check(Real, 0, ε=self.ε, β=self.β, ε_high=self.ε if self.ε_high is None else self.ε_high)
        check(Real, 1e-9, max_grad_norm=self.max_grad_norm)
        for option in ("scale_rewards", "loss_type", "lr_schedule"):
            value, choices = getattr(self, option), get_args(GRPOConfig.__annotations__[option])
            if value not in choices:
                raise ValueError(f"{option} must be one of {choices}, got {value!r}")
        # Only the reference policy may be missing, and only where it has no weight.
        for function in ("environment", "policy", "reference_policy"):
            value = getattr(self, function)
            if not callable(value) and (self.β or (function, value) != ("reference_policy", None)):
                raise ValueError(f"{function} must be callable at β={self.β}, got {value!r}")


class Batch(NamedTuple):
    """The S steps, in any order, of n = B * G trajectories; trajectory i is in group i // G."""

    observations: Array  # [S, ...]
    actions: Array  # [S]
    π_old: Array  # [S] probability of the action when it was taken
    π_ref: Array  # [S] probability of the action under the reference policy; 1 without one
    trajectory: Array  # [S] the trajectory that the step belongs to, 0 .. n-1
    rewards: Array  # [B, G] the sum of each trajectory's step rewards


def first_of_equals(seen: Array) -> NDArray[np.bool_]:
    """Mark each observation [S, ...] that is not equal to the one before it, [S].

    Of equal observations side by side, the policy has to be shown only the first.
    """
    return np.append(True, (seen[1:] != seen[:-1]).any(axis=tuple(range(1, seen.ndim))))


def rollout(θ: Params, config: GRPOConfig, seeds: Sequence[int], G: int = 1) -> tuple[Array, ...]:
    """Play G trajectories per seed, all in lockstep, sampling actions from the policy.

    Returns, for the S steps played, observations [S, ...], actions [S], their probabilities [S] and
    the trajectory [S] they belong to; and each trajectory's rewards [n] summed up to its first end.
    """
    check(Integral, 0, **{f"seeds[{i}]": seed for i, seed in enumerate(seeds)})
    rng = np.random.default_rng([config.seed, *seeds])
    members = [int(seed) for seed in seeds for _ in range(G)]
    environment = config.environment(len(members))
    observations, _ = environment.reset(seed=members)
    direction = rng.normal(size=observations[0].size)
    running = np.arange(len(members))  # the trajectories that have not ended
    actions, returns = np.zeros(len(members), int), np.zeros(len(members))
    steps: list[tuple[Array, ...]] = []
    while running.size and len(steps) < config.max_steps:
        # Games often see the same, above all at the start. Sorting along a random direction brings
        # equal observations side by side.
        running = running[np.argsort(observations[running].reshape(running.size, -1) @ direction)]
        seen = observations[running]
        first = first_of_equals(seen)
        π = config.policy(θ, seen[first])[first.cumsum() - 1]  # [running, actions]
        if not (π.min() >= 0 and abs(π.sum(axis=-1) - 1).max() < 1e-3):
            raise ValueError(f"policy must give probabilities that sum to 1, got {π}")
        # Exact sampling: π_a / Exponential(1) is the largest of all with probability π_a.
        actions[running] = sampled = (π / rng.standard_exponential(π.shape)).argmax(axis=-1)
        steps.append((seen, sampled, π[np.arange(running.size), sampled], running))

        # Ended trajectories repeat their last action; what comes of it is ignored.
        observations, rewards, terminated, truncated, _ = environment.step(actions.copy())
        returns[running] += rewards[running]
        running = running[(terminated | truncated)[running] == 0]
    check(Real, -1e300, rewards=returns.sum())  # neither infinite nor NaN
    # From a tuple of four arrays [running] per time step to four arrays [S].
    return *map(np.concatenate, zip(*steps, strict=True)), returns


def mean_reward(θ: Params, config: GRPOConfig, seeds: Sequence[int]) -> float:
    """Play one trajectory per seed and average their rewards."""
    return float(rollout(θ, config, seeds)[-1].mean())


def collect_batch(θ: Params, config: GRPOConfig, seeds: Sequence[int]) -> Batch:
    """Play a group of G trajectories from each seed; a pure function of its arguments."""
    observations, actions, π_old, trajectory, returns = rollout(θ, config, seeds, config.G)
    π_ref = np.ones_like(π_old)
    if config.reference_policy is not None:
        π_ref = config.reference_policy(observations)[np.arange(actions.size), actions]
        check(Real, 1e-38, π_ref=π_ref.min())  # the divergence from 0 is infinite
    return Batch(observations, actions, π_old, π_ref, trajectory, returns.reshape(-1, config.G))


def grpo_advantages(rewards: Array, config: GRPOConfig) -> Array:
    """How much better each trajectory did than its group did on average: [B, G] -> [B, G].

    In units of the standard deviation of its group (DeepSeekMath, section 4.1.2) or of the whole
    batch (as TRL has it), or in units of reward (Dr. GRPO, arXiv 2503.20783).
    """
    advantages: Array = rewards - rewards.mean(axis=1, keepdims=True)
    # Of each group [B, 1], or of all rewards [1, 1].
    std = rewards.std(axis=1 if config.scale_rewards == "group" else None, keepdims=True)
    return advantages if config.scale_rewards == "none" else advantages / (std + 1e-4)


def grpo_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Evaluate the objective of DeepSeekMath's equation 3, to be maximised.

    It is the sum over steps s of w_s (min(ρ_s A_s, clip(ρ_s, 1-ε, 1+ε_high) A_s) - β KL_s), where
    w_s is 1 / (n |o_i|) for "grpo", |o_i| being the number of steps of the trajectory, 1 / S for
    "dapo" (arXiv 2503.14476) and 1 / (n max_steps) for "dr_grpo" (arXiv 2503.20783).
    """
    S, n = batch.actions.size, batch.rewards.size
    A = grpo_advantages(batch.rewards, config).reshape(n)[batch.trajectory]  # [S]
    length = np.bincount(batch.trajectory, minlength=n)[batch.trajectory]  # [S] |o_i|
    w = {"grpo": 1 / (n * length), "dapo": 1 / S, "dr_grpo": 1 / (n * config.max_steps)}
    ε_high = config.ε if config.ε_high is None else config.ε_high

    first = first_of_equals(batch.observations)
    # [S], in float64 like the rewards: NumPy is slow to add up gradients of mixed precision.
    π = config.policy(θ, batch.observations[first])[first.cumsum() - 1, batch.actions].astype(float)
    ρ = π / batch.π_old
    J = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + ε_high) * A)
    if config.β > 0:
        ratio = batch.π_ref / π
        J = J - config.β * (ratio - anp.log(ratio) - 1)  # equation 4: never negative
    return anp.sum(w[config.loss_type] * J)


# %% Train
# Play, compare, adjust, repeat.


@dataclass
class AdamWOptimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), as `torch.optim.AdamW` computes it.

    It minimises, working on a copy of params. To go on with a training, pass the same optimizer.
    A hyperparameter out of range is a ValueError naming it.
    """

    params: Params
    learning_rate: float = 3e-4
    β1: float = 0.9
    β2: float = 0.999
    ε: float = 1e-8
    λ: float = 0.01

    def __post_init__(self) -> None:
        check(Real, 0, learning_rate=self.learning_rate, ε=self.ε, λ=self.λ)
        check(Real, 0, 1, β1=self.β1, β2=self.β2)
        # A NumPy float64 among them would turn every float32 parameter into float64.
        self.β1, self.β2, self.ε, self.λ = map(float, (self.β1, self.β2, self.ε, self.λ))
        self.params = {name: value.copy() for name, value in self.params.items()}
        # One dictionary will do for both: step replaces them, and never writes into them.
        self.m = self.v = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.steps = 0

    def step(self, gradient: Params, lr_scale: float = 1.0) -> None:
        """Take one step against the gradient, at lr_scale times the learning rate.

        Raises FloatingPointError, and leaves everything as it was, if the result is not finite.
        """
        t, α = self.steps + 1, float(self.learning_rate * lr_scale)
        params, m, v = self.params.copy(), self.m.copy(), self.v.copy()
        for name, g in gradient.items():
            m[name] = self.β1 * self.m[name] + (1 - self.β1) * g
            v[name] = self.β2 * self.v[name] + (1 - self.β2) * g**2
            m_hat, v_hat = m[name] / (1 - self.β1**t), v[name] / (1 - self.β2**t)
            params[name] = (1 - α * self.λ) * params[name] - α * m_hat / (np.sqrt(v_hat) + self.ε)
        if not all(np.isfinite(value).all() for value in (*params.values(), *v.values())):
            raise FloatingPointError(f"step {t}: parameters not finite; lower learning_rate={α:g}")
        self.params, self.m, self.v, self.steps = params, m, v, t


def print_progress(i: int, metrics: dict[str, Any]) -> None:
    """Keep one line up to date in a terminal or notebook; elsewhere, print one now and then."""
    live = sys.stdout.isatty() or "ipykernel" in type(sys.stdout).__module__
    end = "    \r" if live and metrics["progress"] < 1 else "\n"
    if live or metrics["progress"] == 1 or i % 100 == 0:
        line = "reward {reward:.3f}  held-out {reward_val:.3f}  kl {kl:.3f}  entropy {entropy:.3f}"
        print(f"mini-batch {i + 1:5d}  {line.format(**metrics)}", end=end, flush=True)


def train_grpo(
    optimizer: AdamWOptimizer, config: GRPOConfig, report: Callable[..., None] = print_progress
) -> tuple[Params, NDArray[np.float64]]:
    """Train for M mini-batches; return the parameters and the mean reward on held-out seeds [M].

    After mini-batch i, report(i, metrics) gets the mean `reward` of its trajectories, their `kl`
    from the reference policy and their `entropy` in nats per step, and their number of `steps`;
    `reward_val`, on held-out seeds after the gradient steps; `progress`, a fraction of M; and the
    list `objective`, J at each of the μ gradient steps.

    Call it again to go on from the optimizer's parameters, also after an interruption; the replay
    buffer and lr_schedule start anew. Raises FloatingPointError if parameters would overflow, with
    the last finite ones still in the optimizer, and ValueError if what the policy gives are not
    probabilities, or the rewards not finite.
    """
    replay_buffer: list[Batch] = []
    held_out_seeds, rewards_val = range(1, 2 * config.num_val, 2), np.zeros(config.M)
    for i in range(config.M):
        rng = np.random.default_rng([config.seed, optimizer.steps])  # another call, other starts
        seeds = 2 * rng.integers(2**30, size=config.B)  # even: the held-out ones are odd
        batch = collect_batch(optimizer.params, config, seeds.tolist())
        replay_buffer = [*replay_buffer, batch][-config.R :]

        objective = []
        lr_scale = 1 - i / config.M if config.lr_schedule == "linear" else 1.0
        for _ in range(config.μ):
            drawn = replay_buffer[rng.integers(len(replay_buffer))]
            J, gradient = value_and_grad(grpo_objective)(optimizer.params, drawn, config)
            objective.append(float(J))
            norm = float(np.sqrt(sum((g**2).sum() for g in gradient.values())))
            scale = -1 / max(1.0, norm / float(config.max_grad_norm))  # J is to be maximised
            optimizer.step({name: scale * g for name, g in gradient.items()}, lr_scale)

        rewards_val[i] = mean_reward(optimizer.params, config, held_out_seeds)
        ratio = batch.π_ref / batch.π_old
        metrics = {
            "reward": float(batch.rewards.mean()),
            "reward_val": float(rewards_val[i]),
            "kl": float((ratio - np.log(ratio) - 1).mean()) if config.reference_policy else 0.0,
            "entropy": float(-np.log(batch.π_old).mean()),
            "steps": float(batch.actions.size),
            "progress": (i + 1) / config.M,
            "objective": objective,
        }
        report(i, metrics)
    return optimizer.params, rewards_val


# %% Run

if __name__ == "__main__":
    # Freed at once: after a block of almost 32 MiB, Linux's malloc holds on to freed memory, which
    # saves training most of its page faults.
    np.empty(2**25 - 2**13, np.uint8)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can show a ship
    grpo_config = GRPOConfig(
        BattleshipEnv, neural_battleship_policy, reference_battleship_policy, lr_schedule="linear"
    )
    print(f"Learning Battleship in {grpo_config.M} mini-batches, in about a minute.")
    θ_init = neural_battleship_policy_init()
    θ_star, rewards_val = train_grpo(AdamWOptimizer(θ_init, learning_rate=1e-2), grpo_config)

    test_seeds = range(10_001, 14_001, 2)
    before, after = (mean_reward(θ, grpo_config, test_seeds) for θ in (θ_init, θ_star))
    print(f"Mean score of {len(test_seeds)} held-out games: {after:.3f}, untrained {before:.3f}")

    seen = rollout(θ_star, grpo_config, test_seeds[:1])[0]  # [shots, 5, 5] before each shot
    shots = seen[np.linspace(0, len(seen) - 1, num=6, dtype=int)] != 0
    print("A game on the first of these boards; one more shot would end it:")
    print(BattleshipGame(BattleshipRules().random_fleet(test_seeds[0]), shots))

    np.savez("battleship_policy.npz", **θ_star)
    np.savetxt("battleship_rewards.csv", rewards_val, header="reward_val", comments="")
    print("Saved battleship_policy.npz and battleship_rewards.csv.")
