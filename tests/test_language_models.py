"""The language-model examples: what their environments reward, and what the scripts print."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import names as naming
import numpy as np
import say_five
import shell_game as game
from gpt import gpt_init, gpt_objective, gpt_policy
from test_examples import run_example

from microgrpo import AdamWOptimizer, Array, Batch, GRPOConfig, Params, rollout, train_grpo


def right_answer(prompt: list[str]) -> str:
    """Follow the ball through a prompt."""
    ball = prompt[0]
    for one, other in zip(prompt[1:-1:2], prompt[2:-1:2], strict=True):
        ball = {one: other, other: one}.get(ball, ball)
    return ball


def is_right(text: list[str]) -> bool:
    """Tell whether a prompt and its reply end in </think>, the right answer and <end>."""
    return text[-3:] == ["</think>", right_answer(text[: game.PROMPT]), "<end>"]


def test_right_answers_earn_a_reward_and_nothing_else_does() -> None:
    """On random replies, of which some are right, and some are cut off."""
    assert right_answer([*"CABDEBCAEBDBC", "<think>"]) == "D"  # as in the script's docstring
    monkey = replace(game.configure(seed=0), policy=lambda _, texts: np.ones((len(texts), 8)) / 8)
    batch = rollout({}, monkey, range(3000))
    for i, reward in enumerate(batch.rewards):
        steps = batch.trajectory == i
        prompt = batch.observations[steps][0, : game.PROMPT]
        text = [game.VOCABULARY[token] for token in [*prompt, *batch.actions[steps]]]
        assert reward == is_right(text)
        assert "<end>" not in text[:-1]
        assert text[-1] == "<end>" or len(text) == game.LONGEST
    assert batch.rewards.sum() > 5


def test_the_base_model_can_trace() -> None:
    """Made to think to the end, it is right: GRPO can elicit what is there. Eight seeds: 1.0."""
    θ = game.pre_train(seed=1).params
    rng = random.Random(0)
    games = [game.shell_game(rng) for _ in range(200)]
    texts = game.encode([prompt for prompt, _ in games])
    first_cup = game.VOCABULARY.index("A")
    for t in range(game.PROMPT, game.PROMPT + game.SWAPS):
        π_cups = gpt_policy(θ, texts)[:, first_cup : first_cup + len(game.CUPS)]
        texts[:, t] = first_cup + π_cups.argmax(axis=1)
    found = [game.VOCABULARY[token] for token in texts[:, game.PROMPT + game.SWAPS - 1]]
    right = [right_answer(prompt) for prompt, _ in games]
    assert np.mean(np.array(found) == right) > 0.95


def test_shell_game(tmp_path: Path) -> None:
    """On 15 batches, not 50; eight seeds: 31-35% to 86-92% right, 4.5-4.8 to 8.6-8.8 tokens."""
    output = run_example("shell_game.py", tmp_path, "3", old="M=50,", new="M=15,")
    summary = r"\nright ([\d.]+)%, once in 8 ([\d.]+)%, tokens ([\d.]+)(?=\n)"
    before, after = np.array(re.findall(summary, output), float)
    assert 20 < before[0] <= 45
    assert 85 < before[1] < 100
    assert after[0] > 75
    assert after[1] > 97
    assert after[2] > before[2] + 2.5
    batches = re.findall(r"\nbatch +(\d+)/15  right [\d.]+%, tokens [\d.]+(?=\n)", output)
    assert batches == ["5", "10", "15"]

    replies = [line.split() for line in output.splitlines() if "<think>" in line]
    prompts = [reply[: game.PROMPT] for reply in replies]
    assert prompts[:3] == prompts[3:]
    assert len(prompts) == 6
    for *text, verdict in replies:
        assert verdict == ("right" if is_right(text) else "wrong")


def test_say_five(tmp_path: Path) -> None:
    """At least 95% of 1,000 replies are exactly 5 in the end; printed lines have the known form."""
    output = run_example("say_five.py", tmp_path, "0")
    assert output.count("-- Generating rollouts\n") == output.count("-- Training\n") == 100
    rollouts = re.findall(r"\nReward: (.*); Response: (.*)", output)
    assert len(rollouts) == 100 * 25
    for reward, response in rollouts:
        earned = 1 - abs(int(response) - 5) / 9 if re.fullmatch(r"\d", response) else 0
        assert reward == f"{earned:.3f}"
    step = r"\nGrad step (\d)/5 in train step (\d+)/100 completed. Objective: (-?\d+\.\d{6})(?=\n)"
    numbers = np.array(re.findall(step, output), float)
    assert numbers[:, :2].tolist() == [[k, i] for i in range(1, 101) for k in range(1, 6)]
    assert numbers[0, 2] == 0
    last = r'\nReplies that are exactly "5": ([\d.]+)% before training, ([\d.]+)% after\n$'
    ((before, after),) = re.findall(last, output)
    assert float(before) < 4
    assert float(after) >= 95


def test_gradient_steps_draw_from_the_last_two_batches(monkeypatch: Any, capsys: Any) -> None:
    """That of this train step, and that of the one before. No objective is printed as -0.000000."""
    played: list[Batch] = []
    ages = []

    def objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
        ages.append(next(age for age, other in enumerate(reversed(played)) if other is batch))
        return 0 * gpt_objective(θ, batch, config) - 1e-9

    monkeypatch.setattr(say_five, "print_rollouts", played.append)
    monkeypatch.setattr(say_five, "gpt_objective", objective)
    monkeypatch.setattr(say_five, "TRAIN_STEPS", 8)
    θ = gpt_init(len(say_five.VOCABULARY), say_five.LONGEST, seed=0)
    config = GRPOConfig(lambda _: say_five.Conversation(), gpt_policy, G=25)
    say_five.train(AdamWOptimizer(θ), config)
    assert ages[:5] == 5 * [0]
    assert set(ages) == {0, 1}
    assert capsys.readouterr().out.count("Objective: 0.000000\n") == 8 * 5


def test_names_and_tokens() -> None:
    """Tokens count from <end> = 0 and a = 1 on, and every name has room for its <end>."""
    tokens = naming.encode(["abe", "zoa"])
    assert tokens.tolist() == [[1, 2, 5, *[0] * 10], [26, 15, 1, *[0] * 10]]
    assert naming.decode(tokens[0]) == "abe"
    assert not naming.encode(naming.NAMES)[:, -1].any()


def test_each_a_after_the_prompt_earns_a_reward() -> None:
    """And the summary is that of loops, on random names: three in ten tokens are <end>."""
    π = {".": 0.3} | dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 0.7 / 26)
    monkey = replace(
        naming.configure(seed=0, θ_before={}, β=0),
        policy=lambda _, texts: np.tile([*π.values()], (len(texts), 1)),
        reference_policy=lambda texts: np.full((len(texts), 27), 1 / 27),
    )
    batch = naming.play_test({}, monkey)
    names = []
    kl = 0.0
    for i, reward in enumerate(batch.rewards):
        steps = batch.trajectory == i
        reply = "".join([*π][token] for token in batch.actions[steps])
        assert reward == reply.count("a")
        assert "." not in reply[:-1]
        assert reply[-1] == "." or len(reply) == 12
        kl += sum(np.log(27 * π[letter]) for letter in reply)
        names.append([*π][batch.observations[steps][0, 0]] + reply.rstrip("."))
    new = [name not in names[:k] for k, name in enumerate(names[:500])]
    summary = naming.measure(batch)
    assert summary["a"] == sum(batch.rewards) / len(names) > 0
    np.testing.assert_allclose(summary["kl"], kl / len(names))
    assert summary["real"] == sum(naming.NAMES.count(name) for name in names) / len(names) > 0
    assert summary["different"] == sum(new) / 500 < 1


def test_held_out_prompts() -> None:
    """The test draws 500 prompts or more, with seeds that training cannot draw."""
    seeds: list[int] = []

    class Spy(naming.Naming):
        def reset(self, *, seed: list[int]) -> tuple[Array, dict[str, Any]]:
            seeds.extend(seed)
            return super().reset(seed=seed)

    θ = gpt_init(27, naming.LONGEST, seed=0)
    config = replace(naming.configure(0, θ, β=0), environment=lambda _: Spy(), M=2)
    train_grpo(AdamWOptimizer(θ), config, gpt_objective, lambda *_: None)
    assert len(seeds) == 2 * (256 + 64)  # two batches and their validation
    assert max(seeds) < 2**31
    seeds.clear()
    naming.play_test(θ, config)
    assert min(seeds) >= 2**31
    assert len(set(seeds)) == len(seeds) >= 500


def test_a_reference_keeps_names_names(monkeypatch: Any, capsys: Any) -> None:
    """Without one, a's are all that counts. Less training than in the script, for speed.

    Eight seeds without a reference: 7.4 to 9.2 a's, KL 34 to 44, real 0.0%. With β = 1: 1.41 to
    1.54 a's, which is 1.9 to 2.2 times those of before, KL 0.5 to 0.7, and real ones 0.8 to 1.03
    times those of before.
    """
    pre_train = naming.pre_train
    configure = naming.configure
    monkeypatch.setattr(naming, "pre_train", lambda seed: pre_train(seed, steps=200))
    monkeypatch.setattr(naming, "configure", lambda *a, **k: replace(configure(*a, **k), M=15))
    naming.main(seed=3)
    summary = r"a's (\d+\.\d\d), KL (\d+\.\d), real (\d+\.\d)%, different (\d+\.\d)%"
    lines = re.findall(rf"(.*):(?: [a-z]+){{8}}\n{summary}\n", capsys.readouterr().out)
    assert [when for when, *_ in lines] == ["Before GRPO", "No reference", "β = 0.5", "β = 1"]
    before, no_reference, _, close = np.array([numbers for _, *numbers in lines], float)
    assert before[1] == 0
    assert no_reference[0] > 6
    assert no_reference[1] > 25
    assert no_reference[2] < 0.5
    assert before[0] + 0.4 < close[0] < 2
    assert close[1] < 1
    assert close[2] > before[2] / 2
    assert close[3] > 95
