"""The rivals: equal budgets, settings chosen on training prompts, and what is concluded."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minilpo.config import LPOConfig, ModelConfig, RunConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import Fixed, GreedyHead
from minilpo.evaluation.measure import Prompts
from minilpo.experiments import lab as lab_module
from minilpo.experiments import methods, rivals
from minilpo.experiments.base import over_seeds
from minilpo.experiments.lab import MIXTURE, Lab
from minilpo.experiments.methods import (
    HEADS,
    JOINT,
    LEAST_PROMPTS,
    TEST_SAMPLES,
    Rule,
    best_settings,
    budget_of,
    part_of,
    rules_of,
    settings_for,
    try_out,
)
from minilpo.experiments.rivals import BEST_RULE, LEVELS, MAIN_HEADS, PAIRS
from minilpo.run import processes
from minilpo.tasks import Prompt, split_of
from tests import standin
from tests.experiments import five, named, titles

CONFIG = RunConfig(
    temperatures=(0.0, 0.5, 1.0),
    model=ModelConfig(vocab_size=10, n_layer=1, n_head=2, n_embd=16, block_size=20),
    lpo=LPOConfig(rounds=3, prompts=96, samples=4, epochs=2, n_hidden=8, validation_prompts=9),
)
RULE = Rule("{:g}", [(0.0,), (0.5,), (1.0,)], lambda t: Fixed(Temperatures(t)), ("", "per kind"))


class Halves(standin.Warmth):
    """Prompts with even numbers are of another kind."""

    def prompt(self, rng):
        return f"{self.name} {rng.randrange(10**6)}"

    def kind(self, prompt):
        return f"{self.name} {'odd' if int(prompt.split()[1]) % 2 else 'even'}"

    def reward(self, prompt, response):
        return super().reward(prompt, response.split(",")[0])  # of names like "1, min-p 0.5"


@pytest.fixture
def writer(monkeypatch):
    """Takes the place of `generate`: keeps every call and text."""
    writer = standin.Writer()
    monkeypatch.setattr("minilpo.decoding.generate.generate", writer)
    return writer


@pytest.fixture
def lab(tmp_path, writer):
    """A lab whose responses are the temperatures they were written by; two tasks like it warm."""
    return lab_in(tmp_path)


def lab_in(folder, names=MIXTURE, **settings):
    lab = Lab(folder, replace(CONFIG, **settings))
    tasks = [Halves(name, warm=i % 2 == 0) for i, name in enumerate(names)]
    lm = standin.language_model()
    lab.run = SimpleNamespace(tasks=tasks, config=lab.config, language_model=lambda: lm)
    lab.folder.mkdir(exist_ok=True)
    return lab


def prompts_of(names, numbers):
    """A prompt of each task named; the number in it tells its kind."""
    tasks = {name: Halves(name, warm=True) for name in names}
    pairs = zip(names, numbers, strict=True)
    return Prompts([Prompt(f"{name} {number}", tasks[name]) for name, number in pairs])


def one_of_each(lab):
    """A prompt of each task."""
    tasks = lab.run.tasks
    return Prompts([Prompt(f"{task.name} {p}", task) for p, task in enumerate(tasks)])


def n_written(writer):
    return sum(len(prompts) * n_samples for _, prompts, _, _, n_samples in writer.calls)


# The lab's choices and rounds


def test_a_head_chooses_among_any_temperatures_and_is_kept_under_their_rules(lab, writer):
    joint = Temperatures([0.0, 1.0, 1.0], min_p=[0.0, 0.0, 0.5])
    other = Temperatures([0.0, 1.0, 1.0], min_p=[0.0, 0.0, 0.4])
    heads = [lab.head(choices=choices) for choices in (joint, other, None)]
    assert heads[0].choices is joint and heads[0].head.n_choices == 3
    n_calls = len(writer.calls)
    lab.head(choices=Temperatures([0.0, 0.5, 1.0]))  # as by default
    assert len(writer.calls) == n_calls and len(list(lab.folder.glob("head_*.pt"))) == 3


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_the_head_after_some_rounds_is_that_of_a_training_of_so_many(
    lab, tmp_path, writer, monkeypatch, level
):
    validations = itertools.count(1)

    def better_each_time(lm, prompts, policy, *arguments, **options):
        """Rewards that are higher at each validation, so that the last head is the best."""
        rollout, rewards = respond(lm, prompts, policy, *arguments, **options)
        if isinstance(policy, GreedyHead):
            rewards = (next(validations) + rewards) / 1000
        return rollout, rewards

    monkeypatch.setattr(processes, "respond", better_each_time)
    settings = {"level": level, "loss": "eq10", "samples": 6}
    head = lab.head(**settings)
    n_calls = len(writer.calls)
    read = lab_in(tmp_path).head(**settings)  # from the file
    assert len(writer.calls) == n_calls and len(read.best_after) == 3
    weights = []
    for rounds in (1, 2, 3):
        shorter = lab.head(**settings, rounds=rounds).head.state_dict()
        for kept in (head, read):
            found = kept.after(rounds).head.state_dict()
            assert all(torch.equal(found[name], shorter[name]) for name in shorter)
        weights.append(torch.cat([weight.flatten() for weight in shorter.values()]))
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert head.after(3).level == level


# Equal budgets


def test_every_method_may_use_as_many_responses_and_no_rule_uses_more(lab, writer):
    whole, early, spent = budget_of(lab)
    per_round = 4 * (8 * 4 + 3 * 4)  # tasks, prompts of each, samples; held-out prompts, samples
    assert spent == [4 * (2 * 4 + 1 * 4), per_round, 2 * per_round, 3 * per_round]
    for settings, n in ((early, spent[0]), (whole, spent[-1])):
        writer.calls.clear()
        lab.head(**settings)
        assert n_written(writer) == n
    writer.calls.clear()
    _, rewards = try_out(lab, RULE, spent[-1])
    assert n_written(writer) == rewards.size
    assert spent[-1] - 4 * len(RULE.settings) < rewards.size <= spent[-1]


def test_heads_take_as_many_gradient_steps_whichever_pairs_are_formed(lab, monkeypatch):
    """At most one pair of a prompt by best/worst, all 6 of four samples by the other two."""
    configs, real = [], lab_module.training_of
    note = lambda *asked: configs.append(asked[-1]) or real(*asked)  # noqa: E731
    monkeypatch.setattr(lab_module, "training_of", note)
    for asked in ({}, {"pairs": "all"}, {"pairs": "gap"}, {"rule": "grpo"}):
        lab.head(**asked, prompts=8, rounds=1)
    taken = [config.pairs_per_batch / lab.config.lpo.pairs_per_batch for config in configs]
    assert taken == [1, 6, 6, 1]


def test_rules_have_a_dozen_settings_or_those_of_a_head_and_each_makes_a_policy(lab):
    rules = rules_of(lab)
    for name, rule in rules.items():
        own = {"constant": 3, "joint constant": len(JOINT)}.get(name, 12)
        assert len(rule.settings) == len({rule.words.format(*s) for s in rule.settings}) == own
        assert rule.of(*range(own)).level in ("sequence", "token")
    policy = rules["by place"].of(0, 11)  # each first temperature with its rest
    pairs = [[policy.choices.temperatures[k] for k in pair] for pair in policy.pairs.tolist()]
    assert pairs == [[0.0, 0.4], [0.8, 1.0]]


def test_settings_are_tried_on_training_prompts(lab):
    prompts, rewards = try_out(lab, RULE, 600)
    assert {split_of(prompt) for prompt in prompts.texts} == {"train"}
    assert [*prompts.names] == [name for name in MIXTURE for _ in range(50)]
    # The response under setting k says its temperature; the first and the third task like it warm.
    likes = np.repeat([1, 0, 1, 0], 50)[:, None]
    assert np.array_equal(rewards, np.where(likes, [[0.0, 0.5, 1.0]], [[1.0, 0.5, 0.0]]))


def test_the_best_rule_is_chosen_on_training_prompts_and_heads_learn_from_as_many_responses(
    lab, writer, monkeypatch
):
    """Two rules; training prompts like it cold, test prompts warm."""

    def reward(task, prompt, response):
        return float(response == ("0" if split_of(prompt) == "train" else "1"))

    for task in lab.run.tasks:
        task.reward = reward.__get__(task)
    rules = {
        name: replace(RULE, settings=[(temperature,)], groups=("",))
        for name, temperature in (("cold", 0.0), ("warm", 1.0))
    }
    heads, costs = ["sequence: temperature head", "sequence: gap pairs"], []

    def head(self, real=Lab.head, **asked):
        writer.calls.clear()
        made = real(self, **asked)
        costs.append((asked.get("rounds", 3), n_written(writer)))
        return made

    monkeypatch.setattr(Lab, "head", head)
    monkeypatch.setattr(methods, "rules_of", lambda lab: rules)
    monkeypatch.setattr(rivals, "HEADS", {name: HEADS[name] for name in heads})
    monkeypatch.setattr(rivals, "PAIRS", [(heads[0], BEST_RULE)])
    numbers = rivals.measure(lab)
    found = numbers["methods"]
    assert numbers["on_training"] == {"cold": 1, "warm": 0} and numbers["best_rule"] == "cold"
    assert [found[name]["reward"] for name in rules] == [0, 1]
    gain = numbers["differences"][f"{heads[0]} - {BEST_RULE}"]["estimate"]
    assert gain == found[heads[0]]["reward"]  # the best rule has none
    early, *_, whole = budget_of(lab)[-1]
    assert sorted(costs) == [(1, early), (3, whole), (3, whole)]
    assert {found[name]["responses"] for name in heads} == {whole}


def test_a_rule_is_measured_by_the_settings_of_each_group_and_by_the_same_only_once(
    lab, writer, monkeypatch
):
    """Two tasks like it warm and two cold, so a setting per task is right and one for all isn't."""
    rule = replace(RULE, groups=("", "per task"))
    monkeypatch.setattr(methods, "rules_of", lambda lab: {"constant": rule})
    monkeypatch.setattr(rivals, "HEADS", {})
    monkeypatch.setattr(rivals, "PAIRS", [])
    found = rivals.measure(lab)["methods"]
    assert found["constant"]["reward"] == 0.5 and found["constant per task"]["reward"] == 1
    # Both groups are tried at four numbers of responses, and keep to their settings throughout.
    n_test = max(2, lab.config.evaluation.test_prompts // 2) * len(MIXTURE)
    of_test = [call for call in writer.calls if call[4] == TEST_SAMPLES]
    assert sum(len(prompts) for _, prompts, *_ in of_test) == 2 * n_test


# The best setting


def test_the_best_setting_has_the_highest_mean_over_its_group():
    n = LEAST_PROMPTS
    # Task a: even prompts like setting 0, odd ones setting 2. Task b: 1, but for one odd prompt.
    rows = [[1, 0, 0.2]] * n + [[0, 0.1, 0.9]] * n + [[0, 1, 0]] * n + [[1, 0, 0]]
    names = ["a"] * (2 * n) + ["b"] * (n + 1)
    tried = prompts_of(names, [0] * n + [1] * n + [2] * n + [3]), np.array(rows)
    groups = ("", "per task", "per kind")
    every, by_task, by_kind = (best_settings(*tried, group) for group in groups)
    assert every == {"": int(np.mean(rows, 0).argmax())} and by_task == {"a": 2, "b": 1}
    assert by_kind == {**by_task, "a even": 0, "a odd": 2, "b even": 1}
    asked = prompts_of(["a", "b", "b", "a"], [8, 9, 10, 11])
    # The odd kind of b is too small: its task's.
    assert settings_for(asked, by_kind, "per kind") == (0, 1, 1, 2)
    assert settings_for(asked, by_task, "per task") == (2, 1, 1, 2)
    assert len(set(settings_for(asked, every))) == 1


def test_a_part_of_a_trial_has_the_first_prompts_of_every_task():
    prompts = prompts_of(["a"] * 5 + ["b"] * 5, range(10))
    tried = prompts, np.array([[p, 0, 0] for p in range(10)])  # 3 settings, 2 tasks
    part, rewards = part_of(*tried, 14)
    assert rewards[:, 0].tolist() == [0, 1, 5, 6] and part.texts == ["a 0", "a 1", "b 5", "b 6"]
    # All of it, and a prompt of each task at least.
    assert [part_of(*tried, n)[1].size for n in (10**6, 1)] == [30, 6]


def test_each_test_prompt_is_answered_by_its_own_setting_and_the_same_random_numbers(lab, writer):
    rewards = methods.rewards_of_rule(lab, one_of_each(lab), RULE, (2, 2, 1, 0))
    assert rewards.tolist() == [1.0, 0.0, 0.5, 1.0] and n_written(writer) == 4 * TEST_SAMPLES
    methods.rewards_by(lab, one_of_each(lab), RULE.of(0))
    assert {seed for _, _, _, seed, _ in writer.calls} == {writer.calls[0][3]}


def test_a_curve_has_the_head_that_was_best_until_then_and_measures_it_once(lab, writer):
    head = lab.head()
    for entry, reward in zip(head.log, (0.5, 0.4, 0.6), strict=True):
        entry["validation_reward"] = reward
    for rounds, n_calls, kept in ((2, 1, 1), (3, 2, 3)):
        writer.calls.clear()
        spent = [10, 20, 30][:rounds]
        curve, last = rivals.rewards_by_round(lab, head, one_of_each(lab), spent)
        assert [*curve] == spent and curve[10] is curve[20]
        assert len(writer.calls) == n_calls and last == kept


# The conclusion


def seed_of(noise, rewards):
    """One seed's numbers: rewards by method, .8 where none is given."""
    names = ["constant", "dynatemp", "constant per kind", "joint constant per kind", *HEADS]
    made, of = {}, {}
    for name in names:
        reward = rewards.get(name, 0.8)
        of[name] = reward + noise * (name in HEADS)
        curve = {"responses": 1000, "curve": [[100, reward - 0.1], [1000, reward]]}
        tasks = dict.fromkeys(MIXTURE, reward)
        made[name] = {"setting": f"{name}'s", "reward": of[name], "tasks": tasks, **curve}
    of[BEST_RULE], differences = of["dynatemp"], {}
    for a, b in PAIRS:
        gain = of[a] - of[b]
        differences[f"{a} - {b}"] = {"estimate": gain, "ci95": [gain - 0.005, gain + 0.005]}
    on_training = {"constant": 0.7, "dynatemp": 0.8}
    numbers = {"budget": 1000, "methods": made, "on_training": on_training}
    return numbers | {"best_rule": "dynatemp", "differences": differences}


HEADS_WON = {"token: temperature head": 0.9, "token: joint head": 0.93}
WON = {"dynatemp": 0.7, "sequence: joint head": 0.85, **HEADS_WON}
FIVE = five(seed_of, (-0.001, 0.0, 0.001, -0.001, 0.0), rewards=WON)


def test_if_every_head_wins_it_agrees_and_says_by_how_much():
    finding = rivals.conclude(FIVE)
    said = finding.sentence
    assert finding.agrees and said.startswith("With 1,000 responses each, token: joint head has")
    for part in (
        "(dynatemp, 0.700): better: sequence: temperature head (+0.100)",
        "better: sequence level (+0.050), token level (+0.030)",
        "without min-p: better: sequence level (+0.050), token level (+0.130).",
        # The best rule on test prompts is another one than on training prompts.
        "favours it (constant, 0.800): better: sequence: joint head (+0.050)",
    ):
        assert part in said
    assert "worse" not in said.split("At sequence level, other ways")[0]
    # Those of sequence level are as good as its temperature head, those of token level worse.
    of_sequence, of_token = said.split("best and worst response: ")[1:]
    assert of_sequence.startswith("undecided: sequence: all pairs (+0.000), sequence: gap pairs")
    assert of_token.startswith("worse: token: Eq. 10 (-0.100)")
    row = named(finding)["token: joint head - token: temperature head [5 of 5]"]
    assert row.mean == pytest.approx(0.03)


def test_if_the_heads_lose_or_nothing_can_be_told_it_says_so():
    lost = {**WON, "dynatemp": 0.95, "token: joint head": 0.88, "token: no min-p": 0.91}
    finding = rivals.conclude(five(seed_of, (-0.001, 0.0, 0.001), rewards=lost))
    first, against_rule, *_ = finding.sentence.split(". ")
    assert not finding.agrees and first.endswith("dynatemp has the highest mean reward (0.950)")
    assert "better" not in against_rule.split("best rule")[1]
    assert all(name in against_rule.split("worse:")[1] for name in MAIN_HEADS)
    for part in ("", "without min-p: "):
        worse = {"": "-0.020", "without min-p: ": "-0.030"}[part]
        said = f"{part}better: sequence level (+0.050); worse: token level ({worse})"
        assert said in finding.sentence

    finding = rivals.conclude(five(seed_of, (0.05, -0.05) * 2, rewards={"dynatemp": 0.8}))
    against_rule = finding.sentence.split(". ")[1]
    assert not finding.agrees and "undecided: sequence: temperature head (+0.000)" in against_rule
    assert "worse:" not in against_rule and "better:" not in against_rule
    assert "token: joint head - best rule [2 of 4]" in named(finding)


def test_the_table_names_settings_and_budget_and_the_list_has_every_task():
    finding = rivals.conclude(FIVE)
    means = {row.label: row.mean for row in finding.rows}
    assert [*means.items()][0] == ("responses that each may use", 1000)
    listing = finding.files["methods.txt"].decode()
    assert all(name in listing for name in (*HEADS, *MIXTURE, "constant per kind's"))
    # With its setting; the best first, rules before heads.
    shown = ["constant (constant's)", "dynatemp (dynatemp's)", "token: joint head"]
    assert [label for label in means if label in shown] == shown and "constant per kind" in means


def test_the_figure_names_every_method_with_its_reward_and_interval_on_one_scale():
    fig = rivals.draw(FIVE)
    assert len({ax.get_ylim() for ax in fig.axes}) == 1
    assert {ax.get_xscale() for ax in fig.axes} == {"log"}
    legends = [ax.get_legend().get_texts() for ax in fig.axes]
    first, *of_level = [[text.get_text() for text in texts] for texts in legends]
    for name in ("dynatemp 0.700", "constant 0.800", "constant per kind 0.800"):
        assert f"{name} ± 0.000" in first
    for level, shown in zip(LEVELS, of_level, strict=True):
        names = [name.removeprefix(f"{level}: ") for name in HEADS if name.startswith(level)]
        assert sorted(text.split(" 0.")[0] for text in shown) == sorted(names)
    assert [ax.texts[0].get_text() for ax in fig.axes[1:]] == ["best rule"] * len(LEVELS)
    assert "joint head 0.930 ± 0.001" in of_level[1]
    assert titles(rivals, FIVE)[1:] == [f"Heads, {n} level highest: joint head" for n in LEVELS]
    single = rivals.draw(over_seeds([seed_of(0.0, WON)]))
    assert "±" not in single.axes[0].get_legend().get_texts()[0].get_text()
