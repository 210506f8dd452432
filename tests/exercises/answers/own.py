"""Answers to the exercises of lesson 10."""

import math
import random

import torch

from minilpo.tasks import Task
from tests.exercises.answers import WrongAnswers, right, wrong

# WordCountTask


@right("WordCountTask", "derived from Task")
class Derived(Task):
    name = "count_words"
    asked = dict(zip("two three four five six seven".split(), range(2, 8), strict=True))

    def prompt(self, rng: random.Random) -> str:
        return f"Write {list(self.asked)[rng.randrange(6)]} words."

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        return " ".join(rng.sample("one for all and all for one".split(), self.n(prompt)))

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


class WordCountTask(WrongAnswers, to="WordCountTask"):
    @wrong("below 0", "the reward of a long response is below 0")
    class BelowZero(Derived):
        def reward(self, prompt, response):
            return 1 - abs(self.n(prompt) - len(response.split())) / self.n(prompt)

    @wrong("all or nothing", "the reward is all or nothing")
    class AllOrNothing(Derived):
        def reward(self, prompt, response):
            return 1.0 if len(response.split()) == self.n(prompt) else 0.0

    @wrong("characters for words", "the reward counts characters")
    class Characters(Derived):
        def reward(self, prompt, response):
            return max(0.0, 1 - abs(self.n(prompt) - len(response)) / self.n(prompt))

    @wrong("the longer the better", "too many words are as bad as too few")
    class TooMany(Derived):
        def reward(self, prompt, response):
            return min(len(response.split()) / self.n(prompt), 1.0)

    @wrong("sign of the difference", "is abs missing?")
    class WithoutAbs(Derived):
        def reward(self, prompt, response):
            return max(1 - (len(response.split()) - self.n(prompt)) / self.n(prompt), 0.0)

    @wrong("a word too few", "the demonstration has a word less")
    class TooFew(Derived):
        def demonstration(self, prompt, rng):
            return " ".join(rng.choice(["so", "be", "it"]) for _ in range(1, self.n(prompt)))

    @wrong("a word too many", "the demonstration has a word more")
    class OneMore(Derived):
        def demonstration(self, prompt, rng):
            return " ".join(rng.choice(["so", "be", "it"]) for _ in range(self.n(prompt) + 1))

    @wrong("always the same words", "the demonstration is the same every time")
    class AlwaysTheSame(Derived):
        def demonstration(self, prompt, rng):
            return " ".join(["word"] * self.n(prompt))

    @wrong("never seven", "seven never comes up")
    class NeverSeven(Derived):
        def prompt(self, rng):
            return f"Write {list(self.asked)[rng.randrange(5)]} words."

    @wrong("another prompt", "wrong for")
    class AnotherPrompt(Derived):
        def prompt(self, rng):
            return f"Please write {rng.choice(list(self.asked))} words!"

    @wrong("digits for words", "wrong for")
    class Digits(Derived):
        def demonstration(self, prompt, rng):
            return " ".join(str(rng.randrange(10)) for _ in range(self.n(prompt)))

    @wrong("divided by what was written", "it raised ZeroDivisionError")
    class DividedByWritten(Derived):
        def reward(self, prompt, response):
            written = len(response.split())
            return max(0.0, 1 - abs(written - self.n(prompt)) / written)

    @wrong("the prompt not read", "wrong for")
    class NotRead(Derived):
        def reward(self, prompt, response):
            return max(0.0, 1 - abs(len(response.split()) - 3) / 3)

    @wrong("Python's own random numbers", "Python's random numbers")
    class Global(Derived):
        def prompt(self, rng):
            return f"Write {random.choice(list(self.asked))} words."

    @wrong("no name", "has no attribute 'name'")
    class Nameless:
        prompt, demonstration, reward = Derived.prompt, Derived.demonstration, Derived.reward

    @wrong("a name with spaces", "wrong for 1 of")
    class Spaces(Derived):
        name = "count the words"

    @wrong("a reward as a text", "must be a Python float, got a Python str")
    class RewardAsText(Derived):
        def reward(self, prompt, response):
            return str(super().reward(prompt, response))

    @wrong("a list of words", "must be a Python str, got a Python list")
    class ListOfWords(Derived):
        def demonstration(self, prompt, rng):
            return super().demonstration(prompt, rng).split()

    @wrong("a function", "it must be a class")
    def word_count_task():
        return Derived()


# experiment_conclusion

QUANTILES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447]


def conclusion(low, high):
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def by_interval(values, quantile):
    half = quantile * values.std() / len(values) ** 0.5
    return conclusion(values.mean() - half, values.mean() + half)


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


