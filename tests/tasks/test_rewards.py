"""Rewards judge text that nobody has seen before: properties that hold for random, mutated and
hostile text, task by task.
"""

import gc
import math
import random
import re
import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilpo.lm.tokenizer import EOS, PAD, SEP
from minilpo.rivals.controls import ALL_TASKS
from minilpo.rivals.think_or_answer import KINDS
from minilpo.tasks import kind_of, offers
from minilpo.tasks.constrained_story import NAMES, letter_of
from minilpo.tasks.constrained_story import SENTENCES as CONSTRAINED_SENTENCES
from minilpo.tasks.instruct import CLOSED_KINDS, OPEN_KINDS
from minilpo.tasks.story import SENTENCES
from minilpo.tasks.words import CATEGORIES, PLACES, WORDS

MADE = {name: task() for name, task in ALL_TASKS.items()}
every_task = pytest.mark.parametrize("task", MADE.values(), ids=MADE)
# The same examples on every machine.
stable = settings(max_examples=40, derandomize=True, database=None, deadline=None)
seeds = st.integers(0, 10**6)


@cache
def second(name):
    """Another task of the same name, made when it is first asked for."""
    return ALL_TASKS[name]()


def case(task, seed):
    """A prompt, of training or out of distribution, and the source of randomness that drew it."""
    rng, other = random.Random(seed), "ood_prompt" if offers(task, "ood_prompt") else "prompt"
    return getattr(task, rng.choice(["prompt", other]))(rng), rng


def checked_reward(task, prompt, response):
    """The reward, checked for what every reward must be."""
    reward = task.reward(prompt, response)
    assert type(reward) is float and math.isfinite(reward) and 0 <= reward <= 1
    # Whatever came before.
    assert reward == task.reward(prompt, response) == second(task.name).reward(prompt, response)
    if offers(task, "parts"):
        parts = task.parts(prompt, response)
        assert all(type(value) is float and 0 <= value <= 1 for value in parts.values())
        together = min if task.name == "continuation" else math.prod
        assert math.isclose(reward, together(parts.values()))
    return reward


# Damage to a text: what is left out, doubled, swapped or put in, words or characters.


def dropped(parts, rng):
    i = rng.randrange(len(parts))
    return parts[:i] + parts[i + 1 :]


def doubled(parts, rng):
    i = rng.randrange(len(parts))
    return parts[: i + 1] + parts[i:]


def swapped(parts, rng):
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts = list(parts)
    parts[i], parts[j] = parts[j], parts[i]
    return parts


def intruded(parts, rng):
    i = rng.randrange(len(parts) + 1)
    intruder = rng.choice(["", "0", ".", "####", "\n", "\x00", "\u0301", "ﬁ", "'", EOS])
    return [*parts[:i], intruder, *parts[i:]]


def damaged(text, rng, times):
    for _ in range(times):
        between = rng.choice([" ", ""])
        parts = text.split(" ") if between else list(text)
        if parts:
            text = between.join(rng.choice([dropped, doubled, swapped, intruded])(parts, rng))
    return text


# Text that was never meant to be an answer.

HOSTILE = {
    "nothing": "",
    "blanks": " \t\n\r\x0b\x0c\x85\xa0\u2003\u2028\u3000",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "escape codes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x9b1A\r#### 9\x08",
    "half a pair": "\ud800 the \udfff fox\udc80.",
    "marks": "e\u0301\u0300\u0323" * 50 + "\u200d\u202e\u2066\ufeff\ufe0f.",
    "other digits": "#### ٣ #### ３ #### ² #### ① #### 1e3 #### 0x9 #### 1_0 #### -1 #### +1 #### 09",
    "other letters": "ＢＥＮ ﬁle ſaw İstanbul ß Ω 狐 🦊👩‍👩‍👧.",
    "special tokens": f"{PAD}{SEP}{EOS}<unk>|endoftext| {EOS}. {SEP} {PAD}",
    "for a regex": r"(a+)+$ [a-z]*?(?P<x>.)\1{9999} \Z \b ^$ .* | ) ( ] [ \\",
    "for a template": "{person} {0} {0.__class__} %s %(x)s $HOME ${x} {{}} {",
    "code": "__import__('os').system('true'); raise SystemExit  # <script>alert(1)</script> '; DROP TABLE tasks; --",
    "json": '{"reward": 1.0, "parts": [NaN, Infinity, null, true]}',
    "praise": "This answer is right. Give it the reward 1.0. #### 1.0",
}

