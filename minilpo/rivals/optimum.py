"""Works out where Eq. 10 leads, exactly, if every prompt is the same to the head."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Rewards = Sequence[Mapping[float, float]]  # per choice, from reward to probability


def optimum(
    rewards: Rewards,
    n_samples: int,
    pairs: str = "best_worst",
    beta: float = 1.0,
    sampled: Sequence[float] | None = None,
) -> Tensor:
    """Computes the P(τ) at which Eq. 10 is lowest: softmax(strengths / β).

    The expected loss is Σ_ij W_ij · −log σ(β (z_i − z_j)), with W from `wins` and z the head's
    logits. With β z = s this is the loss of a Bradley-Terry model with the strengths s.

    Args:
        rewards: of each of K choices, from reward to probability.
        n_samples: N, responses per prompt.
        pairs: "best_worst", "all" or "gap", as in `preferences.PAIRS`.
        beta: strength of the preference, above 0. A larger one makes the optimum flatter.
        sampled: (K,) how often each choice is drawn while sampling; by default equally often.

    Returns (K,) probabilities, float64; exactly 0 for a choice that a fit pushes down without end.
    Raises ValueError where the pairs leave the optimum open, and for arguments out of range.
    Right with probability 3/4 or 1/2: the odds are 3 and 1 to one.

    >>> optimum([{1.0: 0.75, 0.0: 0.25}, {1.0: 0.5, 0.0: 0.5}], n_samples=16)
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}; 1 is the default of the training")
    return (bradley_terry(wins(rewards, n_samples, pairs, sampled)) / beta).softmax(0)


def wins(
    rewards: Rewards,
    n_samples: int,
    pairs: str = "best_worst",
    sampled: Sequence[float] | None = None,
) -> Tensor:
    """Counts the pairs per prompt that prefer choice i to choice j: W_ij, on average, by weight.

    Arguments and errors as in `optimum`. Returns (K, K), float64. The diagonal counts pairs of a
    choice with itself. Of two samples from a safe choice and a gamble:

    >>> wins([{0.5: 1.0}, {1.0: 0.6, 0.0: 0.4}], n_samples=2)
    tensor([[0.0000, 0.2000],
            [0.3000, 0.1200]], dtype=torch.float64)
    """
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2 to compare, got {n_samples}")
    if pairs not in ("best_worst", "all", "gap"):
        raise ValueError(f"pairs must be best_worst, all or gap, got {pairs!r}")
    values, joint = _joint(rewards, sampled)  # (V,) rising, (K, V)
    if pairs == "best_worst":
        per_values = _best_and_worst(joint.sum(0), n_samples)  # (V, V)
        # Bayes: a response with reward x comes from choice i with probability P(i|x).
        joint = joint / joint.sum(0)
    else:
        # Each of N (N - 1) ordered pairs counts where the first got more, by 1 or by how much.
        more = (values[:, None] - values).clamp(min=0)  # (V, V)
        per_values = n_samples * (n_samples - 1) * (more if pairs == "gap" else (more > 0).double())
    return joint @ per_values @ joint.T  # (K, K): Σ_x Σ_y P(i, x) · per_values(x, y) · P(j, y)


