"""The losses of LPO, pure functions of tensors: one preference form, and the scores for it.

    Eq. 10  preference_loss of choice_scores   the choices that were drawn, as if they were tokens
    Eq. 11  preference_loss of latent_scores   the choices that could have been drawn, summed over
    NLL     nll_loss of choice_scores          the baseline: imitate the better, ignore the worse
    Eq. 9   see `rivals/joint.py`              trains the language model too

The paper leaves open two parameters: `reduce` adds a score up over the steps of a response
("sum", a log-probability) or takes the mean ("mean", so that long responses don't weigh more).
`uniform_reference` compares the head with one that gives every choice the probability 1 / K, as DPO
compares a model with its state before training. With "mean" the reference of Eq. 10 cancels; with
"sum" it adds (n_c − n_r) log K to the margin of two responses of n_c and n_r steps.
"""

import math

import torch
from torch import Tensor


def preference_loss(chosen_scores: Tensor, rejected_scores: Tensor, beta: float) -> Tensor:
    """Computes the loss of preferring one response over another: −log σ(β · (score_c − score_r)).

    The form of arXiv 2411.09661, Eq. 9, 10 and 11, which differ in the score alone.

    Args:
        chosen_scores: (B,) scores of the better responses, in nats.
        rejected_scores: (B,) scores of the worse responses, in nats.
        beta: strength of the preference, above 0; the paper doesn't state its value.

    Returns (B,) losses, not reduced. Raises ValueError if the shapes differ or beta isn't above 0.

    Two equal scores give log 2:

    >>> preference_loss(torch.tensor([-1.0]), torch.tensor([-1.0]), beta=0.5)
    tensor([0.6931])
    """
    if chosen_scores.shape != rejected_scores.shape or chosen_scores.ndim != 1:
        got = f"got {tuple(chosen_scores.shape)} and {tuple(rejected_scores.shape)}"
        raise ValueError(f"both scores must have shape (B,), one per response, {got}")
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}; 1 is the default of the training")
    margin = chosen_scores - rejected_scores  # (B,)
    # logsigmoid, not log(sigmoid): far from 0 the latter would be log(0).
    return -torch.nn.functional.logsigmoid(beta * margin)


def nll_loss(chosen_scores: Tensor) -> Tensor:
    """Computes the paper's baseline: −score_c, the negative log-likelihood. score_r plays no part.

    Args:
        chosen_scores: (B,) scores of the better responses, from `choice_scores`, in nats.

    Returns (B,) losses, not reduced.

    >>> nll_loss(torch.tensor([-1.5]))
    tensor([1.5000])
    """
    return -chosen_scores


def choice_scores(
    choice_logits: Tensor,
    choice_ids: Tensor,
    decision_mask: Tensor,
    reduce: str = "sum",
    uniform_reference: bool = False,
) -> Tensor:
    """Computes the log-probability of the drawn choices: log P(τ) = Σ_t log P(τ_t | h_t).

    The score of arXiv 2411.09661, Eq. 10: temperatures as tokens, apart from the words.

    Args:
        choice_logits: (B, S, K) of the head at each of S decisions (S = 1 at sequence level).
        choice_ids: (B, S) the temperatures that were drawn.
        decision_mask: (B, S) True where a decision was made.
        reduce: "sum" or "mean" over the decisions.
        uniform_reference: subtract the score of a uniform head, −log K per decision.

    Returns (B,) in nats. Raises ValueError if shapes don't fit together, or for another `reduce`.

    A uniform head gives -log K for each decision:

    >>> choice_ids, mask = torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]])
    >>> choice_scores(torch.zeros(1, 3, 2), choice_ids, mask)
    tensor([-1.3863])
    """
    if choice_ids.shape != choice_logits.shape[:-1] or decision_mask.shape != choice_ids.shape:
        got = f"got {tuple(choice_ids.shape)} and {tuple(decision_mask.shape)}"
        shape = f"(B, S) = {tuple(choice_logits.shape[:-1])}, as in the Decisions, {got}"
        raise ValueError(f"choice_ids and decision_mask must have shape {shape}")
    # Only the drawn choice counts. If its probability rises, the others' fall.
    logprobs = of_choices(choice_logits.log_softmax(-1), choice_ids)  # (B, S)
    if uniform_reference:
        logprobs = logprobs + math.log(choice_logits.shape[-1])
    return over_steps(logprobs, decision_mask, reduce)


