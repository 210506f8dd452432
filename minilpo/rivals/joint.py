"""Eq. 9 trains the language model too: words and temperatures are one sequence of tokens.

A response's words are read again in every gradient step, by the model that learns and by a frozen
copy of it, the reference.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, unpack
from minilpo.config import EvaluationConfig, LPOConfig
from minilpo.decoding import Choices, GreedyHead, Respond, Rollout, SampledHead, respond
from minilpo.decoding.rollout import forward_rollout
from minilpo.evaluation.measure import measure_policy, prompts_to_measure
from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.lm.language_model import GPTLanguageModel, LanguageModel
from minilpo.losses import choice_scores, over_steps
from minilpo.lpo import lpo_loss
from minilpo.preferences import PreferencePairs
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task
from minilpo.training import (
    VALIDATION_SAMPLES,
    TrainState,
    describe_fit,
    draw_prompts,
    drop_unpaired,
    form_pairs,
    join,
    split,
)


class JointState(TrainState):
    """A `TrainState` of head and language model, with the frozen copy that is the reference.

    Args:
        lm: ours, since its weights are trained; copied before they change.
        head, config: as in `TrainState`.

    Raises:
        ValueError: if the language model isn't ours.
    """

    def __init__(self, lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig):
        if not isinstance(lm, GPTLanguageModel):
            raise ValueError(
                f"--train-lm must have a GPTLanguageModel to train, got {type(lm).__name__}; "
                "train the head alone"
            )
        frozen = copy.deepcopy(lm.model).requires_grad_(False)
        self.lm, self.reference = lm, GPTLanguageModel(frozen, lm.tokenizer)
        super().__init__(head, config, lm.model.requires_grad_(True))


@torch_defaults()
def train_joint(
    lm: LanguageModel,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    choices: Choices,
    config: LPOConfig,
    seed: int,
    state: JointState | None = None,
    respond: Respond = respond,
) -> list[dict[str, Any]]:
    """Trains head and language model by Eq. 9, in place; all else as in `train_lpo`."""
    state = state or JointState(lm, head, config)
    rounds, held_out = draw_prompts(tasks, config, seed, lm)
    for n in range(len(state.log), config.rounds):
        generator, chunks = torch_generator(seed, f"LPO round {n}"), []
        policy = SampledHead(head, choices)
        for prompts in split(rounds[n]):
            rollout, rewards = respond(lm, prompts, policy, generator, n_samples=config.samples)
            pairs = form_pairs(rollout, rewards, prompts, config, generator)
            rollout, pairs = drop_unpaired(rollout, pairs)
            chunks.append((rewards, rollout, pairs))
        rewards, rollout, pairs = join(chunks, may_be_empty=n > 0)
        epochs = fit_joint(state, head, rollout, pairs, config, generator)
        greedy, draws = GreedyHead(head, choices), torch_generator(seed, "validation")
        _, validation = respond(lm, held_out, greedy, draws, n_samples=VALIDATION_SAMPLES)
        state.end_round(rounds[n], rewards, rollout, pairs, epochs, validation)
    state.restore(state.best)
    return state.log


def words_and_head(
    lm: LanguageModel,
    tasks: Sequence[Task],
    policy: GreedyHead,
    config: EvaluationConfig,
    seed: int,
    mean: Mapping[str, Any],
    respond: Respond = respond,
) -> dict[str, float]:
    """Measures the parts of Eq. 9: mean test rewards of the head alone, the words alone, and both.

    Args:
        lm: as it was before the training. With it, the head stands alone, as under Eq. 10.
        tasks, policy, config, seed, respond: as in `evaluate`.
        mean: of the numbers of `evaluate` with the trained language model. At its best constant
            the words stand alone.
    """
    prompts = prompts_to_measure(tasks, "test", config, seed)
    generator, N = torch_generator(seed, "evaluation of the head alone"), config.samples_per_prompt
    _, rewards = measure_policy(lm, prompts, policy, generator, N, respond)
    head_alone = float(mean_over_tasks(rewards.mean(1), prompts.names))
    words_alone, both = mean["best_fixed"]["reward"], mean["adaptive"]
    return {"head_alone": head_alone, "words_alone": words_alone, "both": both}


def fit_joint(
    state: JointState,
    head: AdaptiveDecoder,
    rollout: Rollout,
    pairs: PreferencePairs,
    config: LPOConfig,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Trains head and language model on pairs; all else as in `lpo.fit`."""
    score, log = partial(response_scores, state), []
    for _ in range(config.epochs if len(pairs) else 0):
        for batch in torch.randperm(len(pairs), generator=generator).split(config.pairs_per_batch):
            rows, batch_pairs = pairs.select(batch).compact()
            scores, _ = score(head, rollout.rows(rows), config)
            state.optimizer.zero_grad()
            lpo_loss(scores, batch_pairs, config).mean().backward()
            state.optimizer.step()
        log.append(describe_fit(head, rollout, pairs, config, score, lpo_loss))
    return log


