"""Learning from all responses and their rewards, without pairs: what LPO is compared with.

Pure functions, tensors in and out, of the N responses to each of P prompts:

    reinforce   reinforce_loss    choices behind more reward than the prompt's mean become likelier
    grpo        grpo_loss         the same, in units of the prompt's spread, and never far at once
    regression  regression_loss   the head predicts the reward of each choice

All three aim at the mean reward. LPO doesn't: it fits which choice gave the better response.

What is simpler here than elsewhere: rewards come from programs, so there is no reward model; there
is no KL term that would hold the head near what it was, for there was nothing worth holding (it
starts uniform); no value network, since the mean of a prompt's N responses is the baseline; and the
language model stays frozen, so hidden states are constants and several epochs cost little. From the
second step on, the head isn't the one any more that wrote the responses. Only GRPO corrects for
that; the other two, like LPO, learn from them as they are.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, SampledDecisions, unpack
from minilpo.config import LPOConfig
from minilpo.losses import of_choices, over_steps
from minilpo.preferences import Comparisons, Judged, LearningRule, PreferencePairs, Said

SMALLEST_SPREAD = 1e-4  # added to the standard deviation, which may be 0


def reinforce_loss(scores: Tensor, rewards: Tensor) -> Tensor:
    """REINFORCE with the prompt's mean as the baseline: −(r_i − mean_j r_j) · score_i.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning", Machine Learning 8, 1992. The mean contains the response itself, which makes the
    gradient (N − 1) / N of what it is with the mean of the others.

    Args:
        scores: (P, N) log-probabilities of what the responses were written by, in nats: a sum over
            decisions.
        rewards: (P, N).

    Returns:
        (P, N) losses, not reduced.

    Raises:
        ValueError: if the shapes aren't (P, N).

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
    """GRPO: −mean_t min(ρ_t A, clamp(ρ_t, 1 − ε, 1 + ε) A), ρ_t = P(τ_t|h_t) / P_sampling(τ_t|h_t).

    A = (r_i − mean_j r_j) / (std_j r_j + 0.0001), the same for all decisions of a response. Shao et
    al., "DeepSeekMath", arXiv 2402.03300, Eq. 3, without its KL term. A ratio that has gone too far
    in the direction that the advantage asks for has no gradient any more, so several epochs on the
    same responses do no harm.

    Args:
        logprobs: (P, N, S) of each choice that was drawn, in nats.
        sampling_logprobs: (P, N, S) the same of the head that drew them, constants.
        decision_mask: (P, N, S) True where a decision was made.
        rewards: (P, N).
        clip: ε, above 0.

    Returns:
        (P, N) losses, not reduced.

    Raises:
        ValueError: if the shapes don't fit together, or clip isn't above 0.

    Both choices have become 1.5 times as likely. For the better response 1.2 counts, for the worse
    one 1.5:

    >>> logprobs = torch.tensor([[[0.6], [0.6]]]).log()
    >>> before, mask = torch.tensor([[[0.4], [0.4]]]).log(), torch.tensor([[[True], [True]]])
    >>> grpo_loss(logprobs, before, mask, torch.tensor([[1.0, 0.0]]), clip=0.2)
    tensor([[-1.1998,  1.4997]])
    """
    _check(rewards, logprobs=logprobs, sampling_logprobs=sampling_logprobs, mask=decision_mask)
    if not clip > 0:
        raise ValueError(f"clip must be above 0, got {clip}; 0.2 is usual")
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, correction=0, keepdim=True) + SMALLEST_SPREAD
    advantages = (centred / spread)[..., None]  # (P, N, 1)
    ratio = (logprobs - sampling_logprobs).exp()  # (P, N, S)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    gains = torch.minimum(ratio * advantages, clipped * advantages)
    return -over_steps(gains, decision_mask, "mean")


def regression_loss(scores: Tensor, rewards: Tensor) -> Tensor:
    """Squared error of the reward that was predicted: (σ(score_i) − r_i)².

    The score of a response is Σ_t z_t, the sum of the logits of the choices that wrote it: each
    choice adds to the log-odds of the reward, so that what each adds by itself is found by
    regression.

    At sequence level σ(z_k) becomes the mean reward of choice k, and the most likely choice is the
    one with the highest. For rewards 0 and 1 the next round then draws k in proportion to p_k /
    (1 − p_k), just as LPO's Eq. 10 with beta 1: bold enough to use what is known, and never certain
    of what isn't. At token level a single choice adds little, so the head stays close to uniform
    when it draws, and all that was learned shows when it takes its most likely choice.

    Args:
        scores: (P, N) sums of logits (not of log-probabilities).
        rewards: (P, N) from 0 to 1.

    Returns:
        (P, N) losses, not reduced.

    Raises:
        ValueError: if the shapes aren't (P, N).

    A score of 0 predicts 0.5:

    >>> regression_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 1.0]]))
    tensor([[0.0000, 0.2500]])
    """
    _check(rewards, scores=scores)
    return (scores.sigmoid() - rewards) ** 2


