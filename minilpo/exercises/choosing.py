"""Lesson 4: choosing. The head, its likeliest temperature, one that is drawn, and the mixture."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from minilpo.exercises.exercise import Case, Draw, Exercise


class HeadLogits(Exercise):
    question = """
    Write the forward pass of the AdaptiveDecoder: arXiv 2411.09661, Eq. 3, before its softmax.

    `hidden_states` has shape (..., C). `layers` is a list of three pairs (weight, bias), where
    weight has shape (out, in) and bias (out,), as PyTorch keeps them. A linear layer multiplies its
    input by the transposed weight and adds the bias. After the first and after the second layer
    comes SiLU, x times sigmoid(x); after the third comes nothing. The result has shape (..., K).
    """

    name = "head_logits"
    lesson = 4
    hints = (
        "Follow the shapes: (..., C) goes in. A weight has shape (out, in), so which way round "
        "does it have to be?",
        "One layer is `x @ weight.T + bias`. SiLU is `x * x.sigmoid()`, or `F.silu(x)`.",
        "Between three layers there are two places for SiLU. The third layer gives the logits as "
        "they are.",
    )
    explanation = (
        "Without SiLU three linear layers would be no more than one. The last layer has none "
        "after it, since logits may be of any size and sign; a softmax makes probabilities of "
        "them later. If the last weight and bias are 0, all logits are 0: the head starts uniform."
    )
    follow_up = "for any number of layers, without naming one of them."

    @staticmethod
    def right(hidden_states, layers):
        (w1, b1), (w2, b2), (w3, b3) = layers
        x = F.silu(hidden_states @ w1.T + b1)
        x = F.silu(x @ w2.T + b2)
        return x @ w3.T + b3

    mistakes = """
    there is no SiLU between the layers
        F.silu(hidden_states -> (hidden_states
        F.silu(x -> (x
    there is a SiLU after the last layer too; its logits stay as they are
        return F.silu(right(hidden_states, layers))
    SiLU is missing after the second layer | F.silu(x -> (x
    SiLU is missing after the first layer | F.silu(hidden_states -> (hidden_states
    ReLU stands where SiLU is asked for: x times sigmoid(x)
        F.silu(hidden_states -> F.relu(hidden_states
        F.silu(x -> F.relu(x
    GELU stands where SiLU is asked for: x times sigmoid(x)
        F.silu(hidden_states -> F.gelu(hidden_states
        F.silu(x -> F.gelu(x
    sigmoid stands where SiLU is asked for: multiply it by x
        F.silu(hidden_states -> F.sigmoid(hidden_states
        F.silu(x -> F.sigmoid(x
    the biases are missing
        return right(hidden_states, [(weight, torch.zeros_like(bias)) for weight, bias in layers])
    these are probabilities; the logits are asked for, before the softmax
        return right(hidden_states, layers).softmax(-1)
    these are log-probabilities; the logits are asked for, before any softmax
        return right(hidden_states, layers).log_softmax(-1)
    the layers are taken in the wrong order; the first in the list comes first
        return right(hidden_states, layers[::-1])
    weights aren't transposed: use `weight.T`, even where a weight is square
        return right(hidden_states, [(weight.T, bias) for weight, bias in layers])
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields square weights, then all sizes; several leading dimensions; a last layer of 0."""
        for shape in [(4,), (2, 4), (3, 2, 4)]:
            yield self._case(draw, shape, 4, 4)
        for shape, hidden, K in [((5,), 3, 2), ((1, 3), 6, 4), ((6, 2), 5, 3), ((4, 7), 2, 6)]:
            yield self._case(draw, shape, hidden, K)
        for shape, hidden, K in [((2, 3, 5), 4, 6), ((1, 1, 2), 8, 1), ((2, 2, 2, 3), 3, 5)]:
            yield self._case(draw, shape, hidden, K)
        for shape, hidden, K in [((3, 8), 16, 6), ((1,), 1, 2)]:
            yield self._case(draw, shape, hidden, K)
        hidden_states, layers = self._case(draw, (3, 4), 5, 3)
        yield hidden_states, [*layers[:2], (torch.zeros(3, 5), torch.zeros(3))]
        hidden_states, layers = self._case(draw, (2, 6), 3, 4)
        yield hidden_states.double(), [(w.double(), b.double()) for w, b in layers]

    @staticmethod
    def _case(draw: Draw, shape: tuple[int, ...], hidden: int, K: int) -> Case:
        sizes = [shape[-1], hidden, hidden, K]
        layers = []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers.append((draw.normal(n_out, n_in), draw.normal(n_out)))
        return draw.normal(*shape, scale=2.0), layers


class GreedyChoice(Exercise):
    question = """
    Take the likeliest temperature of each row: arXiv 2411.09661, Eq. 4.

    `choice_logits`, of shape (B, K), are the head's logits of K choices. `temperatures`, of
    shape (K,), are the choices. Return the temperature of the likeliest choice of each row (of
    the first, if several are equal), a tensor of shape (B,) with the dtype of the temperatures.
    """

    name = "greedy_choice"
    lesson = 4
    hints = (
        "Does it matter whether you look at logits or at probabilities, to find the largest?",
        "`choice_logits.argmax(-1)` has the numbers of the choices. They aren't the temperatures.",
        "A tensor can be indexed with a tensor of numbers: `temperatures[choice_ids]`.",
    )
    explanation = (
        "The softmax keeps the order, so the largest logit is the likeliest choice, and no "
        "probability has to be computed. `temperatures` is a table, read at the number of "
        "the choice."
    )
    follow_up = "let `temperatures` have shape (B, K): another table for each row."

    @staticmethod
    def right(choice_logits, temperatures):
        return temperatures[choice_logits.argmax(-1)]

    mistakes = """
    these are the numbers of the choices; look their temperatures up
        return choice_logits.argmax(-1).to(temperatures.dtype)
    it is the mean temperature under the head; Eq. 4 takes the likeliest one
        return (choice_logits.to(temperatures.dtype).softmax(-1) * temperatures).sum(-1)
    it is the least likely choice; argmax finds the likeliest | argmax -> argmin
    it is the highest temperature in each row, whatever the logits say
        return temperatures.max().repeat(len(choice_logits))
    of equal logits it takes the last; the first is asked for
        return temperatures.flip(0)[choice_logits.flip(-1).argmax(-1)]
    logits are multiplied by temperatures; they only say which one to take
        return temperatures[(choice_logits * temperatures).argmax(-1)]
    it is the likeliest row of each choice; -1 is the dimension of the choices
        argmax(-1) -> argmax(0)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields tables in any order, some values twice; equal logits; logits all below 0."""
        table = torch.tensor([0.0, 0.5, 1.0])
        yield torch.tensor([[0.1, 2.0, -1.0], [3.0, 0.0, 1.0], [-3.0, -2.0, -1.0]]), table
        yield torch.zeros(3, 3), torch.tensor([0.4, 0.0, 1.0])
        yield torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, -1.0], [5.0, 1.0, 5.0]]), table
        for K in (2, 4, 6):
            yield draw.normal(K, K, scale=3.0), draw.uniform(K)
        for B, K in [(1, 3), (5, 2), (2, 6), (7, 4), (12, 5), (3, 1)]:
            yield draw.normal(B, K, scale=3.0), 2 * draw.uniform(K)
        yield draw.integers(3, 8, 4) - 2.0, torch.tensor([1.0, 0.2, 0.0, 0.6])
        yield draw.normal(4, 3) - 20, table.flip(0)
        yield draw.normal(4, 3), draw.uniform(3).double()
        yield draw.normal(6, 4).double(), draw.uniform(4).double()


class SampledChoice(Exercise):
    question = """
    Draw a choice for each row from what the head says: arXiv 2411.09661, Eq. 5.

    `choice_logits` has shape (B, K), `uniforms` has shape (B,): numbers drawn evenly from 0 up to
    1, without 1. The probabilities of the K choices are the softmax of a row. Add them up from left
    to right; the choice is the first whose sum exceeds the number. Return the numbers of the
    choices, of shape (B,) and dtype long. Draw no random numbers of your own.
    """

    name = "sampled_choice"
    lesson = 4
    hints = (
        "You have drawn tokens like this in lesson 2. What is to be done first with logits?",
        "`choice_logits.softmax(-1).cumsum(-1)` has the sums, the last of them about 1.",
        "Count the sums of a row that are not above its number; `uniforms[:, None]` makes a "
        "column of the numbers. Then see that no choice is beyond the last.",
    )
    explanation = (
        "A number drawn evenly falls on a piece of length p with probability p. With one number "
        "per row, passed in, the same numbers give the same choices, whoever else is in the "
        "batch. `clamp` is for the rare case that rounding leaves the last sum below the number."
    )
    follow_up = "draw 100,000 choices for one row and compare their shares with the softmax."

    @staticmethod
    def right(choice_logits, uniforms):
        sums = choice_logits.softmax(-1).cumsum(-1)  # (B, K)
        passed = (sums <= uniforms[:, None]).sum(-1)  # (B,)
        return passed.clamp(max=choice_logits.shape[-1] - 1)

    mistakes = """
    it is the likeliest choice, Eq. 4; Eq. 5 draws one with the uniform number
        return choice_logits.argmax(-1)
    the logits themselves are added up; take their softmax first
        choice_logits.softmax(-1) -> choice_logits
    each probability is compared on its own; add them up from left to right first
        return (choice_logits.softmax(-1) > uniforms[:, None]).long().argmax(-1)
    where a sum equals the number, the next choice is drawn: `exceeds` means >, not >= | <= -> <
    it is one choice too far: with two sums passed, the choice is number 2, from 0
        return passed -> return (passed + 1)
    the probabilities are added up from right to left
        return choice_logits.shape[-1] - 1 - right(choice_logits.flip(-1), uniforms)
    the softmax runs over the rows; -1 is the dimension of the choices | .softmax(-1) -> .softmax(0)
    all choices are taken to be equally likely | return (uniforms * choice_logits.shape[-1]).long()
    exp of a large logit is infinite; `softmax` subtracts the largest first
        choice_logits.softmax(-1) -> F.normalize(choice_logits.exp(), p=1, dim=-1, eps=0)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields sixty-fourths as probabilities; numbers between two sums, or right on one."""
        yield torch.zeros(1, 2), torch.tensor([0.75])
        yield torch.zeros(4, 4), torch.tensor([0.0, 0.25, 0.5, 0.75])  # exact: exp(0) is 1
        yield torch.full((2, 2), -3.0), torch.tensor([0.5, 0.25])
        for B, K in [(1, 3), (5, 2), (6, 6), (3, 4), (12, 3), (20, 5), (4, 8), (2, 1), (30, 6)]:
            yield self._case(draw, B, K)
        yield 400 + self._case(draw, 6, 4)[0], (2 * draw.integers(64, 6) + 1) / 128
        logits, uniforms = self._case(draw, 8, 3)
        yield logits.double(), uniforms.double()

    @staticmethod
    def _case(draw: Draw, B: int, K: int) -> Case:
        # log 0 is minus infinity, so impossible choices get a very small logit instead.
        logits = draw.grid_probs(B, K).log().clamp(min=-60.0)
        return logits + draw.normal(B, 1, scale=3.0), (2 * draw.integers(64, B) + 1) / 128


class MixtureProbs(Exercise):
    question = """
    Mix the distributions of all temperatures: arXiv 2411.09661, Eq. 6.

    `logits` has shape (B, V): scores of the next token. `choice_logits` has shape (B, K): the
    head's logits of K temperatures, and `temperatures` is a list of K Python floats, 0 or above. At
    temperature 0 all probability goes to the largest logit (to the first of equals). Return the
    probabilities of the next token, of shape (B, V): for each row the sum over k of P(k), the
    softmax of its choice_logits, times the distribution at temperature k.
    """

    name = "mixture_probs"
    lesson = 4
    hints = (
        "Eq. 6 mixes probabilities. Would mixing the logits, or the temperatures, be the same?",
        "Go through the temperatures one by one and add up weight times distribution. A weight "
        "`weights[:, k]` has shape (B,), a distribution (B, V).",
        "`weights[:, k, None]` has shape (B, 1). For temperature 0, `F.one_hot(logits.argmax(-1), "
        "V)` is the distribution, in whole numbers.",
    )
    explanation = (
        "It is as if a temperature was drawn first and then a token at this temperature, added "
        "up over all temperatures that might have been drawn. Each distribution sums to 1 and so "
        "do the weights, so the mixture does too. Temperature 0 is treated on its own: nothing "
        "is divided by 0."
    )
    follow_up = "without a loop over the temperatures, by a tensor of shape (B, K, V)."

    @staticmethod
    def right(logits, choice_logits, temperatures):
        weights = choice_logits.softmax(-1)  # (B, K)
        mixed = torch.zeros_like(logits)
        for k, temperature in enumerate(temperatures):
            if temperature == 0:
                probs = F.one_hot(logits.argmax(-1), logits.shape[-1])
            else:
                probs = (logits / temperature).softmax(-1)
            mixed = mixed + weights[:, k, None] * probs
        return mixed

    mistakes = """
    temperatures are mixed, then one softmax is taken; mix the probabilities
        mean = choice_logits.softmax(-1) @ torch.tensor(temperatures, dtype=logits.dtype)
        rows = zip(logits, mean, strict=True)
        return torch.cat([right(row[None], row[None, :1], [float(t)]) for row, t in rows])
    every temperature has the same weight; the weights are softmax(choice_logits)
        choice_logits.softmax(-1) -> torch.zeros_like(choice_logits).softmax(-1)
    the choice logits are the weights, without a softmax
        choice_logits.softmax(-1) -> choice_logits
    the softmax of the choice logits runs over the rows; -1 is the choices
        choice_logits.softmax(-1) -> choice_logits.softmax(0)
    only the likeliest temperature is used, as in Eq. 4; Eq. 6 mixes all
        choice_logits.softmax(-1) -> F.one_hot(choice_logits.argmax(-1), len(temperatures))
    the logits are multiplied by the temperature; divide them by it | logits / -> logits *
    at temperature 0 something is divided by 0; treat it on its own | temperature == 0 -> False
    temperature 0 is left out, so the probabilities don't sum to 1
        F.one_hot(logits.argmax(-1), logits.shape[-1]) -> 0.0
    log-probabilities are mixed, then one softmax is taken; mix the probabilities
        * probs -> * probs.log().clamp(min=-1e4)
        return mixed -> return mixed.softmax(-1)
    at temperature 0 the softmax at temperature 1 is taken; the largest logit gets all
        F.one_hot(logits.argmax(-1), logits.shape[-1]) -> logits.softmax(-1)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields temperature 0 at any place of the list, and none; B, K and V equal and not."""
        yield torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), [0.5, 1.0]
        yield torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), [0.0, 1.0]
        yield torch.tensor([[2.0, 2.0, 1.0]]), torch.tensor([[1.0, -1.0]]), [0.0, 2.0]  # a tie
        yield draw.normal(3, 3, scale=2.0), draw.normal(3, 3), [0.3, 0.0, 1.5]
        for B, V, K in [(1, 5, 3), (4, 3, 2), (2, 7, 6), (5, 4, 4), (3, 10, 1), (6, 2, 5)]:
            yield draw.normal(B, V, scale=2.0), draw.normal(B, K, scale=2.0), self._table(draw, K)
        for B, V in [(4, 4), (2, 6)]:
            yield draw.normal(B, V, scale=2.0), draw.normal(B, 4), [0.0, 0.4, 0.8, 1.2]
        yield draw.normal(3, 5, scale=50.0), draw.normal(3, 2, scale=20.0), [0.7, 0.2]
        yield draw.normal(2, 3), draw.normal(2, 1), [0.0]
        yield draw.normal(3, 4).double(), draw.normal(3, 3).double(), [1.0, 0.0, 0.5]

    @staticmethod
    def _table(draw: Draw, K: int) -> list[float]:
        return [round(0.1 + 2 * value, 2) for value in draw.uniform(K).tolist()]


head_logits = HeadLogits()
greedy_choice = GreedyChoice()
sampled_choice = SampledChoice()
mixture_probs = MixtureProbs()
