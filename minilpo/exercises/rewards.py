"""Lesson 3: rewards. What a program says of a response, and the best single temperature."""

import re
from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise, mistake

WORDS = "fox bear key map moon river small old ran sang and the".split()


class VarietyReward(Exercise):
    """Reward a response for not repeating itself: its number of different words by that of all.

    `prompt` and `response` are texts. Words are the texts between spaces (one or more). Capital
    or small letters make no difference, and neither do the marks . , ! and ?, so "Fox," and "fox"
    are the same word, "3.5" and "35" are, and a mark on its own is none. Return a Python float from
    0 to 1, and 0.0 for a response without words. A reward function gets the prompt too; this one
    doesn't use it.
    """

    name = "variety_reward"
    lesson = 3
    hints = (
        "Make one simple text of the response first, then the words, then count.",
        "`set(words)` has each word once. What if there is no word at all?",
        "`response.lower()`, then `.replace(mark, '')` for each of the four marks, then "
        "`.split()` without an argument.",
    )
    explanation = (
        "`split()` without an argument cuts at any number of spaces and makes no empty words. A "
        "reward must say something about any text, however broken, so the empty one is treated "
        "on its own: there 0 would be divided by 0."
    )
    follow_up = (
        "how does a response get the full reward without saying anything? Change the reward so "
        "that this no longer pays."
    )

    @staticmethod
    def right(prompt, response):
        text = response.lower()
        for mark in ".,!?":
            text = text.replace(mark, "")
        words = text.split()
        return len(set(words)) / len(words) if words else 0.0

    @mistake("characters are counted; words are asked for")
    def characters(prompt, response):
        text = _plain(response)
        return len(set(text)) / len(text) if text else 0.0

    @mistake("capital and small letters make different words; lower() them")
    def case_counts(prompt, response):
        return _share(_without_marks(response).split())

    @mistake("marks belong to the words: 'fox,' and 'fox' are counted as two")
    def marks_count(prompt, response):
        return _share(response.lower().split())

    @mistake("of two spaces in a row, split(' ') makes an empty word; split() doesn't")
    def empty_words(prompt, response):
        text = _plain(response)
        return _share(text.split(" ")) if text.strip() else 0.0

    @mistake("it is the share of repeated words; 1 minus that is asked for")
    def share_of_repeated(prompt, response):
        words = _plain(response).split()
        return 1 - _share(words) if words else 0.0

    @mistake("it is the number of different words; divide by the number of all")
    def number(prompt, response):
        return float(len(set(_plain(response).split())))

    @mistake("only words that occur once are counted; of those that repeat, each counts once too")
    def occur_once(prompt, response):
        words = _plain(response).split()
        return sum(words.count(word) == 1 for word in words) / len(words) if words else 0.0

    @mistake("a response without words gets 1; it gets 0.0")
    def empty_is_best(prompt, response):
        return _share(_plain(response).split()) if _plain(response).split() else 1.0

    @mistake("the words of the prompt are counted as well; only the response is judged")
    def with_prompt(prompt, response):
        return _share(_plain(f"{prompt} {response}").split())

    @mistake("it judges the prompt; the response is the second argument")
    def of_prompt(prompt, response):
        return _share(_plain(prompt).split())

    @mistake("other marks part words too, as in don't; only spaces do, and . , ! ? are taken away")
    def word_characters(prompt, response):
        return _share(re.findall(r"\w+", response.lower()))

    @mistake("only letters are kept; 7 and + are words too")
    def letters_only(prompt, response):
        return _share(re.findall("[a-z]+", response.lower()))

    @mistake("all marks are taken away; only . , ! and ? are")
    def all_marks(prompt, response):
        return _share(re.sub(r"[^\w\s]|_", "", response.lower()).split())

    @mistake("words are cut at the marks . , ! ?; take the marks away, so that 3.5 is one word")
    def cut_at_marks(prompt, response):
        return _share(re.findall(r"[^\s.,!?]+", response.lower()))

    @mistake("marks are taken away at the ends of words only; those inside, as in 3.5, go too")
    def marks_at_the_ends(prompt, response):
        return _share(list(filter(None, (w.strip(".,!?") for w in response.lower().split()))))

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields repeated words in capital and small letters, marks, many spaces, no words."""
        yield "Say something.", "The fox saw the bear."
        yield "Say something.", "fox fox Fox, fox!"
        yield "Say something.", "bear"
        yield "Say something.", ""
        yield "Say something.", " ... ! ?"
        yield "Say something.", "  the fox ,  the key  "
        for _ in range(12):
            prompt = f"Tell me of the {draw.choice(WORDS)} and the {draw.choice(WORDS)}."
            yield prompt, self._text(draw, 3 + int(draw.integers(12, 1)))
        for response in (
            "don't can't",
            "7 + 5 = 12 + 0",
            "it's its",
            "3.5 is 35",
            "3.5 3,5",
            "e.g. eg, no",
        ):
            yield "Say something.", response

    @staticmethod
    def _text(draw: Draw, n_words: int) -> str:
        """Draws words, some with a capital letter, with marks and spaces between them."""
        text = ""
        for _ in range(n_words):
            word = draw.choice(WORDS)
            word = word.capitalize() if draw.choice([True, False, False]) else word
            text += word + draw.choice(["", "", "", ",", ".", "!", "?", " ,"])
            text += draw.choice([" ", " ", " ", "  "])
        return text


def _without_marks(text):
    return "".join(c for c in text if c not in ".,!?")


def _plain(text):
    return _without_marks(text.lower())


def _share(words):
    return len(set(words)) / len(words) if words else 0.0


class BestConstant(Exercise):
    """Find the best single temperature without peeking, and say how good it is.

    `train_rewards` has shape (P, K): the reward of each of P training prompts at each of K
    temperatures. `test_rewards`, of shape (Q, K), has those of Q other prompts. Choose the column
    with the highest mean on the training prompts, the first of equals. Return a tuple: the number
    of the column, a Python int, and its mean on the test prompts, a Python float.
    """

    name = "best_constant"
    lesson = 3
    hints = (
        "Somebody who chooses a temperature today doesn't know the prompts of tomorrow. Which of "
        "the two tensors may the choice look at?",
        "`train_rewards.mean(0)` has one number per temperature.",
        "`k = int(train_rewards.mean(0).argmax())`; the reward is `test_rewards[:, k].mean()`.",
    )
    explanation = (
        "Of several noisy means the largest is too high by some luck, so a number that was used "
        "for choosing can't be reported as well. On prompts that played no part in the choice, "
        "the same column has a fair mean."
    )
    follow_up = "how much higher is the reward if you do peek? Try it with rewards of pure chance."

    @staticmethod
    def right(train_rewards, test_rewards):
        k = int(train_rewards.mean(0).argmax())
        return k, test_rewards[:, k].mean().item()

    @mistake("it peeks: the column is chosen on the test prompts; choose on the training prompts")
    def peeking(train_rewards, test_rewards):
        return BestConstant.right(test_rewards, test_rewards)

    @mistake("training and test prompts are swapped")
    def swapped(train_rewards, test_rewards):
        return BestConstant.right(test_rewards, train_rewards)

    @mistake("the mean is that on the training prompts; report the one on the test prompts")
    def training_mean(train_rewards, test_rewards):
        return BestConstant.right(train_rewards, train_rewards)

    @mistake("it peeks: the column is chosen on training and test prompts together")
    def pooled(train_rewards, test_rewards):
        return BestConstant.right(torch.cat([train_rewards, test_rewards]), test_rewards)

    @mistake("the best of each test prompt is taken; it must be the same column for all")
    def best_of_each(train_rewards, test_rewards):
        k, _ = BestConstant.right(train_rewards, test_rewards)
        return k, test_rewards.amax(1).mean().item()

    @mistake("it is the worst column; argmax finds the best")
    def worst(train_rewards, test_rewards):
        return BestConstant.right(-train_rewards, test_rewards)

    @mistake("of equal columns it takes the last; the first is asked for")
    def last_of_equals(train_rewards, test_rewards):
        k = train_rewards.shape[1] - 1 - int(train_rewards.mean(0).flip(0).argmax())
        return k, test_rewards[:, k].mean().item()

    @mistake("the column of the single highest reward is taken; compare the means")
    def highest_single(train_rewards, test_rewards):
        k = int(train_rewards.amax(0).argmax())
        return k, test_rewards[:, k].mean().item()

    @mistake("the column that is best for most prompts is taken; compare the means")
    def most_often_best(train_rewards, test_rewards):
        wins = torch.bincount(train_rewards.argmax(1), minlength=train_rewards.shape[1])
        k = int(wins.argmax())
        return k, test_rewards[:, k].mean().item()

    @mistake("the rewards are added up; their mean is asked for")
    def summed(train_rewards, test_rewards):
        k, _ = BestConstant.right(train_rewards, test_rewards)
        return k, test_rewards[:, k].sum().item()

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields test prompts with another best column; ties; rewards below 0; one prompt."""
        yield torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
        yield torch.tensor([[0.25, 0.75, 0.75]]), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.5]])
        yield torch.tensor([[0.5], [0.0]]), torch.tensor([[0.25], [1.0], [1.0]])
        yield torch.tensor([[-0.75, -0.25, -0.5]]), torch.tensor([[-1.0, -0.5, 0.0]])
        for P, Q, K in [(2, 3, 4), (5, 1, 3), (1, 6, 5), (8, 4, 2), (4, 4, 4), (20, 10, 6)]:
            yield draw.normal(P, K), draw.normal(Q, K)
        for P, Q, K in [(4, 3, 5), (8, 5, 4), (2, 7, 6)]:  # quarters: many ties, no rounding
            yield draw.integers(3, P, K) / 4, draw.integers(5, Q, K) / 4
        yield -draw.uniform(6, 3), -draw.uniform(9, 3)
        yield draw.uniform(3, 4).double(), draw.uniform(5, 4).double()
        yield draw.uniform(30, 6), draw.uniform(12, 6)


variety_reward = VarietyReward()
best_constant = BestConstant()
