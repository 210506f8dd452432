"""Answers to the exercises of lesson 8."""

import math
import re

import torch

from minilpo.losses import latent_scores
from tests.exercises.answers import WRONG, right


@right("eq11_score", "with the largest set aside")
def eq11_score(choice_logits, choice_logprobs, response_mask):
    log_sums = choice_logits.exp().sum(-1, keepdim=True).log()
    joint = choice_logprobs + choice_logits - log_sums
    largest = joint.amax(-1, keepdim=True)
    scores = (joint - largest).exp().sum(-1).log() + largest[..., 0]
    return torch.where(response_mask, scores, 0).sum(-1)


@right("eq11_score", "with loops")
def eq11_score_with_loops(choice_logits, choice_logprobs, response_mask):
    scores = []
    for b in range(len(response_mask)):
        score = 0.0
        for t in range(response_mask.shape[1]):
            if not response_mask[b, t]:
                continue
            row = choice_logits[b, min(t, choice_logits.shape[1] - 1)].log_softmax(-1)
            logs = (row + choice_logprobs[b, t]).tolist()
            largest = max(logs)
            score += largest + math.log(sum(math.exp(log - largest) for log in logs))
        scores.append(score)
    return torch.tensor(scores, dtype=choice_logprobs.dtype)


WRONG["eq11_score"] = """
mask ignored | the mask plays no part | torch.where(response_mask, scores, 0) -> scores
mask before the sum over choices | each place outside adds log K
    joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
    return torch.logsumexp(joint * response_mask[..., None], -1).sum(1)
mean for sum | it is the mean over the tokens | , 0).sum(-1) -> , 0).sum(-1) / response_mask.sum(-1)
log inside the sum | the log stands inside the sum over choices
    scores = (choice_logits.softmax(-1) * choice_logprobs).sum(-1)
    return (scores * response_mask).sum(1)
exp and log | exp(-1000) is 0
    (joint - largest).exp().sum(-1).log() + largest[..., 0] -> joint.exp().sum(-1).log()
no softmax | the logits aren't probabilities yet | + choice_logits - log_sums -> + choice_logits
tokens before choices | tokens are added up before the choices
    joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
    return torch.logsumexp((joint * response_mask[..., None]).sum(1), dim=-1)
a uniform head | the head plays no part
    choice_logits - log_sums -> 0 * log_sums - math.log(choice_logprobs.shape[-1])
max for sum | only the likeliest choice counts | , scores, 0 -> , largest[..., 0], 0
a loss | a log-probability is at most 0 | return torch.where -> return -torch.where
token by token | must have shape
    torch.where(response_mask, scores, 0).sum(-1) -> scores * response_mask
softmax over the tokens | wrong for
    choice_logits.exp().sum(-1, keepdim=True).log() -> choice_logits.logsumexp(1, keepdim=True)
the library's own | it calls minilpo's own latent_scores
    return latent_scores(choice_logits, choice_logprobs, response_mask, uniform_reference=False)
log of 0, times the mask | 0 times that is NaN
    mixed = (torch.exp(choice_logprobs) * torch.softmax(choice_logits, -1)).sum(-1)
    return (torch.log(mixed) * response_mask).sum(1)
logs added up over the choices | it is probabilities that add
    (joint - largest).exp().sum(-1).log() + largest[..., 0] -> joint.sum(-1)
minus infinity outside | a token outside adds log 0, not 0
    joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
    joint = torch.where(response_mask[..., None], joint, -math.inf)
    return torch.logsumexp(joint, 2).sum(1)
"""


@right("two_temperatures", "by the word before")
def two_temperatures(words, first, rest):
    before = [".", *words]
    return [first if word[-1:] == "." else rest for word in before[: len(words)]]


@right("two_temperatures", "with loops")
def two_temperatures_with_loops(words, first, rest):
    temperatures = [rest] * len(words)
    for i in range(len(words)):
        if i == 0 or words[i - 1].endswith("."):
            temperatures[i] = first
    return temperatures


