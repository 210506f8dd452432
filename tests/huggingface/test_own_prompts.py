"""One's own prompts: split as every task's are, seen in training only if they are for training."""

import random

import pytest

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Temperatures
from minilpo.huggingface import OwnPrompts
from minilpo.lpo import train_lpo
from minilpo.tasks import draw_prompts, split_of
from tests.huggingface.tiny import PROMPTS, language_model

SPLITS = ("train", "validation", "test")


def half(prompt, response):
    return 0.5


def trained(reward):
    config = LPOConfig(rounds=1, prompts=20, samples=2, epochs=1, validation_prompts=4)
    lm, task = language_model("gpt2", eos_token_id=None), OwnPrompts(PROMPTS, reward)
    head, choices = AdaptiveDecoder(lm.n_embd, 2), Temperatures([0.0, 1.0])
    return task, train_lpo(lm, [task], head, choices, config, seed=0)


def test_training_sees_the_training_prompts_and_no_other():
    seen = set()

    def reward(prompt, response):
        seen.add(prompt)
        return len(set(response.split())) / 100

    task, [entry] = trained(reward)
    assert entry["pairs"] > 10 and list(entry["chosen_share"]) == ["own_prompts"]
    shown = [len(seen & set(task.of_split(split))) for split in SPLITS]
    assert shown == [20, 4, 0] and len(seen) == 24


def test_the_splits_are_those_of_every_task_and_together_all_prompts():
    task = OwnPrompts(PROMPTS + PROMPTS[:5], half)
    parts = {split: task.of_split(split) for split in SPLITS}
    assert sorted(sum(parts.values(), [])) == sorted(set(PROMPTS))
    for split, part in parts.items():
        assert {split_of(prompt) for prompt in part} == {split}
        assert sorted(draw_prompts(task, len(part), split, random.Random(0))) == sorted(part)


def test_prompts_that_are_one_for_the_model_are_never_on_two_sides_of_a_split():
    """They differ in white space, or in a word that the tokenizer doesn't know."""
    twice = [text for p in PROMPTS for text in (p, p + "\n", p.replace(" ", "  ", 1), p + " \t")]
    unknown = [f"{word} {p}" for p in PROMPTS for word in ("zebra", "gnu")]
    assert sorted(OwnPrompts(twice, half).prompts) == sorted(set(PROMPTS))  # the first of each
    lm = language_model()
    task = OwnPrompts(unknown + twice, half, lm=lm)
    tokens = [{tuple(ids) for ids in lm.encode(task.of_split(split))} for split in SPLITS]
    n = 2 * len(set(PROMPTS))
    assert sum(map(len, tokens)) == len(set.union(*tokens)) == len(task.prompts) == n


def test_what_is_no_list_of_texts_and_a_reward_out_of_range_end_in_words():
    for prompts in ("the fox", [{"role": "user"}], [1, 2], []):
        with pytest.raises(
            ValueError, match="prompts must be a list of texts, got .*; pass a list"
        ):
            OwnPrompts(prompts, half)
    with pytest.raises(ValueError, match="'own_prompts': reward.* from 0 to 1, got 7.0"):
        trained(lambda prompt, response: 7.0)
