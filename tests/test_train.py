"""Training: AdamW as published, a loop that can be watched and resumed, and policies that learn."""

from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from numpy.typing import NDArray

import microgrpo
from microgrpo import (
    AdamWOptimizer,
    BattleshipEnv,
    GRPOConfig,
    Params,
    collect_batch,
    grpo_objective,
    neural_battleship_policy,
    neural_battleship_policy_init,
    print_progress,
    reference_battleship_policy,
    train_grpo,
)

TINY = GRPOConfig(
    environment=BattleshipEnv,
    policy=neural_battleship_policy,
    reference_policy=reference_battleship_policy,
    G=4,
    B=2,
    M=4,
    num_val=8,
)


def silent(_i: int, _metrics: dict[str, Any]) -> None:
    """Report nothing."""


def tiny_optimizer(learning_rate: float = 1e-2) -> AdamWOptimizer:
    """Start from a small network."""
    return AdamWOptimizer(neural_battleship_policy_init(hidden=4), learning_rate)


# %% AdamW


def test_adamw_takes_the_steps_of_the_paper() -> None:
    """Algorithm 2 of Loshchilov & Hutter, for one number, with a desk calculator."""
    optimizer = AdamWOptimizer({"x": np.array([2.0])}, 0.1, β1=0.5, β2=0.75, ε=0.01, λ=0.5)

    # m = 0.5·4 = 2, v = 0.25·16 = 4; corrected 2/0.5 = 4 and 4/0.25 = 16.
    # x = 2 - 0.1·4/(√16 + 0.01) - 0.1·0.5·2 = 2 - 0.4/4.01 - 0.1
    optimizer.step({"x": np.array([4.0])})
    assert optimizer.params["x"] == pytest.approx(1.8002493765586034, rel=1e-12)

    # m = 0.5·2 - 0.5·1 = 0.5, v = 0.75·4 + 0.25·1 = 3.25; corrected 0.5/0.75 and 3.25/0.4375.
    # x = 1.80024938 - 0.1·0.66666667/(√7.42857143 + 0.01) - 0.05·1.80024938
    optimizer.step({"x": np.array([-1.0])})
    assert optimizer.params["x"] == pytest.approx(1.6858663437316209, rel=1e-12)


def test_adamw_agrees_with_plain_loops() -> None:
    """Many steps, several parameters, default hyperparameters: the paper's lines one by one."""
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}
    optimizer = AdamWOptimizer(params)
    gradients = [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(20)]
    for gradient in gradients:
        optimizer.step(gradient)
    for name, start in params.items():
        for index in np.ndindex(start.shape):
            x, m, v = float(start[index]), 0.0, 0.0
            for t, gradient in enumerate(gradients, start=1):
                g = float(gradient[name][index])
                m = 0.9 * m + 0.1 * g
                v = 0.999 * v + 0.001 * g * g
                step = 3e-4 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
                x = x - step - 3e-4 * 0.01 * x
            assert optimizer.params[name][index] == pytest.approx(x, rel=1e-12)


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    """Without a gradient only the decay is left: x (1 - α λ) per step, whatever Adam remembers."""
    optimizer = AdamWOptimizer({"x": np.array([3.0])}, learning_rate=0.1, λ=0.2)
    for _ in range(5):
        optimizer.step({"x": np.array([0.0])})
    assert optimizer.params["x"] == pytest.approx(3 * (1 - 0.1 * 0.2) ** 5)


def test_the_optimizer_owns_a_copy() -> None:
    """θ_init stays as it was, and float32 stays float32."""
    θ_init = neural_battleship_policy_init(hidden=4)
    before = {name: value.copy() for name, value in θ_init.items()}
    optimizer = AdamWOptimizer(θ_init)
    optimizer.step({name: np.ones_like(value) for name, value in θ_init.items()})
    for name, value in before.items():
        np.testing.assert_array_equal(θ_init[name], value)
        assert (optimizer.params[name] != value).all()
        assert optimizer.params[name].dtype == np.float32

    untouched = AdamWOptimizer(θ_init)
    θ_init["b1"] += 1
    np.testing.assert_array_equal(untouched.params["b1"], before["b1"])


def test_numpy_scalars_do_not_turn_parameters_into_float64() -> None:
    """np.logspace(-3, -2, 2)[0] is a learning rate like any other."""
    wide = np.float64(0.125)
    optimizer = AdamWOptimizer({"x": np.ones(2, np.float32)}, wide, wide, wide, wide, wide)
    optimizer.step({"x": np.ones(2, np.float32)})
    assert {v["x"].dtype for v in (optimizer.params, optimizer.m, optimizer.v)} == {
        np.dtype(np.float32)
    }
    start = AdamWOptimizer(neural_battleship_policy_init(hidden=2))
    θ_star, _ = train_grpo(start, replace(TINY, M=1, max_grad_norm=np.float64(1e-3)), silent)
    assert {value.dtype for value in θ_star.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30])
