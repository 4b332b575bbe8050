"""Gymnasium: its vector environments are drop-ins, and nothing leaks out of their resets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import autograd.numpy as anp
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray

from microgrpo import (
    AdamWOptimizer,
    Batch,
    GRPOConfig,
    Params,
    collect_batch,
    mean_reward,
    train_grpo,
)

Step = tuple[NDArray[Any], int, float]  # what was seen, what was done, what it brought


@dataclass(frozen=True)
class Game:
    """One of Gymnasium's games: its name, its number of actions, and what to make it with."""

    name: str
    actions: int
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[Callable[..., Any], ...] = ()

    def alone(self) -> Any:
        """Make a single plain environment, which never resets by itself."""
        environment: Any = gymnasium.make(self.name, **self.options)
        for wrapper in self.wrappers:
            environment = wrapper(environment)
        return environment

    def together(self, n: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> Any:
        """Make n of them in lockstep, each of which starts over when its episode ends."""
        return gymnasium.make_vec(
            self.name,
            n,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": mode},
            wrappers=self.wrappers,
            **self.options,
        )

    def replay(self, seed: int, actions: Sequence[int]) -> tuple[list[Step], bool, bool]:
        """Take these actions until the first end; tell each step, and which kind of end it was."""
        environment = self.alone()
        seen, _ = environment.reset(seed=seed)
        steps: list[Step] = []
        terminated = truncated = False
        for action in actions:
            following, reward, terminated, truncated, _ = environment.step(action)
            steps.append((np.asarray(seen), action, float(reward)))
            if terminated or truncated:
                break
            seen = following
        return steps, terminated, truncated


def last_three(environment: Any) -> Any:
    """Observe the last three observations, so that one is a matrix."""
    return FrameStackObservation(environment, 3)


CARTPOLE = Game("CartPole-v1", actions=2)
LAKE = Game("FrozenLake-v1", actions=4, options={"is_slippery": False})
CLIFF = Game("CliffWalking-v1", actions=4, options={"max_episode_steps": 60})

GAMES = {
    "vectors, a reward for each step": CARTPOLE,
    "matrices": replace(CARTPOLE, wrappers=(last_three,)),
    "cut by a time limit": replace(CARTPOLE, options={"max_episode_steps": 20}),
    "a cost for each step": Game("Acrobot-v1", actions=3, options={"max_episode_steps": 30}),
    "integers, one reward at the end": LAKE,
    "integers, moves that go astray": Game("FrozenLake-v1", actions=4),
    "integers, costs of different size": CLIFF,
}
each_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())


