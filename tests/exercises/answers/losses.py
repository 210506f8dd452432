"""Answers to the exercises of lesson 6."""

import math

import torch
import torch.nn.functional as F

from minilpo.losses import preference_loss
from tests.exercises.answers import WRONG, right


@right("eq10_loss", "with indices, without a softmax")
def eq10_loss(choice_logits, chosen_ids, rejected_ids, beta):
    rows = torch.arange(len(chosen_ids))
    margin = choice_logits[rows, chosen_ids] - choice_logits[rows, rejected_ids]
    return F.softplus(-beta * margin)


@right("eq10_loss", "with loops")
def eq10_loss_with_loops(choice_logits, chosen_ids, rejected_ids, beta):
    losses = []
    for row, c, r in zip(
        choice_logits.tolist(), chosen_ids.tolist(), rejected_ids.tolist(), strict=True
    ):
        x = beta * (row[c] - row[r])
        losses.append(math.log1p(math.exp(-abs(x))) + max(-x, 0.0))
    return torch.tensor(losses, dtype=choice_logits.dtype)


WRONG["eq10_loss"] = """
chosen and rejected swapped | are chosen and rejected swapped?
    return eq10_loss(choice_logits, rejected_ids, chosen_ids, beta)
the minus lost | the minus before the log is lost | F.softplus(-beta * -> F.logsigmoid(beta *
beta outside of the sigmoid | beta multiplies the loss | (-beta * margin) -> (-margin) * beta
divided by beta | the margin is divided by beta | -beta * margin -> -margin / beta
beta forgotten | it ignores its argument `beta` | -beta * margin -> -margin
probabilities for log-probabilities | a difference of probabilities
    return eq10_loss(choice_logits.softmax(1), chosen_ids, rejected_ids, beta)
the log forgotten | the log of the sigmoid is missing
    return -torch.exp(-eq10_loss(choice_logits, chosen_ids, rejected_ids, beta))
softmax over the rows | the softmax runs over the rows
    return eq10_loss(F.log_softmax(choice_logits, dim=0), chosen_ids, rejected_ids, beta)
log of sigmoid | the log of a sigmoid is taken that has become 0
    F.softplus(-beta * margin) -> -torch.log(1 / (1 + torch.exp(-beta * margin)))
log of softmax | the log of a softmax is taken that has become 0
    return eq10_loss(torch.log(choice_logits.softmax(1)), chosen_ids, rejected_ids, beta)
the formula word by word | logs are taken of what has become 0, twice
    choice_logits[rows, chosen_ids] - -> choice_logits.softmax(1)[rows, chosen_ids].log() -
    - choice_logits[rows, rejected_ids] -> - choice_logits.softmax(1)[rows, rejected_ids].log()
    F.softplus(-beta * margin) -> -torch.log(torch.sigmoid(beta * margin))
the mean of all rows | must have shape | softplus(-beta * margin) -> softplus(-beta * margin).mean()
a dimension too many | must have shape (2,), got (2, 1) | beta * margin) -> beta * margin)[:, None]
in half precision | must have dtype | .softplus(-beta * margin) -> .softplus(-beta * margin).half()
right for positive margins only | wrong for | * margin) -> * margin).clamp(max=math.log(2))
log 2, whatever comes | wrong for
    return torch.full((len(chosen_ids),), math.log(2), dtype=choice_logits.dtype)
changes the logits | changes its input in place
    choice_logits *= beta
    return eq10_loss(choice_logits, chosen_ids, rejected_ids, 1)
the library's own | it calls minilpo's own preference_loss
    F.softplus(-beta * margin) -> preference_loss(margin, 0 * margin, beta)
every row's ids in every row | takes B numbers of every row
    rows = torch.arange(len(chosen_ids)) -> rows = slice(None)
"""


@right("eq10_gradient", "by PyTorch's differentiation")
def eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta):
    logits = choice_logits.clone().requires_grad_()
    eq10_loss(logits, chosen_ids, rejected_ids, beta).sum().backward()
    return logits.grad


