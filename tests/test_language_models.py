"""Language models: the GPT, what their environments reward, and what the scripts print."""

import random
import re
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import names as naming
import numpy as np
import pytest
import say_five
import shell_game as game
from autograd import value_and_grad
from gpt import HEADS, cross_entropy, gpt, gpt_init, gpt_objective, gpt_policy
from test_examples import run_example

from microgrpo import AdamWOptimizer, Batch, GRPOConfig, grpo_objective, rollout


def float64_gpt(vocabulary: int, longest: int, seed: int, width: int = 8) -> Any:
    """Draw parameters that are large enough for every part of the GPT to matter."""
    θ = gpt_init(vocabulary, longest, seed, width)
    return {name: 5 * value.astype(float) for name, value in θ.items()}


def literal_gpt(θ: Any, tokens: Any) -> Any:
    """Work out the probabilities after the last of some tokens, head by head, token by token."""

    def norm(x: Any) -> Any:
        return x / np.sqrt(np.mean(x**2) + 1e-5)

    x = [θ["token"][token] + θ["position"][t] for t, token in enumerate(tokens)]
    size = len(x[0]) // HEADS
    query = norm(x[-1]) @ θ["query"]
    read = np.zeros(len(x[0]))
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = [query[part] @ (norm(y) @ θ["key"])[part] / np.sqrt(size) for y in x]
        for score, y in zip(scores, x, strict=True):
            weight = np.exp(score) / sum(np.exp(scores))
            read[part] += weight * (norm(y) @ θ["value"])[part]
    last = x[-1] + read @ θ["projection"]
    last = last + np.maximum(norm(last) @ θ["up"], 0) @ θ["down"]
    p = np.exp(norm(last) @ θ["unembedding"])
    return p / p.sum()


def test_the_gpt_is_one_block_of_a_transformer() -> None:
    """The probabilities after each token are those given by loops over it and those before it."""
    θ = float64_gpt(7, 6, seed=0)
    tokens = np.random.default_rng(0).integers(7, size=(3, 6))
    π = gpt(θ, tokens)
    for i, t in np.ndindex(3, 6):
        np.testing.assert_allclose(π[i, t], literal_gpt(θ, tokens[i, : t + 1]), rtol=1e-6)


def test_the_gpt_stays_float32_and_follows_from_its_seed() -> None:
    """Parameters, loss and gradients are float32; the initial scale is 0.1."""
    θ, again, other = (gpt_init(8, 23, seed) for seed in (1, 1, 2))
    assert all((θ[name] == again[name]).all() and (θ[name] != other[name]).any() for name in θ)
    loss, gradient = value_and_grad(cross_entropy)(θ, np.ones((2, 5), int), 2)
    assert {x.dtype for x in (*θ.values(), loss, *gradient.values())} == {np.dtype(np.float32)}
    scale = np.concatenate([value.ravel() for value in θ.values()]).std()
    assert scale == pytest.approx(0.1, rel=0.02)


def test_the_policy_continues_after_the_last_token_that_is_not_end() -> None:
    """It does so even if <end>, which is token 0, is in a prompt, and if a text is full."""
    θ = float64_gpt(7, 5, seed=2)
    texts = np.array([[3, 0, 2, 0, 0], [0, 4, 0, 0, 0], [1, 2, 3, 4, 5], [6, 0, 0, 0, 0]])
    expected = [literal_gpt(θ, text[:n]) for text, n in zip(texts, (3, 2, 5, 1), strict=True)]
    np.testing.assert_allclose(gpt_policy(θ, texts), expected, rtol=1e-6)


def test_each_reply_is_read_once() -> None:
    """J and its gradient are those of grpo_objective, which reads a reply once per token."""
    θ, base = (float64_gpt(len(game.VOCABULARY), game.LONGEST, seed) for seed in (0, 1))
    config = replace(game.configure(seed=0), reference_policy=partial(gpt_policy, base), β=0.1, G=8)
    batch = rollout(θ, config, np.repeat([1, 2, 3], 8))
    assert max(np.bincount(batch.trajectory)) == 9  # some replies are cut
    batch = batch._replace(rewards=np.random.default_rng(0).random(24))
    moved = {name: value + 0.1 * base[name] for name, value in θ.items()}
    J, gradient = value_and_grad(gpt_objective)(moved, batch, config)
    J_slow, gradient_slow = value_and_grad(grpo_objective)(moved, batch, config)
    assert pytest.approx(J_slow, rel=1e-9) == J
    for name, slow in gradient_slow.items():
        assert abs(slow).max() > 1e-4
        np.testing.assert_allclose(gradient[name], slow, rtol=1e-6, atol=1e-9)


