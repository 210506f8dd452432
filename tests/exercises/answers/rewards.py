"""Answers to the exercises of lesson 3."""

import re
from string import punctuation

import torch

from minilpo.evaluation.statistics import mean_over_tasks
from tests.exercises.answers import WRONG, right


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

WRONG["variety_reward"] = """
characters | characters are counted
    words_of(response) -> response.lower().translate(str.maketrans("", "", ".,!?"))
capital letters | capital and small letters make different words
    words_of(response) -> re.sub("[.,!?]", "", response).split()
marks | marks belong to the words | words_of(response) -> response.lower().split()
two spaces | split(' ') makes an empty word
    words_of(response) -> re.sub("[.,!?]", "", response.lower()).split(" ")
    if words else -> if words_of(response) else
share of repeated words | it is the share of repeated words | return len -> return 1 - len
not divided | it is the number of different words | return len(set(words_of(response)))
words that occur once | only words that occur once are counted
    len(set(words)) / -> sum(words.count(word) == 1 for word in words) /
1 for nothing | a response without words gets 1 | else 0.0 -> else 1.0
the prompt's words too | the words of the prompt are counted as well
    words_of(response) -> words_of(prompt + " " + response)
arguments swapped | it judges the prompt | return by_pattern(response, prompt)
0 divided by 0 | it raised ZeroDivisionError | / len(words) if words else 0.0 -> / len(words)
a tensor for a number | .item() makes a number of it
    return torch.tensor(by_pattern(prompt, response))
a text for a number | must be a Python float, got a Python str
    return str(by_pattern(prompt, response))
whether all differ | must be a Python float, got a Python bool
    return by_pattern(prompt, response) == 1
a constant | it says the same whatever it is given | return 0.5
words remembered from call to call | it keeps something from one call
    seen_words.extend(words_of(response))
    return len(set(seen_words)) / len(seen_words)
cut at all that isn't a letter | only letters are kept
    words_of(response) -> re.sub("[^a-z]", " ", response.lower()).split()
cut at apostrophes | other marks part words too, as in don't
    words_of(response) -> "".join(c if c.isalnum() else " " for c in response.lower()).split()
no marks at all | all marks are taken away; only . , ! and ? are
    words_of(response) -> response.lower().translate(str.maketrans("", "", punctuation)).split()
marks at the ends | those inside, as in 3.5, go too
    words_of(response) -> list(filter(None, [w.strip(",.?!") for w in response.lower().split()]))
cut at the marks | words are cut at the marks . , ! ?
    words_of(response) -> re.sub("[.,!?]", " ", response.lower()).split()
"""


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


WRONG["best_constant"] = """
peeking | it peeks: the column is chosen on the test prompts | train_rewards.sum -> test_rewards.sum
swapped pair | training and test prompts are swapped | return by_max(test_rewards, train_rewards)
the reward in training | the mean is that on the training prompts | test_rewards. -> train_rewards.
both together | on training and test prompts together
    train_rewards.sum -> torch.cat([train_rewards, test_rewards]).sum
the best of each prompt | it must be the same column for all | .mean(dim=0)[best] -> .amax(1).mean()
lost sign | it is the worst column | .max(dim=0) -> .min(dim=0)
the last of equals | of equal columns it takes the last | mean > best_mean -> mean >= best_mean
the highest single reward | the column of the single highest reward | .sum(dim=0) -> .amax(dim=0)
the most wins | the column that is best for most prompts | .sum(dim=0) -> .argmax(1).bincount()
sum for mean | the rewards are added up | test_rewards.mean -> test_rewards.sum
a tensor for the column | part 1 of the result must be a Python int | best.item(), -> best,
counted from 1 | wrong for | best.item(), -> best.item() + 1,
a tensor for a number | part 2 of the result must be a Python float
    float(test_rewards.mean(dim=0)[best]) -> test_rewards.mean(dim=0)[best]
a list for a tuple | the result must be a tuple of 2, got a Python list
    return list(by_max(train_rewards, test_rewards))
wrong axis | wrong for | .sum(dim=0).max(dim=0).indices -> .sum(1).argmax() % train_rewards.shape[1]
the library's own | calls minilpo's own mean_over_tasks
    return mean_over_tasks(train_rewards, None)
right on positive rewards only | wrong for | train_rewards.sum -> train_rewards.clamp(min=0).sum
"""