@right("eq10_gradient", "with loops")
def eq10_gradient_with_loops(choice_logits, chosen_ids, rejected_ids, beta):
    gradient = torch.zeros_like(choice_logits)
    for i, (c, r) in enumerate(zip(chosen_ids, rejected_ids, strict=True)):
        margin = choice_logits[i, c] - choice_logits[i, r]
        pull = beta * (1 - torch.sigmoid(beta * margin))
        gradient[i, c] -= pull
        gradient[i, r] += pull
    return gradient


WRONG["eq10_gradient"] = """
uphill | points to where the loss grows
    return -eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta)
swapped | chosen and rejected are swapped
    return eq10_gradient(choice_logits, rejected_ids, chosen_ids, beta)
no beta before the sigmoid | the factor beta before the sigmoid
    return eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta) / beta
sigmoid of the margin | pairs on the wrong side must pull harder | 1 - torch. -> torch.
mean for sum | divided by the number of rows | .sum().backward() -> .mean().backward()
the rejected not pushed down | only the chosen choice pulls | gradient[i, r] += pull -> pass
imitation | the gradient of log P(chosen) alone
    gradient[i, c] -= pull -> gradient[i] += pull * choice_logits[i].softmax(-1)
    gradient[i, r] += pull -> gradient[i, c] -= pull
by the margin only | must have shape
    return eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta).amin(1)
one number overwrites the other | overwrites the first | [i, r] += pull -> [i, r] = pull
nothing | it ignores its argument | return torch.zeros_like(choice_logits)
the tuple of autograd.grad | return the tensor in it, [0] | logits.grad -> (logits.grad,)
"""


@right("eq10_optimum", "as powers of the shares")
def eq10_optimum(share_won, beta):
    for_one, for_zero = share_won ** (1 / beta), (1 - share_won) ** (1 / beta)
    return for_one / (for_one + for_zero)


@right("eq10_optimum", "with loops")
def eq10_optimum_with_loops(share_won, beta):
    probs = []
    for share in share_won.tolist():
        margin = (math.log(share) - math.log(1 - share)) / beta
        probs.append(1 / (1 + math.exp(-margin)))
    return torch.tensor(probs, dtype=share_won.dtype)


@right("eq10_optimum", "by halving")
def eq10_optimum_by_halving(share_won, beta):
    low, high = torch.full_like(share_won, -100), torch.full_like(share_won, 100)
    for _ in range(60):
        middle = (low + high) / 2
        slope = torch.sigmoid(beta * middle) - share_won
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    return torch.sigmoid((low + high) / 2)


WRONG["eq10_optimum"] = """
the share itself | it is the share won itself | return share_won.clone()
times for divided by beta | is multiplied by beta
    return torch.sigmoid(torch.logit(share_won) * beta)
the margin | it is the margin m | return torch.logit(share_won) / beta
no odds | the log of the odds of w comes first | return 1 / (1 + torch.exp(-share_won / beta))
winner takes all | the more frequent winner gets everything
    return torch.where(share_won > 0.5, 1.0, 0.0).to(share_won.dtype)
of choice 0 | it is the probability of choice 0 | return eq10_optimum(1 - share_won, beta)
odds for log odds | where their logarithm belongs
    return torch.sigmoid(share_won / (1 - share_won) / beta)
a half | wrong for | return torch.full_like(share_won, 0.5)
a Python number | must be a tensor of shape (1,) | return eq10_optimum(share_won, beta)[0].item()
"""


@right("choice_score", "with a one-hot")
def choice_score(choice_logits, choice_ids, decision_mask):
    logits = torch.where(decision_mask[..., None], choice_logits, 0.0)
    normalised = logits - logits.logsumexp(-1, keepdim=True)
    drawn = (normalised * F.one_hot(choice_ids, logits.shape[-1])).sum(-1)
    return torch.where(decision_mask, drawn, 0.0).sum(1)


@right("choice_score", "with loops")
def choice_score_with_loops(choice_logits, choice_ids, decision_mask):
    scores = []
    for b in range(len(choice_logits)):
        score = choice_logits.new_zeros(())
        for s in range(choice_logits.shape[1]):
            if decision_mask[b, s]:
                score = score + torch.log_softmax(choice_logits[b, s], 0)[choice_ids[b, s]]
        scores.append(score)
    return torch.stack(scores)