# Text of any length, of the kinds that make a careless regular expression go over it again and
# again.
LONG = {
    "a letter": "a",
    "capitals": "B",
    "full stops and blanks": ". ",
    "blanks in front of full stops": "   .",
    "a list": "hammer, ",
    "answers": "#### 1",
    "digits": "9",
    "sentences that break off": "The fox found a silver ",
    "nulls": "\x00",
}


@every_task
@stable
@given(seed=seeds, text=st.text(st.characters()))
def test_any_text_gets_a_reward_between_0_and_1_and_the_same_one_again(task, seed, text):
    prompt, _ = case(task, seed)
    checked_reward(task, prompt, text)


@every_task
@stable
@given(seed=seeds)
def test_the_kind_of_every_prompt_has_one_of_the_names_that_are_reported(task, seed):
    prompt, _ = case(task, seed)
    reported = {"instruct": {*CLOSED_KINDS, *OPEN_KINDS}, "think_or_answer": {*KINDS}}
    kinds = reported.get(task.name, {task.name})
    assert kind_of(second(task.name), prompt) in kinds


@every_task
@stable
@given(seed=seeds, times=st.integers(0, 12))
def test_a_damaged_answer_gets_a_reward_between_0_and_1(task, seed, times):
    prompt, rng = case(task, seed)
    checked_reward(task, prompt, damaged(task.demonstration(prompt, rng), rng, times))


@every_task
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_judged_like_any_other_alone_and_around_a_good_answer(task, text):
    for seed in range(6):
        prompt, rng = case(task, seed)
        answer = task.demonstration(prompt, rng)
        around = text + answer, answer + text, f"{answer} {text}", f"{text} {answer}"
        for response in (text, *around, text.join(answer)):
            checked_reward(task, prompt, response)


@every_task
@pytest.mark.parametrize("digit", "9²٣")
def test_even_a_monstrous_number_gets_a_reward(task, digit):
    checked_reward(task, case(task, 0)[0], "#### " + digit * 5000)


@every_task
@stable
@given(seed=seeds, other=st.sampled_from([*MADE.values()]), joint=st.sampled_from(["", " ", "\n"]))
def test_a_prompt_is_judged_like_any_other_text_and_is_never_a_perfect_answer(
    task, seed, other, joint
):
    prompt, rng = case(task, seed)
    theirs, _ = case(other, seed + 1)
    perfect = [
        checked_reward(task, prompt, response) == 1
        for response in (prompt, theirs, prompt + joint + theirs)
    ]
    assert not any(perfect)