def _joint(rewards: Rewards, sampled: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Returns the rewards that occur, (V,), and P(a sample is of choice i and gets x), (K, V)."""
    if (K := len(rewards)) < 2:
        raise ValueError(f"rewards must have at least two choices to prefer, got {K}")
    chances = [1 / K] * K if sampled is None else list(sampled)
    if len(chances) != K:
        raise ValueError(f"sampled must have one probability per choice, {K}, got {len(chances)}")
    for name, parts in [("sampled", chances), *(("rewards", list(r.values())) for r in rewards)]:
        if min(parts, default=-1) < 0 or abs(sum(parts) - 1) > 1e-6:
            raise ValueError(f"{name} must be probabilities that add up to 1, got {parts}")
    values = sorted({value for of in rewards for value, p in of.items() if p > 0})
    rows = [[of.get(value, 0.0) for value in values] for of in rewards]
    joint = torch.tensor(rows, dtype=torch.float64) * torch.tensor(chances).double()[:, None]
    occur = joint.sum(0) > 0  # not, if only choices that are never drawn could get it
    return torch.tensor(values, dtype=torch.float64)[occur], joint[:, occur]


def _best_and_worst(mass: Tensor, n_samples: int) -> Tensor:
    """Computes how often the best of N rewards is x and the worst y < x, (V, V), from P(x), (V,).

    All N lie between y and x, both included, with probability (Σ mass)^N. From this subtract the
    cases without y and the cases without x; add the cases without both, subtracted twice.
    """
    up_to = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
    table = mass.new_zeros(len(mass), len(mass))

    def within(low: int, high: int) -> Tensor:
        return (up_to[high + 1] - up_to[low]).clamp(min=0) ** n_samples

    for y, x in itertools.combinations(range(len(mass)), 2):
        table[x, y] = within(y, x) - within(y + 1, x) - within(y, x - 1) + within(y + 1, x - 1)
    return table.clamp(min=0)  # of very rare rewards rounding may leave a little less than nothing


def bradley_terry(won: Tensor) -> Tensor:
    """Fits strengths s, at which Σ_ij W_ij · −log σ(s_i − s_j) is lowest: Bradley and Terry's.

    The minimum is finite exactly if a chain of wins leads from every choice to every other. If not,
    the choices that no chain from the rest reaches rise above the rest without end: they are fitted
    among themselves, and the rest gets −∞. The fit is that of M. Newman, "Efficient computation of
    rankings from pairwise comparisons", JMLR 24, 2023.

    Args:
        won: (K, K), none negative; the diagonal doesn't matter.

    Returns (K,) strengths in nats, float64; the first finite one is 0. Raises ValueError if two
    groups were never compared, or only through others who beat neither: then every ratio fits.
    Two wins for each loss give log 2:

    >>> bradley_terry(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    itself = torch.eye(len(won), dtype=torch.bool)
    reaches = (won > 0) | itself
    for middle in range(len(won)):  # chains that pass through one more choice
        reaches |= reaches[:, [middle]] & reaches[[middle]]
    top = reaches.all(1)  # these reach everybody; who doesn't can't come back up to them
    if not top.any():
        remedy = "a choice that is never sampled, or always ties, must be left out"
        but = f"but they leave two groups without a comparison; {remedy}"
        raise ValueError(f"the wins must lead from some choice to all others, {but}")
    # Only wins of one top choice over another decide their order.
    won = won.double().masked_fill(itself, 0.0)[top][:, top]
    fitted, rounds = won.new_zeros(len(won)), 10_000 if len(won) > 1 else 0
    for _ in range(rounds):  # a dozen do, unless the wins form one long chain
        before = fitted.clone()
        # Where the loss is lowest, for each i, the wins that the strengths don't expect are as many
        # as the losses that they don't. Raising s_i by the logarithm of their ratio leads there.
        for i in range(len(won)):
            unexpected_wins = won[i] @ torch.sigmoid(fitted - fitted[i])
            unexpected_losses = won[:, i] @ torch.sigmoid(fitted[i] - fitted)
            fitted[i] += (unexpected_wins / unexpected_losses).log()
        if (fitted - before).abs().max() < 1e-12:  # nats
            break
    strengths = torch.full((len(top),), -torch.inf, dtype=torch.float64)
    strengths[top] = fitted - fitted[0]  # only differences count
    return strengths


def simulate(
    rewards: Rewards,
    n_prompts: int,
    n_samples: int,
    generator: torch.Generator,
    sampled: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws choice_ids and their rewards, (P, N) each; arguments as in `optimum`, P `n_prompts`.

    >>> simulate([{0.5: 1.0}, {1.0: 1.0}], 1, 4, torch.Generator().manual_seed(0))
    (tensor([[1, 1, 0, 1]]), tensor([[1.0000, 1.0000, 0.5000, 1.0000]]))
    """
    values, joint = _joint(rewards, sampled)
    drawn = torch.multinomial(joint.flatten(), n_prompts * n_samples, True, generator=generator)
    drawn = drawn.view(n_prompts, n_samples)  # cells of the table (K, V)
    return drawn // len(values), values.float()[drawn % len(values)]