def response_scores(
    state: JointState, head: AdaptiveDecoder, rollout: Rollout, config: LPOConfig
) -> tuple[Tensor, Tensor]:
    """Scores R responses, (R,); also returns the choice logits at their n decisions, (n, K)."""
    decisions, mask = rollout.decisions, rollout.response_mask
    hidden_states, logprobs = _forward(state.lm, rollout)
    with torch.no_grad():
        _, ref_logprobs = _forward(state.reference, rollout)
    # The head reads the state before each token that has a decision: the first, or all.
    is_decision = torch.zeros_like(mask)
    is_decision[:, : decisions.mask.shape[1]] = decisions.mask
    packed = head(hidden_states[is_decision[mask]])  # (n, K)
    reduce, uniform = config.reduce, config.reference == "uniform"
    chosen = unpack(packed, decisions.mask), decisions.choice_ids, decisions.mask
    choices = choice_scores(*chosen, reduce, uniform)
    return joint_scores(logprobs, ref_logprobs, mask, choices, reduce=reduce), packed


def _forward(lm: LanguageModel, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Computes hidden states before each response token, (n, C), and token logprobs, (R, T)."""
    hidden_states, logits = forward_rollout(lm, rollout)
    token_ids = rollout.token_ids[rollout.response_mask].long().to(logits.device)
    logprobs = logits.log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]  # (n,)
    return hidden_states.cpu(), unpack(logprobs.cpu(), rollout.response_mask)


def joint_scores(
    token_logprobs: Tensor,
    ref_token_logprobs: Tensor,
    response_mask: Tensor,
    choice_scores: Tensor,
    *,
    reduce: str = "sum",
) -> Tensor:
    """Scores words and temperatures as one sequence: log P(y) − log P_ref(y) + log P(τ).

    The score of arXiv 2411.09661, Eq. 9. It can train the language model too, with a frozen copy of
    it as the reference. If the language model is frozen, the words' terms cancel and Eq. 9 is Eq.
    10.

    Args:
        token_logprobs: (B, T) log-probabilities of the response's tokens, in nats, at temperature 1
            (at the one that wrote them they would have no gradient where it was 0).
        ref_token_logprobs: (B, T) the same from the frozen copy.
        response_mask: (B, T) True at the response's tokens.
        choice_scores: (B,) from `losses.choice_scores`.
        reduce: "sum" or "mean" over the words; give `choice_scores` the same.

    Returns:
        (B,) in nats.

    Raises:
        ValueError: if the shapes don't fit together, or for another `reduce`.

    A word that has become twice as likely as it was, and a temperature of probability 1 / 2, make
    up for each other:

    >>> import torch
    >>> words, mask = torch.tensor([[0.4]]).log(), torch.tensor([[True]])
    >>> ref_words, choice = torch.tensor([[0.2]]).log(), torch.tensor([0.5]).log()
    >>> joint_scores(words, ref_words, mask, choice).abs() < 1e-6
    tensor([True])
    """
    if (
        token_logprobs.shape != response_mask.shape
        or ref_token_logprobs.shape != response_mask.shape
    ):
        raise ValueError(
            "token_logprobs and ref_token_logprobs must have shape "
            f"(B, T) = {tuple(response_mask.shape)}, got {tuple(token_logprobs.shape)} and "
            f"{tuple(ref_token_logprobs.shape)}; pass one number per token of the response"
        )
    if choice_scores.shape != response_mask.shape[:1]:
        raise ValueError(
            f"choice_scores must have shape (B,) = {tuple(response_mask.shape[:1])}, "
            f"got {tuple(choice_scores.shape)}; pass one score per response"
        )
    return over_steps(token_logprobs - ref_token_logprobs, response_mask, reduce) + choice_scores
