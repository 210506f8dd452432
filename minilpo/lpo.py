"""Latent Preference Optimization on one page: `train_lpo` is the method, `fit` its gradient steps.

Eq. 9, which trains the words too, and the rules that LPO is compared with are in `rivals/`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minilpo import losses, training
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.config import LPOConfig
from minilpo.decoding import Choices, GreedyHead, Respond, SampledHead, respond
from minilpo.decoding.rollout import MarginalDecisions, marginal_decisions
from minilpo.lm.language_model import LanguageModel
from minilpo.preferences import PreferencePairs
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task


@torch_defaults()
def train_lpo(
    lm: LanguageModel,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    choices: Choices,
    config: LPOConfig,
    seed: int,
    state: training.TrainState | None = None,
    respond: Respond = respond,
) -> list[dict[str, Any]]:
    """Trains the head by Latent Preference Optimization, in place. The language model is frozen.

    Args:
        lm: the language model that writes the responses.
        tasks: they ask the prompts and reward the responses.
        head, choices: the head to train, and the K choices that it has a score for.
        config, seed: the settings, and the seed of all random numbers.
        state: of an interrupted training, which goes on as if it had not been interrupted.
        respond: writes and scores; `run.processes.respond` shares the work among processes.

    Returns the log, an entry per round. Raises ValueError if it can't begin, or diverges.
    """
    if config.rule != "lpo" or config.train_lm:
        raise ValueError(training.OTHER_LOOP)
    state = state or training.TrainState(head, config)
    rounds, held_out = training.draw_prompts(tasks, config, seed, lm)
    for n in range(len(state.log), len(rounds)):  # after the rounds that were finished before
        generator, chunks = torch_generator(seed, f"LPO round {n}"), []  # seed and n decide it
        policy = SampledHead(head, choices)  # draws a choice from P(τ | h), Eq. 5
        for prompts in training.split(rounds[n]):
            # 1. Rollout: N responses to each of P prompts, without gradients; rewards (P, N).
            rollout, rewards = respond(lm, prompts, policy, generator, n_samples=config.samples)
            # 2. Preferences: rewards say which responses are better. Keep only those in pairs.
            pairs = training.form_pairs(rollout, rewards, prompts, config, generator)
            rollout, pairs = training.drop_unpaired(rollout, pairs)
            chunks.append((rewards, rollout, pairs))
        rewards, rollout, pairs = training.join(chunks, may_be_empty=n > 0)
        # 3. Fit: make the choices behind the better responses more likely.
        if state.loss in ("eq11", "eq11_marginal") and len(pairs):
            # Eq. 11 sums over all choices: add log P(y_t | τ_k) of every token under each of them.
            rollout = replace(rollout, decisions=marginal_decisions(lm, rollout, choices))
        epochs = fit(head, rollout.decisions, pairs, state.optimizer, config, generator)
        # 4. Validate on held-out prompts, with the most likely choice (Eq. 4). The words are still
        # drawn, so each gets several responses, in every round by the same random numbers.
        greedy, noise = GreedyHead(head, choices), torch_generator(seed, "validation")
        _, validation = respond(lm, held_out, greedy, noise, n_samples=training.VALIDATION_SAMPLES)
        state.end_round(rounds[n], rewards, rollout, pairs, epochs, validation)
    state.restore(state.best)
    return state.log


@torch_defaults()
def fit(
    head: AdaptiveDecoder,
    decisions: Decisions,
    pairs: PreferencePairs,
    optimizer: torch.optim.Optimizer,
    config: LPOConfig,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Trains the head on pairs, `config.epochs` times over; returns a log entry per epoch."""
    log = []
    for _ in range(config.epochs if len(pairs) else 0):
        for batch in torch.randperm(len(pairs), generator=generator).split(config.pairs_per_batch):
            # A response may be in several pairs of the batch: the head reads it once.
            rows, batch_pairs = pairs.select(batch).compact()
            scores, _ = response_scores(head, decisions.rows(rows), config)
            optimizer.zero_grad()
            lpo_loss(scores, batch_pairs, config).mean().backward()
            optimizer.step()
        log.append(training.describe_fit(head, decisions, pairs, config, response_scores, lpo_loss))
    return log


def lpo_loss(scores: Tensor, pairs: PreferencePairs, config: LPOConfig) -> Tensor:
    """Computes each pair's loss, (B,), from R scores: Eq. 10 or 11 times its weight, or NLL."""
    chosen, rejected = scores[pairs.chosen], scores[pairs.rejected]  # (B,) each
    if config.pairs == "nll":  # the paper's baseline: imitate the better one of each pair
        return losses.nll_loss(chosen)
    return pairs.weights * losses.preference_loss(chosen, rejected, config.beta)


def response_scores(
    head: AdaptiveDecoder, decisions: Decisions, config: LPOConfig
) -> tuple[Tensor, Tensor]:
    """Scores R responses, (R,); also returns the choice logits at their n decisions, (n, K)."""
    packed = head(decisions.features)
    choice_logits = unpack(packed, decisions.mask)  # (R, S, K)
    reduce, uniform = config.reduce, config.reference == "uniform"
    if not isinstance(decisions, MarginalDecisions):  # Eq. 10
        ids, mask = decisions.choice_ids, decisions.mask
        return losses.choice_scores(choice_logits, ids, mask, reduce, uniform), packed
    tokens = decisions.choice_logprobs, decisions.token_mask
    if config.loss == "eq11_marginal":
        return losses.marginal_scores(choice_logits, *tokens, uniform), packed
    return losses.latent_scores(choice_logits, *tokens, reduce, uniform), packed  # Eq. 11
