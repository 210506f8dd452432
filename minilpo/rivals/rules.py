"""Rules without a head and without training: they see the language model's predictions.

TopNSigma, EDT and Dynatemp are `Choices`. Mirostat is a `Policy`: it looks back at drawn tokens.
Each takes lists, one value per setting, of 0 or above, and raises ValueError if one is longer than
the other or a value is out of its range. In `Mirostat`, as with `Fixed`, row i of a batch takes
setting i modulo their number K.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minilpo.decoding.choices import Choices, Temperatures, column
from minilpo.decoding.policies import Policy, Step
from minilpo.decoding.sampling import entropy, token_probs


def _settings(
    name: str, columns: Mapping[str, Sequence[float]], above_0: str = ""
) -> tuple[tuple[str, ...], Tensor]:
    """Returns a name for each of K settings, and their table, (n, K), with a row per column."""
    K = len(next(iter(columns.values())))
    rows = [column(title, values, K) for title, values in columns.items()]
    for title, row in zip(columns, rows, strict=True):
        required = "above 0" if title == above_0 else "0 or above"
        for value in row:
            if not 0 <= value < math.inf or (value == 0 and title == above_0):
                raise ValueError(f"{title} must be {required}, got {value}")
    names = tuple(name.format(*setting) for setting in zip(*rows, strict=True))
    return names, torch.tensor(rows, dtype=torch.float32)


class TopNSigma(Choices):
    """Keeps the tokens whose logit is at most n standard deviations below the largest one.

    l_v >= max(l) - n σ(l). The temperature is applied after that. Source: Tang et al., "Top-nσ: Not
    All Logits Are You Need", arXiv 2411.07641. Most logits are noise around a low mean, of size σ.

    >>> choices = TopNSigma([1.0], [1.0])
    >>> choices.names
    ('1, top-n-sigma 1',)
    >>> choices.probs(torch.tensor([[3.0, 2.0, 0.0, 0.0]]), torch.tensor([0]), torch.tensor(0))
    tensor([[0.7311, 0.2689, 0.0000, 0.0000]])
    """

    def __init__(self, n_sigmas: Sequence[float], temperatures: Sequence[float]):
        columns = {"n_sigmas": n_sigmas, "temperatures": temperatures}
        self.names, self.table = _settings("{1:g}, top-n-sigma {0:g}", columns)  # (2, K)
        self.temperatures = Temperatures(temperatures)

    def probs(self, logits: Tensor, choice_ids: Tensor, positions: Tensor) -> Tensor:
        n_sigmas = self.table.to(logits.device)[0, choice_ids]  # (B,)
        # A logit of -inf belongs to a token that never comes: it is no part of the noise.
        can_come = logits.isfinite()
        count = can_come.sum(-1, keepdim=True)
        mean = logits.where(can_come, 0.0).sum(-1, keepdim=True) / count
        squares = (logits - mean).square().where(can_come, 0.0)  # (B, V)
        sigma = (squares.sum(-1, keepdim=True) / count).sqrt()  # (B, 1)
        lowest = logits.amax(-1, keepdim=True) - n_sigmas[:, None] * sigma
        kept = logits.masked_fill(logits < lowest, -math.inf)
        return self.temperatures.probs(kept, choice_ids, positions)


class ByEntropy(Choices):
    """A temperature for each token, by how unsure the language model is."""

    def temperatures(self, logits: Tensor, choice_ids: Tensor) -> Tensor:
        """Computes the temperature of each row under its setting: (B, V) and (B,) to (B,)."""
        raise NotImplementedError

    def probs(self, logits: Tensor, choice_ids: Tensor, positions: Tensor) -> Tensor:
        # Where the model is all but sure, the temperature may be as small as numbers get. With 0 as
        # the largest logit, dividing by it gives 0 and -inf, never infinity minus infinity.
        shifted = logits - logits.amax(-1, keepdim=True)
        return token_probs(shifted, self.temperatures(logits, choice_ids))


class EDT(ByEntropy):
    """Entropy-based dynamic temperature: T = T_0 · 0.8^(θ / H), cold where the model is sure.

    Source: Zhang et al., "EDT: Improving Large Language Models' Generation by Entropy-based Dynamic
    Temperature Sampling", arXiv 2403.14541; 0.8 is the value that they fixed. H is the entropy at
    temperature 1, in nats: T rises from 0 at H = 0 towards T_0, of which `temperatures` are values.

    >>> EDT([1.0], [2.0]).temperatures(torch.zeros(1, 9), torch.tensor([0]))  # 0.8^(2 / ln 9)
    tensor([0.8162])
    """

    def __init__(self, temperatures: Sequence[float], thetas: Sequence[float]):
        columns = {"temperatures": temperatures, "thetas": thetas}
        self.names, self.table = _settings("{0:g}, EDT {1:g}", columns)  # (2, K)

    def temperatures(self, logits: Tensor, choice_ids: Tensor) -> Tensor:
        highest, thetas = self.table.to(logits.device)[:, choice_ids]  # (B,) each
        # Not below a tiny number, so that θ = 0 stays a constant where the entropy is 0.
        return highest * 0.8 ** (thetas / entropy(logits).clamp(min=1e-30))


class Dynatemp(ByEntropy):
    """Dynamic temperature: T = low + (high - low) · (H / ln V)^exponent.

    H / ln V is the entropy at temperature 1 as a share of the most that V tokens can have. Source:
    the dynamic temperature of koboldcpp and llama.cpp (pull request 4972, January 2024); no paper.
    `low` holds where the model is sure, `high` where every token is equally likely.

    >>> halfway = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]])  # ln 2 of at most ln 4
    >>> Dynatemp([0.0], [2.0], [1.0]).temperatures(halfway, torch.tensor([0]))
    tensor([1.])
    """

    def __init__(self, lows: Sequence[float], highs: Sequence[float], exponents: Sequence[float]):
        columns = {"lows": lows, "highs": highs, "exponents": exponents}
        name = "{0:g} to {1:g}, exponent {2:g}"
        self.names, self.table = _settings(name, columns, above_0="exponents")  # (3, K)

    def temperatures(self, logits: Tensor, choice_ids: Tensor) -> Tensor:
        low, high, exponent = self.table.to(logits.device)[:, choice_ids]  # (B,) each
        share = entropy(logits) / math.log(logits.shape[-1])
        return low + (high - low) * share**exponent


class Mirostat(Policy):
    """Mirostat 2.0: keeps the surprise of a text near a target, by leaving out surprising tokens.

    The surprise of a token is -log2 p, in bits, by the language model's own distribution. Tokens
    that surprise more than a limit μ are left out (never the likeliest one), and one of the rest is
    drawn. The limit is 2τ at first; after each token μ ← μ - η (surprise - τ). Source: Basu et al.,
    "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", arXiv
    2007.14966, Algorithm 2. `targets` are values of τ, in bits, and `rates` of η.

    >>> policy = Mirostat([1.0], [0.5])
    >>> policy.start(n_rows=1)
    >>> logits = torch.tensor([[0.5, 0.375, 0.125]]).log()  # surprises: 1, 1.4 and 3 bits
    >>> last, zero = torch.tensor([7]), torch.tensor([0])
    >>> step = Step(zero, torch.zeros(1, 4), logits, last, torch.tensor(0), torch.zeros(1))
    >>> policy.probs(step, policy.choose(step))  # the limit is 2 bits
    tensor([[0.5714, 0.4286, 0.0000]])
    >>> policy.observe(step, torch.tensor([1]))
    >>> policy.choose(step)
    tensor([1.7925])
    """

    level = "token"
    chooses_one = False  # it chooses a limit, one of infinitely many

    def __init__(self, targets: Sequence[float], rates: Sequence[float]):
        super().__init__(Temperatures([1.0]))  # tokens are left out of this one's
        name, columns = "mirostat {0:g}, rate {1:g}", {"targets": targets, "rates": rates}
        self.names, self.table = _settings(name, columns, above_0="targets")  # (2, K)

    def start(self, n_rows: int) -> None:
        self.limits = 2 * self.table[0, torch.arange(n_rows) % len(self.names)]  # (n_rows,) bits

    def choose(self, step: Step) -> Tensor:
        # To the device and the precision of the logits: `start` knows neither.
        self.limits = self.limits.to(step.logits)
        return self.limits[step.rows]  # (B,) bits

    def probs(self, step: Step, choice: Tensor) -> Tensor:
        probs = step.logits.softmax(-1)
        too_surprising = -probs.log2() > choice[:, None]  # (B, V)
        # However low the limit, something must be said.
        too_surprising = too_surprising.scatter(-1, probs.argmax(-1, keepdim=True), False)
        probs = probs.masked_fill(too_surprising, 0.0)
        return probs / probs.sum(-1, keepdim=True)

    def observe(self, step: Step, token_ids: Tensor) -> None:
        """Moves the limits of the rows that are still going, and of no others."""
        targets, rates = self.table.to(step.logits)[:, step.rows % len(self.names)]  # (B,) each
        probs = step.logits.softmax(-1).gather(-1, token_ids[:, None])[:, 0]
        self.limits[step.rows] -= rates * (-probs.log2() - targets)
