"""A `Rollout`: the responses to some prompts, with the decisions that they were written by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.adaptive_decoder import Decisions, MarginalDecisions, unpack
from minilpo.decoding.choices import Choices
from minilpo.lm.language_model import LanguageModel
from minilpo.tasks import Task, judge, parts_of

READ_AT_ONCE = 2048  # tokens of responses that are read again together


@dataclass(frozen=True)
class Rollout:
    """N responses to each of P prompts. Row p * N + n is response n to prompt p; R = P * N.

    Its tensors are on the CPU, wherever the language model is.
    """

    prompts: list[str]
    n_samples: int
    responses: list[str]  # R texts
    token_ids: Tensor  # (R, T) the response's tokens with its end token, then zeros
    response_mask: Tensor  # (R, T) True at the response's tokens, its end token included
    decisions: Decisions  # of R rows

    def __len__(self) -> int:
        return len(self.responses)

    def prompt_of(self, row: int) -> str:
        """The prompt that a row responds to."""
        return self.prompts[row // self.n_samples]

    def rows(self, index: Tensor) -> "Rollout":
        """Some of the responses, (B,), as one response each to as many prompts."""
        return self._ordered(index, [self.prompt_of(row) for row in index.tolist()], 1)

    def sorted_by(self, order: Tensor) -> "Rollout":
        """The same with its prompts in another order, (P,)."""
        n = torch.arange(self.n_samples, device=order.device)
        rows = (order[:, None] * self.n_samples + n).flatten()
        return self._ordered(rows, [self.prompts[p] for p in order.tolist()], self.n_samples)

    def _ordered(self, index: Tensor, prompts: list[str], n_samples: int) -> "Rollout":
        return Rollout(
            prompts,
            n_samples,
            [self.responses[row] for row in index.tolist()],
            self.token_ids[index],
            self.response_mask[index],
            self.decisions.rows(index),
        )


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts of as many samples, one after the other; shorter ones are padded with zeros."""

    # What stands after a response is masked out: zeros will do.
    def padded(tensors: Sequence[Tensor]) -> Tensor:
        T = max(tensor.shape[1] for tensor in tensors)
        return torch.cat([F.pad(tensor, (0, T - tensor.shape[1])) for tensor in tensors])

    decisions = [rollout.decisions for rollout in rollouts]
    return Rollout(
        [prompt for rollout in rollouts for prompt in rollout.prompts],
        rollouts[0].n_samples,
        [response for rollout in rollouts for response in rollout.responses],
        padded([rollout.token_ids for rollout in rollouts]),
        padded([rollout.response_mask for rollout in rollouts]),
        Decisions(
            torch.cat([part.features for part in decisions]),
            padded([part.choice_ids for part in decisions]),
            padded([part.mask for part in decisions]),
        ),
    )


def forward_rollout(lm: LanguageModel, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Hidden states (n, C) and logits (n, V) before each of n response tokens, row by row.

    They are where the language model is.
    """
    prompts = [prompt for prompt in lm.encode(rollout.prompts) for _ in range(rollout.n_samples)]
    return lm.forward_responses(prompts, rollout.token_ids, rollout.response_mask)


@torch.no_grad()
def marginal_decisions(lm: LanguageModel, rollout: Rollout, choices: Choices) -> MarginalDecisions:
    """The decisions with log P(y_t | tau_k) of every token under every choice, constants.

    The responses are read again for that, a part at a time. Rounding differs from that of writing,
    so where the two most likely tokens are equal up to rounding, temperature 0 may prefer the other
    one.
    """
    # A part at a time: the logits of all tokens at once would take gigabytes.
    rows_at_once = max(1, READ_AT_ONCE // rollout.response_mask.shape[1])
    parts = []
    for index in torch.arange(len(rollout.responses)).split(rows_at_once):
        part = rollout.rows(index)
        token_ids = part.token_ids[part.response_mask].long()  # (n,)
        positions = part.response_mask.nonzero()[:, 1]
        logits = forward_rollout(lm, part)[1].float()
        known = token_ids.to(logits.device), positions.to(logits.device)
        parts.append(choices.logprobs(logits, *known).cpu())
    logprobs = unpack(torch.cat(parts), rollout.response_mask)  # (R, T, K)
    made = rollout.decisions
    return MarginalDecisions(
        made.features, made.choice_ids, made.mask, logprobs, rollout.response_mask
    )


@dataclass(frozen=True)
class Scored:
    """A rollout with the rewards of its responses."""

    rollout: Rollout
    task_of: Sequence[Task]  # P
    rewards: Tensor  # (P, N)

    def quality_and_constraint(self) -> tuple[Tensor, Tensor]:
        """The two parts of the reward that a task with a rule to keep names, (P, N) each.

        A task without a rule has its reward for both.
        """
        quality, constraint = self.rewards.clone(), self.rewards.clone()
        for row, response in enumerate(self.rollout.responses):
            p, n = divmod(row, self.rollout.n_samples)
            task = self.task_of[p]
            # Only a task with a rule to keep has the two parts.
            if task.constraint:
                parts = parts_of(task, self.rollout.prompts[p], response)
                quality[p, n], constraint[p, n] = parts[task.quality], parts[task.constraint]
        return quality, constraint


def score(rollout: Rollout, tasks: Sequence[Task]) -> Tensor:
    """Rewards of a rollout's responses, (P, N) in [0, 1], by the task of each of the P prompts.

    Raises:
        ValueError: if a reward isn't a number in [0, 1]; names task, prompt, response and value,
            see `judge`.
    """
    rewards = [
        judge(tasks[row // rollout.n_samples], rollout.prompt_of(row), response)
        for row, response in enumerate(rollout.responses)
    ]
    return torch.tensor(rewards).view(len(rollout.prompts), rollout.n_samples)
