"""Lesson 2: temperature. Softmax, entropy, drawing."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise


class TemperatureSoftmax(Exercise):
    question = """
    Turn logits into the probabilities of the next token at a temperature.

    `logits` has shape (..., V), `temperature` is one number, 0 or above. Divide the logits by the
    temperature and take the softmax over the last dimension. At temperature 0 nothing is divided:
    all probability goes to the largest logit (to the first, if several are equal). The result has
    the shape and the dtype of the logits.
    """

    name = "temperature_softmax"
    lesson = 2
    hints = (
        "Which dimension has to sum to 1? And what would dividing by 0 give?",
        "Treat temperature 0 first: `logits.argmax(-1)` finds the place of the largest logit.",
        "`torch.zeros_like(logits).scatter(-1, place[..., None], 1.0)` puts a 1 at that place. "
        "For other temperatures, `(logits / temperature).softmax(-1)`.",
    )
    explanation = (
        "Dividing by a small temperature pulls the logits apart, so the likeliest token gets "
        "more; a large one pushes them together. Temperature 0 is the limit, where the largest "
        "logit gets everything. A division by 0 would give infinities and NaN, so it is treated "
        "on its own."
    )
    follow_up = "let `temperature` be a tensor (...), one for each row, some of them 0."

    @staticmethod
    def right(logits, temperature):
        if temperature == 0:
            place = logits.argmax(-1, keepdim=True)
            return torch.zeros_like(logits).scatter(-1, place, 1.0)
        return (logits / temperature).softmax(-1)

    mistakes = """
    the logits are multiplied by the temperature; divide them by it
        return (logits * temperature).softmax(-1)
    the softmax runs over the first dimension; -1 is the last, the tokens
        .softmax(-1) -> .softmax(0)
    the temperature plays no part | return logits.softmax(-1)
    the numbers don't sum to 1; divide them by their sum | .softmax(-1) -> .exp()
    all rows together sum to 1; each row has to sum to 1 on its own
        .softmax(-1) -> .flatten().softmax(-1).reshape(logits.shape)
    at temperature 0 something is divided by 0; treat it on its own
        return (logits / temperature).softmax(-1)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields several shapes, every sign, large numbers, ties, both precisions."""
        yield torch.tensor([1.0, 3.0, 2.0]), 1.0
        yield torch.tensor([2.0, 2.0, -1.0]), 0.0  # the first of equals
        for shape in [(5,), (2, 7), (4, 3), (3, 1, 6)]:
            for temperature in (0.0, 0.3, 1.0, 2.5):
                yield draw.normal(*shape, scale=3.0), temperature
        yield draw.normal(3, 4, scale=100.0), 0.5
        yield draw.normal(3, 4).double(), 0.7
        yield draw.normal(3, 4).double(), 0.0


class Entropy(Exercise):
    question = """
    Measure how undecided a distribution is: its entropy, in nats.

    `probs` has shape (..., V), each row sums to 1. The entropy is minus the sum over the last
    dimension of p log p, with the natural logarithm. A probability of 0 adds 0, though log 0 is
    minus infinity. The result has shape (...) and the dtype of `probs`.
    """

    name = "entropy"
    lesson = 2
    hints = (
        "What should come out for a coin, and what if only one outcome is possible?",
        "In floating point, 0 times minus infinity is NaN. Put something harmless in the place "
        "of log 0.",
        "`torch.where(probs > 0, probs.log(), 0.0)` has the logarithms; multiply by `probs`, add "
        "up over -1, turn the sign.",
    )
    explanation = (
        "As p goes to 0, p log p does too, so an impossible token adds nothing. The entropy is 0 "
        "where one token is certain and log V where all are equally likely: the higher the "
        "temperature, the closer to log V."
    )
    follow_up = "compute it from logits, without ever making the probabilities 0."

    @staticmethod
    def right(probs):
        logs = torch.where(probs > 0, probs.log(), 0.0)  # log 0 isn't needed
        return -(probs * logs).sum(-1)

    mistakes = """
    0 times log 0 is NaN in floating point; a probability of 0 has to add 0
        return -(probs * probs.log()).sum(-1)
    it is in bits, with the logarithm to base 2; nats have the natural one | probs.log -> probs.log2
    the minus is missing: p log p is never above 0, entropy never below | return - -> return +
    it is the mean over the tokens; add them up | .sum(-1) -> .mean(-1)
    it is the mean of -log p, each token counting the same; weigh it by p
        (probs * logs).sum(-1) -> logs.mean(-1)
    a softmax is taken of what are probabilities already | return right(probs.softmax(-1))
    it is exp of the entropy, the perplexity
        return -(probs * logs).sum(-1) -> return (-(probs * logs).sum(-1)).exp()
    it is -log of the largest probability; all of them count | return -probs.amax(-1).log()
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields certain and even distributions and others; with and without zeros; many shapes."""
        yield (torch.tensor([0.5, 0.25, 0.25]),)
        yield (torch.tensor([0.5, 0.5, 0.0]),)
        yield (torch.eye(3),)
        yield (torch.full((2, 8), 1 / 8),)
        yield (torch.ones(1),)
        for shape in [(4,), (3, 5), (5, 3), (2, 3, 4), (1, 1, 6), (2, 2, 2, 3)]:
            yield (draw.probs(*shape),)
            yield (draw.grid_probs(*shape),)
        yield (draw.probs(3, 4).double(),)
        yield (draw.grid_probs(2, 9).double(),)


class DrawToken(Exercise):
    question = """
    Draw one token per row with the help of one random number per row.

    `probs` has shape (B, V), each row sums to 1 up to rounding. `uniforms` has shape (B,): numbers
    drawn evenly from 0 up to 1, without 1. Add the probabilities up from left to right; the token
    is the first whose sum exceeds the number. A token of probability 0 is never drawn, not even
    if rounding leaves the last sum a little below the number: then it is the last token whose
    probability is above 0. The result has shape (B,) and dtype long.
    """

    name = "draw_token"
    lesson = 2
    hints = (
        "Probabilities 0.2, 0.3, 0.5 cut the line from 0 to 1 into three pieces. Where do the "
        "cuts lie, and on which piece is 0.4?",
        "`probs.cumsum(-1)` has the cuts. How many of them are not above the number? That many "
        "tokens are passed.",
        "`(probs.cumsum(-1) <= uniforms[:, None]).sum(-1)` is the token, unless that is beyond "
        "the last token whose probability is above 0.",
    )
    explanation = (
        "A number drawn evenly falls on a piece of length p with probability p. Counting the "
        "sums that don't exceed it finds the piece; a piece of length 0 is passed along with the "
        "one before it. Sums of floating-point numbers may end a little below 1, and for a number "
        "between the two the count runs past the end: `minimum` brings it back."
    )
    follow_up = "draw N tokens per row from uniform numbers of shape (B, N), without a loop."

    @staticmethod
    def right(probs, uniforms):
        passed = (probs.cumsum(-1) <= uniforms[:, None]).sum(-1)  # (B,)
        last = (torch.arange(probs.shape[-1]) * (probs > 0)).amax(-1)  # (B,)
        return torch.minimum(passed, last)

    mistakes = """
    where a sum equals the number, the next token is drawn: `exceeds` means >, not >= | <= -> <
    each probability is compared on its own; add them up from left to right first
        return (probs > uniforms[:, None]).long().argmax(-1)
    it is the likeliest token, whatever the number is | return probs.argmax(-1)
    it is one token too far: with two sums passed, the token is number 2, from 0
        torch.minimum(passed, last) -> (passed + 1).clamp(max=probs.shape[-1] - 1)
    it is one token too early: with two sums passed, the token is number 2, from 0
        torch.minimum(passed, last) -> (passed - 1).clamp(min=0)
    if all sums stay below the number, the token is V, which doesn't exist
        torch.minimum(passed, last) -> passed
    if all sums stay below the number, it is the last token, whose probability may be 0
        torch.minimum(passed, last) -> passed.clamp(max=probs.shape[-1] - 1)
    if all sums stay below the number, it is token 0: argmax of all False is 0
        return (probs.cumsum(-1) > uniforms[:, None]).long().argmax(-1)
    the probabilities are added up from right to left
        return probs.shape[-1] - 1 - right(probs.flip(-1), uniforms)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields sixty-fourths, whose sums are exact: many numbers lie right on a cut."""
        yield torch.tensor([[0.25, 0.5, 0.25]]), torch.tensor([0.5])
        yield torch.tensor([[0.25, 0.5, 0.25]] * 4), torch.tensor([0.0, 0.25, 0.75, 0.99])
        yield torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]] * 3), torch.tensor([0.0, 0.5, 0.99])
        # As after unlucky rounding: the sums end below the number.
        yield torch.tensor([[0.25, 0.749, 0.0], [0.5, 0.25, 0.249]]), torch.tensor([0.9995, 0.9995])
        for B, V in [(1, 2), (6, 3), (3, 6), (8, 8), (20, 4), (5, 12), (2, 1)]:
            yield draw.grid_probs(B, V), draw.integers(64, B) / 64
        for B, V in [(7, 5), (4, 9), (10, 3)]:
            yield draw.probs(B, V), draw.uniform(B)
        yield draw.grid_probs(5, 6).double(), draw.uniform(5).double()


temperature_softmax = TemperatureSoftmax()
entropy = Entropy()
draw_token = DrawToken()
