"""Think or answer: what is concluded from given numbers, and what the numbers are made of."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from minilpo.config import LPOConfig, PretrainConfig, RunConfig
from minilpo.experiments import think
from minilpo.experiments.base import over_seeds
from minilpo.experiments.lab import Lab
from minilpo.rivals.think_or_answer import ThinkOrAnswer
from minilpo.run.begin import corpus_of, create_run, pretraining_prompts
from minilpo.training import draw_prompts
from tests.experiments import five, named


def think_seed(noise, kinds=("1 step", "2 steps", "3 steps"), head=0.75, **other):
    """Numbers that show all that is claimed; `other` replaces some."""
    right = {"think": dict.fromkeys(kinds, 0.95), "answer": dict.fromkeys(kinds, 0.59 - noise)}
    right["answer"][kinds[0]] = 0.951 + noise
    means = {"best constant": 0.7 - noise, "learned constant": 0.6 + noise}
    others = {"best per number of steps": 0.752, "head by best/worst": 0.74, "head": head + noise}
    numbers = {
        "right": {"train": right, "test": right},
        "reward": {name: dict.fromkeys(kinds, 0.8 - noise) for name in ("think", "answer", "head")},
        "thinks": dict.fromkeys(kinds, 0.04) | {kinds[-1]: 0.98},
        "mean": means | others,
        "gain_ci95": {"best constant": [0.01, 0.09], "learned constant": [0.1, 0.2]},
        "seen_in_pretraining": 0,
    }
    return numbers | other


def right_with(choice, **shares):
    """Replaces some shares of right answers by a choice, by kind."""
    right = think_seed(0)["right"]["test"]
    return {"right": {"test": right | {choice: right[choice] | shares}}}


def gains_with(**intervals):
    intervals = {name.replace("_", " "): interval for name, interval in intervals.items()}
    return {"gain_ci95": think_seed(0)["gain_ci95"] | intervals}


def test_thinking_is_concluded_to_pay_if_all_that_it_takes_is_true_of_every_seed():
    finding = think.conclude(five(think_seed))
    assert finding.agrees and "not true" not in finding.sentence
    for said in (
        "above the head by best/worst, not clearly different from the best per number of steps.",
        "the head gains (+0.054 ± 0.004)",
        "4% of the prompts with 1 step and on 98% of those with 3 steps",
        "On every seed thinking is right on at least 95%",
    ):
        assert said in finding.sentence
    for label, mean in (
        ("right at once, 1 step (%)", 95.3),
        ("right after thinking, 3 steps (%)", 95),
        ("head thinks, 3 steps (%)", 98),
        ("head - learned constant", 0.15),
    ):
        assert named(finding)[label].mean == pytest.approx(mean)


@pytest.mark.parametrize(
    "other, said",
    [
        (right_with("think", **{"2 steps": 0.949}), "that thinking is right on at least 95%"),
        (right_with("answer", **{"1 step": 0.95}), "more than 95% with 1 step"),
        (right_with("answer", **{"3 steps": 0.6}), "less than 60% with 3 steps"),
        ({"seen_in_pretraining": 1}, "pretraining has shown none of the prompts"),
        (gains_with(best_constant=[0, 0.1]), "above both constants"),
        (gains_with(learned_constant=[-0.1, 0.2]), "above both constants"),
    ],
)
def test_what_is_not_true_on_a_single_seed_is_said_and_nothing_else_is(other, said):
    seeds = [*map(think_seed, (0.0, 0.001, 0.002, 0.003, 0.004)), think_seed(0, **other)]
    finding = think.conclude(over_seeds(seeds))
    assert not finding.agrees and "On every seed" not in finding.sentence
    [listed] = [part for part in finding.sentence.split(". ") if part.startswith("It is not true")]
    assert said in listed and "; that" not in listed


@pytest.mark.parametrize(
    "head, word", [(0.6, "loses (-0.096"), (0.696, "neither clearly gains nor loses")]
)
def test_a_head_that_does_not_gain_is_said_not_to(head, word):
    finding = think.conclude(five(think_seed, head=head))
    assert not finding.agrees and f"best constant the head {word}" in finding.sentence
    assert "It is below the best per number of steps and the head by best/worst" in finding.sentence


def test_a_length_that_a_seed_has_not_measured_is_left_out():
    found = over_seeds([think_seed(0), think_seed(0.001, kinds=("1 step", "3 steps"))])
    assert not [label for label in named(think.conclude(found)) if "2 steps" in label]
    think.draw(found)


def test_a_lab_apart_has_a_language_model_of_its_own_that_takes_no_more_than_the_others(tmp_path):
    pretrain = PretrainConfig(steps=7, demonstrations=10)
    lab = Lab(tmp_path, RunConfig(seed=3, tasks=("math", "story"), pretrain=pretrain))
    own = lab.apart("think_or_answer", steps=4, demonstrations=30, temperatures=(0.0, 0.5))
    fewer, temperatures = replace(pretrain, steps=4), (0.0, 0.5)
    given = {"tasks": ("think_or_answer",), "pretrain": fewer, "temperatures": temperatures}
    assert own.config == replace(lab.config, **given)
    assert own.folder.parent == lab.folder.parent and own.folder != lab.folder


def test_the_prompts_of_pretraining_are_those_of_the_examples_that_it_imitates(tmp_path):
    config = RunConfig(tasks=("think_or_answer",), pretrain=PretrainConfig(demonstrations=300))
    run = create_run(tmp_path / "run", config, compare=("model", "pretrain"))
    tokenizer = run.tokenizer()
    examples = corpus_of(run, tokenizer).examples
    prompts = {tokenizer.decode(list(token_ids[:n])) for token_ids, n in examples}
    assert pretraining_prompts(run) == prompts and len(examples) == 300


def test_prompts_that_pretraining_has_shown_are_counted_wherever_they_come_again(monkeypatch):
    config, tasks = LPOConfig(rounds=2, prompts=20, validation_prompts=10), [ThinkOrAnswer()]
    parts, of_held_out = draw_prompts(tasks, config, 5)
    first, second, held_out = ([prompt.text for prompt in part] for part in (*parts, of_held_out))
    three = [second[0], held_out[9], "a test prompt", "another"]
    for shown, n in [([], 0), (["another"], 0), ([first[3]], 1), (three, 3)]:
        monkeypatch.setattr(think, "pretraining_prompts", lambda run, shown=shown: set(shown))
        lab = SimpleNamespace(run=SimpleNamespace(tasks=tasks), seed=5)
        assert think.n_seen(lab, config, ["a test prompt"]) == n


def test_each_word_of_a_choice_begins_its_form_of_a_demonstration():
    task, rng = ThinkOrAnswer(), random.Random(0)
    first = {task.demonstration(task.prompt(rng), rng).split()[0].rstrip(":") for _ in range(20)}
    assert first == set(think.WORDS.values())
