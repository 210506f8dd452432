"""Answers to the exercises of lesson 3."""

import re
import string

import torch

from minilpo.evaluation.statistics import mean_over_tasks
from tests.exercises.answers import WrongAnswers, right, wrong

LETTERS = string.ascii_lowercase

# Variety


@right("variety_reward", "by a pattern")
def by_pattern(prompt, response):
    words = words_of(response)
    return len(set(words)) / len(words) if words else 0.0


@right("variety_reward", "with loops")
def variety_with_loops(prompt, response):
    seen, n_words = [], 0
    for part in response.split():
        word = "".join(c for c in part.lower() if c not in ".,!?")
        if word:
            n_words += 1
            if word not in seen:
                seen.append(word)
    return 0.0 if n_words == 0 else len(seen) / n_words


def words_of(text):
    return re.sub("[.,!?]", "", text.lower()).split()


seen_words = []


# The best constant


@right("best_constant", "with loops")
def constant_with_loops(train_rewards, test_rewards):
    best, best_mean = 0, -float("inf")
    for k in range(train_rewards.shape[1]):
        mean = sum(train_rewards[:, k].tolist()) / len(train_rewards)
        if mean > best_mean:
            best, best_mean = k, mean
    return best, sum(test_rewards[:, best].tolist()) / len(test_rewards)


@right("best_constant", "by max")
def by_max(train_rewards, test_rewards):
    best = train_rewards.sum(dim=0).max(dim=0).indices
    return best.item(), float(test_rewards.mean(dim=0)[best])


@right("best_constant", "NumPy's numbers")
def by_numpy(train_rewards, test_rewards):
    best = train_rewards.numpy().mean(axis=0).argmax()
    return best, test_rewards.numpy()[:, best].mean()


class BestConstant(WrongAnswers, to="best_constant"):
    @wrong("peeking", "it peeks: the column is chosen on the test prompts")
    def peeking(train_rewards, test_rewards):
        means = test_rewards.mean(0)
        return int(means.argmax()), float(means.max())

    @wrong("swapped pair", "training and test prompts are swapped")
    def swapped_sets(train_rewards, test_rewards):
        return by_max(test_rewards, train_rewards)

    @wrong("the reward in training", "the mean is that on the training prompts")
    def in_training(train_rewards, test_rewards):
        means = train_rewards.mean(0)
        return int(means.argmax()), float(means.max())

    @wrong("both together", "on training and test prompts together")
    def together(train_rewards, test_rewards):
        best = torch.cat((train_rewards, test_rewards)).mean(0).argmax()
        return int(best), float(test_rewards[:, best].mean())

    @wrong("the best of each prompt", "it must be the same column for all")
    def oracle(train_rewards, test_rewards):
        return int(train_rewards.mean(0).argmax()), float(test_rewards.max(dim=1).values.mean())

    @wrong("lost sign", "it is the worst column")
    def worst(train_rewards, test_rewards):
        best = train_rewards.mean(0).argmin()
        return int(best), float(test_rewards[:, best].mean())

    @wrong("the last of equals", "of equal columns it takes the last")
    def last(train_rewards, test_rewards):
        means = train_rewards.mean(0).tolist()
        best = max(range(len(means)), key=lambda k: (means[k], k))
        return best, float(test_rewards[:, best].mean())

    @wrong("the highest single reward", "the column of the single highest reward")
    def single(train_rewards, test_rewards):
        best = int(train_rewards.max(0).values.argmax())
        return best, float(test_rewards[:, best].mean())

    @wrong("the most wins", "the column that is best for most prompts")
    def wins(train_rewards, test_rewards):
        K = train_rewards.shape[1]
        counts = [(train_rewards.argmax(1) == k).sum().item() for k in range(K)]
        best = counts.index(max(counts))
        return best, float(test_rewards[:, best].mean())

    @wrong("sum for mean", "the rewards are added up")
    def summed(train_rewards, test_rewards):
        best = int(train_rewards.sum(0).argmax())
        return best, float(test_rewards[:, best].sum())

    @wrong("a tensor for the column", "part 1 of the result must be a Python int")
    def tensor_column(train_rewards, test_rewards):
        best = train_rewards.mean(0).argmax()
        return best, float(test_rewards[:, best].mean())

    @wrong("counted from 1", "wrong for")
    def counted_from_one(train_rewards, test_rewards):
        best, reward = by_max(train_rewards, test_rewards)
        return best + 1, reward

    @wrong("a tensor for a number", "part 2 of the result must be a Python float")
    def tensor_reward(train_rewards, test_rewards):
        best = int(train_rewards.mean(0).argmax())
        return best, test_rewards[:, best].mean()

    @wrong("a list for a tuple", "the result must be a tuple of 2, got a Python list")
    def as_list(train_rewards, test_rewards):
        return list(by_max(train_rewards, test_rewards))

    @wrong("wrong axis", "wrong for")
    def wrong_axis(train_rewards, test_rewards):
        best = int(train_rewards.mean(1).argmax()) % train_rewards.shape[1]
        return best, float(test_rewards[:, best].mean())

    @wrong("the library's own", "calls minilpo's own mean_over_tasks")
    def from_the_library(train_rewards, test_rewards):
        return mean_over_tasks(train_rewards, None)

    @wrong("right on positive rewards only", "wrong for")
    def positive_only(train_rewards, test_rewards):
        best = int(train_rewards.clamp(min=0).mean(0).argmax())
        return best, float(test_rewards[:, best].mean())


