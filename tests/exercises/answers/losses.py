"""Answers to the exercises of lesson 6."""

import math

import torch
import torch.nn.functional as F

from tests.exercises.answers import WrongAnswers, right, wrong

# eq10_loss


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


class Eq10Loss(WrongAnswers, to="eq10_loss"):
    @wrong("chosen and rejected swapped", "are chosen and rejected swapped?")
    def eq10_swapped(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, rejected_ids, chosen_ids, beta)

    @wrong("the minus lost", "the minus before the log is lost")
    def eq10_sign(choice_logits, chosen_ids, rejected_ids, beta):
        rows = torch.arange(len(chosen_ids))
        margin = choice_logits[rows, chosen_ids] - choice_logits[rows, rejected_ids]
        return F.logsigmoid(beta * margin)

    @wrong("beta outside of the sigmoid", "beta multiplies the loss")
    def eq10_beta_outside(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, 1) * beta

    @wrong("divided by beta", "the margin is divided by beta")
    def eq10_beta_divides(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits / beta, chosen_ids, rejected_ids, 1)

    @wrong("beta forgotten", "it ignores its argument `beta`")
    def eq10_without_beta(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, 1)

    @wrong("probabilities for log-probabilities", "a difference of probabilities")
    def eq10_of_probs(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits.softmax(1), chosen_ids, rejected_ids, beta)

    @wrong("the log forgotten", "the log of the sigmoid is missing")
    def eq10_without_log(choice_logits, chosen_ids, rejected_ids, beta):
        return -torch.exp(-eq10_loss(choice_logits, chosen_ids, rejected_ids, beta))

    @wrong("softmax over the rows", "the softmax runs over the rows")
    def eq10_over_rows(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(F.log_softmax(choice_logits, dim=0), chosen_ids, rejected_ids, beta)

    @wrong("log of sigmoid", "the log of a sigmoid is taken that has become 0")
    def eq10_log_of_sigmoid(choice_logits, chosen_ids, rejected_ids, beta):
        rows = torch.arange(len(chosen_ids))
        margin = choice_logits[rows, chosen_ids] - choice_logits[rows, rejected_ids]
        return -torch.log(1 / (1 + torch.exp(-beta * margin)))

    @wrong("log of softmax", "the log of a softmax is taken that has become 0")
    def eq10_log_of_softmax(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(torch.log(choice_logits.softmax(1)), chosen_ids, rejected_ids, beta)

    @wrong("the formula word by word", "logs are taken of what has become 0, twice")
    def eq10_literally(choice_logits, chosen_ids, rejected_ids, beta):
        probs = torch.softmax(choice_logits, dim=-1)
        rows = torch.arange(len(chosen_ids))
        p_chosen, p_rejected = probs[rows, chosen_ids], probs[rows, rejected_ids]
        return -torch.log(torch.sigmoid(beta * (torch.log(p_chosen) - torch.log(p_rejected))))

    @wrong("the mean of all rows", "must have shape")
    def eq10_mean(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, beta).mean()

    @wrong("a dimension too many", "must have shape (2,), got (2, 1)")
    def eq10_column(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, beta)[:, None]

    @wrong("in half precision", "must have dtype")
    def eq10_half(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, beta).half()

    @wrong("right for positive margins only", "wrong for")
    def eq10_positive_only(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, beta).clamp(max=math.log(2))

    @wrong("log 2, whatever comes", "wrong for")
    def eq10_constant(choice_logits, chosen_ids, rejected_ids, beta):
        return torch.full((len(chosen_ids),), math.log(2), dtype=choice_logits.dtype)

    @wrong("changes the logits", "changes its input in place")
    def eq10_in_place(choice_logits, chosen_ids, rejected_ids, beta):
        choice_logits *= beta
        return eq10_loss(choice_logits, chosen_ids, rejected_ids, 1)

    @wrong("the library's own", "it calls minilpo's own preference_loss")
    def eq10_of_the_library(choice_logits, chosen_ids, rejected_ids, beta):
        from minilpo.losses import preference_loss

        rows = torch.arange(len(chosen_ids))
        scores = choice_logits.log_softmax(-1)
        return preference_loss(scores[rows, chosen_ids], scores[rows, rejected_ids], beta)

    @wrong("every row's ids in every row", "takes B numbers of every row")
    def eq10_crossed(choice_logits, chosen_ids, rejected_ids, beta):
        logprobs = F.log_softmax(choice_logits, 1)
        return F.softplus(beta * (logprobs[:, rejected_ids] - logprobs[:, chosen_ids]))


# eq10_gradient


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


class Eq10Gradient(WrongAnswers, to="eq10_gradient"):
    @wrong("uphill", "points to where the loss grows")
    def gradient_uphill(choice_logits, chosen_ids, rejected_ids, beta):
        return -eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta)

    @wrong("swapped", "chosen and rejected are swapped")
    def gradient_swapped(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_gradient(choice_logits, rejected_ids, chosen_ids, beta)

    @wrong("no beta before the sigmoid", "the factor beta before the sigmoid")
    def gradient_without_beta(choice_logits, chosen_ids, rejected_ids, beta):
        return eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta) / beta

    @wrong("sigmoid of the margin", "pairs on the wrong side must pull harder")
    def gradient_wrong_side(choice_logits, chosen_ids, rejected_ids, beta):
        gradient = torch.zeros_like(choice_logits)
        for i, (c, r) in enumerate(zip(chosen_ids, rejected_ids, strict=True)):
            pull = beta * torch.sigmoid(beta * (choice_logits[i, c] - choice_logits[i, r]))
            gradient[i, c] -= pull
            gradient[i, r] += pull
        return gradient

    @wrong("mean for sum", "divided by the number of rows")
    def gradient_of_mean(choice_logits, chosen_ids, rejected_ids, beta):
        logits = choice_logits.clone().requires_grad_()
        eq10_loss(logits, chosen_ids, rejected_ids, beta).mean().backward()
        return logits.grad

    @wrong("the rejected not pushed down", "only the chosen choice pulls")
    def gradient_of_chosen(choice_logits, chosen_ids, rejected_ids, beta):
        gradient = torch.zeros_like(choice_logits)
        for i, (c, r) in enumerate(zip(chosen_ids, rejected_ids, strict=True)):
            margin = choice_logits[i, c] - choice_logits[i, r]
            gradient[i, c] = -beta * torch.sigmoid(-beta * margin)
        return gradient

    @wrong("imitation", "the gradient of log P(chosen) alone")
    def gradient_of_imitation(choice_logits, chosen_ids, rejected_ids, beta):
        rows = torch.arange(len(chosen_ids))
        margin = choice_logits[rows, chosen_ids] - choice_logits[rows, rejected_ids]
        gradient = choice_logits.softmax(-1)
        gradient[rows, chosen_ids] -= 1
        return gradient * (beta * torch.sigmoid(-beta * margin))[:, None]

    @wrong("by the margin only", "must have shape")
    def gradient_by_margin(choice_logits, chosen_ids, rejected_ids, beta):
        rows = torch.arange(len(chosen_ids))
        margin = choice_logits[rows, chosen_ids] - choice_logits[rows, rejected_ids]
        return -beta * torch.sigmoid(-beta * margin)

    @wrong("one number overwrites the other", "overwrites the first")
    def gradient_overwritten(choice_logits, chosen_ids, rejected_ids, beta):
        rows = torch.arange(len(chosen_ids))
        gradient = eq10_gradient(choice_logits, chosen_ids, rejected_ids, beta)
        same = chosen_ids == rejected_ids
        gradient[rows[same], chosen_ids[same]] = beta / 2
        return gradient

    @wrong("nothing", "it ignores its argument")
    def gradient_zero(choice_logits, chosen_ids, rejected_ids, beta):
        return torch.zeros_like(choice_logits)

    @wrong("the tuple of autograd.grad", "return the tensor in it, [0]")
    def gradient_in_a_tuple(choice_logits, chosen_ids, rejected_ids, beta):
        logits = choice_logits.clone().requires_grad_()
        loss = eq10_loss(logits, chosen_ids, rejected_ids, beta).sum()
        return torch.autograd.grad(loss, logits)


# eq10_optimum


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


class Eq10Optimum(WrongAnswers, to="eq10_optimum"):
    @wrong("the share itself", "it is the share won itself")
    def optimum_share(share_won, beta):
        return share_won.clone()

    @wrong("times for divided by beta", "is multiplied by beta")
    def optimum_times(share_won, beta):
        return torch.sigmoid(torch.logit(share_won) * beta)

    @wrong("the margin", "it is the margin m")
    def optimum_margin(share_won, beta):
        return torch.logit(share_won) / beta

    @wrong("no odds", "the log of the odds of w comes first")
    def optimum_without_odds(share_won, beta):
        return 1 / (1 + torch.exp(-share_won / beta))

    @wrong("winner takes all", "the more frequent winner gets everything")
    def optimum_all(share_won, beta):
        return torch.where(share_won > 0.5, 1.0, 0.0).to(share_won.dtype)

    @wrong("of choice 0", "it is the probability of choice 0")
    def optimum_of_zero(share_won, beta):
        return eq10_optimum(1 - share_won, beta)

    @wrong("odds for log odds", "where their logarithm belongs")
    def optimum_of_odds(share_won, beta):
        return torch.sigmoid(share_won / (1 - share_won) / beta)

    @wrong("a half", "wrong for")
    def optimum_half(share_won, beta):
        return torch.full_like(share_won, 0.5)

    @wrong("a Python number", "must be a tensor of shape (1,)")
    def optimum_number(share_won, beta):
        return eq10_optimum(share_won, beta)[0].item()


# choice_score


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


def drawn_of(values, choice_ids):
    return values.gather(2, choice_ids.unsqueeze(2)).squeeze(2)


class ChoiceScore(WrongAnswers, to="choice_score"):
    @wrong("mean for sum", "it is the mean over the decisions")
    def score_mean(choice_logits, choice_ids, decision_mask):
        return choice_score(choice_logits, choice_ids, decision_mask) / decision_mask.sum(1)

    @wrong("mask ignored", "the mask plays no part")
    def score_without_mask(choice_logits, choice_ids, decision_mask):
        return drawn_of(choice_logits.log_softmax(-1), choice_ids).sum(1)

    @wrong("times the mask", "0 times NaN is NaN")
    def score_times_mask(choice_logits, choice_ids, decision_mask):
        return (drawn_of(choice_logits.log_softmax(-1), choice_ids) * decision_mask.float()).sum(1)

    @wrong("mask turned round", "the mask is turned round")
    def score_mask_turned(choice_logits, choice_ids, decision_mask):
        return choice_score(choice_logits, choice_ids, decision_mask == 0)

    @wrong("no softmax", "the logits are added up")
    def score_of_logits(choice_logits, choice_ids, decision_mask):
        return torch.where(decision_mask, drawn_of(choice_logits, choice_ids), 0.0).sum(1)

    @wrong("no log", "it is their logarithms that add")
    def score_of_probs(choice_logits, choice_ids, decision_mask):
        probs = drawn_of(choice_logits.softmax(-1), choice_ids)
        return torch.where(decision_mask, probs, 0.0).sum(1)

    @wrong("the product", "it is the product of the probabilities")
    def score_product(choice_logits, choice_ids, decision_mask):
        probs = drawn_of(choice_logits.softmax(-1), choice_ids)
        return torch.where(decision_mask, probs, 1.0).prod(1)

    @wrong("softmax over the decisions", "the softmax runs over the decisions")
    def score_over_decisions(choice_logits, choice_ids, decision_mask):
        logprobs = drawn_of(torch.log_softmax(choice_logits, dim=1), choice_ids)
        return torch.where(decision_mask, logprobs, 0.0).sum(1)

    @wrong("a loss", "a log-probability is at most 0")
    def score_sign(choice_logits, choice_ids, decision_mask):
        return -choice_score(choice_logits, choice_ids, decision_mask)

    @wrong("the likeliest choices", "not the one that was drawn")
    def score_of_likeliest(choice_logits, choice_ids, decision_mask):
        best = choice_logits.log_softmax(-1).amax(-1)
        return torch.where(decision_mask, best, 0.0).sum(1)

    @wrong("one score for all", "must have shape")
    def score_of_all(choice_logits, choice_ids, decision_mask):
        return choice_score(choice_logits, choice_ids, decision_mask).sum()

    @wrong("summed over the rows", "must have shape (1,), got (3,)")
    def score_wrong_axis(choice_logits, choice_ids, decision_mask):
        drawn = drawn_of(choice_logits.log_softmax(-1), choice_ids)
        return torch.where(decision_mask, drawn, 0.0).sum(0)

    @wrong("up to the first gap", "wrong for")
    def score_until_gap(choice_logits, choice_ids, decision_mask):
        return choice_score(choice_logits, choice_ids, decision_mask.cumprod(1).bool())


# nll_loss


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


class NllLoss(WrongAnswers, to="nll_loss"):
    @wrong("sign lost", "the minus is lost")
    def nll_sign(choice_logits, chosen_ids):
        return -F.cross_entropy(choice_logits, chosen_ids)

    @wrong("sum for mean", "it is the sum over the rows")
    def nll_sum(choice_logits, chosen_ids):
        return F.cross_entropy(choice_logits, chosen_ids, reduction="sum")

    @wrong("mean over all choices", "the mean is over all B * K numbers")
    def nll_over_all(choice_logits, chosen_ids):
        return -(
            choice_logits.log_softmax(-1) * F.one_hot(chosen_ids, choice_logits.shape[1])
        ).mean()

    @wrong("log forgotten", "the logarithm is missing")
    def nll_without_log(choice_logits, chosen_ids):
        return -choice_logits.softmax(1)[torch.arange(len(chosen_ids)), chosen_ids].mean()

    @wrong("log of the mean", "take the mean of the logs")
    def nll_log_of_mean(choice_logits, chosen_ids):
        return -choice_logits.softmax(1)[torch.arange(len(chosen_ids)), chosen_ids].mean().log()

    @wrong("softmax over the rows", "the softmax runs over the rows")
    def nll_over_rows(choice_logits, chosen_ids):
        return F.nll_loss(F.log_softmax(choice_logits, dim=0), chosen_ids)

    @wrong("log of softmax", "the log of a softmax is taken that has become 0")
    def nll_log_of_softmax(choice_logits, chosen_ids):
        return F.nll_loss(torch.log(torch.softmax(choice_logits, dim=1)), chosen_ids)

    @wrong("softmax twice", "a softmax is taken twice")
    def nll_softmax_twice(choice_logits, chosen_ids):
        return F.cross_entropy(torch.softmax(choice_logits, dim=1), chosen_ids)

    @wrong("not reduced", "must have shape (), got (1,)")
    def nll_rows(choice_logits, chosen_ids):
        return F.cross_entropy(choice_logits, chosen_ids, reduction="none")

    @wrong("a Python number", "must be a tensor of shape ()")
    def nll_number(choice_logits, chosen_ids):
        return F.cross_entropy(choice_logits, chosen_ids).item()

    @wrong("the last choice always", "it ignores its argument `chosen_ids`")
    def nll_of_last(choice_logits, chosen_ids):
        return -choice_logits.log_softmax(-1)[:, -1].mean()

    @wrong("F.nll_loss of logits", "log_softmax comes first")
    def nll_of_logits(choice_logits, chosen_ids):
        return F.nll_loss(choice_logits, chosen_ids)

    @wrong("every row's ids in every row", "takes B numbers of every row")
    def nll_crossed(choice_logits, chosen_ids):
        return -F.log_softmax(choice_logits, 1)[:, chosen_ids].mean()
