"""Lesson 1: the transformer. The causal mask, one attention head, the loss of a response."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise


class CausalMask(Exercise):
    question = """
    Say which tokens each token may look at: itself and those before it.

    `T` is the number of tokens. The result is a tensor of True and False, of shape (T, T): in row i
    and column j it is True where token i (the query) may look at token j (the key), so where j is
    at most i. Nobody sees the future.
    """

    name = "causal_mask"
    lesson = 1
    hints = (
        "Write the mask for T = 3 on paper first. How many places are True in its first row?",
        "The places that are True form a triangle: the diagonal and all below it.",
        "`torch.ones(T, T, dtype=torch.bool)` is True everywhere; `.tril()` keeps the lower "
        "triangle with the diagonal.",
    )
    explanation = (
        "Row i has i + 1 places that are True, so the first token sees only itself and the last "
        "one sees all. That is why one reading of a text trains the prediction of every token in "
        "it: no place has seen the token that it is to predict."
    )
    follow_up = "let a token see only itself and the `window` - 1 tokens before it."

    @staticmethod
    def right(T):
        return torch.ones(T, T, dtype=torch.bool).tril()

    mistakes = """
    rows and columns are swapped: a token sees those after it; rows are the queries | tril -> triu
    a token doesn't see itself; the diagonal is True too | .tril() -> .tril(-1)
    True and False are swapped: True is where a token may look | return torch -> return ~torch
    a token sees the one after it; the last that it may see is itself | .tril() -> .tril(1)
    every token sees every other, also those after it | return torch.ones(T, T, dtype=torch.bool)
    a token sees nothing but itself; those before it are True too
        return torch.eye(T, dtype=torch.bool)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields small numbers of tokens, and some larger ones."""
        for T in (3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 16):
            yield (T,)
        for _ in range(4):
            yield (11 + int(draw.integers(60, 1)),)


class AttentionHead(Exercise):
    question = """
    Write one causal attention head: each token gathers from itself and those before it.

    `queries`, `keys` and `values` all have the shape (..., T, d): before T and d there may be any
    number of dimensions (texts, heads), or none. The score of query i and key j is their dot
    product divided by the square root of d. Where j is after i the score doesn't count.
    The softmax over the keys makes weights of the scores, which sum to 1 for each query, and the
    result, of the same shape (..., T, d), is the sum of the values with these weights.
    """

    name = "attention_head"
    lesson = 1
    hints = (
        "How many scores are there for T tokens? Which of them must get the weight 0?",
        "A score of 0 doesn't give the weight 0, since exp(0) = 1. A score of minus infinity does, "
        "before the softmax.",
        "`scores = queries @ keys.transpose(-2, -1) / d**0.5`, then "
        "`scores.masked_fill(~mask, float('-inf')).softmax(-1) @ values`.",
    )
    explanation = (
        "A dot product of d random numbers grows with the square root of d, so dividing by it "
        "keeps the softmax from being one-sided, however wide the head is. The mask comes before "
        "the softmax, which then shares all weight among the tokens that may be seen."
    )
    follow_up = "with a KV cache, keys and values are longer than queries. Where is the mask then?"

    @staticmethod
    def right(queries, keys, values):
        T, d = queries.shape[-2:]
        mask = torch.ones(T, T, dtype=torch.bool).tril()
        scores = queries @ keys.transpose(-2, -1) / d**0.5  # (..., T, T)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return weights @ values

    mistakes = """
    there is no causal mask: tokens look at those after them
        scores.masked_fill(~mask, float("-inf")) -> scores
    the scores aren't divided by the square root of d
        keys.transpose(-2, -1) / d**0.5 -> keys.transpose(-2, -1)
    there is no causal mask, and the scores aren't divided by the square root of d
        return (queries @ keys.transpose(-2, -1)).softmax(-1) @ values
    the mask is turned round: `masked_fill` replaces where its mask is True | ~mask -> mask
    the scores are divided by d; by its square root is right | d**0.5 -> d
    the scores are multiplied by the square root of d; divide them by it | / d**0.5 -> * d**0.5
    a masked score of 0 still gets weight, as exp(0) = 1; use minus infinity | float("-inf") -> 0.0
    the mask comes after the softmax, so the weights of a query don't sum to 1
        scores.masked_fill(~mask, float("-inf")).softmax(-1) -> scores.softmax(-1) * mask
    the softmax runs over the queries; the weights of the keys, dimension -1, sum to 1
        .softmax(-1) -> .softmax(-2)
    queries and keys are swapped: row i of the scores belongs to query i
        queries @ keys -> keys @ queries
    a token doesn't see itself, so nothing is left for the first one, and that is NaN
        .tril() -> .tril(-1)
    exp of a large score is infinite; `softmax` subtracts the largest score first
        .softmax(-1) -> .exp()
        return weights -> return weights / weights.sum(-1, keepdim=True)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields one token and many; none to two leading dimensions; large scores; T equal to d."""
        shapes = [(2, 3), (3, 3), (1, 4), (5, 1), (6, 4), (2, 3, 4), (3, 5, 5), (1, 7, 2)]
        shapes += [(2, 2, 4, 3), (1, 3, 6, 8), (2, 1, 2, 16), (4, 1, 1)]
        for shape in shapes:
            yield draw.normal(*shape, scale=2.0), draw.normal(*shape), draw.normal(*shape)
        yield (
            draw.normal(2, 5, 4, scale=30.0),
            draw.normal(2, 5, 4, scale=30.0),
            draw.normal(2, 5, 4),
        )
        for shape in [(4, 3), (2, 3, 5)]:
            q, k, v = (draw.normal(*shape).double() for _ in range(3))
            yield q, k, v


class ResponseCrossEntropy(Exercise):
    question = """
    Measure how well a model predicts the tokens of a response, and only those.

    `logits` has shape (B, T, V), `token_ids` has shape (B, T): the logits at a place are for the
    token at the same place (somebody has shifted them already). `response_mask`, of shape (B, T),
    is True where a token belongs to a response. The loss at one place is minus the log-probability
    of its token, in nats. Return the mean over all places of the batch where the mask is True: a
    tensor of shape (), with the dtype of the logits.
    """

    name = "response_cross_entropy"
    lesson = 1
    hints = (
        "How many numbers are averaged? It is the number of places that are True.",
        "`logits.log_softmax(-1)` has the log-probabilities of all tokens; `gather` picks those "
        "of `token_ids`.",
        "`logprobs = logits.log_softmax(-1).gather(-1, token_ids[..., None])[..., 0]`, then the "
        "mean of `-logprobs[response_mask]`.",
    )
    explanation = (
        "Indexing with the mask leaves the places that count, in one long row, so every token "
        "of a response weighs the same, in a short response as in a long one. The prompt is "
        "given and padding means nothing: neither is to be predicted."
    )
    follow_up = "let every response count the same, however long it is. When would you want that?"

    @staticmethod
    def right(logits, token_ids, response_mask):
        logprobs = logits.log_softmax(-1)  # (B, T, V)
        of_tokens = logprobs.gather(-1, token_ids[..., None])[..., 0]  # (B, T)
        return -of_tokens[response_mask].mean()

    mistakes = """
    the mask is ignored: prompt and padding count too | of_tokens[response_mask] -> of_tokens
    it is divided by all B * T places; divide by the number that are True
        of_tokens[response_mask] -> (of_tokens * response_mask)
    the losses are added up; the mean is asked for | .mean() -> .sum()
    it is a mean over responses of their means; every token counts the same
        [response_mask].mean() -> .mul(response_mask).sum(1).div(response_mask.sum(1)).mean()
    the minus is missing: a log-probability is below 0, a loss is above | -of_tokens -> of_tokens
    logits are taken for log-probabilities; log_softmax makes them so
        logits.log_softmax(-1) -> logits
    indexing with token_ids takes all tokens at each place; `gather` takes one at each
        logprobs.gather(-1, token_ids[..., None])[..., 0] -> logprobs[:, :, token_ids]
    it is the mean probability, without the log | .mean() -> .exp().mean()
    the softmax runs over time; -1 is the last dimension, the vocabulary
        log_softmax(-1) -> log_softmax(1)
    tokens are shifted by one place; here logits stand where their token stands
        logprobs.gather -> logprobs[:, :-1].gather
        token_ids[..., None] -> token_ids[:, 1:, None]
        [response_mask] -> [response_mask[:, 1:]]
    exp of a large logit is infinite; `log_softmax` subtracts the largest first
        logits.log_softmax(-1) -> logits - logits.exp().sum(-1, keepdim=True).log()
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields masks of all kinds: a single True, a response in the middle, everything."""
        one = torch.zeros(2, 4, dtype=torch.bool)
        one[1, 2] = True
        yield draw.normal(2, 4, 5), draw.integers(5, 2, 4), one
        yield draw.normal(2, 3, 4), draw.integers(4, 2, 3), torch.ones(2, 3, dtype=torch.bool)
        yield draw.normal(1, 1, 3), draw.integers(3, 1, 1), torch.ones(1, 1, dtype=torch.bool)
        for B, T, V in [(1, 6, 4), (3, 5, 7), (2, 8, 5), (4, 4, 4), (5, 3, 2), (3, 9, 12)]:
            yield self._batch(draw, B, T, V, 2.0)
        yield self._batch(draw, 2, 5, 6, 300.0)
        for B, T, V in [(3, 4, 5), (2, 6, 3)]:
            logits, token_ids, mask = self._batch(draw, B, T, V, 1.0)
            yield logits.double(), token_ids, mask
        for B, T, V in [(4, 7, 9), (6, 10, 3)]:
            yield self._batch(draw, B, T, V, 3.0)

    @staticmethod
    def _batch(draw: Draw, B: int, T: int, V: int, scale: float) -> Case:
        """Draws prompt, response and padding; the logits outside of the responses are large."""
        starts = draw.integers(T, B)[:, None]
        mask = (torch.arange(T) >= starts) & draw.mask(B, T)
        mask[:, T // 2] = True  # every row has a response
        logits = draw.normal(B, T, V, scale=scale)
        return torch.where(mask[..., None], logits, 5 * logits), draw.integers(V, B, T), mask


causal_mask = CausalMask()
attention_head = AttentionHead()
response_cross_entropy = ResponseCrossEntropy()
