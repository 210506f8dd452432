"""Answers to the exercises of lesson 10."""

import math
import random

import torch

from minilpo.tasks import Task
from tests.exercises.answers import WRONG, right


@right("WordCountTask", "derived from Task")
class Derived(Task):
    name = "count_words"
    asked = dict(zip("two three four five six seven".split(), range(2, 8), strict=True))

    def prompt(self, rng: random.Random) -> str:
        return f"Write {list(self.asked)[rng.randrange(6)]} words."

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        return " ".join(rng.sample("one for all and all for one too".split(), self.n(prompt)))

    def reward(self, prompt: str, response: str) -> float:
        n = self.n(prompt)
        return 1 - min(abs(n - len(response.split())), n) / n

    def n(self, prompt: str) -> int:
        return next(n for word, n in self.asked.items() if word in prompt)


@right("WordCountTask", "a plain class, with loops")
class Plain:
    def __init__(self):
        self.name = "words-7"
        self.numbers = ["two", "three", "four", "five", "six", "seven"]

    def prompt(self, rng):
        return "Write " + rng.choice(self.numbers) + " words."

    def demonstration(self, prompt, rng):
        text = ""
        for _ in range(self.numbers.index(prompt.split()[1]) + 2):
            for _ in range(rng.randint(1, 5)):
                text += rng.choice("abcdefghij")
            text += " "
        return text.strip().capitalize() + "."

    def reward(self, prompt, response):
        asked_for = self.numbers.index(prompt.split()[1]) + 2
        written = len(response.split())
        reward = 1.0
        for _ in range(abs(written - asked_for)):
            reward -= 1 / asked_for
        return reward if reward > 0 else 0.0


WRONG["WordCountTask"] = """
below 0 | the reward of a long response is below 0
    min(abs(n - len(response.split())), n) -> abs(n - len(response.split()))
all or nothing | the reward is all or nothing
    1 - min(abs(n - len(response.split())), n) / n -> float(len(response.split()) == n)
characters for words | the reward counts characters | len(response.split())), n -> len(response)), n
the longer the better | too many words are as bad as too few
    1 - min(abs(n - len(response.split())), n) / n -> min(len(response.split()) / n, 1.0)
sign of the difference | is abs missing?
    abs(n - len(response.split())) -> len(response.split()) - n
a word too few | the demonstration has a word less | , self.n(prompt)) -> , self.n(prompt) - 1)
a word too many | the demonstration has a word more | , self.n(prompt)) -> , self.n(prompt) + 1)
always the same words | the demonstration is the same every time
    "one for all and all for one too" -> 8 * "word "
never seven | seven never comes up | rng.randrange(6) -> rng.randrange(5)
another prompt | wrong for | f"Write { -> f"Please write {
digits for words | wrong for | "one for all and all for one too" -> "1 2 3 4 5 6 7 8"
divided by what was written | it raised ZeroDivisionError
    , n) / n -> , len(response.split())) / len(response.split())
the prompt not read | wrong for | n = self.n(prompt) -> n = 3
Python's own random numbers | Python's random numbers | rng.randrange -> random.randrange
no name | has no attribute 'name' | name = "count_words" -> n_words = 7
a name with spaces | wrong for 1 of | "count_words" -> "count the words"
a reward as a text | must be a Python float, got a Python str
    1 - min(abs(n - len(response.split())), n) / n -> str(n)
a list of words | must be a Python str, got a Python list | " ".join(rng -> list(rng
a function | it must be a class | class variant(Task): -> def variant():
"""

QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447]


def conclusion(low, high):
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


@right("experiment_conclusion", "by the t statistic")
def experiment_conclusion(differences):
    means = differences.double().mean(dim=1)
    S = means.numel()
    spread = means.std(correction=1)
    if (means.mean() / spread * S**0.5).abs() <= QUANTILES[S - 2] or means.mean() == 0:
        return "no difference shown"
    return "better" if means.mean() > 0 else "worse"