def latent_scores(
    choice_logits: Tensor,
    choice_logprobs: Tensor,
    response_mask: Tensor,
    reduce: str = "sum",
    uniform_reference: bool = True,
) -> Tensor:
    """Sums over all temperatures that could have written each token.

    Σ_t [ log Σ_k P(y_t|τ_k) P(τ_k|h_t) − log Σ_k P_ref(y_t|τ_k) P_ref(τ_k) ].

    The score of arXiv 2411.09661, Eq. 11, as printed: a product over tokens of mixtures over
    temperatures. At token level this is the exact probability of the response. At sequence level it
    isn't, since there one temperature writes all tokens; the exact one, a mixture of products, is
    `marginal_scores`. With a frozen language model, P_ref(y_t|τ_k) is P(y_t|τ_k).

    Args:
        choice_logits: (B, S, K) with S = T, or S = 1 at sequence level (the same for every token).
        choice_logprobs: (B, T, K) log P(y_t | τ_k), from `decoding.rollout.marginal_decisions`.
        response_mask: (B, T) True at the response's tokens.
        reduce: "sum" or "mean" over the tokens.
        uniform_reference: subtract the score of a uniform head, as printed.

    Returns (B,) in nats. Raises ValueError if shapes don't fit together, or for another `reduce`.

    One token that is impossible at the first temperature and has probability 0.5 at the second,
    seen by a uniform head:

    >>> logprobs = torch.tensor([[[-20.0, -0.6931]]])
    >>> logits, mask = torch.zeros(1, 1, 2), torch.tensor([[True]])
    >>> latent_scores(logits, logprobs, mask, uniform_reference=False).exp()
    tensor([0.2500])
    """
    _check_latent(choice_logits, choice_logprobs, response_mask)
    # log Σ_k exp(log P(y_t|τ_k) + log P(τ_k|h_t)), token by token.
    scores = (choice_logprobs + choice_logits.log_softmax(-1)).logsumexp(-1)  # (B, T)
    if uniform_reference:
        scores = scores - (choice_logprobs.logsumexp(-1) - math.log(choice_logprobs.shape[-1]))
    return over_steps(scores, response_mask, reduce)


def marginal_scores(
    choice_logits: Tensor,
    choice_logprobs: Tensor,
    response_mask: Tensor,
    uniform_reference: bool = True,
) -> Tensor:
    """Computes Eq. 11 for one temperature per response, exactly.

    log Σ_k P(τ_k|h) Π_t P(y_t|τ_k) − log Σ_k P_ref(τ_k) Π_t P_ref(y_t|τ_k).

    A mixture of products; arXiv 2411.09661 prints a product of mixtures, see `latent_scores`.

    Args:
        choice_logits: (B, 1, K).
        choice_logprobs: (B, T, K) log P(y_t | τ_k), from `decoding.rollout.marginal_decisions`.
        response_mask: (B, T) True at the response's tokens.
        uniform_reference: subtract the score of a uniform head.

    Returns (B,) in nats. Raises ValueError if the shapes don't fit together.

    Two tokens, both likely (0.8) at one temperature and unlikely (0.2) at the other: (0.8² + 0.2²)
    / 2. The product of mixtures would be 0.5² instead.

    >>> logprobs = torch.tensor([[[0.8, 0.2], [0.8, 0.2]]]).log()
    >>> logits, mask = torch.zeros(1, 1, 2), torch.tensor([[True, True]])
    >>> marginal_scores(logits, logprobs, mask, uniform_reference=False).exp()
    tensor([0.3400])
    """
    _check_latent(choice_logits, choice_logprobs, response_mask)
    if choice_logits.shape[1] != 1:
        raise ValueError(
            f"choice_logits must have shape (B, 1, K), got {tuple(choice_logits.shape)}; "
            "marginal_scores is for one temperature per response, latent_scores for one per token"
        )
    # First the product over tokens, for each choice, and only then the sum over choices.
    response_logprobs = choice_logprobs.masked_fill(~response_mask[..., None], 0.0).sum(1)  # (B, K)
    scores = (response_logprobs + choice_logits[:, 0].log_softmax(-1)).logsumexp(-1)  # (B,)
    if uniform_reference:
        scores = scores - (response_logprobs.logsumexp(-1) - math.log(choice_logprobs.shape[-1]))
    return scores


def of_choices(values: Tensor, choice_ids: Tensor) -> Tensor:
    """Picks the drawn choice's value: values per choice, (..., K), to (...).

    >>> of_choices(torch.tensor([[5, 6], [7, 8]]), torch.tensor([1, 0]))
    tensor([6, 7])
    """
    return values.gather(-1, choice_ids[..., None])[..., 0]


def _check_latent(choice_logits: Tensor, choice_logprobs: Tensor, response_mask: Tensor) -> None:
    B, T, K = choice_logprobs.shape if choice_logprobs.ndim == 3 else (-1, -1, -1)
    if response_mask.shape != (B, T) or choice_logits.shape not in ((B, T, K), (B, 1, K)):
        raise ValueError(
            "choice_logprobs must have shape (B, T, K), response_mask (B, T) and choice_logits "
            f"(B, T, K) or (B, 1, K), got {tuple(choice_logprobs.shape)}, "
            f"{tuple(response_mask.shape)} and {tuple(choice_logits.shape)}; "
            "pass those stored in the MarginalDecisions"
        )


def over_steps(scores: Tensor, mask: Tensor, reduce: str) -> Tensor:
    """Reduces scores, (B, S) to (B,): the sum or mean where the mask is True."""
    # Values outside the mask may be anything, even NaN. NaN times 0 is NaN, so replace them.
    total = scores.masked_fill(~mask, 0.0).sum(-1)
    if reduce == "sum":
        return total
    if reduce == "mean":
        return total / mask.sum(-1).clamp(min=1)
    raise ValueError(f"reduce must be 'sum' or 'mean', got {reduce!r}")