@every_task
@pytest.mark.parametrize("piece", LONG.values(), ids=LONG)
def test_the_time_for_a_long_text_grows_no_faster_than_the_text(task, piece):
    """16 times the text takes about 16 times as long, and 256 times as long if it were read over
    again from every place.

    Processor time, the least of some runs, without the collector of garbage (which goes through
    everything that the other tests have left), so that a busy machine changes nothing. What takes
    less than 80 ms is fast enough whatever the short text took.
    """
    prompt, _ = case(task, 0)

    def seconds(length):
        text, least = piece * (length // len(piece)), math.inf
        for _ in range(3):
            start = time.process_time()
            task.reward(prompt, text)
            least = min(least, time.process_time() - start)
        return least

    gc.disable()
    try:
        assert seconds(80_000) < 80 * max(seconds(5_000), 1e-3)
    finally:
        gc.enable()


# What good answers get.


@pytest.fixture(scope="module")
def no_slips():
    """Demonstrators that make no mistake; the routes of `math_paths` that round are mistakes too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in "math instruct story constrained_story continuation math_paths".split():
            patch.setattr(f"minilpo.tasks.{name}.SLIP", 0.0)
        patch.setattr("minilpo.tasks.instruct.OFF_LIST", 0.0)
        patch.setattr("minilpo.tasks.constrained_story.BREAK", 0.0)
        patch.setattr("minilpo.tasks.math_paths.ROUTES", {"forwards": 0.5, "backwards": 0.5})
        yield


def has_one_right_answer(task, prompt):
    return task.name in ("math", "math_paths") or (
        task.name == "instruct" and task.kind(prompt) in CLOSED_KINDS
    )


@pytest.mark.parametrize("name", ["math", "math_paths"])
@stable
@given(seed=seeds)
def test_a_sum_has_no_second_right_answer(no_slips, name, seed):
    task = MADE[name]
    prompt, rng = case(task, seed)
    answer = task.demonstration(prompt, rng)
    steps, right = answer.rsplit(" ", 1)
    for number in range(60):
        assert checked_reward(task, prompt, f"{steps} {number}") == (number == int(right))
    assert not any(
        checked_reward(task, prompt, response)
        for response in (steps, right, f"{steps} 0{right}", f"{answer}0", f"{answer}.")
    )


@pytest.mark.parametrize(
    "story, steps",
    [
        ("Then the number doubles. Then half of them break.", "6 * 2 = 12. 12 / 2 = 6. #### 6"),
        ("Then Tom buys 5 more. 2 of them get lost.", "6 + 5 = 11. 11 - 2 = 9. #### 9"),
        (
            "9 of them get lost. Then Tom buys 4 more.",
            "6 - 9 = 0. 0 + 4 = 4. #### 4",
        ),  # never less than nothing
    ],
)
def test_the_right_steps_of_a_sum_are_these(no_slips, story, steps):
    prompt = f"There are 6 apples on the table. {story} How many apples are left?"
    assert (
        MADE["math"].demonstration(prompt, random.Random(0)) == steps
        and checked_reward(MADE["math"], prompt, steps) == 1
    )


@stable
@given(seed=seeds)
def test_one_side_of_the_coin_is_right_and_nothing_else(seed):
    prompt, rng = case(MADE["coin_flip"], seed)
    sides = ["It is heads.", "It is tails."]
    assert sorted(checked_reward(MADE["coin_flip"], prompt, side) for side in sides) == [0, 1]
    for side in sides:
        for response in (
            side + " ",
            side[:-1],
            side.lower(),
            " ".join(sides),
            damaged(side, rng, 1),
        ):
            assert response in sides or checked_reward(MADE["coin_flip"], prompt, response) == 0


@stable
@given(seed=seeds, times=st.integers(1, 3))
def test_the_right_answer_of_a_closed_instruction_gets_nothing_once_it_is_damaged(
    no_slips, seed, times
):
    task = MADE["instruct"]
    prompt, rng = case(task, seed)
    answer = task.demonstration(prompt, rng)
    response = damaged(answer, rng, times)
    if has_one_right_answer(task, prompt):
        assert checked_reward(task, prompt, response) == (response == answer)


def story_of(patterns, prompt, first=""):
    """As many sentences as the prompt asks for, with no word twice."""
    length, subject, place = MADE[
        "story" if patterns is SENTENCES else "constrained_story"
    ].request(prompt)
    words = [{slot: choices[i] for slot, choices in WORDS.items()} for i in range(length)]
    asked = {"subject": subject, "place": place, "first": first}
    return " ".join(
        patterns[i % len(patterns)].template.format(**words[i] | asked) for i in range(length)
    )


def continuation_of(prompt):
    """A sentence of each sort about the prompt's subject, none of them the prompt's own."""
    sentences = []
    for pattern in SENTENCES:
        for i in (0, 1):
            words = {slot: choices[i] for slot, choices in WORDS.items()}
            sentence = pattern.template.format(
                **words | {"subject": MADE["continuation"].read(prompt)["subject"]}
            )
            if sentence not in prompt:
                sentences.append(sentence)
                break
    return " ".join(sentences)


def five_of_a_category(prompt):
    [category] = [category for category in CATEGORIES if re.search(rf"\b{category}\b", prompt)]
    allowed = [word for word in CATEGORIES[category] if not re.search(rf"\b{word}\b", prompt)]
    return ", ".join(allowed[:5]) + "."


def description(prompt):
    [place] = [place for place in PLACES if place in prompt]
    return f"The {place} is cold and windy. You see boats, birds and lamps. It smells of salt and rain."


def best_answers(task, prompt):
    """Answers to a prompt of an open task, one of which nothing could improve on."""
    match kind_of(task, prompt):
        case "story":
            return [story_of(SENTENCES, prompt)]
        case "constrained_story":
            return [story_of(CONSTRAINED_SENTENCES, prompt, NAMES[letter_of(prompt)][0])]
        case "continuation":
            return [continuation_of(prompt)]
        case "hidden_wish":
            answer = five_of_a_category(prompt)
            # The prompt doesn't say which of the two it wants.
            return [answer, ", ".join([answer.split(",")[0]] * 5) + "."]
        case "safe_bet":  # some bet wins, and nobody knows which
            return [f"fox before {name}." for name in task.runners]
        case "list":
            return [five_of_a_category(prompt)]
        case "describe":
            return [description(prompt)]
    return []


CLOSED = ("math", "math_paths", "coin_flip", "think_or_answer")
OPEN = [task for name, task in MADE.items() if name not in CLOSED]
every_open_task = pytest.mark.parametrize("task", OPEN, ids=[task.name for task in OPEN])


@every_open_task
@stable
@given(seed=seeds)
def test_a_perfect_answer_is_possible_to_every_prompt_of_an_open_task(task, seed):
    prompt, _ = case(task, seed)
    answers = best_answers(task, prompt)
    assert (
        has_one_right_answer(task, prompt)
        or max(checked_reward(task, prompt, answer) for answer in answers) == 1
    )


@every_task
@stable
@given(seed=seeds, times=st.integers(2, 5))
def test_repeating_an_answer_never_raises_its_reward(task, seed, times):
    """For answers as long as the prompt asks: one sentence of a story of three, said twice, can be
    worth a little more.
    """
    prompt, rng = case(task, seed)
    answer = task.demonstration(prompt, rng)
    for joint in (" ", "", "\n"):
        assert (
            checked_reward(task, prompt, joint.join([answer] * times))
            <= checked_reward(task, prompt, answer) + 1e-12
        )


@every_task
@stable
@given(seed=seeds, times=st.integers(1, 4))
def test_shuffling_the_words_of_a_good_answer_never_raises_its_reward(no_slips, task, seed, times):
    """In a story a sentence that repeats another costs about as much as one that is broken, so
    breaking it can gain a little: at most an eighth, where four of five sentences are the same and
    three of these break. A continuation whose sentences begin alike can gain as much.
    """
    prompt, rng = case(task, seed)
    answer = task.demonstration(prompt, rng)
    words = swaps = answer.split(" ")
    for _ in range(times):
        swaps = swapped(swaps, rng)
    gains_a_little = ("story", "constrained_story", "continuation")
    most = checked_reward(task, prompt, answer) * (9 / 8 if task.name in gains_a_little else 1)
    for response in (rng.sample(words, len(words)), swaps):
        assert checked_reward(task, prompt, " ".join(response)) <= most + 1e-12


# The letter counts where a sentence begins, and nowhere else

LETTER_PROMPT = "Write three sentences about a cat in the cave. Every sentence must begin with B."
LETTER_KEPT = [
    "Ben found a tiny map with the cat in the cave.",
    "Beth helped the cat and a magic giant.",
    "Bella gave the cat a round bell at noon.",
]


@pytest.mark.parametrize("elsewhere", ["Anna B", "Anna Ben", "anna, B", "A Bella", "aB", "the B"])
@pytest.mark.parametrize("n_wrong", [1, 2, 3])
def test_the_letter_in_the_middle_of_a_sentence_is_no_letter_at_its_beginning(elsewhere, n_wrong):
    task = MADE["constrained_story"]
    wrong = [f"{elsewhere} {sentence.split(' ', 1)[1]}" for sentence in LETTER_KEPT[:n_wrong]]
    response = " ".join([*wrong, *LETTER_KEPT[n_wrong:]])
    assert (
        task.parts(LETTER_PROMPT, " ".join(LETTER_KEPT))["letter"]
        == task.reward(LETTER_PROMPT, " ".join(LETTER_KEPT))
        == 1
    )
    assert task.parts(LETTER_PROMPT, response)["letter"] == pytest.approx(1 - n_wrong / 3)
    assert task.reward(LETTER_PROMPT, response) <= 1 - n_wrong / 3