def _check(rewards: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if rewards.ndim != 2 or tensor.shape[:2] != rewards.shape:
            raise ValueError(
                f"rewards must have shape (P, N) and {name} must begin with it, got "
                f"{tuple(rewards.shape)} and {tuple(tensor.shape)}; pass all responses to a prompt"
            )


@dataclass(frozen=True)
class Groups(Comparisons):
    """All N responses to each of some prompts, as rows of a rollout, with their rewards."""

    members: Tensor  # (P, N)
    rewards: Tensor  # (P, N)
    n_dropped: int  # prompts that are left out, because all their responses scored the same

    def __len__(self) -> int:
        return len(self.members)

    @property
    def rows(self) -> Tensor:
        """(P, N)."""
        return self.members

    @property
    def pairs(self) -> PreferencePairs:
        """The best and the worst response to each prompt, the first ones among equals."""
        best, worst = self.rewards.argmax(1, keepdim=True), self.rewards.argmin(1, keepdim=True)
        differ = _differ(self.rewards)
        chosen, rejected = (self.rows.gather(1, n)[differ, 0] for n in (best, worst))
        n_dropped = self.n_dropped + int((~differ).sum())
        return PreferencePairs(chosen, rejected, n_dropped, torch.ones(len(chosen)))

    def some(self, index: Tensor) -> "Groups":
        """Some of the prompts, (B,)."""
        return replace(self, members=self.members[index], rewards=self.rewards[index])

    def at(self, rows: Tensor) -> "Groups":
        """The same responses, which have moved to other `rows`, (P, N)."""
        return replace(self, members=rows)


def all_groups(judged: Judged, config: LPOConfig, generator: torch.Generator) -> Groups:
    """The responses to all prompts."""
    rewards = judged.rewards
    return Groups(torch.arange(rewards.numel()).view_as(rewards), rewards, 0)


def groups_that_differ(judged: Judged, config: LPOConfig, generator: torch.Generator) -> Groups:
    """Without prompts whose responses all scored the same: their advantages are 0."""
    differ = _differ(judged.rewards)
    groups = all_groups(judged, config, generator).some(differ.nonzero()[:, 0])
    return replace(groups, n_dropped=int((~differ).sum()))


def _differ(rewards: Tensor) -> Tensor:
    return rewards.amax(1) > rewards.amin(1)  # (P,)


@torch.no_grad()
def sampled_decisions(head: AdaptiveDecoder, made: Decisions) -> SampledDecisions:
    """The decisions with the log-probabilities that this head, which drew them, gives them."""
    # In parts, because all of them at once might not fit into memory.
    parts = [made.rows(some) for some in torch.arange(len(made)).split(256)]
    logprobs = torch.cat([_drawn_logprobs(head(part.features), part) for part in parts])
    return SampledDecisions(made.features, made.choice_ids, made.mask, logprobs)


def _drawn_logprobs(choice_logits: Tensor, made: Decisions) -> Tensor:
    """Of the choices that were drawn, (R, S), from the logits of all decisions, (n, K)."""
    return of_choices(unpack(choice_logits.log_softmax(-1), made.mask), made.choice_ids)


def _reinforce(said: Said, groups: Groups, config: LPOConfig) -> Tensor:
    return reinforce_loss(said.scores[groups.rows], groups.rewards)


def _grpo(said: Said, groups: Groups, config: LPOConfig) -> Tensor:
    made, rows = said.made_from, groups.rows
    logprobs = _drawn_logprobs(said.choice_logits, made)[rows]  # (P, N, S)
    before, mask = made.sampling_logprobs[rows], made.mask[rows]
    return grpo_loss(logprobs, before, mask, groups.rewards, config.clip)


def _regression(said: Said, groups: Groups, config: LPOConfig) -> Tensor:
    made = said.made_from
    drawn = of_choices(unpack(said.choice_logits, made.mask), made.choice_ids)  # (R, S)
    return regression_loss(over_steps(drawn, made.mask, "sum")[groups.rows], groups.rewards)


RULES = {  # by the names of `LPOConfig.rule`
    "reinforce": LearningRule(groups_that_differ, _reinforce),
    "grpo": LearningRule(groups_that_differ, _grpo, needs_sampling_logprobs=True),
    "regression": LearningRule(all_groups, _regression),
}