def test_cross_entropy_is_the_mean_of_minus_log_probabilities() -> None:
    """The mean is over the tokens of replies and each <end> after them."""
    θ = float64_gpt(5, 6, seed=0)
    texts = np.array([[1, 2, 3, 4, 0, 0], [4, 3, 2, 0, 0, 0]])
    logs = [np.log(literal_gpt(θ, text[:t])[text[t]]) for text in texts for t in range(2, 6)]
    assert cross_entropy(θ, texts, start=2) == pytest.approx(-np.mean(logs), rel=1e-6)


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
    games = [game.shell_game(random.Random(seed)) for seed in range(200)]
    texts = game.encode([prompt for prompt, _ in games])
    A = game.VOCABULARY.index("A")  # the first of the cups, which come last
    for t in range(game.PROMPT, game.PROMPT + game.SWAPS):
        texts[:, t] = A + gpt_policy(θ, texts)[:, A:].argmax(axis=1)
    found = [game.VOCABULARY[token] for token in texts[:, t]]
    assert np.mean([right_answer(prompt) for prompt, _ in games] == np.array(found)) > 0.95


def test_shell_game() -> None:
    """On 15 batches, not 50; eight seeds: 31-35% to 86-92% right, 4.5-4.8 to 8.6-8.8 tokens."""
    output = run_example("shell_game.py", "3", old="M=50,", new="M=15,")
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
    before_and_after = np.array([reply[: game.PROMPT] for reply in replies]).reshape(2, 3, -1)
    assert (before_and_after[0] == before_and_after[1]).all()  # the same prompts
    for *text, verdict in replies:
        assert verdict == ("right" if is_right(text) else "wrong")


def test_say_five() -> None:
    """At least 95% of 1,000 replies are exactly 5 in the end; printed lines have the known form."""
    output = run_example("say_five.py", "0")
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


def test_updates_draw_from_the_last_two_batches(monkeypatch: Any, capsys: Any) -> None:
    """That of this train step, and that of the one before. No objective is printed as -0.000000."""
    played: list[Batch] = []
    objective = Mock(side_effect=lambda θ, *_: 0 * θ["token"][0, 0] - 1e-9)
    monkeypatch.setattr(say_five, "print_rollouts", played.append)
    monkeypatch.setattr(say_five, "gpt_objective", objective)
    monkeypatch.setattr(say_five, "TRAIN_STEPS", 8)
    θ = gpt_init(len(say_five.VOCABULARY), say_five.LONGEST, seed=0)
    config = GRPOConfig(lambda _: say_five.Conversation(), gpt_policy, G=25)
    say_five.train(AdamWOptimizer(θ), config)
    used = [call.args[1] for call in objective.mock_calls]  # five batches in each train step
    ages = [k // 5 - [batch is x for x in played].index(True) for k, batch in enumerate(used)]
    assert ages[:5] == 5 * [0]
    assert set(ages) == {0, 1}
    assert capsys.readouterr().out.count("Objective: 0.000000\n") == 8 * 5


def test_each_a_after_the_prompt_earns_a_reward(monkeypatch: Any) -> None:
    """The summary agrees with loops too, on random names: three in ten tokens are <end>."""
    monkeypatch.setattr(naming, "rollout", spy := Mock(wraps=rollout))
    π = {".": 0.3} | dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 0.7 / 26)
    monkey = replace(
        naming.configure(seed=0, θ_before={}, β=0),
        policy=lambda _, texts: np.tile([*π.values()], (len(texts), 1)),
        reference_policy=lambda texts: np.full((len(texts), 27), 1 / 27),
    )
    batch = naming.play_test({}, monkey)
    seeds = spy.call_args.args[2]
    assert min(seeds) >= 2**31  # those of training are smaller
    assert len(set(seeds)) == len(batch.rewards) >= 500
    assert [naming.decode(tokens) for tokens in naming.encode(naming.NAMES)] == naming.NAMES
    names = []
    kl = 0.0
    for i, reward in enumerate(batch.rewards):
        steps = batch.trajectory == i
        reply = "".join([*π][token] for token in batch.actions[steps])
        assert re.fullmatch(r"[a-z]*\.|[a-z]{12}", reply)
        assert reward == reply.count("a")
        kl += sum(np.log(27 * π[letter]) for letter in reply)
        names.append([*π][batch.observations[steps][0, 0]] + reply.rstrip("."))
    expected = {
        "a": sum(batch.rewards) / len(names),
        "kl": kl / len(names),
        "real": sum(naming.NAMES.count(name) for name in names) / len(names),
        "different": len(set(names[:500])) / 500,
    }
    assert naming.measure(batch) == pytest.approx(expected)
    assert min(expected.values()) > 0
    assert expected["different"] < 1


def test_a_reference_keeps_names_names(monkeypatch: Any, capsys: Any) -> None:
    """Without one, only a's count. There is less training than in the script, for speed.

    Eight seeds without a reference: 7.4 to 9.2 a's, KL 34 to 44, real 0.0%. With β = 1: 1.41 to
    1.54 a's (1.9 to 2.2 times those before), KL 0.5 to 0.7, real 0.8 to 1.03 times those before.
    """
    monkeypatch.setattr(naming, "pre_train", partial(naming.pre_train, steps=200))
    configure = naming.configure
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
