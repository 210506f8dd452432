"""Lesson 7: training a head and judging it. An epoch, win-rates, intervals, a control."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.exercises.exercise import Case, Draw, Exercise
from minilpo.exercises.trial import MisuseError
from minilpo.exercises.verdict import agree
from minilpo.machine.text import named


class LpoEpoch(Exercise):
    question = """
    Train a linear head for one epoch: gradient descent on Eq. 10, batch by batch.

    The head is one matrix, `weight` (K, C): its logits are `hidden_states @ weight.T`. There are P
    pairs: `hidden_states` (P, C), `chosen_ids` (P,) and `rejected_ids` (P,), choices as in Eq. 10.
    `batches` is a list of index tensors: which pairs each step looks at. For one batch after the
    other, take the mean Eq. 10 loss of its pairs, its gradient with respect to the weight as it is
    by then, and go a step of `learning_rate` times the gradient downhill. Return the weight after
    the last batch, (K, C). The one that was passed must stay as it is.
    """

    name = "lpo_epoch"
    lesson = 7
    hints = (
        "A step is: new weight = old weight - learning_rate * gradient. Every batch starts from "
        "the weight that the batch before it has left.",
        "`weight.detach().requires_grad_()` makes a weight that PyTorch differentiates by; index "
        "hidden states and ids with `[batch]`.",
        "`[gradient] = torch.autograd.grad(loss, weight)`, then `weight = weight - learning_rate "
        "* gradient`, which makes a new tensor instead of changing the old one.",
    )
    explanation = (
        "This is what `lpo.fit` does, with a head of one layer and the plainest of optimizers. "
        "The mean makes the size of a step independent of the size of a batch. The steps follow "
        "each other: a gradient taken at the first weight would be out of date after one step."
    )
    follow_up = "add momentum: step in the direction of a running mean of the gradients."

    @staticmethod
    def entry(answer: Any, *arguments: Any) -> Any:
        """Calls the answer, and explains a missing `.grad`, the likeliest error."""
        try:
            return answer(*arguments)
        except (TypeError, AttributeError) as error:
            if "NoneType" not in str(error):
                raise
            raise MisuseError(
                f"it raised {named(error)}; if that is `.grad`: after a step the weight is "
                "computed from another one, and PyTorch keeps no .grad for it; begin each batch "
                "with weight = weight.detach().requires_grad_()"
            ) from error

    @staticmethod
    def right(weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate):
        for batch in batches:
            weight = weight.detach().requires_grad_()
            logprobs = (hidden_states[batch] @ weight.T).log_softmax(-1)  # (n, K)
            chosen = logprobs.gather(1, chosen_ids[batch][:, None])[:, 0]  # (n,)
            rejected = logprobs.gather(1, rejected_ids[batch][:, None])[:, 0]
            loss = -F.logsigmoid(beta * (chosen - rejected)).mean()
            [gradient] = torch.autograd.grad(loss, weight)
            weight = weight - learning_rate * gradient
        return weight.detach()

    mistakes = """
    it goes uphill: subtract the gradient, don't add it | - learning_rate -> + learning_rate
    the margin has the wrong sign: are chosen and rejected swapped?
        chosen - rejected -> rejected - chosen
    the loss of a batch is the sum over its pairs; take the mean | .mean() -> .sum()
    every gradient is taken at the first weight; take it at the one after the last step
        weight = weight.detach() -> first = (weight if batch is batches[0] else first).detach()
        @ weight.T -> @ first.T
        (loss, weight) -> (loss, first)
    the gradients of the batches add up; each step uses its own batch's alone
        * gradient -> * (total := gradient + (total if batch is not batches[0] else 0))
    all pairs are taken in every step; look at those of the batch only
        for batch in batches: -> for batch in [torch.arange(len(chosen_ids))] * len(batches):
    only one step is taken, for all batches together
        for batch in batches: -> for batch in [torch.cat(batches)] if batches else []:
    only the first batch is used; is the return inside the loop? | in batches: -> in batches[:1]:
    the batches are taken from the last to the first | batch in batches: -> batch in batches[::-1]:
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields one batch and several, of equal or unequal size; pairs left out or named twice."""
        # The first optimizer makes PyTorch import for seconds. No answer shall be charged for them.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)])
        one_batch = [torch.arange(4)]
        yield _pairs(draw, 4, 2, 3) + (one_batch, 1.0, 0.5)
        yield _pairs(draw, 4, 2, 3) + ([], 1.0, 0.5)
        yield _pairs(draw, 1, 3, 1) + ([torch.tensor([0])], 2.0, 1.0)
        for P, K, C, size in [(6, 2, 4, 2), (9, 3, 2, 3), (8, 4, 5, 1), (10, 3, 3, 4)]:
            for beta, learning_rate in [(0.5, 2.0), (2.0, 0.8)]:
                batches = list(draw.uniform(P).argsort().split(size))
                yield _pairs(draw, P, K, C) + (batches, beta, learning_rate)
        for P, K, C in [(7, 3, 4), (12, 5, 2)]:
            sizes = (5, 1, 3)
            yield _pairs(draw, P, K, C) + ([draw.integers(P, n) for n in sizes], 1.5, 1.0)
        in_double = tuple(part.double() for part in (draw.normal(3, 4), draw.normal(6, 4)))
        ids = (draw.integers(3, 6), draw.integers(3, 6))
        yield in_double + ids + ([torch.arange(3), torch.arange(3, 6)], 0.7, 1.0)


class WinRate(Exercise):
    question = """
    Compare two ways of writing, prompt by prompt: how often does the first one win?

    `rewards` and `other` have shape (P,): the rewards of the two on the same prompts. A prompt
    gives 1 point if the first has the higher reward, 0.5 if both have the same, else 0. Return the
    mean of the points, a Python float.
    """

    name = "win_rate"
    lesson = 7
    hints = (
        "What should come out if the two are the same on every prompt?",
        "`rewards > other` is True where the first wins; True counts as 1. Where do ties come in?",
        "`((rewards > other) + 0.5 * (rewards == other)).mean().item()`",
    )
    explanation = (
        "Half a point for a tie makes the two win-rates sum to 1, and two equal ones get 0.5 each. "
        "By how much a response is better plays no part: that is what the mean reward says."
    )
    follow_up = "give an interval for it, by `paired_bootstrap` of the points minus 0.5."

    @staticmethod
    def right(rewards, other):
        points = (rewards > other) + 0.5 * (rewards == other)
        return points.mean().item()

    mistakes = """
    ties get no point; both sides get half of one | 0.5 * (rewards == other) -> 0.0
    ties get a whole point; both sides get half of one | 0.5 * -> 1.0 *
    ties are left out; they count as half a win, among all prompts
        decided = rewards != other
        return (rewards > other)[decided].float().mean().item()
    it is the win-rate of the other; the first argument is the one to judge
        return right(other, rewards)
    the points aren't divided by the number of prompts | return right(rewards, other) * len(rewards)
    it is the mean difference of the rewards; count who wins, not by how much
        return (rewards - other).mean().item()
    a loss gets -1 and a tie 0; a win-rate lies between 0 and 1
        return 2 * right(rewards, other) - 1
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields rewards with ties and without; one prompt and many; all won, lost or tied."""
        yield torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.2])
        yield torch.tensor([0.3]), torch.tensor([0.2])
        yield torch.tensor([0.3]), torch.tensor([0.3])
        yield torch.zeros(4), torch.ones(4)
        for P in (2, 5, 11, 40):
            yield draw.uniform(P), draw.uniform(P)
            yield draw.integers(3, P) / 2, draw.integers(3, P) / 2
        yield draw.normal(9, scale=50.0), draw.normal(9)
        yield draw.integers(2, 30).double(), draw.integers(2, 30).double()


class Drawing(Exercise):
    """An exercise whose answers draw from their last argument, a generator."""

    @staticmethod
    def entry(answer: Any, *arguments: Any) -> Any:
        """Calls the answer, and raises an error unless it draws from the generator."""
        *rest, generator = arguments
        before = generator.get_state()
        value = answer(*rest, generator)
        if len(rest[0]) > 1 and torch.equal(before, generator.get_state()):
            raise MisuseError(
                "it doesn't draw from the generator that is passed; "
                "write generator=generator where the random numbers are made"
            )
        return value


# How far apart two bootstraps of N resamples may be, times the square root of N, in standard errors
# of the mean: the quantile q of N normal draws has the standard error sqrt(q (1 - q) / N) / density
# = 2.67 / sqrt(N) at 2.5% and 97.5%, the difference of two sqrt(2) times that, and 5 of those are
# hardly ever exceeded.
NOISE_OF_BOUNDS = 5 * 2**0.5 * 2.67


class PairedBootstrap(Drawing):
    question = """
    Say how sure a mean difference is: a 95% interval by bootstrap.

    `differences` has shape (P,): on each of P prompts, the reward of one method minus that of the
    other. Draw P of them with replacement and take their mean; do so `n_resamples` times. Return
    the 2.5% and the 97.5% percentile of these means: a tuple of two Python floats, the lower first.
    Draw with the `generator` that is passed. Your draws may differ from ours: the interval is
    compared up to the noise of resampling.
    """

    name = "paired_bootstrap"
    lesson = 7
    hints = (
        "Another set of P prompts might have been drawn. The best stand-in for all prompts there "
        "are is the set that you have: draw P from it, some twice, some not at all.",
        "`torch.randint(P, (n_resamples, P), generator=generator)` says which prompts each "
        "resample has, all at once.",
        "`differences[picks].mean(1)` has the means, `torch.quantile(means, 0.025).item()` the "
        "lower bound.",
    )
    explanation = (
        "The means of the resamples vary as much as the mean over other prompts would. Since it "
        "is differences that are resampled, how hard a prompt is doesn't matter: it was equally "
        "hard for both. If 0 lies outside the interval, the prompts alone hardly explain the "
        "difference. Another training run might: that takes several seeds."
    )
    follow_up = "resample within each of several tasks, so that every task keeps its weight."

    @staticmethod
    def right(differences, n_resamples, generator):
        P = len(differences)
        picks = torch.randint(P, (n_resamples, P), generator=generator)  # with replacement
        means = differences[picks].mean(1)  # (n_resamples,)
        low, high = torch.quantile(means, 0.025), torch.quantile(means, 0.975)
        return low.item(), high.item()

    mistakes = """
    every resample has the same mean: it is drawn without replacement
        torch.randint(P, (n_resamples, P), -> torch.rand(n_resamples, P,
        differences[picks] -> differences[picks.argsort(1)]
    these are percentiles of single differences; take the mean of each resample first
        (n_resamples, P) -> (n_resamples, 1)
    it is the 90% interval; 95% lie between the percentiles 2.5 and 97.5
        0.025 -> 0.05
        0.975 -> 0.95
    it lies between the percentiles 25 and 75; 2.5% is 0.025
        0.025 -> 0.25
        0.975 -> 0.75
    it is the smallest and the largest mean; take the percentiles
        0.025 -> 0.0
        0.975 -> 1.0
    the upper bound comes first | low.item(), high.item() -> high.item(), low.item()
    the resamples are added up; take the mean of each | .mean(1) -> .sum(1)
    it is the mean plus and minus 1.96 standard errors; take percentiles of the means
        torch.quantile(means, 0.025) -> means.mean() - 1.96 * means.std(correction=0)
        torch.quantile(means, 0.975) -> means.mean() + 1.96 * means.std(correction=0)
    the interval lies around 0; don't subtract the mean
        return right(differences - differences.mean(), n_resamples, generator)
    a resample has one difference too few; it has as many as there are prompts
        (n_resamples, P) -> (n_resamples, max(1, P - 1))
    one prompt is never drawn: torch.randint(P, ...) draws from 0 to P - 1
        randint(P, -> randint(max(1, P - 1),
    there are too few resamples; n_resamples is their number
        (n_resamples, P) -> (max(1, n_resamples // 2), P)
    half of the prompts are drawn without replacement; draw P with replacement
        torch.randint(P, (n_resamples, P), -> torch.rand(n_resamples, P,
        differences[picks] -> differences[picks.argsort(1)[:, : max(1, P // 2)]]
    a resample has another size; it has as many differences as there are prompts
        (n_resamples, P) -> (n_resamples, max(1, P // 2))
    """

    def agree(self, expected: Any, got: Any, case: Case) -> bool:
        """Allows for the noise of two bootstraps. Of one resample, both bounds are its mean."""
        differences, n_resamples, _ = case
        if n_resamples == 1:
            return agree(*got)
        if n_resamples == 3 and agree(*expected) != agree(*got):
            return False  # there was only one resample
        standard_error = differences.std(correction=0).item() / len(differences) ** 0.5
        # A mistake's interval may be wider, and so noisier, than the right one, +-1.96 errors wide.
        standard_error = max(standard_error, (expected[1] - expected[0]) / 4)
        noise = NOISE_OF_BOUNDS * standard_error / n_resamples**0.5
        return agree(expected, got, 1e-4, 1e-5 + noise)

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields many resamples and one; every sign; skewed; one prompt; all the same."""
        yield draw.normal(22), 1000, draw.seeded()
        yield draw.normal(25) + 2.0, 1, draw.seeded()
        yield draw.normal(1), 50, draw.seeded()
        yield torch.full((12,), -0.25), 100, draw.seeded()
        for P in (20, 22):
            for shift in (-3.0, 0.0, 0.5):
                yield draw.normal(P) + shift, 1000, draw.seeded()
        yield draw.normal(60, scale=20.0), 4000, draw.seeded()
        yield draw.normal(20).double(), 1000, draw.seeded()
        # One win among twenty: the means are whole twentieths, and none is below 0.
        yield F.one_hot(torch.tensor(3), 20).float(), 5000, draw.seeded()
        yield draw.normal(24), 10000, draw.seeded()
        yield draw.normal(22) - 1.0, 10000, draw.seeded()
        yield draw.normal(20), 3, draw.seeded()
        # The upper bound is 4/6. It would be 4/5 of resamples of five, and 3/6 without one prompt.
        yield torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 10000, draw.seeded()


class ShuffledGain(Drawing):
    question = """
    Build a control that should show nothing: deal the head's choices to the wrong prompts.

    `rewards` has shape (P, K): the reward of each of K choices on each of P prompts. `choice_ids`
    has shape (P,): the head's choices. Shuffle the choices with
    `permutation = torch.randperm(P, generator=generator)` and `choice_ids[permutation]`. Return the
    mean reward of the head's choices minus that of the shuffled ones, a Python float.
    """

    name = "shuffled_gain"
    lesson = 7
    hints = (
        "After shuffling, every choice is made as often as before. What is lost is which prompt "
        "it was made for. So what does the difference measure?",
        "`rewards[torch.arange(P), choice_ids]` has the reward of each prompt's own choice, (P,).",
        "The same with `choice_ids[permutation]`, the rewards left where they are; then the "
        "difference of the two means, and `.item()`.",
    )
    explanation = (
        "A head that makes the same mix of choices, whatever the prompt, gets as much after "
        "shuffling: its gain is about 0. Only what it gains by choosing for this very prompt "
        "is lost. If the control shows a gain where there can be none, the measuring is wrong."
    )
    follow_up = "shuffle a thousand times: in what share of them is the gain 0 or below?"

    @staticmethod
    def right(rewards, choice_ids, generator):
        prompts = torch.arange(len(rewards))
        permutation = torch.randperm(len(rewards), generator=generator)
        own = rewards[prompts, choice_ids]  # (P,)
        shuffled = rewards[prompts, choice_ids[permutation]]
        return (own.mean() - shuffled.mean()).item()

    mistakes = """
    the sign is turned: it is the head's own choices minus the shuffled ones
        own.mean() - shuffled.mean() -> shuffled.mean() - own.mean()
    `rewards[ids]` takes whole rows; `rewards[torch.arange(P), ids]` a number of each row
        rewards[prompts, choice_ids] -> rewards[choice_ids]
        rewards[prompts, choice_ids[permutation]] -> rewards[choice_ids[permutation]]
    rewards and choices are shuffled alike, so every prompt keeps its own choice; or `rewards[:, ids]` takes every prompt's choice from every row
        return 0.0
    the rewards are shuffled; shuffle the choices
        rewards[prompts, choice_ids[permutation]] -> rewards[permutation][prompts, choice_ids]
    nothing is subtracted: it is the mean reward of the head's choices
        own.mean() - shuffled.mean() -> own.mean()
    it is the mean reward of the shuffled choices; subtract it from the head's own
        own.mean() - shuffled.mean() -> shuffled.mean()
    choices are drawn anew, all equally often; shuffle those that the head made
        torch.randperm(len(rewards), -> torch.randint(rewards.shape[1], choice_ids.shape,
        choice_ids[permutation] -> permutation
    choices are drawn with replacement; torch.randperm makes a permutation
        torch.randperm(len(rewards), -> torch.randint(len(rewards), choice_ids.shape,
    it is the sum over the prompts; take the mean | .mean() - shuffled.mean -> .sum() - shuffled.sum
    """  # noqa: E501

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields good choices, bad ones, the same for all, one prompt; every sign."""
        yield torch.eye(3), torch.tensor([0, 1, 2]), draw.seeded()
        yield draw.uniform(1, 4), torch.tensor([2]), draw.seeded()
        yield draw.uniform(6, 3), torch.ones(6, dtype=torch.long), draw.seeded()
        for P, K in [(5, 2), (8, 6), (20, 3), (12, 4), (7, 7)]:
            rewards = draw.uniform(P, K)
            yield rewards, rewards.argmax(-1), draw.seeded()
            yield draw.normal(P, K, scale=3.0), draw.integers(K, P), draw.seeded()
        rewards = draw.normal(9, 3).double()
        yield rewards, rewards.argmin(-1), draw.seeded()


def _pairs(draw: Draw, P: int, K: int, C: int) -> tuple[Tensor, ...]:
    """Draws a weight, hidden states, and chosen and rejected ids."""
    ids = draw.integers(K, P), draw.integers(K, P)
    return draw.normal(K, C), draw.normal(P, C), *ids


lpo_epoch = LpoEpoch()
win_rate = WinRate()
paired_bootstrap = PairedBootstrap()
shuffled_gain = ShuffledGain()
