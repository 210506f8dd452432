"""What `evaluate` measures, on which prompts and by whom: stand-ins write temperatures."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions
from minilpo.config import EvaluationConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import GreedyHead
from minilpo.evaluation.evaluate import evaluate, responses_to_evaluate
from minilpo.evaluation.measure import (
    TwoTemperatures,
    measure_fixed,
    measure_policy,
    prompts_to_measure,
)
from minilpo.evaluation.statistics import bootstrap_interval, win_shares
from minilpo.evaluation.summary import by_place_in_sentence, mean_parts, summarize
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts, split_of
from tests.conftest import CHOICES, TEMPERATURES, seeded
from tests.standin import STOP, Warmth, Writer, compared, language_model, rewards_of

N = 2  # responses per prompt
CONFIG = EvaluationConfig(
    test_prompts=5, samples_per_prompt=N, selection_prompts=4, ood_prompts=3, resamples=100
)
SEED, K = 3, len(CHOICES)
WRITTEN = 1 + 2 * N  # at every temperature to each prompt: at 0 one is enough


class Uneven(Warmth):
    """Some of its prompts are worth more than others."""

    def reward(self, prompt, response):
        return super().reward(prompt, response) * (1 + int(prompt.split()[-1]) % 5) / 5


class WithOod(Uneven):
    """Out of distribution cold is good where warm was, and the other way round."""

    def ood_prompt(self, rng):
        return f"{self.name} new {rng.randrange(1000)}"

    def reward(self, prompt, response):
        return Uneven(self.name, self.warm != (" new " in prompt)).reward(prompt, response)


class Ruled(Warmth):
    """Rewards warmth at the first word of a sentence and cold elsewhere, and must not be all warm:
    a rule to keep.
    """

    quality, constraint = "cold", "start"

    def parts(self, prompt, response):
        said = [*map(float, response.split())]
        first, rest, again = (said * 3)[:3]  # one decision is for all three
        return {"start": (first + again) / 2, "cold": 1 - rest}

    def reward(self, prompt, response):
        parts = self.parts(prompt, response)
        return parts["start"] * parts["cold"]


TASKS = [Uneven("hot", True), WithOod("lukewarm", True), Ruled("icecold", False)]


@pytest.fixture
def writer(monkeypatch):
    writer = Writer()
    for module in ("decoding.generate", "evaluation.measure"):
        monkeypatch.setattr(f"minilpo.{module}.generate", writer)
    return writer


def policy_of(level, likeliest=None, choices=CHOICES):
    head = AdaptiveDecoder(16, len(choices), level, n_hidden=8, generator=seeded(0))
    # Another temperature for each task.
    torch.nn.init.normal_(head.mlp[-1].weight, std=3, generator=seeded(21))
    if likeliest is not None:
        head.mlp[-1].bias.data[likeliest] = 100.0
    return GreedyHead(head, choices)


def by_task(values, names):
    return sum(np.mean(values[names == task.name]) for task in TASKS) / len(TASKS)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_evaluate_writes_at_every_temperature_with_the_head_and_at_random_for_each_split(
    writer, level
):
    lm, policy = language_model(), policy_of(level)
    metrics, test = evaluate(lm, TASKS, policy, CONFIG, SEED)
    prompts = {
        split: prompts_to_measure(TASKS, split, CONFIG, SEED).texts
        for split in ("train", "test", "ood")
    }
    seeds = {
        split: torch_generator(SEED, f"evaluation {split}").initial_seed() for split in prompts
    }
    expected = [(prompts["train"], "Fixed", seeds["train"], K)]
    # At sequence level the head is only asked which of the temperatures it chooses.
    policies = {
        "sequence": [("Fixed", WRITTEN), ("GreedyHead", 1)],
        "token": [("Fixed", WRITTEN), ("GreedyHead", N), ("SampledHead", N)],
    }[level]
    for split in ("test", "ood"):
        expected += [(prompts[split], how, seeds[split], n) for how, n in policies]
    if level == "token":
        own = {
            split: [prompt for prompt in prompts[split] if prompt.startswith("icecold")]
            for split in ("train", "test")
        }
        seed = torch_generator(SEED, "two temperatures icecold").initial_seed()
        expected[4:4] = [(own["train"], "ByPlace", seed, K**2), (own["test"], "ByPlace", seed, N)]
    assert [call[1:] for call in writer.calls] == expected
    assert all(call[0] is lm for call in writer.calls)
    assert {type(policy).__name__: policy.level for policy in writer.policies} == {
        "Fixed": "sequence",
        "GreedyHead": level,
        **({"SampledHead": "token", "ByPlace": "token"} if level == "token" else {}),
    }
    assert all(policy.choices is CHOICES for policy in writer.policies)
    greedy = [asked for asked in writer.policies if isinstance(asked, GreedyHead)]
    assert all(asked is policy for asked in greedy)
    if level == "token":
        # The head in training is compared with one that is uniform.
        even = writer.policies[3].head
        assert even(torch.randn(5, 16, generator=seeded(0))).softmax(-1).std() == 0
    rewards = [
        np.array(rewards_of(TASKS, call[1], texts))
        for call, texts in zip(writer.calls, writer.texts, strict=True)
    ]
    names = np.array([prompt.split()[0] for prompt in prompts["test"]])
    assert metrics["temperatures"] == list(TEMPERATURES)
    assert test.texts == prompts["test"] and test.names.tolist() == names.tolist()
    by_option = rewards[1].reshape(15, WRITTEN)[:, [[0, 0], [1, 2], [3, 4]]]  # (P, K, N)
    np.testing.assert_allclose(test.fixed_samples, by_option, atol=1e-6)
    np.testing.assert_allclose(test.fixed_rewards, by_option.mean(2), atol=1e-6)
    assert test.fixed.responses == writer.texts[1]
    if level == "token":
        np.testing.assert_allclose(test.adaptive_samples, rewards[2].reshape(15, N), atol=1e-6)
        at_random = rewards[3].reshape(15, N).mean(1)
        assert test.adaptive.responses == writer.texts[2]
    else:
        chosen = [TEMPERATURES.index(float(text)) for text in writer.texts[2]]
        own = by_option[np.arange(15), chosen]
        np.testing.assert_allclose(test.adaptive_samples, own, atol=1e-6)
        at_random = by_option.mean((1, 2))
        assert test.adaptive.responses == [text for text in writer.texts[2] for _ in range(N)]
    np.testing.assert_allclose(test.random_rewards, at_random, atol=1e-6)
    adaptive = test.adaptive_samples.mean(1)
    assert metrics["mean"]["adaptive"] == pytest.approx(by_task(adaptive, names))
    on_train = rewards[0].reshape(12, K)
    train_names = np.array([prompt.split()[0] for prompt in prompts["train"]])
    best = int(np.argmax([by_task(on_train[:, k], train_names) for k in range(K)]))
    assert metrics["mean"]["best_fixed"]["temperature"] == TEMPERATURES[best]
    if level == "token":
        assert metrics["ood"]["mean"]["adaptive"] == pytest.approx(np.mean(rewards[-2]))
    assert list(metrics["ood"]["tasks"]) == ["lukewarm"]
    assert metrics["ood"]["tasks"]["lukewarm"]["prompts"] == 3
    # As on training prompts, where it was right.
    assert metrics["ood"]["tasks"]["lukewarm"]["oracle_temperature"] == 1.0
    assert metrics["tasks"]["icecold"]["parts"]["cold"]["fixed"] == pytest.approx([1, 0.5, 0])
    assert "controls" not in metrics and "parts" not in metrics["tasks"]["hot"]
    assert metrics == evaluate(lm, TASKS, policy, CONFIG, SEED)[0]
    for interval in (
        metrics["mean"]["gain_over_best_fixed"]["ci95"],
        metrics["ood"]["tasks"]["lukewarm"]["adaptive_ci95"],
    ):
        assert interval[0] < interval[1]


def test_at_token_level_places_in_a_sentence_are_told_apart_and_their_best_rule_is_found(writer):
    lm, policy = language_model(), policy_of("token")
    metrics, test = evaluate(lm, TASKS, policy, CONFIG, SEED)
    for task in TASKS:
        rows = [p * N + n for p in range(15) for n in range(N) if test.names[p] == task.name]
        chosen = np.array(
            [[float(value) for value in test.adaptive.responses[row].split()] for row in rows]
        )
        told = metrics["tasks"][task.name]
        # After the prompt and after the full stop.
        assert told["first_word_temperature"] == pytest.approx(chosen[:, [0, 2]].mean())
        assert told["other_temperature"] == pytest.approx(chosen[:, 1].mean())
        assert ("two_temperatures" in told) == (task.name == "icecold")
    # The head tells the tasks apart.
    assert len({task["other_temperature"] for task in metrics["tasks"].values()}) > 1
    rule = {"first": 1.0, "rest": 0.0, "first_name": "1", "rest_name": "0", "reward": 1.0}
    assert metrics["tasks"]["icecold"]["two_temperatures"] == rule
    on_sequences, _ = evaluate(lm, TASKS, policy_of("sequence"), CONFIG, SEED)
    assert not any(
        {"first_word_temperature", "two_temperatures"} & set(task)
        for task in on_sequences["tasks"].values()
    )


def test_where_no_token_is_in_the_middle_of_a_sentence_its_temperature_is_0():
    words = Writer()(language_model(), ["hot 1"], policy_of("token", likeliest=2), seeded(0))
    made = words.decisions
    cut = replace(
        words,
        token_ids=words.token_ids[:, :1],
        response_mask=words.response_mask[:, :1],
        decisions=Decisions(made.features[:1], made.choice_ids[:, :1], made.mask[:, :1]),
    )
    places = by_place_in_sentence(cut, TEMPERATURES, [STOP])
    assert places == {"first_word_temperature": 1.0, "other_temperature": 0.0}


@pytest.mark.parametrize("n", [1, 3])
def test_a_policy_writes_as_many_responses_to_each_prompt_as_asked_and_is_scored_on_them(writer, n):
    lm, generator = language_model(), seeded(0)
    prompts = prompts_to_measure(TASKS, "test", CONFIG, SEED)
    measured = measure_fixed(lm, prompts, CHOICES, generator)
    assert writer.calls[-1][1:] == (prompts.texts, "Fixed", 0, K)
    assert measured.prompts == prompts.prompts
    expected = np.reshape(rewards_of(TASKS, prompts.texts, writer.texts[-1]), (15, K))
    np.testing.assert_allclose(measured.fixed_rewards, expected, atol=1e-6)
    by_head = policy_of("token")
    rollout, rewards = measure_policy(lm, measured, by_head, generator, n_samples=n)
    assert writer.calls[-1][1:] == (prompts.texts, "GreedyHead", 0, n)
    assert rollout.responses == writer.texts[-1]
    expected = np.reshape(rewards_of(TASKS, prompts.texts, writer.texts[-1]), (15, n))
    np.testing.assert_allclose(rewards, expected, atol=1e-6)


@pytest.mark.parametrize("bad", ["neither", "fixed", "adaptive"])
def test_parts_are_means_over_prompts_and_a_response_that_has_others_is_refused(bad):
    class Changing(Ruled):
        def parts(self, prompt, response):
            parts = super().parts(prompt, response)
            return {**parts, "more": 1.0} if response == "1 1 0" else parts

    fixed = ["1 0 1", "0 0 0", "1 0 0", "1 1 0" if bad == "fixed" else "1 1 1"]
    adaptive = ["1 0 0", "1 1 0" if bad == "adaptive" else "0 1 0"]
    task = Changing("icecold", False)
    test = compared(task, ["icecold 1", "icecold 2"], fixed, adaptive)
    if bad != "neither":
        with pytest.raises(ValueError, match="parts"):
            mean_parts(Changing("icecold", False), test, np.array([0, 1]))
        return
    parts = {
        "start": {"fixed": [0.75, 0.5], "adaptive": 0.25},
        "cold": {"fixed": [1.0, 0.5], "adaptive": 0.5},
    }
    assert mean_parts(Changing("icecold", False), test, np.array([0, 1])) == parts
    alone = mean_parts(Changing("icecold", False), test, np.array([0]))
    assert alone == {
        "start": {"fixed": [1.0, 0.0], "adaptive": 0.5},
        "cold": {"fixed": [1.0, 1.0], "adaptive": 1.0},
    }


def test_temperatures_are_told_as_they_were_given_and_not_as_they_were_stored(writer):
    choices = Temperatures([0.1, 0.7, 1.0])  # 0.1 is stored as 0.10000000149
    policy = policy_of("sequence", choices=choices)
    metrics, _ = evaluate(language_model(), TASKS, policy, CONFIG, SEED)
    assert metrics["temperatures"] == [0.1, 0.7, 1.0]
    assert set(metrics["win_rate"]) == {"0.1", "0.7", "1.0"}
    assert metrics["mean"]["best_fixed"]["temperature"] in (0.1, 0.7, 1.0)


@pytest.mark.parametrize("learned", [0, 1, 2])
def test_the_controls_split_the_gain_into_a_better_constant_and_adapting(writer, learned):
    constant = ConstantHead(16, len(CHOICES), n_hidden=8, generator=seeded(0))
    constant.mlp[-1].bias.data[learned] = 1.0
    policy = policy_of("sequence")
    metrics, test = evaluate(language_model(), TASKS, policy, CONFIG, SEED, constant_head=constant)
    controls = metrics["controls"]
    best = TEMPERATURES.index(metrics["mean"]["best_fixed"]["temperature"])
    of_constant, of_best = test.fixed_rewards[:, learned], test.fixed_rewards[:, best]

    def told(rewards):
        means = {
            task.name: pytest.approx(rewards[test.names == task.name].mean()) for task in TASKS
        }
        return {"reward": pytest.approx(by_task(rewards, test.names)), "tasks": means}

    def gained(values):
        interval = bootstrap_interval(
            values, test.names, CONFIG.resamples, np.random.default_rng(SEED)
        )
        return {"estimate": pytest.approx(by_task(values, test.names)), "ci95": interval}

    assert controls == {
        "learned_constant": {
            "temperature": TEMPERATURES[learned],
            "name": str(TEMPERATURES[learned]).removesuffix(".0"),
            **told(of_constant),
        },
        "random_head": told(test.random_rewards),
        "gain_over_random_head": gained(test.adaptive_rewards - test.random_rewards),
        "found_a_better_constant": gained(of_constant - of_best),
        "adapted_to_the_context": gained(test.adaptive_rewards - of_constant),
    }
    parts = [
        controls[name]["estimate"] for name in ("found_a_better_constant", "adapted_to_the_context")
    ]
    assert sum(parts) == pytest.approx(metrics["mean"]["gain_over_best_fixed"]["estimate"])


def test_intervals_have_the_seed_and_the_number_of_resamples_that_were_asked_for(writer):
    _, test = evaluate(language_model(), TASKS, policy_of("sequence"), CONFIG, SEED)
    for resamples, seed in [(100, 0), (100, 1), (300, 0)]:
        summary = summarize(test, test, Temperatures(TEMPERATURES), resamples, seed)

        def interval(values, names, resamples=resamples, seed=seed):
            return bootstrap_interval(values, names, resamples, np.random.default_rng(seed))

        best = TEMPERATURES.index(summary["mean"]["best_fixed"]["temperature"])
        gain = test.adaptive_rewards - test.fixed_rewards[:, best]
        assert summary["mean"]["gain_over_best_fixed"]["ci95"] == interval(gain, test.names)
        won = win_shares(test.adaptive_samples, test.fixed_samples[:, 1])
        assert summary["win_rate_ci95"]["0.5"] == interval(won, test.names)
        for task in TASKS:
            own = test.names == task.name
            assert summary["tasks"][task.name]["adaptive_ci95"] == interval(
                test.adaptive_rewards[own], test.names[own]
            )


def test_each_split_has_its_own_number_of_prompts_drawn_by_the_seed():
    for split, n, tasks in [("train", 4, TASKS), ("test", 5, TASKS), ("ood", 3, [TASKS[1]])]:
        expected = mixed_prompts(tasks, n, split, python_rng(9, f"evaluation prompts {split}"))
        drawn = prompts_to_measure(TASKS, split, CONFIG, 9)
        assert drawn.prompts == expected
        assert len(drawn.prompts) == n * len(tasks)
        assert split == "ood" or {split_of(text) for text in drawn.texts} == {split}


@pytest.mark.parametrize(
    "tasks, level, n",
    [
        (TASKS[:1], "sequence", 7 * 4 + 13 * 5),
        (TASKS[:1], "token", 7 * 4 + 17 * 5),
        (TASKS[1:2], "sequence", 7 * 4 + 13 * 5 + 13 * 3),
        (TASKS[1:2], "token", 7 * 4 + 17 * 5 + 17 * 3),
        (TASKS[2:], "sequence", 7 * 4 + 13 * 5),
        (TASKS[2:], "token", 7 * 4 + 17 * 5 + 49 * 4 + 2 * 5),
        (TASKS, "sequence", 3 * (7 * 4 + 13 * 5) + 13 * 3),
        (TASKS, "token", 3 * (7 * 4 + 17 * 5) + 17 * 3 + 49 * 4 + 2 * 5),
    ],
)
def test_the_responses_are_counted_before_they_are_written(writer, tasks, level, n):
    """With 7 temperatures, the first of them 0: 4 prompts to choose on; 5 to test on, each with 1
    and 6 * 2 responses and at token level 2 * 2 more; 3 out of distribution; a rule is chosen among
    49 and gets 2 responses to each test prompt.
    """
    choices = Temperatures([k / 10 for k in range(7)])
    policy, written = policy_of(level, choices=choices), []
    assert responses_to_evaluate(tasks, policy, CONFIG) == n
    counting = partial(respond, progress=written.append)
    metrics, _ = evaluate(language_model(), tasks, policy, CONFIG, SEED, respond=counting)
    assert ("ood" in metrics) == (TASKS[1] in tasks)
    # At sequence level the head is asked for its choices, which are no responses.
    asked = 5 * len(tasks) + 3 * (TASKS[1] in tasks) if level == "sequence" else 0
    assert sum(written) == sum(map(len, writer.texts)) - asked == n


def test_the_search_for_two_temperatures_tries_every_pair_on_every_selection_prompt(writer):
    selection, test = (
        prompts_to_measure(TASKS, split, CONFIG, SEED).of(TASKS[2]) for split in ("train", "test")
    )
    search = TwoTemperatures(language_model(), CHOICES, selection, test, SEED)
    rule = {"first": 1.0, "rest": 0.0, "first_name": "1", "rest_name": "0", "reward": 1.0}
    assert search.search() == rule
    tried = [text.split() for text in writer.texts[0]]
    pairs = [(first, rest) for first in ("0", "0.5", "1") for rest in ("0", "0.5", "1")]
    assert tried == [[first, rest, first] for first, rest in pairs] * 4
    assert writer.texts[1] == ["1 0 1"] * 5
    twice = TwoTemperatures(language_model(), CHOICES, selection, test, SEED, n_samples=2)
    assert twice.search() == rule
    assert writer.texts[3] == ["1 0 1"] * 10
