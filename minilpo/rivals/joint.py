"""Eq. 9 trains the language model too: words and temperatures are one sequence of tokens."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minilpo import losses, training
from minilpo.adaptive_decoder import AdaptiveDecoder, unpack
from minilpo.config import EvaluationConfig, LPOConfig
from minilpo.decoding import Choices, GreedyHead, Respond, Rollout, SampledHead, respond
from minilpo.decoding.rollout import forward_rollout
from minilpo.evaluation.measure import measure_policy, prompts_to_measure
from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.lm.language_model import GPTLanguageModel, LanguageModel
from minilpo.lpo import lpo_loss
from minilpo.preferences import PreferencePairs
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task


class JointState(training.TrainState):
    """A `TrainState` of head and language model (ours, else ValueError), and its frozen copy."""

    def __init__(self, lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig):
        if not isinstance(lm, GPTLanguageModel):
            got = f"got {type(lm).__name__}; train the head alone"
            raise ValueError(f"--train-lm must have a GPTLanguageModel to train, {got}")
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
    """Trains head and language model by Eq. 9, in place; all else as in `lpo.train_lpo`."""
    state = state or JointState(lm, head, config)
    rounds, held_out = training.draw_prompts(tasks, config, seed, lm)
    for n in range(len(state.log), config.rounds):
        generator, chunks = torch_generator(seed, f"LPO round {n}"), []
        policy = SampledHead(head, choices)
        for prompts in training.split(rounds[n]):
            rollout, rewards = respond(lm, prompts, policy, generator, n_samples=config.samples)
            pairs = training.form_pairs(rollout, rewards, prompts, config, generator)
            chunks.append((rewards, *training.drop_unpaired(rollout, pairs)))
        rewards, rollout, pairs = training.join(chunks, may_be_empty=n > 0)
        epochs = fit_joint(state, head, rollout, pairs, config, generator)
        greedy, noise = GreedyHead(head, choices), torch_generator(seed, "validation")
        _, validation = respond(lm, held_out, greedy, noise, n_samples=training.VALIDATION_SAMPLES)
        state.end_round(rounds[n], rewards, rollout, pairs, epochs, validation)
    state.restore(state.best)
    return state.log


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
        log.append(training.describe_fit(head, rollout, pairs, config, score, lpo_loss))
    return log


def response_scores(
    state: JointState, head: AdaptiveDecoder, rollout: Rollout, config: LPOConfig
) -> tuple[Tensor, Tensor]:
    """Scores R responses, (R,); also returns the choice logits at their n decisions, (n, K)."""
    made, mask = rollout.decisions, rollout.response_mask
    # The words are read again, by the model that learns and by its frozen copy.
    hidden_states, logprobs = _forward(state.lm, rollout)
    _, ref_logprobs = _forward(state.reference, rollout)
    # The head reads the state before each token that has a decision: the first, or all.
    states = unpack(hidden_states, mask)[:, : made.mask.shape[1]]  # (R, S, C)
    packed = head(states[made.mask])  # (n, K)
    choice_logits = unpack(packed, made.mask)  # (R, S, K)
    reduce, uniform = config.reduce, config.reference == "uniform"
    choices = losses.choice_scores(choice_logits, made.choice_ids, made.mask, reduce, uniform)
    return joint_scores(logprobs, ref_logprobs, mask, choices, reduce=reduce), packed


def _forward(lm: LanguageModel, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Computes hidden states before each response token, (n, C), and token logprobs, (R, T)."""
    hidden_states, logits = forward_rollout(lm, rollout)
    token_ids = rollout.token_ids[rollout.response_mask].long().to(logits.device)
    logprobs = losses.of_choices(logits.log_softmax(-1), token_ids)  # (n,)
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

    The score of arXiv 2411.09661, Eq. 9. With a frozen language model it is that of Eq. 10.

    Args:
        token_logprobs: (B, T) log-probabilities of the response, in nats, at temperature 1.
        ref_token_logprobs: (B, T) the same from the frozen copy.
        response_mask: (B, T) True at the response's tokens.
        choice_scores: (B,) from `losses.choice_scores`.
        reduce: "sum" or "mean" over the words; give `choice_scores` the same.

    Returns (B,) in nats. Raises ValueError if shapes don't fit together, or for another `reduce`.
    A word that became twice as likely and a temperature of probability 1 / 2 cancel out:

    >>> words, mask = torch.tensor([[0.4]]).log(), torch.tensor([[True]])
    >>> ref_words, choice = torch.tensor([[0.2]]).log(), torch.tensor([0.5]).log()
    >>> joint_scores(words, ref_words, mask, choice).abs() < 1e-6
    tensor([True])
    """
    shapes = [(*x.shape,) for x in (token_logprobs, ref_token_logprobs, choice_scores)]
    B_T = (*response_mask.shape,)
    if shapes != [B_T, B_T, B_T[:1]]:
        required = f"token_logprobs, ref_token_logprobs (B, T) = {B_T}, and choice_scores (B,)"
        remedy = "pass one number per token, and one score per response"
        raise ValueError(f"shapes must be {required}, got {shapes}; {remedy}")
    words = losses.over_steps(token_logprobs - ref_token_logprobs, response_mask, reduce)
    return words + choice_scores


def words_and_head(
    lm: LanguageModel,
    tasks: Sequence[Task],
    policy: GreedyHead,
    config: EvaluationConfig,
    seed: int,
    mean: Mapping[str, Any],
    respond: Respond = respond,
) -> dict[str, float]:
    """Measures mean test rewards of the head alone, the words alone, and both.

    `lm` is the language model of before the training, for the head alone. `mean` holds the means of
    `evaluate` with the trained one: at its best constant the words stand alone.
    """
    prompts, N = prompts_to_measure(tasks, "test", config, seed), config.samples_per_prompt
    generator = torch_generator(seed, "evaluation of the head alone")
    _, rewards = measure_policy(lm, prompts, policy, generator, N, respond)
    head_alone = float(mean_over_tasks(rewards.mean(1), prompts.names))
    words_alone = mean["best_fixed"]["reward"]
    return {"head_alone": head_alone, "words_alone": words_alone, "both": mean["adaptive"]}