def test_a_step_to_nowhere_changes_nothing(wrong: float) -> None:
    """Not finite, or with a square that is not: the optimizer stays where it was."""
    optimizer = AdamWOptimizer({"x": np.array([1, 2], np.float32)})
    optimizer.step({"x": np.array([1, 1], np.float32)})
    before = optimizer.params["x"].copy()
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        optimizer.step({"x": np.array([1, wrong], np.float32)})
    np.testing.assert_array_equal(optimizer.params["x"], before)
    optimizer.step({"x": np.array([1, 1], np.float32)})
    assert np.isfinite(optimizer.params["x"]).all()


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("field", ["learning_rate", "β1", "β2", "ε", "λ"])
def test_hyperparameters_out_of_range_are_named(field: str, value: object) -> None:
    """A wrong one is a ValueError that names it."""
    with pytest.raises(ValueError, match=field):
        AdamWOptimizer({}, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["β1", "β2"])
def test_averages_must_forget(field: str) -> None:
    """With β = 1 the averages would stay at 0 and their correction divide by 0."""
    with pytest.raises(ValueError, match=field):
        AdamWOptimizer({}, **{field: 1.0})


# %% The loop


def test_every_mini_batch_is_reported() -> None:
    """What a learner wants to watch: plain floats, and one list of objectives."""
    reports: list[tuple[int, dict[str, Any]]] = []
    config = replace(TINY, μ=3)
    _, rewards_val = train_grpo(tiny_optimizer(), config, lambda i, m: reports.append((i, m)))
    assert [i for i, _ in reports] == [0, 1, 2, 3]
    assert [metrics["reward_val"] for _, metrics in reports] == rewards_val.tolist()
    assert [metrics["progress"] for _, metrics in reports] == [0.25, 0.5, 0.75, 1]
    for _, metrics in reports:
        objective = metrics.pop("objective")
        assert [type(value) for value in objective] == [float] * 3
        assert {type(value) for value in metrics.values()} == {float}
        assert 9 * 8 <= metrics["steps"] <= 25 * 8
        assert metrics["kl"] >= 0


def test_the_first_report_is_worked_out_by_hand() -> None:
    """The first mini-batch is played by θ_init, before any gradient step."""
    reports: list[dict[str, Any]] = []
    θ_init = neural_battleship_policy_init(hidden=4)
    batches = []

    def play_and_keep(θ: Params, config: GRPOConfig, seeds: Any) -> Any:
        batches.append(collect_batch(θ, config, seeds))
        return batches[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microgrpo, "collect_batch", play_and_keep)
        train_grpo(AdamWOptimizer(θ_init), TINY, lambda _, metrics: reports.append(metrics))
    batch, first = batches[0], reports[0]
    assert first["reward"] == pytest.approx(batch.rewards.sum() / 8)
    assert first["steps"] == len(batch.actions)
    ratios = [float(ref) / float(old) for ref, old in zip(batch.π_ref, batch.π_old, strict=True)]
    assert first["kl"] == pytest.approx(np.mean([r - np.log(r) - 1 for r in ratios]), rel=1e-2)
    assert first["entropy"] == pytest.approx(np.mean([-np.log(float(p)) for p in batch.π_old]))
    assert first["objective"][0] == pytest.approx(float(grpo_objective(θ_init, batch, TINY)))


def test_without_a_reference_the_divergence_is_0() -> None:
    """There is nothing to diverge from."""
    reports: list[dict[str, Any]] = []
    config = replace(TINY, reference_policy=None, β=0)
    train_grpo(tiny_optimizer(), config, lambda _, metrics: reports.append(metrics))
    assert [metrics["kl"] for metrics in reports] == [0.0] * 4


def test_training_never_meets_the_held_out_seeds() -> None:
    """Held-out seeds are the same after every mini-batch; training seeds are others, and new."""
    seeds: list[tuple[int, ...]] = []

    class Listening(BattleshipEnv):
        def reset(self, *, seed: Any) -> tuple[NDArray[Any], dict[str, Any]]:
            seeds.append(tuple(seed))
            return super().reset(seed=seed)

    train_grpo(tiny_optimizer(), replace(TINY, environment=Listening, M=50), silent)
    training, held_out = seeds[0::2], set(seeds[1::2])
    assert len(held_out) == 1
    seen = {seed for batch in training for seed in batch}
    assert len(seen) == 50 * 2
    assert all(seed % 2 == 0 for seed in seen)
    assert all(seed % 2 == 1 for seed in held_out.pop())
    for batch in training:
        assert len(set(batch)) == 2  # each group has a start of its own
        assert [batch.count(seed) for seed in batch] == [4] * 8


