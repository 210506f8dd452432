"""The tasks: fair prompts, readable demonstrations, graders that agree with a count by hand."""

import random
import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilpo.rivals.controls import ALL_TASKS, CORPUS, _hidden_bit
from minilpo.tasks import (
    MAIN,
    draw_demonstrations,
    draw_prompts,
    kind_of,
    load_tasks,
    mixed_demonstrations,
    mixed_prompts,
    offers,
    split_of,
    words,
)
from minilpo.tasks.base import Pattern, sentences_of, zipf_choice
from minilpo.tasks.continuation import repeated
from minilpo.tasks.instruct import CLOSED_KINDS, OPEN_KINDS
from minilpo.tasks.math import LARGEST, SLIP, final_answer
from minilpo.tasks.math_paths import ROUNDING, ROUTES, majority
from minilpo.tasks.words import CATEGORIES

SPLITS = ("train", "validation", "test")
MADE = {name: task() for name, task in ALL_TASKS.items()}
every_task = pytest.mark.parametrize("task", MADE.values(), ids=MADE)
every_ood_task = pytest.mark.parametrize(
    "task", [task for task in MADE.values() if offers(task, "ood_prompt")]
)
main_task = pytest.mark.parametrize(
    "task", [MADE[task.name] for task in MAIN], ids=[task.name for task in MAIN]
)
math, instruct, story, constrained = (
    MADE[name] for name in ("math", "instruct", "story", "constrained_story")
)


class Yes:
    """The smallest task there is, with as many prompts as it is told."""

    name = "yes"

    def __init__(self, n_prompts=1):
        self.n_prompts = n_prompts

    def prompt(self, rng):
        return f"Say yes {rng.randrange(self.n_prompts)}"

    def demonstration(self, prompt, rng):
        return "yes"

    def reward(self, prompt, response):
        return float(response == "yes")


@cache
def corpus(name, n=3000):
    return draw_demonstrations(MADE[name], n, "train", random.Random(1))


@cache
def ood_prompts(name):
    return draw_prompts(MADE[name], 128, "ood", random.Random(2))


def pieces(text):
    return re.findall(r"\w+|[^\w\s]+", text)


def flat(value):
    """All words in a nest of lists and dictionaries."""
    if isinstance(value, str):
        return {value}
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return set().union(*map(flat, parts)) if isinstance(value, (dict, list)) else set()


BY_SLOT = ("WORDS", "SCENERY", "FACTS")  # their keys are no fillers
TABLES = {name: value for name, value in vars(words).items() if name.isupper()}
FILLERS = flat({name: value for name, value in TABLES.items() if name not in (*BY_SLOT, "_FACTS")})
FILLERS |= flat([[*value.values()] for name, value in TABLES.items() if name in BY_SLOT])


def wording(sentence):
    """A sentence with every word that fills a slot masked."""
    return re.sub(
        r"\w+", lambda word: "*" if word[0] in FILLERS or word[0].isdigit() else word[0], sentence
    )


# Prompts and splits


@every_task
def test_the_same_rng_gives_the_same_prompts_and_demonstrations(task):
    again = type(task)()
    for seed in range(50):
        prompt = task.prompt(random.Random(seed))
        assert prompt == again.prompt(random.Random(seed))
        assert task.demonstration(prompt, random.Random(seed)) == again.demonstration(
            prompt, random.Random(seed)
        )
    assert len({task.prompt(random.Random(seed)) for seed in range(50)}) > 25


@every_task
def test_a_quarter_of_the_prompts_is_for_testing_and_a_tenth_for_validation(task):
    prompts = {task.prompt(random.Random(seed)) for seed in range(3000)}
    shares = Counter(map(split_of, prompts))
    assert set(shares) == set(SPLITS)
    assert shares["test"] / len(prompts) == pytest.approx(0.25, abs=0.03)
    assert shares["validation"] / len(prompts) == pytest.approx(0.1, abs=0.02)


