"""Learning from all responses and their rewards, without pairs: REINFORCE, GRPO, regression.

    reinforce   reinforce_loss    choices behind more reward than the prompt's mean become likelier
    grpo        grpo_loss         the same, in units of the prompt's spread, and never far at once
    regression  regression_loss   the head predicts the reward of each choice

All three aim at the mean reward. LPO doesn't: it fits which choice gave the better response. There
is no KL term, which would hold the head near its uniform start. From the second step on, another
head wrote the responses than the one that learns. Only GRPO corrects for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minilpo import losses, training
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.config import LPOConfig
from minilpo.decoding import Choices, GreedyHead, Respond, SampledHead, respond
from minilpo.decoding.rollout import marginal_decisions
from minilpo.lm.language_model import LanguageModel
from minilpo.lpo import response_scores
from minilpo.preferences import PreferencePairs, best_worst_pairs
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task


@dataclass(frozen=True)
class RewardGroups(PreferencePairs):
    """All N responses to each of P prompts; as pairs, for the log, the best and worst of each."""

    rows: Tensor  # (P, N) of the rollout
    rewards: Tensor  # (P, N)
    sampling_logprobs: Tensor  # (R, S) log P(τ_t | h_t) of the rollout's choices, constants


@torch_defaults()
def train_by_rewards(
    lm: LanguageModel,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    choices: Choices,
    config: LPOConfig,
    seed: int,
    state: training.TrainState | None = None,
    respond: Respond = respond,
) -> list[dict[str, Any]]:
    """Trains the head by `config.rule`, in place; all else as in `lpo.train_lpo`."""
    if config.rule == "lpo":
        raise ValueError("rule must be reinforce, grpo or regression, got lpo; call lpo.train_lpo")
    state = state or training.TrainState(head, config)
    rounds, held_out = training.draw_prompts(tasks, config, seed, lm)
    for n in range(len(state.log), config.rounds):
        generator, policy = torch_generator(seed, f"LPO round {n}"), SampledHead(head, choices)
        rollout, rewards = respond(lm, rounds[n], policy, generator, n_samples=config.samples)
        if config.loss in ("eq11", "eq11_marginal"):
            rollout = replace(rollout, decisions=marginal_decisions(lm, rollout, choices))
        # All responses count, by their rewards; the rest is as in LPO.
        groups = reward_groups(head, rollout.decisions, rewards, config, generator)
        if n == 0 and not len(groups):
            raise ValueError(training.NO_PAIRS)
        epochs = fit_rewards(head, rollout.decisions, groups, state.optimizer, config, generator)
        greedy, noise = GreedyHead(head, choices), torch_generator(seed, "validation")
        _, validation = respond(lm, held_out, greedy, noise, n_samples=training.VALIDATION_SAMPLES)
        state.end_round(rounds[n], rewards, rollout, groups, epochs, validation)
    state.restore(state.best)
    return state.log


@torch.no_grad()
def reward_groups(
    head: AdaptiveDecoder,
    decisions: Decisions,
    rewards: Tensor,
    config: LPOConfig,
    generator: torch.Generator,
) -> RewardGroups:
    """Makes the groups that `config.rule` learns from: rewards of all responses, (P, N)."""
    pairs = best_worst_pairs(rewards, generator)
    rows = torch.arange(rewards.numel()).view_as(rewards)
    if config.rule != "regression":  # where all got the same, the advantages of the others are 0
        differ = rewards.amax(1) > rewards.amin(1)
        rows, rewards = rows[differ], rewards[differ]
    # In parts, because all of them at once might not fit into memory.
    parts = [decisions.rows(part) for part in torch.arange(len(decisions)).split(256)]
    logprobs = torch.cat([of_drawn(head(part.features).log_softmax(-1), part) for part in parts])
    return RewardGroups(**vars(pairs), rows=rows, rewards=rewards, sampling_logprobs=logprobs)


@torch_defaults()
def fit_rewards(
    head: AdaptiveDecoder,
    decisions: Decisions,
    groups: RewardGroups,
    optimizer: torch.optim.Optimizer,
    config: LPOConfig,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Trains the head on groups, `config.pairs_per_batch` prompts a step; see `lpo.fit`."""

    def loss(*_: object) -> Tensor:
        return torch.cat([rule_losses(head, decisions, groups, b, config) for b in batches])

    log, P = [], len(groups.rows)
    batches = torch.arange(P).split(config.pairs_per_batch)
    for _ in range(config.epochs if len(groups) else 0):
        for batch in torch.randperm(P, generator=generator).split(config.pairs_per_batch):
            optimizer.zero_grad()
            rule_losses(head, decisions, groups, batch, config).mean().backward()
            optimizer.step()
        log.append(training.describe_fit(head, decisions, groups, config, response_scores, loss))
    return log