class ExperimentConclusion(WrongAnswers, to="experiment_conclusion"):
    @wrong("all numbers pooled", "all S * P numbers are taken as independent")
    def conclusion_pooled(differences):
        return by_interval(differences.reshape(-1), 1.96)

    @wrong("1.96", "1.96 is for many seeds")
    def conclusion_normal(differences):
        return by_interval(differences.mean(1), 1.96)

    @wrong("S for S - 1", "S - 1 is asked for")
    def conclusion_biased(differences):
        means = differences.mean(1)
        half = QUANTILES[len(means) - 2] * means.std(correction=0) / len(means) ** 0.5
        return conclusion(means.mean() - half, means.mean() + half)

    @wrong("one degree too many", "with S seeds there are S - 1")
    def conclusion_one_off(differences):
        return by_interval(differences.mean(1), QUANTILES[len(differences) - 1])

    @wrong("no interval", "the sign of the mean isn't enough")
    def conclusion_by_sign(differences):
        return conclusion(differences.mean(), differences.mean())

    @wrong("not divided by the root", "isn't divided by the square root of S")
    def conclusion_wide(differences):
        S = len(differences)
        return by_interval(differences.mean(1), QUANTILES[S - 2] * S**0.5)

    @wrong("divided by S", "it is divided by S, not by its square root")
    def conclusion_narrow(differences):
        means = differences.mean(1)
        half = QUANTILES[len(means) - 2] * means.std() / len(means)
        return conclusion(means.mean() - half, means.mean() + half)

    @wrong("swapped", "better and worse are swapped")
    def conclusion_swapped(differences):
        return experiment_conclusion(-differences)

    @wrong("whether all seeds agree", "whether all seeds agree in sign")
    def conclusion_all_agree(differences):
        means = differences.mean(1)
        return conclusion(means.min(), means.max())

    @wrong("never worse", "worse is never said")
    def conclusion_never_worse(differences):
        said = experiment_conclusion(differences)
        return said if said == "better" else "no difference shown"

    @wrong("always better", "it says the same whatever it is given")
    def conclusion_constant(differences):
        return "better"

    @wrong("other words", "wrong for")
    def conclusion_in_other_words(differences):
        return experiment_conclusion(differences).replace("no difference shown", "equal")

    @wrong("the interval itself", "must be a Python str, got a Python tuple")
    def conclusion_interval(differences):
        means = differences.mean(1)
        return means.mean() - means.std(), means.mean() + means.std()

    @wrong("means over seeds", "it raised IndexError")
    def conclusion_over_prompts(differences):
        means = differences.mean(0)
        return by_interval(means, QUANTILES[len(means) - 2])


# permuted_p_value


@right("permuted_p_value", "with a matrix product")
def permuted_p_value(differences, n_permutations, generator):
    coins = torch.rand(n_permutations, len(differences), generator=generator) < 0.5
    signs = torch.where(coins, 1, -1).to(differences.dtype)
    totals = (signs @ differences).abs()
    far = totals >= differences.sum().abs() - 1e-6 * differences.abs().sum()
    return (far.sum().item() + 1) / (n_permutations + 1)


@right("permuted_p_value", "with loops")
def permuted_p_value_with_loops(differences, n_permutations, generator):
    far = 1
    for _ in range(n_permutations):
        signs = torch.randint(2, differences.shape, generator=generator) * 2 - 1
        far += bool((signs * differences).mean().abs() >= differences.mean().abs())
    return far / (n_permutations + 1)


def flipped(differences, n_permutations, generator):
    coins = torch.rand(n_permutations, len(differences), generator=generator) < 0.5
    return torch.where(coins, differences, -differences).mean(1)


class PermutedPValue(WrongAnswers, to="permuted_p_value"):
    @wrong("one direction", "only one direction counts")
    def p_one_sided(differences, n_permutations, generator):
        means, mean = flipped(differences, n_permutations, generator), differences.mean()
        far = means >= mean if mean > 0 else means <= mean
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("upwards only", "only means above the true one count")
    def p_upwards(differences, n_permutations, generator):
        far = flipped(differences, n_permutations, generator) >= differences.mean()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("one coin for all prompts", "draw a sign for each prompt")
    def p_one_sign(differences, n_permutations, generator):
        signs = 2 * torch.randint(2, (n_permutations, 1), generator=generator) - 1
        far = (signs * differences.mean()).abs() >= differences.mean().abs()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("without the 1s", "the two 1s are missing")
    def p_without_ones(differences, n_permutations, generator):
        far = flipped(differences, n_permutations, generator).abs() >= differences.mean().abs()
        return far.sum().item() / n_permutations

    @wrong("above only", ">=, not >")
    def p_strictly(differences, n_permutations, generator):
        signs = 2 * torch.randint(2, (n_permutations, len(differences)), generator=generator) - 1
        far = (signs * differences).mean(1).abs() > differences.mean().abs()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("closer instead of farther", "the means that are closer to 0")
    def p_turned(differences, n_permutations, generator):
        near = flipped(differences, n_permutations, generator).abs() < differences.mean().abs()
        return (1 + near.sum().item()) / (1 + n_permutations)

    @wrong("left out, not turned", "signs are 0 and 1")
    def p_left_out(differences, n_permutations, generator):
        kept = torch.randint(2, (n_permutations, len(differences)), generator=generator)
        far = (kept * differences).mean(1).abs() >= differences.mean().abs()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("a bootstrap", "it is a bootstrap around the true mean")
    def p_bootstrap(differences, n_permutations, generator):
        P = len(differences)
        picks = torch.randint(P, (n_permutations, P), generator=generator)
        far = differences[picks].mean(1).abs() >= differences.mean().abs()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("by the normal distribution", "it doesn't draw from the generator")
    def p_normal(differences, n_permutations, generator):
        z = differences.mean() / differences.std() * len(differences) ** 0.5
        return math.erfc(abs(z.item()) / math.sqrt(2))

    @wrong("PyTorch's own random numbers", "PyTorch's random numbers")
    def p_global(differences, n_permutations, generator):
        signs = torch.randn(n_permutations, len(differences)).sign()
        far = (signs * differences).mean(1).abs() >= differences.mean().abs()
        return (1 + far.sum().item()) / (1 + n_permutations)

    @wrong("99 permutations always", "it ignores its argument `n_permutations`")
    def p_ninety_nine(differences, n_permutations, generator):
        return permuted_p_value(differences, 99, generator)

    @wrong("a tensor", ".item() makes a number of it")
    def p_tensor(differences, n_permutations, generator):
        return torch.tensor(permuted_p_value(differences, n_permutations, generator))
