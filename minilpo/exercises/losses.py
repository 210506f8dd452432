"""Lesson 6: the loss of LPO. Eq. 10, its gradient, its optimum, scores, the baseline."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from minilpo.exercises.exercise import Case, Draw, Exercise


class Eq10Loss(Exercise):
    question = """
    Write the loss of LPO: Eq. 10 of the paper, for one choice per response.

    `choice_logits` has shape (B, K): the head's logits of K choices, for B pairs of responses.
    `chosen_ids` and `rejected_ids` have shape (B,): the choice behind the better response and the
    one behind the worse. P is the softmax of a row of logits. The loss of a row is
    -log sigmoid(beta * (log P(chosen) - log P(rejected))). The result has shape (B,), one loss per
    pair, and the dtype of the logits. It must be finite, even if a logit is 1000.
    """

    name = "eq10_loss"
    lesson = 6
    hints = (
        "Work from the inside: log P of all choices, then the two that are needed, then their "
        "difference, the margin. What is the loss if the margin is 0?",
        "`choice_logits.log_softmax(-1)` has log P. `gather(1, chosen_ids[:, None])[:, 0]` takes "
        "one number out of each row.",
        "`F.logsigmoid(beta * margin)` is finite where `torch.sigmoid(...).log()` is log 0. "
        "Don't forget the minus.",
    )
    explanation = (
        "The loss is small if the head gives the better choice more probability than the worse. "
        "At a margin of 0 it is log 2, far on the right side 0, far on the wrong side it grows "
        "like a straight line. log_softmax and logsigmoid never take the log of a number that "
        "has been rounded to 0."
    )
    follow_up = "compute the same without any softmax: what cancels in the difference?"

    @staticmethod
    def right(choice_logits, chosen_ids, rejected_ids, beta):
        logprobs = choice_logits.log_softmax(-1)  # (B, K)
        chosen = logprobs.gather(1, chosen_ids[:, None])[:, 0]  # (B,)
        rejected = logprobs.gather(1, rejected_ids[:, None])[:, 0]
        return -F.logsigmoid(beta * (chosen - rejected))

    mistakes = """
    the margin has the wrong sign: are chosen and rejected swapped?
        chosen - rejected -> rejected - chosen
    the minus before the log is lost: a loss is small where things are good | return -F -> return F
    beta multiplies the loss; it belongs inside the sigmoid, before the margin
        return beta * right(choice_logits, chosen_ids, rejected_ids, 1.0)
    the margin is divided by beta; multiply it
        beta * (chosen - rejected) -> (chosen - rejected) / beta
    the margin is a difference of probabilities; Eq. 10 has their logarithms
        .log_softmax -> .softmax
    the log of the sigmoid is missing | F.logsigmoid -> torch.sigmoid
    logprobs[:, ids] takes B numbers of every row; logprobs[torch.arange(B), ids] one
        .gather(1, chosen_ids[:, None])[:, 0] -> [:, chosen_ids]
        .gather(1, rejected_ids[:, None])[:, 0] -> [:, rejected_ids]
    the softmax runs over the rows; -1 is the last dimension, the choices
        log_softmax(-1) -> log_softmax(0)
    the log of a sigmoid is taken that has become 0; F.logsigmoid does both at once
        F.logsigmoid(beta * (chosen - rejected)) -> torch.sigmoid(beta * (chosen - rejected)).log()
    the log of a softmax is taken that has become 0; log_softmax does both at once
        .log_softmax(-1) -> .softmax(-1).log()
    logs are taken of what has become 0, twice; use log_softmax and F.logsigmoid
        .log_softmax(-1) -> .softmax(-1).log()
        F.logsigmoid(beta * (chosen - rejected)) -> torch.sigmoid(beta * (chosen - rejected)).log()
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields margins of every sign; the same choice twice; margins of 1000; both precisions."""
        # Two rows: with one, (1, 1) wouldn't say whether a dimension or B numbers are too many.
        yield torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([1, 0]), 1.0
        yield torch.tensor([[0.0, 2.0]]), torch.tensor([1]), torch.tensor([0]), 0.5
        yield draw.normal(2, 3), torch.tensor([1, 2]), torch.tensor([1, 2]), 2.0
        for B, K in [(1, 3), (5, 2), (3, 6), (4, 4), (8, 3)]:
            for beta in (0.3, 2.5):
                yield draw.normal(B, K), draw.integers(K, B), draw.integers(K, B), beta
        # The sigmoid becomes 0, but no probability does; then a probability, but no sigmoid.
        yield torch.tensor([[3.0, -2.0]] * 2), torch.tensor([0, 1]), torch.tensor([1, 0]), 100.0
        yield torch.tensor([[1000.0, 3.0, 1.0]]), torch.tensor([1]), torch.tensor([2]), 1.0
        yield torch.tensor([[500.0, -500.0]] * 2), torch.tensor([0, 1]), torch.tensor([1, 0]), 1.0
        yield draw.normal(3, 4).double(), draw.integers(4, 3), draw.integers(4, 3), 0.7


class Eq10Gradient(Exercise):
    question = """
    Find the gradient of Eq. 10: in which direction, and how hard, each pair pulls.

    The arguments are those of `eq10_loss`. The result has shape (B, K): for each row, the
    derivative of that row's loss with respect to each of its K logits. With m the margin, log
    P(chosen) - log P(rejected), the softmax cancels, and the derivative of a row's loss with
    respect to m is -beta * sigmoid(-beta * m). You may write the result, or let PyTorch
    differentiate: it needs `choice_logits.clone().requires_grad_()`, and a sum over the rows.
    """

    name = "eq10_gradient"
    lesson = 6
    hints = (
        "Which logits does the margin depend on, once the softmax has cancelled? What is the "
        "derivative of the margin with respect to each?",
        "The margin is the chosen logit minus the rejected one. So the derivative is 0 but at two "
        "places, where it is the same with opposite signs.",
        "`torch.eye(K)[chosen_ids] - torch.eye(K)[rejected_ids]` is the derivative of the margin, "
        "(B, K); multiply each row by -beta * sigmoid(-beta * margin).",
    )
    explanation = (
        "The chain rule: the loss by the margin, times the margin by the logits. The gradient is "
        "negative at the chosen choice, so a step against it makes that likelier. A pair that is "
        "far on the right side hardly pulls any more; one far on the wrong side pulls with all of "
        "beta. If chosen and rejected are the same choice, nothing is learned."
    )
    follow_up = "write down the second derivative: at which margin is it largest?"

    @staticmethod
    def right(choice_logits, chosen_ids, rejected_ids, beta):
        one_hot = torch.eye(choice_logits.shape[-1], dtype=choice_logits.dtype)
        direction = one_hot[chosen_ids] - one_hot[rejected_ids]  # (B, K), of the margin
        margin = (choice_logits * direction).sum(-1)  # (B,); the softmax cancels
        pull = beta * torch.sigmoid(-beta * margin)  # (B,)
        return -pull[:, None] * direction

    mistakes = """
    every sign is turned: the gradient points to where the loss grows | return -pull -> return pull
    chosen and rejected are swapped
        one_hot[chosen_ids] - one_hot[rejected_ids] -> one_hot[rejected_ids] - one_hot[chosen_ids]
    the factor beta before the sigmoid is missing: the chain rule brings it out
        pull = beta * torch -> pull = torch
    it is sigmoid(+beta * margin); pairs on the wrong side must pull harder | -beta * -> beta *
    it is divided by the number of rows: that is the gradient of the mean loss
        return -pull[:, None] -> return -pull[:, None] / len(pull)
    where both are the same choice, the second assignment overwrites the first; add them
        [:, None] * direction -> [:, None] * direction.scatter(1, rejected_ids[:, None], -1.0)
    only the chosen choice pulls; the rejected one is pushed down as well
        [:, None] * direction -> [:, None] * one_hot[chosen_ids]
    the rejected choice is left out: this is the gradient of log P(chosen) alone
        [:, None] * direction -> [:, None] * (one_hot[chosen_ids] - choice_logits.softmax(-1))
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields margins of every sign; the same choice twice; large margins; both precisions."""
        yield torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]), 1.0
        yield torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([1]), torch.tensor([0]), 0.5
        yield draw.normal(2, 3), torch.tensor([1, 2]), torch.tensor([1, 2]), 2.0
        for B, K in [(1, 3), (5, 2), (3, 6), (4, 4), (8, 3)]:
            for beta in (0.3, 2.5):
                yield draw.normal(B, K), draw.integers(K, B), draw.integers(K, B), beta
        yield torch.tensor([[500.0, -500.0]] * 2), torch.tensor([0, 1]), torch.tensor([1, 0]), 1.0
        yield draw.normal(3, 4).double(), draw.integers(4, 3), draw.integers(4, 3), 0.7


class Eq10Optimum(Exercise):
    question = """
    Say where training on Eq. 10 ends if the winner isn't always the same.

    There are two choices, 0 and 1, and every pair compares them. Choice 1 is the preferred one in a
    share w of the pairs, choice 0 in the others. With p the probability of choice 1 and
    m = log(p / (1 - p)), the mean loss is -w log sigmoid(beta m) - (1 - w) log sigmoid(-beta m).
    `share_won` has shape (B,): several shares w, each above 0 and below 1. The result has shape
    (B,): for each, the probability p at which the mean loss is smallest.
    """

    name = "eq10_optimum"
    lesson = 6
    hints = (
        "The mean loss looks like a cross-entropy between w and sigmoid(beta m). When is that "
        "smallest?",
        "sigmoid(beta m) = w. Solve it for m: the inverse of the sigmoid is the log of the odds, "
        "log(w / (1 - w)).",
        "m = log(w / (1 - w)) / beta, and p = sigmoid(m).",
    )
    explanation = (
        "At the optimum sigmoid(beta m) is the share of pairs won. So the head doesn't go to the "
        "better choice altogether: it stays undecided where the pairs disagree. A small beta "
        "makes it bolder than the pairs, a large one more careful; with beta 1 it repeats their "
        "share."
    )
    follow_up = "how does it end with three choices, each pair comparing two of them?"

    @staticmethod
    def right(share_won, beta):
        log_odds = torch.log(share_won / (1 - share_won))
        return torch.sigmoid(log_odds / beta)

    mistakes = """
    it is the share won itself, which is right for beta 1 only | return share_won
    the log of the odds is multiplied by beta; solve sigmoid(beta m) = w for m | / beta -> * beta
    it is the margin m; p is its sigmoid | torch.sigmoid(log_odds / beta) -> log_odds / beta
    it is the sigmoid of w / beta; the log of the odds of w comes first | log_odds / -> share_won /
    the more frequent winner gets everything; the pairs that it lost count too
        return (share_won > 0.5).to(share_won.dtype)
    it is the probability of choice 0 | return torch -> return 1 - torch
    the odds themselves stand where their logarithm belongs
        torch.log(share_won / (1 - share_won)) -> share_won / (1 - share_won)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields even shares, rare wins, small and large beta."""
        yield torch.tensor([0.5]), 1.0
        yield torch.tensor([0.75]), 0.5
        yield torch.tensor([0.001, 0.25, 0.5, 0.9, 0.999]), 1.0
        for B in (1, 3, 8, 20):
            for beta in (0.1, 0.6, 3.0):
                yield 0.02 + 0.96 * draw.uniform(B), beta
        yield 0.1 + 0.8 * draw.uniform(5).double(), 1.5


class ChoiceScore(Exercise):
    question = """
    Add up how likely the head found what it chose: the score of Eq. 10 for a whole response.

    `choice_logits` has shape (B, S, K): the head's logits at each of S decisions of B responses.
    `choice_ids` (B, S) says which choice was drawn, `decision_mask` (B, S) is True where a decision
    was made at all. The score of a response is the sum of log P(choice) over the decisions that
    were made. The numbers at the other places may be any, even NaN, and must not matter. The
    result has shape (B,) and the dtype of the logits.
    """

    name = "choice_score"
    lesson = 6
    hints = (
        "Three steps: log P of everything (B, S, K), log P of what was drawn (B, S), the sum "
        "over the decisions that were made (B,).",
        "`gather` needs an index of as many dimensions: `choice_ids[..., None]`, and `[..., 0]` "
        "after it.",
        "0 times NaN is NaN. `drawn.masked_fill(~decision_mask, 0.0)` replaces instead of "
        "multiplying; then sum over -1.",
    )
    explanation = (
        "The choices of a response are drawn one after the other, so their probabilities "
        "multiply and the logs add up. The rows of a batch are of different lengths; places "
        "beyond the end hold whatever was left there, so they are replaced by 0."
    )
    follow_up = "take the mean instead, so that long responses don't weigh more. What changes?"

    @staticmethod
    def right(choice_logits, choice_ids, decision_mask):
        logprobs = choice_logits.log_softmax(-1)  # (B, S, K)
        drawn = logprobs.gather(-1, choice_ids[..., None])[..., 0]  # (B, S)
        return drawn.masked_fill(~decision_mask, 0.0).sum(-1)

    mistakes = """
    it is the mean over the decisions; add them up | .sum(-1) -> .sum(-1) / decision_mask.sum(-1)
    the mask plays no part: places without a decision count too
        drawn.masked_fill(~decision_mask, 0.0) -> drawn
    places without a decision are multiplied by 0, and 0 times NaN is NaN; replace them
        drawn.masked_fill(~decision_mask, 0.0) -> (drawn * decision_mask)
    the mask is turned round: True is where a decision was made | ~decision_mask -> decision_mask
    the logits are added up; take their log-softmax first
        choice_logits.log_softmax(-1) -> choice_logits
    probabilities are added up; it is their logarithms that add | .log_softmax -> .softmax
    it is the product of the probabilities; the score is its logarithm | .sum(-1) -> .sum(-1).exp()
    the softmax runs over the decisions; -1 is the last dimension, the choices
        log_softmax(-1) -> log_softmax(1)
    every number has the wrong sign: a log-probability is at most 0 | return drawn -> return -drawn
    the likeliest choice is scored, not the one that was drawn
        choice_ids[..., None] -> choice_logits.argmax(-1)[..., None]
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields one decision and many; masks with gaps or one True; NaN where none was made."""
        everywhere = torch.ones(1, 3, dtype=torch.bool)
        yield torch.zeros(1, 3, 2), torch.tensor([[0, 1, 1]]), everywhere
        for B, S, K in [(1, 1, 3), (2, 4, 3), (4, 1, 2), (3, 6, 5), (5, 2, 4), (1, 7, 2)]:
            yield draw.normal(B, S, K, scale=2.0), draw.integers(K, B, S), draw.mask(B, S)
        for B, S, K in [(2, 5, 3), (3, 5, 4), (6, 3, 3), (4, 8, 2)]:
            yield draw.normal(B, S, K), draw.integers(K, B, S), _with_gaps(draw, B, S)
        only_last = torch.arange(5).expand(2, 5) == 4
        yield draw.normal(2, 5, 3), draw.integers(3, 2, 5), only_last
        yield draw.normal(2, 4, 3).double(), draw.integers(3, 2, 4), draw.mask(2, 4)
        for B, S, K in [(3, 6, 4), (2, 8, 3)]:
            mask = _with_gaps(draw, B, S)
            logits = draw.normal(B, S, K).masked_fill(~mask[..., None], math.nan)
            yield logits, draw.integers(K, B, S), mask


class NllLoss(Exercise):
    question = """
    Write the baseline that LPO is compared with: imitate the better choice, forget the worse.

    `choice_logits` has shape (B, K), `chosen_ids` has shape (B,). The result is one number, a
    tensor of shape (): the mean over the rows of -log P(chosen), with P the softmax of the row. It
    must be finite, even if a logit is 1000.
    """

    name = "nll_loss"
    lesson = 6
    hints = (
        "It is a cross-entropy. What does a head that knows nothing get, if there are K choices?",
        "Take `log_softmax` over the choices and pick the chosen one out of each row, as in "
        "`eq10_loss`.",
        "`-logprobs.gather(1, chosen_ids[:, None]).mean()` is one number.",
    )
    explanation = (
        "The loss asks for nothing but high probability of what won. It is smallest where the "
        "head repeats how often each choice was chosen. How a choice fared against others plays "
        "no part, so a choice that is often drawn is often imitated."
    )
    follow_up = "weigh each row by how much better the chosen response was than the rejected one."

    @staticmethod
    def right(choice_logits, chosen_ids):
        logprobs = choice_logits.log_softmax(-1)  # (B, K)
        return -logprobs.gather(1, chosen_ids[:, None]).mean()

    mistakes = """
    the minus is lost: a loss is small where the chosen is likely | -logprobs -> logprobs
    it is the sum over the rows; take the mean | .mean() -> .sum()
    the mean is over all B * K numbers; only the B chosen ones count
        .mean() -> .mean() / choice_logits.shape[-1]
    the logarithm is missing | .log_softmax -> .softmax
    logits are taken for log-probabilities, as by `F.nll_loss`; log_softmax comes first
        choice_logits.log_softmax(-1) -> choice_logits
    logprobs[:, ids] takes B numbers of every row; logprobs[torch.arange(B), ids] one
        .gather(1, chosen_ids[:, None]) -> [:, chosen_ids]
    the log of the mean probability is taken; take the mean of the logs
        .log_softmax -> .softmax
        .mean() -> .mean().log()
    the softmax runs over the rows; -1 is the last dimension, the choices
        log_softmax(-1) -> log_softmax(0)
    the log of a softmax is taken that has become 0; log_softmax does both at once
        .log_softmax(-1) -> .softmax(-1).log()
    a softmax is taken twice: F.cross_entropy takes logits, not probabilities
        .log_softmax(-1) -> .softmax(-1).log_softmax(-1)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields one row and many, every sign, logits of 1000, both precisions."""
        yield torch.zeros(1, 4), torch.tensor([2])
        yield torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([1, 1])
        for B, K in [(1, 2), (1, 5), (2, 2), (3, 6), (4, 4), (8, 3), (6, 8), (20, 2), (5, 3)]:
            yield draw.normal(B, K, scale=2.0), draw.integers(K, B)
        yield torch.tensor([[1000.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0])
        yield torch.tensor([[-1000.0, -1000.0, -1001.0]]), torch.tensor([1])
        yield draw.normal(3, 4).double(), draw.integers(4, 3)


def _with_gaps(draw, B, S):
    """Draws a mask of any pattern; each row has a True and a False."""
    mask = draw.uniform(B, S) < 0.5
    mask[:, 0], mask[:, -1] = True, False
    return mask[:, draw.uniform(S).argsort()]


eq10_loss = Eq10Loss()
eq10_gradient = Eq10Gradient()
eq10_optimum = Eq10Optimum()
choice_score = ChoiceScore()
nll_loss = NllLoss()