def rule_losses(
    head: AdaptiveDecoder,
    decisions: Decisions,
    groups: RewardGroups,
    batch: Tensor,
    config: LPOConfig,
) -> Tensor:
    """Computes the losses of `config.rule` for some groups, (B,): (B, N)."""
    rows, rewards = groups.rows[batch], groups.rewards[batch]  # (B, N) each
    chosen = decisions.rows(rows.flatten())
    scores, packed = response_scores(head, chosen, config)
    if config.rule == "reinforce":
        return reinforce_loss(scores.view_as(rewards), rewards)
    if config.rule == "grpo":
        before = groups.sampling_logprobs[rows]  # (B, N, S)
        now = of_drawn(packed.log_softmax(-1), chosen).view_as(before)
        return grpo_loss(now, before, chosen.mask.view_as(before), rewards, config.clip)
    sums = losses.over_steps(of_drawn(packed, chosen), chosen.mask, "sum")  # (B * N,)
    return regression_loss(sums.view_as(rewards), rewards)


def of_drawn(values: Tensor, decisions: Decisions) -> Tensor:
    """Picks the drawn choices' values, (R, S), from those of all decisions, (n, K)."""
    return losses.of_choices(unpack(values, decisions.mask), decisions.choice_ids)


def reinforce_loss(scores: Tensor, rewards: Tensor) -> Tensor:
    """Computes REINFORCE with the prompt's mean as baseline: −(r_i − mean_j r_j) · score_i.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning", Machine Learning 8, 1992.

    Args:
        scores: (P, N) log-probabilities of each response's choices, in nats: a sum over decisions.
        rewards: (P, N).

    Returns (P, N) losses, not reduced. Raises ValueError if the shapes aren't (P, N).
    Of two responses that are equally likely, one got 1 and one got 0:

    >>> reinforce_loss(torch.tensor([[-2.0, -2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[ 1., -1.]])
    """
    _check(rewards, scores=scores)
    advantages = rewards - rewards.mean(1, keepdim=True)
    return -advantages * scores


def grpo_loss(
    logprobs: Tensor, sampling_logprobs: Tensor, decision_mask: Tensor, rewards: Tensor, clip: float
) -> Tensor:
    """Computes the losses of GRPO: −mean_t min(ρ_t A, clamp(ρ_t, 1 − ε, 1 + ε) A).

    ρ_t = P(τ_t|h_t) / P_sampling(τ_t|h_t). A = (r_i − mean_j r_j) / (std_j r_j + 0.0001), the same
    for all decisions of a response. Shao et al., "DeepSeekMath", arXiv 2402.03300, Eq. 3, without
    its KL term. A ratio too far in the direction of the advantage has no gradient.

    Args:
        logprobs: (P, N, S) of each choice that was drawn, in nats.
        sampling_logprobs: (P, N, S) the same of the head that drew them, constants.
        decision_mask: (P, N, S) True where a decision was made.
        rewards: (P, N).
        clip: ε, above 0.

    Returns (P, N) losses, not reduced. Raises ValueError if shapes don't fit, or ε isn't above 0.
    Both became 1.5 times as likely. For the better response 1.2 counts, for the worse one 1.5:

    >>> logprobs = torch.tensor([[[0.6], [0.6]]]).log()
    >>> before, mask = torch.tensor([[[0.4], [0.4]]]).log(), torch.tensor([[[True], [True]]])
    >>> grpo_loss(logprobs, before, mask, torch.tensor([[1.0, 0.0]]), clip=0.2)
    tensor([[-1.1998,  1.4997]])
    """
    _check(rewards, logprobs=logprobs, sampling_logprobs=sampling_logprobs, mask=decision_mask)
    if not clip > 0:
        raise ValueError(f"clip must be above 0, got {clip}; 0.2 is usual")
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, correction=0, keepdim=True)  # may be 0
    advantages = (centred / (spread + 1e-4))[..., None]  # (P, N, 1)
    ratio = (logprobs - sampling_logprobs).exp()  # (P, N, S)
    gains = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -losses.over_steps(gains, decision_mask, "mean")


def regression_loss(scores: Tensor, rewards: Tensor) -> Tensor:
    """Computes the squared error of the predicted reward: (σ(score_i) − r_i)².

    The score of a response is Σ_t z_t: each choice adds its logit to the log-odds of the reward. At
    sequence level σ(z_k) becomes the mean reward p_k of choice k. For rewards 0 and 1 the next
    round then draws k in proportion to p_k / (1 − p_k), as with LPO's Eq. 10 and beta 1.

    Args:
        scores: (P, N) sums of logits (not of log-probabilities).
        rewards: (P, N) from 0 to 1.

    Returns (P, N) losses, not reduced. Raises ValueError if the shapes aren't (P, N).
    A score of 0 predicts 0.5:

    >>> regression_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 1.0]]))
    tensor([[0.0000, 0.2500]])
    """
    _check(rewards, scores=scores)
    return (scores.sigmoid() - rewards) ** 2


def _check(rewards: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if rewards.ndim != 2 or tensor.shape[:2] != rewards.shape:
            got = f"got {tuple(rewards.shape)} and {tuple(tensor.shape)}"
            required = f"rewards must have shape (P, N) and {name} must begin with it"
            raise ValueError(f"{required}, {got}; pass all responses to a prompt")
