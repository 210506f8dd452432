"""What `evaluate` measures, on which prompts and with whom: by stand-ins that write temperatures in place of words."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import EvaluationConfig
from minilpo.evaluation import (
    by_place_in_sentence,
    evaluate,
    mean_parts,
    measure_fixed,
    measure_head,
    prompts_to_measure,
    responses_to_write,
    summarize,
)
from minilpo.seeds import python_rng, torch_generator
from minilpo.statistics import bootstrap_interval
from minilpo.tasks import mixed_prompts
from tests.conftest import seeded
from tests.standin import CHOICES, STOP, Model, Warmth, Words, Writer, rewards_of

CONFIG = EvaluationConfig(test_prompts=5, selection_prompts=4, ood_prompts=3, resamples=100)
SEED, K = 3, len(CHOICES)


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
    """Rewards warmth at the first word of a sentence and cold elsewhere, and must not be all warm: a rule to keep."""

    quality, constraint = "cold", "start"

    def parts(self, prompt, response):
        first, rest, again = ([*map(float, response.split())] * 3)[:3]  # one decision is for all three
        return {"start": (first + again) / 2, "cold": 1 - rest}

    def reward(self, prompt, response):
        parts = self.parts(prompt, response)
        return parts["start"] * parts["cold"]


TASKS = [Uneven("hot", True), WithOod("lukewarm", True), Ruled("icecold", False)]


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr("minilpo.evaluation.generate", writer := Writer())
    return writer


def head_of(level, likeliest=None):
    head = AdaptiveDecoder(16, CHOICES, level, n_hidden=8, generator=seeded(0))
    torch.nn.init.normal_(head.mlp[-1].weight, std=3, generator=seeded(21))  # another temperature for each task
    if likeliest is not None:
        head.mlp[-1].bias.data[likeliest] = 100.0
    return head


def by_task(values, names):
    return sum(np.mean(values[names == task.name]) for task in TASKS) / len(TASKS)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_evaluate_writes_at_every_temperature_with_the_head_and_at_random_on_the_prompts_of_each_split(writer, level):
    model, tokenizer, head, written = Model(), Words(), head_of(level), []
    metrics, test = evaluate(model, tokenizer, TASKS, head, CONFIG, SEED, written.append)
    prompts = {split: prompts_to_measure(TASKS, split, CONFIG, SEED)[1] for split in ("train", "test", "ood")}
    seeds = {split: torch_generator(SEED, f"evaluation {split}").initial_seed() for split in prompts}
    expected = [(prompts["train"], seeds["train"], K, "greedy")]
    for split in ("test", "ood"):
        expected += [(prompts[split], seeds[split], n, how) for n, how in [(K, "greedy"), (1, "greedy"), (1, "sample")]]
    if level == "token":
        own = {split: [prompt for prompt in prompts[split] if prompt.startswith("icecold")] for split in ("train", "test")}
        seed = torch_generator(SEED, "two temperatures icecold").initial_seed()
        expected[4:4] = [(own["train"], seed, K**2, "greedy"), (own["test"], seed, 1, "greedy")]
    assert [call[2:] for call in writer.calls] == expected
    assert all(call[:2] == (model, tokenizer) for call in writer.calls)
    assert {type(head).__name__: head.level for head in writer.heads} == {
        "FixedTemperatures": "sequence",
        "AdaptiveDecoder": level,  # the one in training, and the uniform one it is compared with
        **({"TwoTemperatures": "token"} if level == "token" else {}),
    }
    assert sum(written) == sum(len(texts) for texts in writer.texts) == responses_to_write(TASKS, K, level, CONFIG)

    rewards = [np.array(rewards_of(TASKS, call[2], texts)) for call, texts in zip(writer.calls, writer.texts, strict=True)]
    names = np.array([prompt.split()[0] for prompt in prompts["test"]])
    assert metrics["temperatures"] == CHOICES and test.prompts == prompts["test"] and test.names.tolist() == names.tolist()
    assert [task.name for task in test.task_of] == names.tolist()
    np.testing.assert_allclose(test.fixed_rewards, rewards[1].reshape(15, K), atol=1e-6)
    np.testing.assert_allclose(test.adaptive_rewards, rewards[2], atol=1e-6)
    np.testing.assert_allclose(test.random_rewards, rewards[3], atol=1e-6)
    assert test.fixed.responses == writer.texts[1] and test.adaptive.responses == writer.texts[2]
    assert metrics["mean"]["adaptive"] == pytest.approx(by_task(rewards[2], names))
    on_train = rewards[0].reshape(12, K)
    train_names = np.array([prompt.split()[0] for prompt in prompts["train"]])
    best = int(np.argmax([by_task(on_train[:, k], train_names) for k in range(K)]))
    assert metrics["mean"]["best_fixed"]["temperature"] == CHOICES[best]
    assert metrics["ood"]["mean"]["adaptive"] == pytest.approx(np.mean(rewards[-2]))
    assert list(metrics["ood"]["tasks"]) == ["lukewarm"] and metrics["ood"]["tasks"]["lukewarm"]["prompts"] == 3
    assert metrics["ood"]["tasks"]["lukewarm"]["oracle_temperature"] == 1.0  # as on training prompts, where it was right
    assert metrics["tasks"]["icecold"]["parts"]["cold"]["fixed"] == pytest.approx([1, 0.5, 0])
    assert "controls" not in metrics and "parts" not in metrics["tasks"]["hot"]
    assert metrics == evaluate(model, tokenizer, TASKS, head, CONFIG, SEED)[0]
    for interval in (metrics["mean"]["gain_over_best_fixed"]["ci95"], metrics["ood"]["tasks"]["lukewarm"]["adaptive_ci95"]):
        assert interval[0] < interval[1]


def test_without_prompts_out_of_distribution_there_is_nothing_to_say_of_them(writer):
    metrics, _ = evaluate(Model(), Words(), [TASKS[0], TASKS[2]], head_of("sequence"), CONFIG, SEED)
    assert "ood" not in metrics and len(writer.calls) == 4


def test_at_token_level_the_places_in_a_sentence_are_told_apart_and_the_best_rule_for_them_is_found(writer):
    head = head_of("token")
    metrics, test = evaluate(Model(), Words(), TASKS, head, CONFIG, SEED)
    for task in TASKS:
        rows = [row for row, name in enumerate(test.names) if name == task.name]
        chosen = np.array([[float(value) for value in test.adaptive.responses[row].split()] for row in rows])
        told = metrics["tasks"][task.name]
        assert told["first_word_temperature"] == pytest.approx(chosen[:, [0, 2]].mean())  # after the prompt and the full stop
        assert told["other_temperature"] == pytest.approx(chosen[:, 1].mean())
        assert ("two_temperatures" in told) == (task.name == "icecold")
    assert len({task["other_temperature"] for task in metrics["tasks"].values()}) > 1  # the head tells the tasks apart
    assert metrics["tasks"]["icecold"]["two_temperatures"] == {"first": 1.0, "rest": 0.0, "reward": 1.0}
    on_sequences, _ = evaluate(Model(), Words(), TASKS, head_of("sequence"), CONFIG, SEED)
    assert not any({"first_word_temperature", "two_temperatures"} & set(task) for task in on_sequences["tasks"].values())


def test_where_no_token_is_in_the_middle_of_a_sentence_its_temperature_is_0():
    words = Writer()(Model(), Words(), ["hot 1"], head_of("token", likeliest=2), seeded(0))
    cut = {name: getattr(words, name)[:, :1] for name in ("token_ids", "response_mask", "temperature_ids", "decision_mask")}
    places = by_place_in_sentence(replace(words, **cut), torch.tensor([STOP]))
    assert places == {"first_word_temperature": 1.0, "other_temperature": 0.0}


def test_a_head_is_measured_at_its_likeliest_temperatures_unless_told_otherwise(writer):
    generator = seeded(0)
    measured = measure_fixed(Model(), Words(), TASKS, CHOICES, "test", CONFIG, SEED, generator)
    rollout, rewards = measure_head(Model(), Words(), measured, head_of("sequence"), generator)
    assert writer.calls[-1][2:] == (measured.prompts, 0, 1, "greedy") and rollout.responses == writer.texts[-1]
    np.testing.assert_allclose(rewards, rewards_of(TASKS, measured.prompts, writer.texts[-1]), atol=1e-6)


@pytest.mark.parametrize("bad", ["neither", "fixed", "adaptive"])
def test_parts_are_means_over_prompts_and_a_response_that_has_others_is_refused(bad):
    class Changing(Ruled):
        def parts(self, prompt, response):
            parts = super().parts(prompt, response)
            return {**parts, "more": 1.0} if response == "1 1 0" else parts

    fixed = ["1 0 1", "0 0 0", "1 0 0", "1 1 0" if bad == "fixed" else "1 1 1"]  # two to each of two prompts
    adaptive = ["1 0 0", "1 1 0" if bad == "adaptive" else "0 1 0"]
    responses = [SimpleNamespace(n_samples=n, responses=texts) for n, texts in [(2, fixed), (1, adaptive)]]
    test = SimpleNamespace(prompts=["icecold 1", "icecold 2"], fixed=responses[0], adaptive=responses[1])
    if bad != "neither":
        with pytest.raises(ValueError, match="parts"):
            mean_parts(Changing("icecold", False), test, np.array([0, 1]))
        return
    parts = {"start": {"fixed": [0.75, 0.5], "adaptive": 0.25}, "cold": {"fixed": [1.0, 0.5], "adaptive": 0.5}}
    assert mean_parts(Changing("icecold", False), test, np.array([0, 1])) == parts
    alone = mean_parts(Changing("icecold", False), test, np.array([0]))
    assert alone == {"start": {"fixed": [1.0, 0.0], "adaptive": 0.5}, "cold": {"fixed": [1.0, 1.0], "adaptive": 1.0}}


def test_temperatures_are_told_as_they_were_given_and_not_as_they_were_stored(writer):
    head = AdaptiveDecoder(16, [0.1, 0.7, 1.0], n_hidden=8, generator=seeded(0))  # 0.1 is stored as 0.10000000149
    metrics, _ = evaluate(Model(), Words(), TASKS, head, CONFIG, SEED)
    assert metrics["temperatures"] == [0.1, 0.7, 1.0] and set(metrics["win_rate"]) == {"0.1", "0.7", "1.0"}
    assert metrics["mean"]["best_fixed"]["temperature"] in (0.1, 0.7, 1.0)


@pytest.mark.parametrize("learned", [0, 1, 2])
def test_the_controls_split_the_gain_into_a_better_constant_and_adapting(writer, learned):
    constant = ConstantHead(16, CHOICES, n_hidden=8, generator=seeded(0))
    constant.mlp[-1].bias.data[learned] = 1.0
    metrics, test = evaluate(Model(), Words(), TASKS, head_of("sequence"), CONFIG, SEED, constant_head=constant)
    best, controls = CHOICES.index(metrics["mean"]["best_fixed"]["temperature"]), metrics["controls"]
    of_constant, of_best = test.fixed_rewards[:, learned], test.fixed_rewards[:, best]

    def told(rewards):
        means = {task.name: pytest.approx(rewards[test.names == task.name].mean()) for task in TASKS}
        return {"reward": pytest.approx(by_task(rewards, test.names)), "tasks": means}

    def gained(values):
        interval = bootstrap_interval(values, test.names, CONFIG.resamples, np.random.default_rng(SEED))
        return {"estimate": pytest.approx(by_task(values, test.names)), "ci95": interval}

    assert controls == {
        "learned_constant": {"temperature": CHOICES[learned], **told(of_constant)},
        "random_head": told(test.random_rewards),
        "gain_over_random_head": gained(test.adaptive_rewards - test.random_rewards),
        "found_a_better_constant": gained(of_constant - of_best),
        "adapted_to_the_context": gained(test.adaptive_rewards - of_constant),
    }
    parts = controls["found_a_better_constant"]["estimate"] + controls["adapted_to_the_context"]["estimate"]
    assert parts == pytest.approx(metrics["mean"]["gain_over_best_fixed"]["estimate"])


def test_intervals_have_the_seed_and_the_number_of_resamples_that_were_asked_for(writer):
    _, test = evaluate(Model(), Words(), TASKS, head_of("sequence"), CONFIG, SEED)
    for resamples, seed in [(100, 0), (100, 1), (300, 0)]:
        summary = summarize(test, test, CHOICES, resamples, seed)

        def interval(values, names, resamples=resamples, seed=seed):
            return bootstrap_interval(values, names, resamples, np.random.default_rng(seed))

        best = CHOICES.index(summary["mean"]["best_fixed"]["temperature"])
        gain = test.adaptive_rewards - test.fixed_rewards[:, best]
        assert summary["mean"]["gain_over_best_fixed"]["ci95"] == interval(gain, test.names)
        for task in TASKS:
            own = test.names == task.name
            assert summary["tasks"][task.name]["adaptive_ci95"] == interval(test.adaptive_rewards[own], test.names[own])


def test_each_split_has_its_own_number_of_prompts_drawn_by_the_seed():
    for split, n, tasks in [("train", 4, TASKS), ("test", 5, TASKS), ("ood", 3, [TASKS[1]])]:
        expected = mixed_prompts(tasks, n, split, python_rng(9, f"evaluation prompts {split}"))
        assert prompts_to_measure(TASKS, split, CONFIG, 9) == expected
        assert len(expected[1]) == n * len(tasks)


@pytest.mark.parametrize(
    "tasks, level, n",
    [
        (TASKS[:1], "sequence", 7 * 4 + 9 * 5),
        (TASKS[:1], "token", 7 * 4 + 9 * 5),
        (TASKS[1:2], "sequence", 7 * 4 + 9 * 5 + 9 * 3),
        (TASKS[2:], "sequence", 7 * 4 + 9 * 5),
        (TASKS[2:], "token", 7 * 4 + 9 * 5 + 49 * 4 + 5),
        (TASKS, "token", 3 * (7 * 4 + 9 * 5) + 9 * 3 + 49 * 4 + 5),
    ],
)
def test_the_responses_are_counted_before_they_are_written(tasks, level, n):
    """With 7 temperatures: 4 prompts to choose on, 5 of them and two more responses to test on, 3 out of distribution."""
    assert responses_to_write(tasks, 7, level, CONFIG) == n