WRONG["choice_score"] = """
mean for sum | it is the mean over the decisions
    return choice_score(choice_logits, choice_ids, decision_mask) / decision_mask.sum(1)
mask ignored | the mask plays no part | if decision_mask[b, s]: -> if True:
times the mask | 0 times NaN is NaN
    drawn = choice_logits.log_softmax(-1).gather(2, choice_ids[..., None])[..., 0]
    return (drawn * decision_mask).sum(1)
mask turned round | the mask is turned round
    return choice_score(choice_logits, choice_ids, decision_mask == 0)
no softmax | the logits are added up
    torch.log_softmax(choice_logits[b, s], 0) -> choice_logits[b, s]
no log | it is their logarithms that add | torch.log_softmax -> torch.softmax
the product | it is the product of the probabilities | .append(score) -> .append(score.exp())
softmax over the decisions | the softmax runs over the decisions | [b, s], 0) -> [b], 0)[s]
a loss | a log-probability is at most 0
    return -choice_score(choice_logits, choice_ids, decision_mask)
the likeliest choices | not the one that was drawn | [choice_ids[b, s]] -> .amax()
one score for all | must have shape
    return choice_score(choice_logits, choice_ids, decision_mask).sum()
summed over the rows | must have shape (1,), got (3,) | 0.0).sum(1) -> 0.0).sum(0)
up to the first gap | wrong for
    return choice_score(choice_logits, choice_ids, decision_mask.cumprod(1).bool())
"""


@right("nll_loss", "by PyTorch's cross-entropy")
def nll_loss(choice_logits, chosen_ids):
    return F.cross_entropy(choice_logits, chosen_ids)


@right("nll_loss", "with loops")
def nll_loss_with_loops(choice_logits, chosen_ids):
    total = 0.0
    for row, chosen in zip(choice_logits.tolist(), chosen_ids.tolist(), strict=True):
        largest = max(row)
        log_sum = largest + math.log(sum(math.exp(logit - largest) for logit in row))
        total += log_sum - row[chosen]
    return torch.tensor(total / len(chosen_ids), dtype=choice_logits.dtype)


WRONG["nll_loss"] = """
sign lost | the minus is lost | return -F.cross_entropy(choice_logits, chosen_ids)
sum for mean | it is the sum over the rows
    return F.cross_entropy(choice_logits, chosen_ids, reduction="sum")
mean over all choices | the mean is over all B * K numbers
    return -(choice_logits.log_softmax(-1) * F.one_hot(chosen_ids, choice_logits.shape[1])).mean()
log forgotten | the logarithm is missing
    return -choice_logits.softmax(1)[torch.arange(len(chosen_ids)), chosen_ids].mean()
log of the mean | take the mean of the logs
    return -choice_logits.softmax(1)[torch.arange(len(chosen_ids)), chosen_ids].mean().log()
softmax over the rows | the softmax runs over the rows
    return F.nll_loss(F.log_softmax(choice_logits, dim=0), chosen_ids)
log of softmax | the log of a softmax is taken that has become 0
    return F.nll_loss(torch.log(torch.softmax(choice_logits, dim=1)), chosen_ids)
softmax twice | a softmax is taken twice
    return F.cross_entropy(torch.softmax(choice_logits, dim=1), chosen_ids)
not reduced | must have shape (), got (1,)
    return F.cross_entropy(choice_logits, chosen_ids, reduction="none")
a Python number | must be a tensor of shape ()
    return F.cross_entropy(choice_logits, chosen_ids).item()
the last choice always | it ignores its argument `chosen_ids`
    return -choice_logits.log_softmax(-1)[:, -1].mean()
F.nll_loss of logits | log_softmax comes first | return F.nll_loss(choice_logits, chosen_ids)
every row's ids in every row | takes B numbers of every row
    return -F.log_softmax(choice_logits, 1)[:, chosen_ids].mean()
"""