@every_task
@pytest.mark.parametrize(
    "split, n", [("test", 512), ("validation", 64), ("train", 256), ("ood", 128)]
)
def test_every_split_has_as_many_different_prompts_as_a_run_asks_for(task, split, n):
    if split == "ood" and not offers(task, "ood_prompt"):
        pytest.skip("the task has no prompts out of distribution")
    prompts = draw_prompts(task, n, split, random.Random(0))
    assert len(prompts) == len(set(prompts)) == n
    if split != "ood":  # so no two splits share a prompt
        pairs = draw_demonstrations(task, 50, split, random.Random(1))
        assert {split_of(prompt) for prompt in [*prompts, *(text for text, _ in pairs)]} == {split}


def test_a_task_with_too_little_variety_is_an_error_that_says_how_much_there_is(monkeypatch):
    monkeypatch.setattr("minilpo.tasks.base.PATIENCE", 1000)
    here = sum(split_of(f"Say yes {i}") == "train" for i in range(30))
    assert len(draw_prompts(Yes(30), here, "train", random.Random(0))) == here
    said = rf"'yes' must offer {here + 1} different train prompts, got {here};"
    with pytest.raises(ValueError, match=said):
        draw_prompts(Yes(30), here + 1, "train", random.Random(0))
    other = next(split for split in SPLITS if split != split_of("Say yes 0"))
    with pytest.raises(ValueError, match=f"'yes' must have prompts of the {other} split"):
        draw_demonstrations(Yes(), 1, other, random.Random(0))


@every_ood_task
def test_an_ood_prompt_is_new_in_its_wording_or_in_its_subject_but_not_in_both(task):
    train = [prompt for prompt, _ in corpus(task.name)]
    known = {wording(sentence) for prompt in train for sentence in sentences_of(prompt)}
    known_words = {word for prompt in train for word in pieces(prompt)}
    for prompt in ood_prompts(task.name):
        old_wordings = [sentence for sentence in sentences_of(prompt) if wording(sentence) in known]
        new_wording = len(old_wordings) < len(sentences_of(prompt))
        new_subject = (
            not {word for sentence in old_wordings for word in pieces(sentence)} <= known_words
        )
        assert new_wording != new_subject, prompt


@every_task
def test_every_word_of_the_test_and_ood_prompts_is_in_the_tasks_own_corpus(task):
    known = {word for pair in corpus(task.name) for text in pair for word in pieces(text)}
    prompts = draw_prompts(task, 512, "test", random.Random(0))
    prompts += ood_prompts(task.name) if offers(task, "ood_prompt") else []
    assert {word for prompt in prompts for word in pieces(prompt)} - known == set()


def test_every_word_of_the_held_out_demonstrations_is_in_the_mixed_corpus():
    known, held_out = (
        {
            word
            for pair in mixed_demonstrations([*MADE.values()], n, split, random.Random(0))
            for word in pieces(" ".join(pair))
        }
        for split, n in [("train", 8000), ("validation", 256)]
    )
    assert held_out - known == set()


@main_task
def test_a_prompt_carries_no_tag_of_its_task(task):
    first = {name: Counter(pieces(prompt)[0] for prompt, _ in corpus(name)) for name in MADE}
    own = first.pop(task.name)
    shared = sum(n for word, n in own.items() if any(word in others for others in first.values()))
    assert shared / sum(own.values()) > 0.4  # these begin like prompts of another task
    openings = {wording(sentences_of(prompt)[0]) for prompt, _ in corpus(task.name)}
    assert len(openings) >= 3


def test_mixed_prompts_has_as_many_prompts_of_each_task_and_names_the_task_of_each():
    prompts = mixed_prompts([math, story], 20, "test", random.Random(0))
    assert [prompt.task for prompt in prompts] == [math] * 20 + [story] * 20
    assert all(re.search(r"\d", prompt.text) for prompt in prompts[:20])
    assert all("story" in prompt.text for prompt in prompts[20:])


def test_mixed_demonstrations_follow_the_corpus_weights_and_are_shuffled():
    pairs = mixed_demonstrations([math, story], 900, "train", random.Random(0))
    is_math = ["####" in response for _, response in pairs]
    assert len(pairs) == 900 and sum(is_math) == 600
    assert 250 < sum(is_math[:450]) < 350


# What all demonstrators and graders have in common


@every_task
def test_an_empty_response_gets_nothing(task):
    assert {task.reward(prompt, "") for prompt, _ in corpus(task.name)[:200]} == {0.0}