@dataclass
class Recorder:
    """A vector environment that writes down everything it is asked to do."""

    environment: Any
    seeds: list[int] = field(default_factory=list)
    actions: list[list[int]] = field(default_factory=list)

    def reset(self, *, seed: Sequence[int]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Pass on the seeds."""
        self.seeds = list(seed)
        observations, info = self.environment.reset(seed=list(seed))
        return observations, info

    def step(self, actions: NDArray[Any]) -> Any:
        """Pass on the actions."""
        self.actions.append(actions.tolist())
        return self.environment.step(actions)


def at_random(game: Game, **changes: Any) -> GRPOConfig:
    """Configure play with equal probabilities for all actions."""

    def policy(_: Params, observations: NDArray[Any]) -> NDArray[np.float64]:
        return np.full((len(observations), game.actions), 1 / game.actions)

    return replace(GRPOConfig(game.together, policy, β=0, G=5), **changes)


def play_and_record(
    game: Game, seeds: Sequence[int], mode: AutoresetMode, **changes: Any
) -> tuple[Batch, Recorder]:
    """Collect a batch of random play, and what the environment was asked for it."""
    recorder = Recorder(game.together(5 * len(seeds), mode))
    config = at_random(game, environment=lambda _: recorder, **changes)
    return collect_batch({}, config, seeds), recorder


def in_one_order(observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Sort steps, for the order in which a batch holds them means nothing: [S, numbers]."""
    rows = np.column_stack([observations.reshape(len(actions), -1), actions])
    return np.asarray(rows[np.lexsort(rows.T)])


# %% Trajectories


@each_game
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_trajectory_is_one_episode_of_a_single_environment(
    game: Game, mode: AutoresetMode
) -> None:
    """The same seed and actions in a plain environment: the same steps, and rewards up to its end.

    Episodes end at different times, so most of them are reset while others still run.
    """
    batch, recorder = play_and_record(game, [3, 1, 4, 1000], mode)
    lengths = np.bincount(batch.trajectory)
    assert len(lengths) == 20
    for i, seed in enumerate(recorder.seeds):
        expected, terminated, truncated = game.replay(seed, [row[i] for row in recorder.actions])
        assert terminated or truncated  # before it ran out of actions
        mine = batch.trajectory == i
        observations, actions, rewards = zip(*expected, strict=True)
        np.testing.assert_array_equal(
            in_one_order(batch.observations[mine], batch.actions[mine]),
            in_one_order(np.stack(observations), np.array(actions)),
        )
        assert batch.rewards.ravel()[i] == sum(rewards)


def test_these_games_end_in_every_way() -> None:
    """The test above means something: episodes end early or late, by termination or truncation."""
    ends: dict[str, set[tuple[bool, bool]]] = {}
    for name, game in GAMES.items():
        batch, recorder = play_and_record(game, [3, 1, 4, 1000], AutoresetMode.NEXT_STEP)
        lengths = np.bincount(batch.trajectory)
        actions = np.transpose(recorder.actions).tolist()  # [n, steps]
        replays = [game.replay(*asked) for asked in zip(recorder.seeds, actions, strict=True)]
        ends[name] = {(terminated, truncated) for _, terminated, truncated in replays}
        if (True, False) in ends[name]:  # some were reset while others still ran
            assert lengths.min() < lengths.max() == len(recorder.actions)
    assert ends["vectors, a reward for each step"] == {(True, False)}
    assert ends["cut by a time limit"] >= {(True, False), (False, True)}
    assert ends["a cost for each step"] == {(False, True)}
    assert (False, True) in ends["integers, costs of different size"]


@pytest.mark.parametrize(
    ("game", "max_steps"),
    [(CARTPOLE, 1), (CARTPOLE, 7), (LAKE, 2), (CLIFF, 12)],  # none of them can end sooner
    ids=lambda value: getattr(value, "name", value),
)
def test_max_steps_cuts_before_the_game_does(game: Game, max_steps: int) -> None:
    """A trajectory then has the first steps of its episode, and their rewards."""
    batch, recorder = play_and_record(game, [3, 1], AutoresetMode.NEXT_STEP, max_steps=max_steps)
    assert len(recorder.actions) == max_steps
    assert (np.bincount(batch.trajectory) == max_steps).all()
    for i, seed in enumerate(recorder.seeds):
        expected, *_ = game.replay(seed, [row[i] for row in recorder.actions])
        assert len(expected) == max_steps
        assert batch.rewards.ravel()[i] == sum(reward for *_, reward in expected)


def test_a_time_limit_ends_a_trajectory() -> None:
    """Truncation counts as an end: with a reward for each step, the reward is the limit."""
    game = replace(CARTPOLE, options={"max_episode_steps": 7})
    batch = collect_batch({}, at_random(game), range(4))  # a pole needs 8 steps to fall
    assert (batch.rewards == 7).all()
    assert (np.bincount(batch.trajectory) == 7).all()


@each_game
def test_members_of_a_group_share_their_start(game: Game) -> None:
    """Equal seeds start equally, and other groups elsewhere if the game has more than one start."""
    config = at_random(game, max_steps=1)  # one step each: all that is seen are starts
    batch = collect_batch({}, config, [5, 6, 7])
    starts: list[Any] = [None] * 15
    for trajectory, seen in zip(batch.trajectory, batch.observations, strict=True):
        starts[trajectory] = seen.tolist()
    groups = [starts[first : first + 5] for first in (0, 5, 10)]
    for group, seed in zip(groups, (5, 6, 7), strict=True):
        own_start, _ = game.alone().reset(seed=seed)
        assert group == [np.asarray(own_start).tolist()] * 5
    if batch.observations.dtype.kind == "f":
        assert groups[0] != groups[1] != groups[2]


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("vectors, a reward for each step", "f", (4,)),
        ("matrices", "f", (3, 4)),
        ("integers, one reward at the end", "i", ()),
    ],
)
def test_observations_stay_as_they_are(name: str, kind: str, shape: tuple[int, ...]) -> None:
    """Floats of any shape and integers reach the policy, and the batch, as the game gave them."""
    game, given = GAMES[name], []

    def policy(_: Params, observations: NDArray[Any]) -> NDArray[np.float64]:
        given.append((observations.dtype.kind, observations.shape[1:]))
        return np.full((len(observations), game.actions), 1 / game.actions)

    batch = collect_batch({}, at_random(game, policy=policy), [1, 2])
    assert set(given) == {(kind, shape)}
    assert batch.observations.dtype.kind == kind
    assert batch.observations.shape == (len(batch.actions), *shape)