def variety(words):
    return len(set(words)) / len(words) if words else 0.0


class VarietyReward(WrongAnswers, to="variety_reward"):
    @wrong("characters", "characters are counted")
    def characters(prompt, response):
        text = response.lower().translate(str.maketrans("", "", ".,!?"))
        return len(set(text)) / len(text) if text else 0.0

    @wrong("capital letters", "capital and small letters make different words")
    def capitals(prompt, response):
        words = re.sub("[.,!?]", "", response).split()
        return len(set(words)) / len(words) if words else 0.0

    @wrong("marks", "marks belong to the words")
    def marks(prompt, response):
        words = response.lower().split()
        return len(set(words)) / len(words) if words else 0.0

    @wrong("two spaces", "split(' ') makes an empty word")
    def spaces(prompt, response):
        text = "".join(c for c in response.lower() if c not in ".,!?")
        words = text.split(" ")
        return len(set(words)) / len(words) if words_of(response) else 0.0

    @wrong("share of repeated words", "it is the share of repeated words")
    def repeated(prompt, response):
        words = words_of(response)
        return 1 - len(set(words)) / len(words) if words else 0.0

    @wrong("not divided", "it is the number of different words")
    def not_divided(prompt, response):
        return len(set(words_of(response)))

    @wrong("words that occur once", "only words that occur once are counted")
    def once(prompt, response):
        words = words_of(response)
        return len([word for word in words if words.count(word) == 1]) / max(1, len(words))

    @wrong("1 for nothing", "a response without words gets 1")
    def full_marks(prompt, response):
        words = words_of(response)
        return len(set(words)) / len(words) if words else 1.0

    @wrong("the prompt's words too", "the words of the prompt are counted as well")
    def prompt_too(prompt, response):
        words = words_of(prompt + " " + response)
        return len(set(words)) / len(words)

    @wrong("arguments swapped", "it judges the prompt")
    def swapped(prompt, response):
        return by_pattern(response, prompt)

    @wrong("0 divided by 0", "it raised ZeroDivisionError")
    def by_zero(prompt, response):
        words = words_of(response)
        return len(set(words)) / len(words)

    @wrong("a tensor for a number", ".item() makes a number of it")
    def as_tensor(prompt, response):
        return torch.tensor(by_pattern(prompt, response))

    @wrong("a text for a number", "must be a Python float, got a Python str")
    def as_text(prompt, response):
        return str(by_pattern(prompt, response))

    @wrong("whether all differ", "must be a Python float, got a Python bool")
    def all_differ(prompt, response):
        return by_pattern(prompt, response) == 1

    @wrong("a constant", "it says the same whatever it is given")
    def constant(prompt, response):
        return 0.5

    @wrong("words remembered from call to call", "it keeps something from one call")
    def remembered(prompt, response):
        seen_words.extend(words_of(response))
        return len(set(seen_words)) / len(seen_words)

    @wrong("cut at all that isn't a letter", "only letters are kept")
    def letters(prompt, response):
        return variety("".join(c if c in LETTERS else " " for c in response.lower()).split())

    @wrong("cut at apostrophes", "other marks part words too, as in don't")
    def apostrophes(prompt, response):
        return variety("".join(c if c.isalnum() else " " for c in response.lower()).split())

    @wrong("no marks at all", "all marks are taken away; only . , ! and ? are")
    def no_marks(prompt, response):
        return variety(
            response.lower().translate(str.maketrans("", "", string.punctuation)).split()
        )

    @wrong("marks at the ends", "those inside, as in 3.5, go too")
    def at_the_ends(prompt, response):
        parts = (part.strip(",.?!") for part in response.lower().split())
        return variety([part for part in parts if part])

    @wrong("cut at the marks", "words are cut at the marks . , ! ?")
    def cut_at_marks(prompt, response):
        text = response.lower()
        for mark in ".,!?":
            text = text.replace(mark, " ")
        return variety(text.split())