@pytest.mark.parametrize(
    "name, low, high, readable",
    [
        ("math", 0.54, 0.64, 0.54),
        ("instruct", 0.72, 0.82, 0.83),
        ("story", 0.86, 0.93, 0.99),
        ("constrained_story", 0.57, 0.67, 0.95),
    ],
)
def test_demonstrations_are_readable_good_and_not_perfect(name, low, high, readable):
    rewards = [MADE[name].reward(*pair) for pair in corpus(name)]
    assert low < sum(rewards) / len(rewards) < high
    assert sum(reward > 0 for reward in rewards) / len(rewards) > readable


@pytest.fixture
def no_slips(monkeypatch):
    for task in MAIN:
        monkeypatch.setattr(f"minilpo.tasks.{task.name}.SLIP", 0.0)
    monkeypatch.setattr("minilpo.tasks.instruct.OFF_LIST", 0.0)
    monkeypatch.setattr("minilpo.tasks.constrained_story.BREAK", 0.0)


@main_task
def test_a_demonstrator_without_slips_makes_no_mistake(task, no_slips):
    rng = random.Random(0)
    for prompt in [task.prompt(rng) for _ in range(300)] + ood_prompts(task.name):
        response = task.demonstration(prompt, rng)
        reward, kind = task.reward(prompt, response), kind_of(task, prompt)
        if task is math or kind in CLOSED_KINDS:
            expected = 1.0
        elif kind == "list":
            expected = len(set(pieces(response)) - {",", "."}) / 5
        elif kind == "describe":
            frame = set("You see and It smells of , .".split())
            expected = len(set(pieces(response.split(" is ", 1)[1])) - frame) / 7
        elif task is story:
            parts = task.parts(prompt, response)
            assert (parts["well_formed"], parts["on_subject"]) == (1, 1)
            expected = parts["variety"]
        else:
            assert task.parts(prompt, response)["letter"] == 1
            expected = task.parts(prompt, response)["story"]
            assert expected > 0
        assert reward == pytest.approx(expected), (prompt, response)


# math