@right("experiment_conclusion", "with loops")
def experiment_conclusion_with_loops(differences):
    means = [sum(row) / len(row) for row in differences.tolist()]
    S = len(means)
    middle = sum(means) / S
    variance = sum((mean - middle) ** 2 for mean in means) / (S - 1)
    half = QUANTILES[S - 2] * math.sqrt(variance / S)
    return conclusion(middle - half, middle + half)


WRONG["experiment_conclusion"] = """
all numbers pooled | all S * P numbers are taken as independent
    differences.tolist() -> differences.reshape(-1, 1).tolist()
    QUANTILES[S - 2] -> 1.96
1.96 | 1.96 is for many seeds | QUANTILES[S - 2] -> 1.96
S for S - 1 | S - 1 is asked for | / (S - 1) -> / S
one degree too many | with S seeds there are S - 1 | QUANTILES[S - 2] -> QUANTILES[S - 1]
no interval | the sign of the mean isn't enough | middle - half, middle + half -> middle, middle
not divided by the root | isn't divided by the square root of S | variance / S -> variance
divided by S | it is divided by S, not by its square root | sqrt(variance / S) -> sqrt(variance) / S
swapped | better and worse are swapped | return experiment_conclusion(-differences)
whether all seeds agree | whether all seeds agree in sign
    middle - half, middle + half -> min(means), max(means)
never worse | worse is never said | else "worse" -> else "no difference shown"
always better | it says the same whatever it is given | return "better"
other words | wrong for | "no difference shown" -> "equal"
the interval itself | must be a Python str, got a Python tuple
    conclusion(middle - half, middle + half) -> middle - half, middle + half
means over seeds | it raised IndexError | differences.tolist() -> differences.T.tolist()
"""


@right("permuted_p_value", "with a matrix product")
def permuted_p_value(differences, n_permutations, generator):
    coins = torch.rand(n_permutations, len(differences), generator=generator) < 0.5
    signs = torch.where(coins, 1, -1).to(differences.dtype)
    totals, total = signs @ differences, differences.sum()
    far = totals.abs() >= total.abs() - 1e-6 * differences.abs().sum()
    return (far.sum().item() + 1) / (n_permutations + 1)


@right("permuted_p_value", "with loops")
def permuted_p_value_with_loops(differences, n_permutations, generator):
    far = 1
    for _ in range(n_permutations):
        signs = torch.randint(2, differences.shape, generator=generator) * 2 - 1
        far += bool((signs * differences).mean().abs() >= differences.mean().abs())
    return far / (n_permutations + 1)


WRONG["permuted_p_value"] = """
one direction | only one direction counts | totals.abs() -> total.sign() * totals
upwards only | only means above the true one count | totals.abs() >= total.abs() -> totals >= total
one coin for all prompts | draw a sign for each prompt
    torch.rand(n_permutations, len(differences), -> torch.rand(n_permutations, 1,
    (differences.dtype) -> (differences.dtype).expand(-1, len(differences))
without the 1s | the two 1s are missing
    (far.sum().item() + 1) / (n_permutations + 1) -> far.sum().item() / n_permutations
above only | >=, not > | >= total.abs() - -> > total.abs() +
closer instead of farther | the means that are closer to 0 | >= total.abs() -> < total.abs()
left out, not turned | signs are 0 and 1 | coins, 1, -1 -> coins, 1, 0
a bootstrap | it is a bootstrap around the true mean
    picks = torch.randint(len(differences), (n_permutations, len(differences)), generator=generator)
    far = differences[picks].mean(1).abs() >= differences.mean().abs()
    return (1 + far.sum().item()) / (1 + n_permutations)
by the normal distribution | it doesn't draw from the generator
    z = differences.mean() / differences.std() * len(differences) ** 0.5
    return math.erfc(abs(z.item()) / math.sqrt(2))
PyTorch's own random numbers | PyTorch's random numbers | generator=generator -> generator=None
99 permutations always | it ignores its argument `n_permutations`
    return permuted_p_value(differences, 99, generator)
a tensor | .item() makes a number of it
    return torch.tensor(permuted_p_value(differences, n_permutations, generator))
"""
