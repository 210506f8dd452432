"""Latent Preference Optimization on one page: `train_lpo` is the method, `fit` its gradient steps.

What is compared of two responses, any of `losses.SCORES`, goes with any of `preferences.RULES`.
Other rules than LPO, for comparison, are in `reward_losses`: they see the rewards of all responses.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Choices
from minilpo.decoding.generate import generate, prepared
from minilpo.decoding.policies import GreedyHead, SampledHead
from minilpo.decoding.rollout import Rollout, Scored, marginal_decisions, score
from minilpo.evaluation.measure import Prompts, measure_policy
from minilpo.joint_score import JointScore
from minilpo.lm.language_model import LanguageModel
from minilpo.losses import SCORES
from minilpo.machine import processes
from minilpo.preferences import RULES, Comparisons, Judged, LearningRule, PreferencePairs, Said
from minilpo.reward_losses import RULES as REWARD_RULES
from minilpo.reward_losses import sampled_decisions
from minilpo.seeds import torch_generator
from minilpo.tasks import Task
from minilpo.training import (
    PROMPTS_AT_ONCE,
    VALIDATION_SAMPLES,
    Round,
    ScoreOfResponses,
    Training,
    Written,
    all_prompts,
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
        ValueError: if no prompt of the first round gives a pair, one in any round is too long, or
            the training diverges (see `fit`). A later round without a pair changes nothing.
    """
    config = config.resolved(head.level)
    training = training or training_of(lm, head, config)
    # No prompt to which nothing can be written ends a training that is half done.
    prepared(lm, all_prompts(tasks, config, seed, len(training.log)))
    advance = training.begin(len(tasks))
    write = partial(generate, lm, progress=processes.for_all(advance))
    rule, held_out = LEARNING_RULES[config.rule], Prompts(*held_out_prompts(tasks, config, seed))
    for n_done in range(len(training.log), config.rounds):
        name = f"LPO round {n_done}"
        generator = torch_generator(seed, name)
        written = Written(*round_prompts(tasks, config, seed, n_done))
        # Several processes share the parts, so nothing may depend on which part came before.
        for i, task_of, prompts in processes.share(written.parts(PROMPTS_AT_ONCE)):
            # 1. Write: N responses per prompt, by choices drawn from the head (Eq. 5).
            policy, draws = SampledHead(head, choices), torch_generator(seed, f"{name} part {i}")
            rollout = write(prompts, policy, draws, n_samples=config.samples)
            # 2. Prefer: rewards say which responses are better. Those in no pair are forgotten.
            scored = Scored(rollout, task_of, score(rollout, task_of))
            written.keep(scored, rule.compare(scored, config, draws))
        written.gather()
        # 3. Fit: make the choices behind the better responses more likely (Eq. 9, 10 or 11).
        rollout, compared = written.in_comparisons(may_be_none=n_done > 0)
        examples, optimizer, epochs = None, training.optimizer, []
        if len(compared.pairs):
            with training.timed("lpo"):
                examples = training.score.examples(lm, rollout, choices)
                epochs = fit(training.score, examples, compared, optimizer, config, generator)
        # 4. Keep the best: rewards of held-out prompts, by the head's most likely choices (Eq. 4).
        greedy, draws = GreedyHead(head, choices), torch_generator(seed, "validation")
        checked = measure_policy(lm, held_out, greedy, draws, advance, VALIDATION_SAMPLES)
        reward = float(checked[1].mean())
        training.end_round(Round(written, rollout, compared, examples, generator, epochs, reward))
    training.restore_best()
    return training.log


class HeadScore:
    """The score of responses that `config.loss` names. It trains the head alone."""

    def __init__(self, head: AdaptiveDecoder, config: LPOConfig):
        self.head, self.config = head, config.resolved(head.level)
        self.trained: dict[str, nn.Module] = {"head": head}

    def examples(self, lm: LanguageModel, rollout: Rollout, choices: Choices) -> Decisions:
        """What the score is made from: constants, so the transformer isn't run again to fit."""
        if SCORES[self.config.loss].is_marginal:
            return marginal_decisions(lm, rollout, choices)
        if LEARNING_RULES[self.config.rule].needs_sampling_logprobs:
            return sampled_decisions(self.head, rollout.decisions)
        return rollout.decisions

    def __call__(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """The scores of R responses, (R,), and the choice logits behind them, (n, K)."""
        packed = self.head(decisions.features)
        choice_logits = unpack(packed, decisions.mask)  # (R, S, K)
        return SCORES[self.config.loss].of(choice_logits, decisions, self.config), packed


def lpo_pairs(judged: Judged, config: LPOConfig, generator: torch.Generator) -> Comparisons:
    """The pairs that `config.pairs` names."""
    return RULES[config.pairs].pairs(judged, config, generator)


def lpo_losses(said: Said, pairs: PreferencePairs, config: LPOConfig) -> Tensor:
    """−log σ(β · (score_c − score_r)) of each pair, or what `config.pairs` has for it, (B,)."""
    chosen, rejected = said.scores[pairs.chosen], said.scores[pairs.rejected]  # (B,) each
    return pairs.weights * RULES[config.pairs].loss(chosen, rejected, config.beta)


# By the names of `LPOConfig.rule`.
LEARNING_RULES = {"lpo": LearningRule(lpo_pairs, lpo_losses), **REWARD_RULES}


def fit(
    score: ScoreOfResponses,
    examples: Any,
    compared: Comparisons,
    optimizer: torch.optim.Optimizer,
    config: LPOConfig,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """The step of LPO, over and over: `config.epochs` passes over the pairs, in random order.

    Args:
        score: of responses; what it trains is changed in place.
        examples: what the score is made from, R responses: for a `HeadScore`, `Decisions`.
        compared: pairs, or what else the rule learns from, as rows of the examples.
        optimizer: of what the score trains.
        config: the rule, beta, the number of epochs and the rest.
        generator: draws the order of the pairs.

    Returns:
        A log, an entry per epoch: see `describe_fit`.

    Raises:
        ValueError: as soon as a loss or a weight isn't finite; it names the flags to change.
    """
    rule, epochs = LEARNING_RULES[config.rule], []
    for epoch in range(config.epochs):
        order = torch.randperm(len(compared), generator=generator)
        for batch in order.split(config.pairs_per_batch):
            # The head is read once for each of the responses, and `some` says who is who.
            rows, some = compared.some(batch).used()
            made_from = examples.rows(rows)
            loss = rule.losses(Said(*score(made_from), made_from), some, config).mean()
            check_finite([loss], "loss", epoch, config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epochs.append(describe_fit(score, examples, compared, rule, config))
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
