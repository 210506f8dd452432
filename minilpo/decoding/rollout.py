"""A `Rollout`: the responses to some prompts, with the decisions that they were written by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minilpo.adaptive_decoder import Decisions, unpack
from minilpo.decoding.choices import Choices
from minilpo.lm.language_model import LanguageModel
from minilpo.seeds import torch_defaults
from minilpo.tasks import Prompt, Task, judge, parts_of

Shares = dict[str, list[float]]  # of each choice, by task
TOKENS_AT_ONCE = 2048  # of finished responses that go through the model together


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
    decisions: Decisions  # of R responses

    def __len__(self) -> int:
        return len(self.responses)

    def prompt_of(self, row: int) -> str:
        """Returns the prompt of a row."""
        return self.prompts[row // self.n_samples]

    def rows(self, index: Tensor, n_samples: int = 1) -> "Rollout":
        """Selects responses, (B,); in the result every prompt has `n_samples` in a row, or one."""
        rows, decisions = index.tolist(), self.decisions.rows(index)
        prompts = [self.prompt_of(row) for row in rows[::n_samples]]
        responses = [self.responses[row] for row in rows]
        tokens = self.token_ids[index], self.response_mask[index]
        return Rollout(prompts, n_samples, responses, *tokens, decisions)

    def sorted_by(self, order: Tensor) -> "Rollout":
        """Puts the prompts in another order, (P,)."""
        n = torch.arange(self.n_samples, device=order.device)
        rows = order[:, None] * self.n_samples + n  # (P, N)
        return self.rows(rows.flatten(), self.n_samples)


def choice_shares(rollout: Rollout, rows: Tensor, prompts: Sequence[Prompt], K: int) -> Shares:
    """Counts the share of each of K choices in the rows, (B,), per task (the paper's Fig. 7)."""
    # By name, because somebody's own task may be unhashable. Two tasks may ask the same text: then
    # its responses count for both.
    asked, shares = {(prompt.task.name, prompt.text) for prompt in prompts}, {}
    choice_ids, mask = rollout.decisions.choice_ids, rollout.decisions.mask
    for task in dict.fromkeys(prompt.task.name for prompt in prompts):
        own = [row for row in rows.tolist() if (task, rollout.prompt_of(row)) in asked]
        counts = choice_ids[own][mask[own]].bincount(minlength=K)
        shares[task] = (counts / counts.sum().clamp(min=1)).tolist()
    return shares


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """Joins rollouts of as many samples; shorter responses are padded with zeros."""

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        T = max(tensor.shape[1] for tensor in tensors)
        return torch.cat([F.pad(tensor, (0, T - tensor.shape[1])) for tensor in tensors])

    prompts = [prompt for rollout in rollouts for prompt in rollout.prompts]
    responses = [response for rollout in rollouts for response in rollout.responses]
    token_ids = padded([rollout.token_ids for rollout in rollouts])
    mask = padded([rollout.response_mask for rollout in rollouts])
    parts = [rollout.decisions for rollout in rollouts]
    choice_ids = padded([part.choice_ids for part in parts])
    features = torch.cat([part.features for part in parts])
    decisions = Decisions(features, choice_ids, padded([part.mask for part in parts]))
    return Rollout(prompts, rollouts[0].n_samples, responses, token_ids, mask, decisions)


@torch_defaults()
def score(rollout: Rollout, tasks: Sequence[Task]) -> Tensor:
    """Computes the rewards of all responses, (P, N) in [0, 1]; P tasks, one per prompt.

    Raises:
        ValueError: if a reward isn't a number in [0, 1]; names task, prompt, response and value,
            see `judge`.
    """
    rewards = [
        judge(tasks[row // rollout.n_samples], rollout.prompt_of(row), response)
        for row, response in enumerate(rollout.responses)
    ]
    return torch.tensor(rewards, dtype=torch.float32).view(-1, rollout.n_samples)


@torch_defaults()
def quality_and_constraint(rollout: Rollout, tasks: Sequence[Task], rewards: Tensor) -> Tensor:
    """Splits each reward in two, (2, P, N): quality of the response, and keeping of the rule.

    A task without a rule to keep has its reward for both. Raises ValueError as `score` does.
    """
    parts = torch.stack([rewards, rewards])
    for row, response in enumerate(rollout.responses):
        p, n = divmod(row, rollout.n_samples)
        if tasks[p].constraint:
            named = parts_of(tasks[p], rollout.prompt_of(row), response)
            parts[:, p, n] = torch.tensor([named[tasks[p].quality], named[tasks[p].constraint]])
    return parts


@dataclass(frozen=True)
class MarginalDecisions(Decisions):
    """Decisions, and each token's log-probability under every choice: for Eq. 11."""

    choice_logprobs: Tensor  # (R, T, K) log P(y_t | τ_k), constants
    token_mask: Tensor  # (R, T) True at the response's tokens

    def rows(self, index: Tensor) -> "MarginalDecisions":
        """Selects responses by their numbers, (B,), in any order, also one of them twice."""
        some = super().rows(index)
        logprobs, token_mask = self.choice_logprobs[index], self.token_mask[index]
        return MarginalDecisions(some.features, some.choice_ids, some.mask, logprobs, token_mask)


def forward_rollout(lm: LanguageModel, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Computes hidden states (n, C) and logits (n, V) before each of n response tokens.

    They are where the language model is.
    """
    prompts = [prompt for prompt in lm.encode(rollout.prompts) for _ in range(rollout.n_samples)]
    return lm.forward_responses(prompts, rollout.token_ids, rollout.response_mask)


@torch_defaults()
@torch.no_grad()
def marginal_decisions(lm: LanguageModel, rollout: Rollout, choices: Choices) -> MarginalDecisions:
    """Adds log P(y_t | τ_k) of every token under every choice to the decisions, as constants.

    The responses go through the model again for that, a part at a time. Rounding differs from that
    of writing, so where the two most likely tokens are equal up to rounding, temperature 0 may
    prefer the other one.
    """
    # A part at a time: the logits of all tokens at once would take gigabytes.
    rows_at_once = max(1, TOKENS_AT_ONCE // rollout.response_mask.shape[1])
    parts = []
    for index in torch.arange(len(rollout)).split(rows_at_once):
        part = rollout.rows(index)
        token_ids = part.token_ids[part.response_mask].long()  # (n,)
        positions = part.response_mask.nonzero()[:, 1]
        logits = forward_rollout(lm, part)[1].float()
        known = token_ids.to(logits.device), positions.to(logits.device)
        parts.append(choices.logprobs(logits, *known).cpu())
    logprobs = unpack(torch.cat(parts), rollout.response_mask)  # (R, T, K)
    chosen = rollout.decisions
    return MarginalDecisions(
        chosen.features, chosen.choice_ids, chosen.mask, logprobs, rollout.response_mask
    )