def test_the_same_seed_gives_the_same_parameters() -> None:
    """Bit by bit, on the same machine; and another seed gives others."""

    def trained(seed: int) -> bytes:
        θ_star, _ = train_grpo(tiny_optimizer(), replace(TINY, R=2, μ=2, seed=seed), silent)
        return b"".join(value.tobytes() for value in θ_star.values())

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


def test_calling_again_continues() -> None:
    """At a constant learning rate and R = 1, two calls are the same as one of twice the length."""
    in_one, in_two = tiny_optimizer(), tiny_optimizer()
    _, expected = train_grpo(in_one, TINY, silent)
    _, first = train_grpo(in_two, replace(TINY, M=1), silent)
    θ_star, second = train_grpo(in_two, replace(TINY, M=3), silent)
    np.testing.assert_array_equal(np.concatenate([first, second]), expected)
    for name, value in in_one.params.items():
        np.testing.assert_array_equal(θ_star[name], value)


def test_an_interruption_keeps_what_was_learned() -> None:
    """Control-C in mini-batch 2 leaves the parameters of mini-batch 2, ready to continue from."""
    interrupted, short = tiny_optimizer(), tiny_optimizer()

    def press_control_c(i: int, _metrics: dict[str, Any]) -> None:
        if i == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_grpo(interrupted, TINY, press_control_c)
    θ_star, _ = train_grpo(short, replace(TINY, M=2), silent)
    for name, value in θ_star.items():
        np.testing.assert_array_equal(interrupted.params[name], value)