def test_a_batch_of_a_game_of_chance_can_be_had_again() -> None:
    """On slippery ice too, everything random follows from the seeds."""
    game = Game("FrozenLake-v1", actions=4)
    first, again = (collect_batch({}, at_random(game), [1, 2]) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other_noise = collect_batch({}, at_random(game, seed=43), [1, 2])
    assert first.actions.tolist() != other_noise.actions.tolist()


# %% Learning


def silent(_i: int, _metrics: dict[str, Any]) -> None:
    """Report nothing."""


def softmax(logits: Any) -> Any:
    """Turn preferences [..., actions] into probabilities."""
    p = anp.exp(logits)
    return p / anp.sum(p, axis=-1, keepdims=True)


def table(θ: Params, observation: NDArray[Any]) -> Any:
    """Look up what to do: integers [...] to probabilities [..., actions]."""
    return softmax(θ["table"][observation])


def network(θ: Params, observation: NDArray[Any]) -> Any:
    """Think for one layer: floats [..., 4] to probabilities [..., 2]."""
    return softmax(anp.tanh(observation @ θ["W1"]) @ θ["W2"])


def learn(θ_init: Params, learning_rate: float, config: GRPOConfig) -> tuple[float, float]:
    """Train, and measure the mean reward before and after on seeds that training never met."""
    θ_star, _ = train_grpo(AdamWOptimizer(θ_init, learning_rate), config, silent)
    seeds = range(10_001, 10_101, 2)
    return mean_reward(θ_init, config, seeds), mean_reward(θ_star, config, seeds)


def test_a_table_learns_to_cross_the_lake() -> None:
    """FrozenLake: integers, and a single 1 for those who find the other shore."""
    config = GRPOConfig(LAKE.together, table, β=0, G=32, B=1, M=60, num_val=1, max_steps=50)
    before, after = learn({"table": np.zeros((16, 4))}, 0.3, config)
    assert before < 0.1
    assert after > 0.9


def test_a_table_learns_to_stay_away_from_the_cliff() -> None:
    """CliffWalking: -1 for each of 60 steps, and -100 for each fall."""
    config = GRPOConfig(CLIFF.together, table, β=0, G=32, B=1, M=20, num_val=1)
    before, after = learn({"table": np.zeros((48, 4))}, 0.3, config)
    assert before < -400
    assert after > -75


def test_a_network_learns_to_balance_a_pole() -> None:
    """CartPole: floats, and 1 for each step until the pole falls, or until step 100."""
    rng = np.random.default_rng(0)
    θ_init = {"W1": rng.normal(size=(4, 16)), "W2": 0.1 * rng.normal(size=(16, 2))}
    game = replace(CARTPOLE, options={"max_episode_steps": 100})
    config = GRPOConfig(game.together, network, β=0, G=8, B=4, M=20, μ=4, num_val=1)
    before, after = learn(θ_init, 0.02, config)
    assert before < 40
    assert after > 80