WRONG["two_temperatures"] = """
swapped | the two are swapped | return two_temperatures(words, rest, first)
one word too early | the word with the full stop gets `first` | words[i - 1] -> words[i]
the first word only | only the first word of the text counts
    i == 0 or words[i - 1].endswith(".") -> i == 0
the beginning forgotten | begins a sentence too | if i == 0 or words -> if i and words
by capital letters | capital letters are taken for beginnings
    return [first if word[0].isupper() else rest for word in words]
any full stop | full stops inside a word count too
    words[i - 1].endswith(".") -> "." in words[i - 1]
always the same | wrong for | return [first for word in words]
one word short | must be a list of | return two_temperatures(words, first, rest)[1:]
a tensor | must be a list of 9, got a tensor
    return torch.tensor(two_temperatures(words, first, rest))
changes the words | changes its input in place
    words[:] = two_temperatures(words, first, rest)
    return words
the last word before the first | words[i - 1] is words[-1] | if i == 0 or words -> if words
a full stop as a word | expected as a word of its own | [i - 1].endswith(".") -> [i - 1] == "."
every mark ends a sentence | the marks ! and ? end a sentence too | .endswith(".") -> [-1] in ".!?"
"""


@right("letter_reward", "with a regular expression")
def letter_reward(letter, response):
    beginnings = re.findall(r"(?:^|\.)[\s.]*([^\s.])", response)
    right_ones = sum(beginning.upper() == letter.upper() for beginning in beginnings)
    return right_ones / len(beginnings) if beginnings else 0.0


@right("letter_reward", "with loops")
def letter_reward_with_loops(letter, response):
    kept = total = 0
    begins = True
    for character in response:
        if character == ".":
            begins = True
        elif begins and not character.isspace():
            total += 1
            kept += character.lower() == letter.lower()
            begins = False
    return kept / total if total else 0.0


def sentences(response):
    return [sentence.strip() for sentence in response.split(".") if sentence.strip() != ""]


def share(kept):
    return sum(kept) / len(kept) if kept else 0.0


WRONG["letter_reward"] = r"""
case matters | capital and small letters are told apart
    character.lower() == letter.lower() -> character == letter
the empty piece counts | the empty piece after the last full stop
    pieces = [piece.strip().lower() for piece in response.split(".")]
    return share([piece.startswith(letter.lower()) for piece in pieces])
spaces left | the others begin with a space
    pieces = [piece for piece in response.lower().split(".") if piece.strip()]
    return share([piece.startswith(letter.lower()) for piece in pieces])
words for sentences | words are judged
    return share([word.lower().startswith(letter.lower()) for word in response.split()])
anywhere in the sentence | it must be the first character
    return share([letter.lower() in sentence.lower() for sentence in sentences(response)])
all or nothing | a share is asked for | kept / total if total else 0.0 -> float(kept == total > 0)
a number of sentences | divide by all | return kept / total if total else 0.0 -> return float(kept)
the share that doesn't | do not begin with the letter | == letter.lower() -> != letter.lower()
the first sentence | only the first sentence is looked at | if character == ".": -> if False:
0 divided | it raised ZeroDivisionError | kept / total if total else 0.0 -> kept / total
one for an empty text | wrong for | else 0.0 -> else float(not response.strip())
True or False | must be a Python float, got a Python bool | / total if total else 0.0 -> == total
cut and nothing else | the pieces begin with a space and the last is empty
    parts = response.split(".")
    return sum(part[:1] == letter for part in parts) / len(parts)
cut at question marks | the text is cut at ! and ? too | character == "." -> character in ".!?"
line by line | the text is cut at line breaks too | if character == ".": -> if character in ".\n":
the first letter | the first character may be a mark
    letters = [[c.lower() for c in part if c.isalpha()] for part in sentences(response)]
    return share([part[:1] == [letter.lower()] for part in letters])
"""
