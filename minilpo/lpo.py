"""Latent Preference Optimization on one page: `train_lpo` is the method, `fit` its gradient steps.

What is compared of two responses, any of `losses.SCORES`, goes with any of `preferences.RULES`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Choices
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import GreedyHead, SampledHead
from minilpo.decoding.rollout import Rollout, Scored, marginal_decisions, score
from minilpo.joint_score import JointScore
from minilpo.lm.language_model import LanguageModel
from minilpo.losses import SCORES
from minilpo.preferences import RULES, PreferencePairs
from minilpo.seeds import torch_generator
from minilpo.tasks import Task
from minilpo.training import (
    PROMPTS_AT_ONCE,
    VALIDATION_SAMPLES,
    Round,
    ScoreOfResponses,
    Training,
    Written,
    check_finite,
    describe_fit,
    held_out_prompts,
    round_prompts,
)


def train_lpo(
    lm: LanguageModel,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    choices: Choices,
    config: LPOConfig,
    seed: int,
    training: Training | None = None,
) -> list[dict[str, Any]]:
    """Trains the head by Latent Preference Optimization, in place.

    Args:
        lm: frozen, and only run to write; with `config.train_lm` (Eq. 9) trained in place too.
        tasks: drawn from equally often, on prompts of the train split.
        head: changed in place; of the heads after each round, the best on held-out prompts is kept.
        choices: what the head chooses among.
        config: rounds, samples, loss, pairs and the rest.
        seed: of the prompts, the sampling and the order of the pairs.
        training: from `training_of`: an interrupted one goes on, with the same result to the bit.

    Returns:
        The log, an entry per round: see `Training.end_round`.

    Raises:
        ValueError: if no prompt of a round gives a pair, or the training diverges (see `fit`).
    """
    config = config.resolved(head.level)
    training = training or training_of(lm, head, config)
    write = partial(generate, lm, progress=training.begin(len(tasks)))
    rule, held_out = RULES[config.pairs], held_out_prompts(tasks, config, seed)
    for n_done in range(len(training.log), config.rounds):
        name = f"LPO round {n_done}"
        generator = torch_generator(seed, name)
        written = Written(*round_prompts(tasks, config, seed, n_done))
        for i, (task_of, prompts) in enumerate(written.parts(PROMPTS_AT_ONCE)):
            # 1. Write: N responses per prompt, by choices drawn from the head (Eq. 5).
            policy, draws = SampledHead(head, choices), torch_generator(seed, f"{name} part {i}")
            rollout = write(prompts, policy, draws, n_samples=config.samples)
            # 2. Prefer: rewards say which responses are better. Those in no pair are forgotten.
            scored = Scored(rollout, task_of, score(rollout, task_of))
            written.keep(scored, rule.pairs(scored, config, draws))
        # 3. Fit: make the choices behind the better responses more likely (Eq. 9, 10 or 11).
        rollout, pairs = written.in_pairs()
        with training.timed("lpo"):
            examples = training.score.examples(lm, rollout, choices)
            epochs = fit(training.score, examples, pairs, training.optimizer, config, generator)
        # 4. Keep the best: rewards of held-out prompts, by the head's most likely choices (Eq. 4).
        greedy, draws = GreedyHead(head, choices), torch_generator(seed, "validation")
        checked = write(held_out[1], greedy, draws, n_samples=VALIDATION_SAMPLES)
        reward = score(checked, held_out[0]).mean().item()
        training.end_round(Round(written, rollout, pairs, examples, generator, epochs, reward))
    training.restore_best()
    return training.log


class HeadScore:
    """The score of responses that `config.loss` names. It trains the head alone."""

    def __init__(self, head: AdaptiveDecoder, config: LPOConfig):
        self.head, self.config = head, config.resolved(head.level)
        self.trained: dict[str, nn.Module] = {"head": head}

    def examples(self, lm: LanguageModel, rollout: Rollout, choices: Choices) -> Decisions:
        """What the score is made from: constants, so the transformer isn't run again to fit."""
        is_marginal = SCORES[self.config.loss].is_marginal
        return marginal_decisions(lm, rollout, choices) if is_marginal else rollout.decisions

    def __call__(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """The scores of R responses, (R,), and the choice logits behind them, (n, K)."""
        packed = self.head(decisions.features)
        choice_logits = unpack(packed, decisions.mask)  # (R, S, K)
        return SCORES[self.config.loss].of(choice_logits, decisions, self.config), packed


def fit(
    score: ScoreOfResponses,
    examples: Any,
    pairs: PreferencePairs,
    optimizer: torch.optim.Optimizer,
    config: LPOConfig,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """The LPO step, over and over: `config.epochs` passes over the pairs, in random order.

    Args:
        score: of responses; what it trains is changed in place.
        examples: what the score is made from, R responses: for a `HeadScore`, `Decisions`.
        pairs: rows of the examples.
        optimizer: of what the score trains.
        config: the rule, beta, the number of epochs and the rest.
        generator: draws the order of the pairs.

    Returns:
        A log, an entry per epoch: see `describe_fit`.

    Raises:
        ValueError: as soon as a loss or a weight isn't finite; it names the flags to change.
    """
    rule, epochs = RULES[config.pairs], []
    for epoch in range(config.epochs):
        for batch in torch.randperm(len(pairs), generator=generator).split(config.pairs_per_batch):
            chosen, _ = score(examples.rows(pairs.chosen[batch]))  # (B,)
            rejected, _ = score(examples.rows(pairs.rejected[batch]))
            loss = (pairs.weights[batch] * rule.loss(chosen, rejected, config.beta)).mean()
            check_finite([loss], "loss", epoch, config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epochs.append(describe_fit(score, examples, pairs, rule.loss, config))
        weights = [weight for part in score.trained.values() for weight in part.parameters()]
        numbers = torch.tensor(list(epochs[-1].values()))
        check_finite([*weights, numbers], "loss or weights", epoch, config)
    return epochs


def training_of(
    lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig, **more: Any
) -> Training:
    """A training at its beginning, with more that a `Training` takes."""
    score = JointScore(lm, head, config) if config.train_lm else HeadScore(head, config)
    return Training(score, config, **more)