def solve(prompt):
    """An independent solver: every count along the way, and the operations."""
    opening, *steps, _ = re.split(r"(?<=\.) ", prompt)
    counts, operations = [int(re.search(r"\d+", opening)[0])], []
    for step in steps:
        number = int(re.search(r"\d+|$", step)[0] or 0)
        if "half" in step:
            operations.append("/")
            assert counts[-1] % 2 == 0
            counts.append(counts[-1] // 2)
        elif "double" in step or "twice" in step:
            operations.append("*")
            counts.append(counts[-1] * 2)
        elif "more" in step or "new" in step:
            operations.append("+")
            counts.append(counts[-1] + number)
        else:
            operations.append("-")
            counts.append(counts[-1] - number)
    return counts, operations


@pytest.fixture(scope="module")
def problems():
    return [prompt for prompt, _ in corpus("math")[:200]] + ood_prompts("math")


def test_the_grader_of_math_agrees_with_an_independent_solver(problems):
    for prompt in problems:
        answer = solve(prompt)[0][-1]
        right = [n for n in range(2 * LARGEST) if math.reward(prompt, f"#### {n}") == 1]
        assert right == [answer], prompt
        assert math.reward(prompt, f"1 + 1 = 3. What? #### {answer}") == 1  # only the answer counts


@pytest.mark.parametrize(
    "wrong",
    ["{}", "It is {}", "### {}", "####{}", "#### {}.", "#### {} apples", "#### {} 1", "#### -{}"],
)
def test_the_right_number_in_the_wrong_form_gets_nothing(problems, wrong):
    assert {math.reward(prompt, wrong.format(solve(prompt)[0][-1])) for prompt in problems} == {0.0}


def test_a_line_break_behind_the_answer_is_judged_as_in_the_other_closed_tasks():
    sound, sum_of = (
        "What sound does the cow make?",
        "Mia has 7 apples. Then Tom buys 5 more. How many apples are left?",
    )
    assert instruct.reward(sound, "The cow says moo.\n") == math.reward(sum_of, "#### 12\n")


def test_problems_have_two_to_four_steps_of_all_four_sorts_and_stay_small(problems):
    solved = [solve(prompt) for prompt in problems]
    assert {len(operations) for _, operations in solved} == {2, 3, 4}
    assert {0 < count <= LARGEST for counts, _ in solved for count in counts} == {True}
    frequency = Counter(operation for _, operations in solved for operation in operations)
    assert set(frequency) == set("+-*/") and min(frequency.values()) > 0.1 * frequency.total()


def test_each_step_of_a_math_demonstration_slips_by_one_as_often_as_stated():
    slips = Counter()
    for prompt, response in corpus("math"):
        counts, operations = solve(prompt)
        value, lines = counts[0], re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", response)
        assert [operation for _, operation, _, _ in lines] == operations
        for left, operation, right, result in lines:
            a, b = int(left), int(right)
            assert a == value  # each step goes on from the last one, right or wrong
            value = int(result)
            slips[value - {"+": a + b, "-": max(a - b, 0), "*": a * b, "/": a // b}[operation]] += 1
        assert response.endswith(f" #### {value}")
    assert set(slips) == {-1, 0, 1}
    assert 1 - slips[0] / slips.total() == pytest.approx(SLIP, abs=0.015)
    assert slips[1] / (slips[1] + slips[-1]) == pytest.approx(0.75, abs=0.04)


# story

FOX = "Tell me a story of three sentences about a fox in the forest."
A = "The fox found a silver key in the forest."
B = "At noon the fox dreamed of a tiny drum."
C = "A magic witch thanked the fox."


@pytest.mark.parametrize(
    "response, well_formed, on_subject, variety",
    [
        (f"{A} {B} {C}", 1, 1, 1),
        (f"{A} {A} {A}", 1, 1, 3 / 9),
        (f"{A} {B} {C.replace('magic', 'tiny')}", 1, 1, 8 / 9),
        (f"{A} {B} {C.replace('fox', 'bear')}", 1, 3 / 4, 1),
        (f"{A.replace('forest', 'cave')} {B} {C}", 1, 3 / 4, 1),
        (f"{C} {B} {C.replace('magic witch', 'warm giant')}", 1, 3 / 4, 8 / 9),
        (f"{A.replace('a silver', 'silver')} {B} {C}", 2 / 3, 2 / 3, 1),
        (f"{A} {B} {C.replace('thanked', 'key')}", 2 / 3, 1, 1),
        (f"{A} {B}", 2 / 3, 1, 1),
        (f"{A} {B} {C} The fox.", 3 / 4, 1, 1),
        (f"{A} {B} {C} {C}", 1, 1, 9 / 12),
        (f"{A} {B} {C[:-1]}", 2 / 3, 1, 1),
        ("The fox is here. I like it.", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_a_story_is_judged_as_by_hand(response, well_formed, on_subject, variety):
    expected = {"well_formed": well_formed, "on_subject": on_subject, "variety": variety}
    assert story.parts(FOX, response) == pytest.approx(expected)
    assert story.reward(FOX, response) == pytest.approx(well_formed * on_subject * variety)


# constrained_story

CAT = "Begin every sentence with B: a story about the cat of the cave in three sentences."
D = "Ben found a tiny map with the cat in the cave."
E = "Beth helped the cat and a magic giant."
F = "Ben gave the cat a round bell at noon."


@pytest.mark.parametrize(
    "response, letter, story_reward",
    [
        (f"{D} {E} {F}", 1, 1),
        (f"{D} {E.replace('Beth', 'Anna')} {F}", 2 / 3, 1),
        (f"{D} {E.replace('Beth', 'Max')} {F.replace('Ben', 'Will')}", 1 / 3, 1),
        (f"{D} {E.replace('Beth', 'beth')} {F}", 2 / 3, 2 / 3),
        (f"{D} Bears. {F}", 1, 2 / 3),
        (f"{D} {D} {D}", 1, 3 / 9),
        (f"{D} {E.replace('cat', 'dog')} {F}", 1, 3 / 4),
        (f"{D} {F}", 1, 2 / 3),
        ("", 0, 0),
    ],
)
def test_a_constrained_story_is_judged_as_by_hand(response, letter, story_reward):
    assert constrained.parts(CAT, response) == pytest.approx(
        {"letter": letter, "story": story_reward}
    )
    assert constrained.reward(CAT, response) == pytest.approx(letter * story_reward)


def test_the_letter_counts_sentences_and_the_demonstrator_breaks_it_as_often_as_stated():
    broken = total = 0
    for prompt, response in corpus("constrained_story"):
        letter = re.search(r"\b(?:with|letter) ([A-Z])\b", prompt)[1]
        initials = [initial[1] for initial in re.finditer(r"(?:^|\. )(.)", response)]
        parts = constrained.parts(prompt, response)
        assert parts["letter"] == pytest.approx(initials.count(letter) / len(initials))
        assert constrained.reward(prompt, response) == pytest.approx(
            parts["letter"] * parts["story"]
        )
        broken, total = broken + len(initials) - initials.count(letter), total + len(initials)
    assert broken / total == pytest.approx(0.3, abs=0.02)


# instruct


def test_closed_and_open_kinds_are_equally_frequent_and_all_occur():
    kinds = Counter(instruct.kind(prompt) for prompt, _ in corpus("instruct"))
    assert (
        set(kinds)
        == {*CLOSED_KINDS, *OPEN_KINDS}
        == {instruct.kind(prompt) for prompt in ood_prompts("instruct")}
    )
    # Not exactly half: kinds with few prompts have more or less of them in one split.
    assert sum(kinds[kind] for kind in OPEN_KINDS) / kinds.total() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    "kind, prompt, right, wrong",
    [
        ("sound", "Mia asks what the cow says.", "The cow says moo.", "The cow says woof.|moo."),
        (
            "home",
            "Where does the bee live?",
            "The bee lives in a hive.",
            "The bee lives in a nest.",
        ),
        ("child", "What is the child of the goat?", "The child of the goat is a kid.", "a kid."),
        ("opposite", "Tell Leo the opposite of hot.", "The opposite of hot is cold.", "cold."),
        (
            "copy",
            "Say after Kim: map key cup.",
            "map key cup.",
            "key map cup.|map key cup|map key.",
        ),
        ("sort", "Sort these numbers: 9 3 14.", "3 9 14.", "14 9 3.|9 3 14.|3 14 9.|3, 9, 14."),
    ],
)
def test_a_closed_instruction_has_one_right_answer(kind, prompt, right, wrong):
    assert instruct.kind(prompt) == kind
    assert instruct.reward(prompt, right) == 1
    assert {instruct.reward(prompt, response) for response in wrong.split("|")} == {0.0}


TOOLS, FOREST = "Name five tools, but not hammer.", "Describe the forest in spring."
SEEN = "The forest is quiet and cold. You see boats, birds and lamps. It smells of salt and rain."


@pytest.mark.parametrize(
    "kind, prompt, response, reward",
    [
        ("list", TOOLS, "drill, saw, rake, file, shovel.", 1),
        ("list", TOOLS, "drill, saw, rake, file, hammer.", 4 / 5),
        ("list", TOOLS, "drill, saw, rake, drill, drill.", 3 / 5),
        ("list", TOOLS, "drill, saw, rake, file, plum.", 4 / 5),
        ("list", TOOLS, "drill, saw, rake, file.", 4 / 5),
        ("list", TOOLS, "drill, saw, rake, file, shovel, plum.", 5 / 6),
        ("list", TOOLS, "drill, saw, rake, file, shovel, saw.", 5 / 6),
        ("list", TOOLS, "drill, saw, rake, file, shovel", 0),
        ("list", TOOLS, "drill saw rake file shovel.", 0),
        ("describe", FOREST, SEEN, 1),
        ("describe", FOREST, SEEN.replace("cold", "quiet"), 6 / 7),
        ("describe", FOREST, SEEN.replace("birds", "boats").replace("lamps", "boats"), 5 / 7),
        ("describe", FOREST, SEEN.replace("cold", "key").replace("rain", "salt"), 5 / 7),
        ("describe", FOREST, SEEN.replace("cold", "salt"), 6 / 7),
        ("describe", FOREST, SEEN.replace("forest", "cave"), 0),
        ("describe", FOREST, SEEN.replace("cold", "hammer"), 0),
        ("describe", FOREST, SEEN.replace(" and cold", ""), 0),
        ("describe", FOREST, f"{SEEN} {SEEN}", 0),
    ],
)
def test_an_open_instruction_is_judged_as_by_hand(kind, prompt, response, reward):
    assert instruct.kind(prompt) == kind
    assert instruct.reward(prompt, response) == pytest.approx(reward)


# Patterns


def test_favourites_are_drawn_in_proportion_to_one_over_their_rank():
    rng = random.Random(0)
    for exponent, weights in [(1.0, [1, 1 / 2, 1 / 3]), (2.0, [1, 1 / 4, 1 / 9])]:
        drawn = Counter(zipf_choice(rng, "abc", exponent) for _ in range(20_000))
        for letter, weight in zip("abc", weights, strict=True):
            assert drawn[letter] / 20_000 == pytest.approx(weight / sum(weights), abs=0.015)


@given(st.integers(0, 10**6))
def test_a_pattern_reads_what_it_writes_and_no_more(seed):
    pattern = Pattern("{word} (or {word2}) is {number}.", {"word": ["a", "ab", "b.c"]})
    text = pattern.write(random.Random(seed), number=str(seed))
    slots = pattern.read(text)
    assert pattern.template.format(**slots) == text and slots["number"] == str(seed)
    others = text + " ", text[1:], text.replace("is", "was")
    assert [pattern.read(other) for other in others] == [None] * 3


# Loading


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["story", "poem"],
            r"must name tasks out of math, instruct, .*, think_or_answer, or .*, got 'poem'$",
        ),
        (["gone.py"], r"must name existing files, got 'gone\.py'"),
        (["story", "math", "story"], "must name .* each once, got story, math, story$"),
        ([], "must name at least one task, each once, got none"),
    ],
)
def test_names_that_cannot_be_loaded_are_an_error_that_names_them(names, message):
    with pytest.raises(ValueError, match=f"^--tasks {message}"):
        load_tasks(names, ALL_TASKS)


def test_the_control_tasks_are_known_only_where_their_table_is_given():
    [task] = load_tasks(["coin_flip"], ALL_TASKS)
    assert type(task) is ALL_TASKS["coin_flip"]
    with pytest.raises(ValueError, match="out of math, .*, math_paths, or .py .* got 'coin_flip'$"):
        load_tasks(["coin_flip"])


# The tasks of single experiments


def test_three_words_in_a_row_are_counted_as_repeats_wherever_they_come_again():
    rng = random.Random(0)
    for _ in range(200):
        words = [rng.choice("ab") for _ in range(rng.randint(3, 12))]
        seen, repeats = set(), 0
        for i in range(len(words) - 2):
            repeats += tuple(words[i : i + 3]) in seen
            seen.add(tuple(words[i : i + 3]))
        assert repeated(" ".join(words)) == pytest.approx(repeats / (len(words) - 2))
    assert repeated("two words") == repeated("") == 0.0


OPENING = "The fox found a silver key in the forest."
GOES_ON = [
    "Then the fox ran slowly through the cave.",
    "A tiny witch helped the fox.",
    "At noon the fox dreamed of a round drum.",
    "The ghost gave the fox a map.",
    "The fox lost a heavy bell in the palace.",
]


@pytest.mark.parametrize(
    "response, reward",
    [
        (" ".join(GOES_ON), 1),
        (" ".join(GOES_ON[:4]), 4 / 5),  # too short
        (" ".join([*GOES_ON, "The fox sold a warm cup in the desert."]), 1),  # longer is as good
        (" ".join([*GOES_ON[:4], OPENING]), 4 / 5),  # the prompt's own sentence isn't new
        (" ".join([*GOES_ON[:4], GOES_ON[0]]), 4 / 5),  # nor is one that has been said
        (" ".join([*GOES_ON[:4], "A tiny witch helped the bear."]), 4 / 5),  # another subject
        (" ".join([*GOES_ON, "fox fox fox."]), 5 / 6),  # not a sentence of a story
        (OPENING, 0),
        (f"Continue this text: {OPENING}", 0),
        (" ".join([OPENING] * 5), 0),
        ("the fox ran", 0),
        ("blue seven drum, witch? on on the", 0),
        ("", 0),
        (GOES_ON[0], 1 / 5),
        (" ".join([GOES_ON[0]] * 5), 1 / 5),  # as greedy writing goes
        (GOES_ON[1].replace("tiny", "old"), 0),  # a word that no story has
    ],
)
def test_a_continuation_is_worth_its_new_sentences_about_the_subject(response, reward):
    task = MADE["continuation"]
    for prompt in (f"Continue this text: {OPENING}", f"{OPENING} What happens next?"):
        assert task.reward(prompt, response) == pytest.approx(reward)


def test_repeats_cost_a_continuation_even_if_all_its_sentences_are_new():
    words = ("key", "lantern", "map", "ring", "book")
    alike = " ".join(f"The fox found a silver {word} in the cave." for word in words)
    parts = MADE["continuation"].parts(f"Go on from here: {OPENING}", alike)
    # Of the 43 3-grams, these come five times: "The fox found", "fox found a", "found a silver",
    # "in the cave."; and "the cave. The", "cave. The fox" come four times.
    assert parts == {"new": 1, "variety": pytest.approx(1 - (4 * 4 + 2 * 3) / 43)}
    assert MADE["continuation"].reward(f"Go on from here: {OPENING}", alike) == parts["variety"]


def test_the_demonstrations_of_a_continuation_score_high():
    task, rng = MADE["continuation"], random.Random(0)
    rewards = []
    for _ in range(1000):
        prompt = task.prompt(rng)
        rewards.append(task.reward(prompt, task.demonstration(prompt, rng)))
    assert 0.88 < sum(rewards) / 1000 < 0.93  # 0.904 for 5,000 of them


def test_a_continuation_goes_on_about_the_subject_of_any_prompt_in_and_out_of_distribution():
    task, rng = MADE["continuation"], random.Random(0)
    for draw in [task.prompt] * 100 + [task.ood_prompt] * 50:
        prompt = draw(rng)
        sentences, subject = (
            sentences_of(task.demonstration(prompt, rng)),
            task.read(prompt)["subject"],
        )
        assert len(sentences) == 5 and sum(subject in sentence for sentence in sentences) >= 4
    with pytest.raises(ValueError, match="a continuation prompt must have a known wording, got"):
        task.read("Continue this text: Hello.")


def test_the_routes_of_a_sum_are_taken_as_often_as_stated_and_the_likeliest_is_the_worst():
    task, rng = MADE["math_paths"], random.Random(0)
    right, offsets = {"Roughly:": [], "Forwards:": [], "Backwards:": []}, Counter()
    for _ in range(6000):
        prompt = task.prompt(rng)
        numbers = [int(number) for number in re.findall(r"\d+", prompt)]
        response = task.demonstration(prompt, rng)
        route, *_ = response.split()
        right[route].append(task.reward(prompt, response))
        assert (task.reward(prompt, response) == 1) == (final_answer(response) == str(sum(numbers)))
        if route == "Roughly:":
            rough = [int(number) for number in re.findall(r"\d+", response)]
            assert sum(rough[:3]) == rough[3]
            offsets.update(r - n for r, n in zip(rough, numbers, strict=False))
    assert [len(rewards) / 6000 for rewards in right.values()] == pytest.approx(
        list(ROUTES.values()), abs=0.02
    )
    means = [sum(rewards) / len(rewards) for rewards in right.values()]
    assert means[0] < 0.3 < 0.45 < min(means[1:])
    assert {offset: n / offsets.total() for offset, n in offsets.items()} == pytest.approx(
        ROUNDING, abs=0.02
    )


def test_the_written_routes_add_up_but_for_their_slips(monkeypatch):
    monkeypatch.setattr("minilpo.tasks.math_paths.SLIP", 0.0)
    task, rng = MADE["math_paths"], random.Random(0)
    for _ in range(300):
        prompt = task.ood_prompt(rng)
        response = task.demonstration(prompt, rng)
        for a, b, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", response):
            assert int(a) + int(b) == int(total)
        assert response.startswith("Roughly") or task.reward(prompt, response) == 1


@pytest.mark.parametrize(
    "answers, winner",
    [("122", "2"), ("3113", "3"), ([None, None, "4"], "4"), ([None], None), ([], None)],
)
def test_the_majority_is_the_most_frequent_answer_and_the_earliest_of_equals(answers, winner):
    assert majority([*answers]) == winner


@pytest.mark.parametrize("name", ["coin_flip", "hidden_wish"])
@pytest.mark.parametrize("split", SPLITS)
def test_what_a_control_task_hides_is_even_in_every_split_and_in_every_wording(name, split):
    prompts = (
        draw_prompts(MADE[name], 100, split, random.Random(0))
        if split != "train"
        else [p for p, _ in corpus(name)]
    )
    bits = [_hidden_bit(prompt) for prompt in dict.fromkeys(prompts)]
    assert abs(sum(bits) / len(bits) - 0.5) < 2.5 * 0.5 / len(bits) ** 0.5


def test_nothing_beats_a_guess_at_the_coin():
    task = MADE["coin_flip"]
    prompts = list(dict.fromkeys(prompt for prompt, _ in corpus("coin_flip")))
    for guess in ("It is heads.", "It is tails."):
        rewards = [task.reward(prompt, guess) for prompt in prompts]
        assert sum(rewards) / len(rewards) == pytest.approx(0.5, abs=0.05)
    assert task.reward(prompts[0], "heads") == 0.0


def test_half_of_all_wishes_reward_the_favourite_and_half_variety():
    task, same, different = MADE["hidden_wish"], 0, 0
    prompts = [prompt for prompt, _ in corpus("hidden_wish")][:500]
    for prompt in prompts:
        things = CATEGORIES[task.read(prompt)["category"]]
        favourite, varied = ", ".join(things[:1] * 5) + ".", ", ".join(things[1:6]) + "."
        rewards = task.reward(prompt, favourite), task.reward(prompt, varied)
        assert rewards in [(1.0, 0.0), (0.2, 1.0)]
        assert task.reward(prompt, favourite + favourite) <= rewards[0]  # more than five is no gain
        same, different = same + rewards[0], different + rewards[1]
    assert 0.5 < same / 500 < 0.7 and 0.4 < different / 500 < 0.6


def test_bets_are_made_and_won_as_often_as_stated_and_no_runner_is_luckier_than_chance():
    task, pairs = MADE["safe_bet"], corpus("safe_bet", 8000)
    bets = [pair for pair in pairs if pair[1] != "no bet."]
    assert 1 - len(bets) / len(pairs) == pytest.approx(task.caution, abs=0.012)
    first = Counter(response.split()[0] for _, response in bets)
    assert set(first) == set(task.runners)
    assert max(first.values()) < 0.4 * (len(pairs) - len(bets))  # so greedy doesn't bet
    won = Counter(response.split()[0] for prompt, response in bets if task.reward(prompt, response))
    assert won.total() / len(bets) == pytest.approx(task.chance, abs=0.02)
    for runner, n in first.items():
        spread = (task.chance * (1 - task.chance) / n) ** 0.5
        assert abs(won[runner] / n - task.chance) < 4 * spread


@pytest.mark.parametrize(
    "response",
    ["no bet", "No bet.", "no bet. ", "fox before fox.", "fox before tree.", "fox.", "before.",
     "fox before dog", "fox before dog. fox before dog.", "fox before dog before cat."],
)  # fmt: skip
def test_what_is_no_bet_on_two_runners_gets_nothing(response):
    prompts = [prompt for prompt, _ in corpus("safe_bet", 8000)[:50]]
    assert {MADE["safe_bet"].reward(prompt, response) for prompt in prompts} == {0.0}


def test_a_task_with_a_language_model_of_its_own_is_not_in_the_corpus_of_the_reproduction():
    corpus_of_all = [task.name for task in CORPUS]
    assert [*ALL_TASKS] == [*corpus_of_all, "safe_bet", "think_or_answer"]
    assert (
        corpus_of_all
        == (
            "math instruct story constrained_story continuation math_paths coin_flip hidden_wish"
        ).split()
    )


@every_task
def test_a_task_knows_its_own_prompts_and_nobody_elses(task):
    rng = random.Random(0)
    own = [task.prompt(rng) for _ in range(200)]
    own += [task.ood_prompt(rng) for _ in range(200)] if offers(task, "ood_prompt") else []
    others = [other.prompt(rng) for other in MADE.values() if other is not task for _ in range(50)]
    assert all(map(task.knows, own)) and not any(map(task.knows, others))
    assert not any(
        map(task.knows, ["", " ", "yes", "Yes. No.", "Tell me a story.", *others[:5] * 2])
    )