def test_the_learning_rate_decays_linearly() -> None:
    """The k-th of M mini-batches steps at (M - k) / M of the learning rate, k from 0."""
    scales: list[float] = []

    class Watched(AdamWOptimizer):
        def step(self, gradient: Params, lr_scale: float = 1.0) -> None:
            scales.append(lr_scale)
            super().step(gradient, lr_scale)

    decay = [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    schedules: dict[Any, list[float]] = {"linear": decay, "constant": [1] * 8}
    for schedule, expected in schedules.items():
        scales.clear()
        config = replace(TINY, μ=2, lr_schedule=schedule)
        train_grpo(Watched(neural_battleship_policy_init(hidden=4)), config, silent)
        assert scales == expected

    one = AdamWOptimizer({"x": np.array([1.0])}, learning_rate=0.5)
    other = AdamWOptimizer({"x": np.array([1.0])}, learning_rate=0.05)
    one.step({"x": np.array([2.0])}, lr_scale=0.1)
    other.step({"x": np.array([2.0])})
    np.testing.assert_allclose(one.params["x"], other.params["x"], rtol=1e-12)


def test_long_gradients_are_shortened() -> None:
    """The optimizer is given the gradient of -J, over all parameters no longer than allowed."""
    norms: list[float] = []

    class Watched(AdamWOptimizer):
        def step(self, gradient: Params, lr_scale: float = 1.0) -> None:
            norms.append(sum(float((g.astype(float) ** 2).sum()) for g in gradient.values()) ** 0.5)
            super().step(gradient, lr_scale)

    def first_norm(max_grad_norm: float) -> float:
        norms.clear()
        config = replace(TINY, M=1, max_grad_norm=max_grad_norm)
        train_grpo(Watched(neural_battleship_policy_init(hidden=4)), config, silent)
        return norms[0]

    free = first_norm(1e6)
    assert first_norm(2 * free) == pytest.approx(free, rel=1e-5)
    assert first_norm(free / 3) == pytest.approx(free / 3, rel=1e-5)


def test_the_replay_buffer_holds_the_last_r_mini_batches() -> None:
    """Every gradient step draws one of them, and in time every one is drawn."""
    played: list[Any] = []
    drawn: list[tuple[int, int]] = []  # (the mini-batch it is, the one that was drawn)

    def play_and_keep(*args: Any) -> Any:
        played.append(collect_batch(*args))
        return played[-1]

    def objective_and_note(θ: Params, batch: Any, config: GRPOConfig) -> Any:
        now = len(played) - 1
        drawn.append((now, [batch is other for other in played].index(True)))
        return grpo_objective(θ, batch, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microgrpo, "collect_batch", play_and_keep)
        patch.setattr(microgrpo, "grpo_objective", objective_and_note)
        train_grpo(tiny_optimizer(), replace(TINY, R=3, μ=8, M=10), silent)
        ages = [now - then for now, then in drawn]
        assert set(ages) == {0, 1, 2}
        assert all(then >= 0 for _, then in drawn)
        assert min(ages.count(age) for age in (0, 1, 2)) > 10

        drawn.clear()
        played.clear()
        train_grpo(tiny_optimizer(), replace(TINY, R=1, μ=2), silent)
        assert {now - then for now, then in drawn} == {0}


def test_divergence_ends_training_with_an_error() -> None:
    """It names the step and what to lower, and the last finite parameters are kept."""
    optimizer = tiny_optimizer(learning_rate=1e38)
    with (
        pytest.raises(FloatingPointError, match=r"step \d+: .* learning_rate=\d"),
        np.errstate(all="ignore"),
    ):
        train_grpo(optimizer, replace(TINY, μ=20), silent)
    assert all(np.isfinite(value).all() for value in optimizer.params.values())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rewards_that_are_not_finite_are_refused(wrong: float) -> None:
    """A NaN from the environment never reaches the parameters."""

    class Broken(BattleshipEnv):
        def step(self, actions: Any) -> Any:
            observations, rewards, *rest = super().step(actions)
            return observations, rewards + wrong, *rest

    optimizer = tiny_optimizer()
    with pytest.raises(ValueError, match="rewards"):
        train_grpo(optimizer, replace(TINY, environment=Broken), silent)
    assert optimizer.steps == 0


# %% Progress

METRICS = {"reward": 0.5, "reward_val": 0.25, "kl": 0.125, "entropy": 2.0, "progress": 0.5}


def test_piped_progress_prints_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Calm lines: the first mini-batch, every 100th after it, and the last."""
    for i in range(250):
        print_progress(i, METRICS | {"progress": (i + 1) / 250})
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1]) for line in lines] == [1, 101, 201, 250]
    assert all("reward 0.500  held-out 0.250  kl 0.125  entropy 2.000" in line for line in lines)
    assert all(line.isascii() for line in lines)


def test_a_terminal_sees_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mini-batch overwrites the line before; the last one ends it."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_progress(0, METRICS)
    print_progress(1, METRICS | {"progress": 1})
    text = capsys.readouterr().out
    assert text.count("\r") == 1
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert max(map(len, text.replace("\r", "\n").splitlines())) < 80


# %% Learning


@pytest.mark.parametrize(("M", "μ", "R"), [(100, 1, 1), (60, 2, 2)])
def test_battleship_is_learned(M: int, μ: int, R: int) -> None:
    """A few seconds, on-policy or off, take the policy from 0.15 to what hunting by hand scores."""
    config = replace(TINY, G=16, B=16, M=M, μ=μ, R=R, num_val=512, lr_schedule="linear")
    optimizer = AdamWOptimizer(neural_battleship_policy_init(), learning_rate=2e-2)
    _, rewards_val = train_grpo(optimizer, config, silent)
    assert rewards_val[0] < 0.3
    assert rewards_val[-1] > 0.4  # four seeds of each reached 0.454 to 0.506


def test_the_call_that_started_it_all() -> None:
    """It runs as it stands (with fewer mini-batches), and leaves θ_init to compare with."""
    grpo_config = GRPOConfig(
        environment=BattleshipEnv,
        policy=neural_battleship_policy,
        reference_policy=reference_battleship_policy,
        M=3,
    )
    θ_init = neural_battleship_policy_init()
    θ_star, rewards_val = train_grpo(AdamWOptimizer(θ_init, learning_rate=3e-4), grpo_config)
    assert rewards_val.shape == (3,)
    assert θ_star.keys() == θ_init.keys()
    assert all((θ_star[name] != θ_init[name]).any() for name in θ_init)


def test_a_bandit_is_learned_whatever_the_variant() -> None:
    """The simplest of environments: one step, five arms, the last one pays most."""

    class Bandit:
        def __init__(self, num_envs: int) -> None:
            self.n = num_envs

        def reset(self, *, seed: Any) -> tuple[NDArray[Any], dict[str, Any]]:
            assert len(seed) == self.n
            return np.zeros((self.n, 1)), {}

        def step(self, actions: Any) -> Any:
            over = np.ones(self.n, bool)
            return np.zeros((self.n, 1)), actions - 10.0, over, np.zeros(self.n, bool), {}

    def policy(θ: Params, observation: Any) -> Any:
        weights = anp.exp(observation + θ["logits"])
        return weights / anp.sum(weights, axis=-1, keepdims=True)

    for scale_rewards in ("group", "batch", "none"):
        for loss_type in ("grpo", "dapo", "dr_grpo"):
            config = GRPOConfig(
                Bandit, policy, β=0, G=8, B=4, M=60, max_steps=1, num_val=100,
                scale_rewards=scale_rewards, loss_type=loss_type,
            )  # fmt: skip
            optimizer = AdamWOptimizer({"logits": np.zeros(5)}, learning_rate=0.1)
            _, rewards_val = train_grpo(optimizer, config, silent)
            assert rewards_val[-1] > -6.2, (scale_rewards, loss_type)  # of -10 to -6
