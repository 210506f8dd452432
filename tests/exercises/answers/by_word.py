"""Answers to the exercises of lesson 8."""

import math
import re

import torch

from tests.exercises.answers import WrongAnswers, right, wrong

# eq11_score


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


def over_choices(choice_logits, choice_logprobs):
    return torch.logsumexp(choice_logprobs + torch.log_softmax(choice_logits, -1), dim=-1)


# two_temperatures


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


# letter_reward


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


class LetterReward(WrongAnswers, to="letter_reward"):
    @wrong("case matters", "capital and small letters are told apart")
    def letter_case(letter, response):
        return share([sentence.startswith(letter) for sentence in sentences(response)])

    @wrong("the empty piece counts", "the empty piece after the last full stop")
    def letter_empty(letter, response):
        pieces = response.lower().split(".")
        return share([piece.strip().startswith(letter.lower()) for piece in pieces])

    @wrong("spaces left", "the others begin with a space")
    def letter_spaces(letter, response):
        pieces = [piece for piece in response.lower().split(".") if piece.strip()]
        return share([piece.startswith(letter.lower()) for piece in pieces])

    @wrong("words for sentences", "words are judged")
    def letter_words(letter, response):
        return share([word.lower().startswith(letter.lower()) for word in response.split()])

    @wrong("anywhere in the sentence", "it must be the first character")
    def letter_anywhere(letter, response):
        return share([letter.lower() in sentence.lower() for sentence in sentences(response)])

    @wrong("all or nothing", "a share is asked for")
    def letter_all(letter, response):
        kept = [sentence[0].lower() == letter.lower() for sentence in sentences(response)]
        return 1.0 if kept and all(kept) else 0.0

    @wrong("a number of sentences", "divide by all")
    def letter_total(letter, response):
        return float(sum(s[0].lower() == letter.lower() for s in sentences(response)))

    @wrong("the share that doesn't", "do not begin with the letter")
    def letter_turned(letter, response):
        return share([sentence[0].lower() != letter.lower() for sentence in sentences(response)])

    @wrong("the first sentence", "only the first sentence is looked at")
    def letter_first(letter, response):
        return share(
            [sentence[0].lower() == letter.lower() for sentence in sentences(response)[:1]]
        )

    @wrong("0 divided", "it raised ZeroDivisionError")
    def letter_zero(letter, response):
        kept = [sentence[0].lower() == letter.lower() for sentence in sentences(response)]
        return sum(kept) / len(kept)

    @wrong("one for an empty text", "wrong for")
    def letter_one_for_nothing(letter, response):
        return letter_reward(letter, response) if response.strip() else 1.0

    @wrong("True or False", "must be a Python float, got a Python bool")
    def letter_bool(letter, response):
        return all(sentence[0].lower() == letter.lower() for sentence in sentences(response))

    @wrong("cut and nothing else", "the pieces begin with a space and the last is empty")
    def only_cut(letter, response):
        parts = response.split(".")
        return sum(part[:1] == letter for part in parts) / len(parts)

    @wrong("cut at question marks", "the text is cut at ! and ? too")
    def cut_at_question_marks(letter, response):
        parts = [part.strip() for part in re.split("[.!?]", response)]
        return share([part[0].lower() == letter.lower() for part in parts if part])

    @wrong("line by line", "the text is cut at line breaks too")
    def line_by_line(letter, response):
        parts = [part for line in response.splitlines() for part in sentences(line)]
        return share([part[0].lower() == letter.lower() for part in parts])

    @wrong("the first letter", "the first character may be a mark")
    def first_letter(letter, response):
        letters = [[c.lower() for c in part if c.isalpha()] for part in sentences(response)]
        return share([part[:1] == [letter.lower()] for part in letters])


class TwoTemperatures(WrongAnswers, to="two_temperatures"):
    @wrong("swapped", "the two are swapped")
    def two_swapped(words, first, rest):
        return two_temperatures(words, rest, first)

    @wrong("one word too early", "the word with the full stop gets `first`")
    def two_too_early(words, first, rest):
        return [first if i == 0 or words[i].endswith(".") else rest for i in range(len(words))]

    @wrong("the first word only", "only the first word of the text counts")
    def two_first_only(words, first, rest):
        return [first if i == 0 else rest for i in range(len(words))]

    @wrong("the beginning forgotten", "begins a sentence too")
    def two_beginning(words, first, rest):
        return [first if i and words[i - 1].endswith(".") else rest for i in range(len(words))]

    @wrong("by capital letters", "capital letters are taken for beginnings")
    def two_by_capitals(words, first, rest):
        return [first if word[0].isupper() else rest for word in words]

    @wrong("any full stop", "full stops inside a word count too")
    def two_inside(words, first, rest):
        return [first if i == 0 or "." in words[i - 1] else rest for i in range(len(words))]

    @wrong("always the same", "wrong for")
    def two_one(words, first, rest):
        return [first for word in words]

    @wrong("one word short", "must be a list of")
    def two_short(words, first, rest):
        return two_temperatures(words, first, rest)[1:]

    @wrong("a tensor", "must be a list of 9, got a tensor")
    def two_tensor(words, first, rest):
        return torch.tensor(two_temperatures(words, first, rest))

    @wrong("changes the words", "changes its input in place")
    def two_in_place(words, first, rest):
        for i, temperature in enumerate(two_temperatures(words, first, rest)):
            words[i] = temperature
        return words

    @wrong("the last word before the first", "words[i - 1] is words[-1]")
    def round_the_corner(words, first, rest):
        return [first if words[i - 1][-1] == "." else rest for i in range(len(words))]

    @wrong("a full stop as a word", "expected as a word of its own")
    def full_stop_alone(words, first, rest):
        starts = [i == 0 or words[i - 1] == "." for i in range(len(words))]
        return [first if start else rest for start in starts]

    @wrong("every mark ends a sentence", "the marks ! and ? end a sentence too")
    def every_mark(words, first, rest):
        return [first if i == 0 or words[i - 1][-1] in "?.!" else rest for i in range(len(words))]


class Eq11Score(WrongAnswers, to="eq11_score"):
    @wrong("mask ignored", "the mask plays no part")
    def eq11_without_mask(choice_logits, choice_logprobs, response_mask):
        return over_choices(choice_logits, choice_logprobs).sum(1)

    @wrong("mask before the sum over choices", "each place outside adds log K")
    def eq11_masked_early(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
        return torch.logsumexp(joint * response_mask[..., None], -1).sum(1)

    @wrong("mean for sum", "it is the mean over the tokens")
    def eq11_mean(choice_logits, choice_logprobs, response_mask):
        scores = over_choices(choice_logits, choice_logprobs) * response_mask
        return scores.sum(1) / response_mask.sum(1)

    @wrong("log inside the sum", "the log stands inside the sum over choices")
    def eq11_log_inside(choice_logits, choice_logprobs, response_mask):
        scores = torch.einsum(
            "btk,btk->bt", choice_logits.softmax(-1) + 0 * choice_logprobs, choice_logprobs
        )
        return (scores * response_mask).sum(1)

    @wrong("exp and log", "exp(-1000) is 0")
    def eq11_unstable(choice_logits, choice_logprobs, response_mask):
        probs = choice_logprobs.exp() * torch.softmax(choice_logits, dim=-1)
        return torch.where(response_mask, torch.log(probs.sum(-1)), 0.0).sum(1)

    @wrong("no softmax", "the logits aren't probabilities yet")
    def eq11_of_logits(choice_logits, choice_logprobs, response_mask):
        scores = torch.logsumexp(choice_logprobs + choice_logits, -1)
        return torch.where(response_mask, scores, 0.0).sum(1)

    @wrong("tokens before choices", "tokens are added up before the choices")
    def eq11_tokens_first(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
        return torch.logsumexp((joint * response_mask[..., None]).sum(1), dim=-1)

    @wrong("a uniform head", "the head plays no part")
    def eq11_without_head(choice_logits, choice_logprobs, response_mask):
        scores = choice_logprobs.logsumexp(-1) - math.log(choice_logprobs.shape[-1])
        return torch.where(response_mask, scores, 0.0).sum(1)

    @wrong("max for sum", "only the likeliest choice counts")
    def eq11_max(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
        return torch.where(response_mask, joint.max(-1).values, 0.0).sum(1)

    @wrong("a loss", "a log-probability is at most 0")
    def eq11_sign(choice_logits, choice_logprobs, response_mask):
        return -(over_choices(choice_logits, choice_logprobs) * response_mask).sum(1)

    @wrong("token by token", "must have shape")
    def eq11_per_token(choice_logits, choice_logprobs, response_mask):
        return over_choices(choice_logits, choice_logprobs) * response_mask

    @wrong("softmax over the tokens", "wrong for")
    def eq11_over_tokens(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, dim=1)
        return (joint.logsumexp(-1) * response_mask).sum(1)

    @wrong("the library's own", "it calls minilpo's own latent_scores")
    def eq11_of_the_library(choice_logits, choice_logprobs, response_mask):
        from minilpo.losses import latent_scores

        return latent_scores(choice_logits, choice_logprobs, response_mask, uniform_reference=False)

    @wrong("log of 0, times the mask", "0 times that is NaN")
    def eq11_zero_times_infinity(choice_logits, choice_logprobs, response_mask):
        mixed = (torch.exp(choice_logprobs) * torch.softmax(choice_logits, -1)).sum(-1)
        return (torch.log(mixed) * response_mask).sum(1)

    @wrong("logs added up over the choices", "it is probabilities that add")
    def eq11_logs_added(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
        return (joint.sum(-1) * response_mask).sum(1)

    @wrong("minus infinity outside", "a token outside adds log 0, not 0")
    def eq11_minus_infinity(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + torch.log_softmax(choice_logits, -1)
        joint = torch.where(response_mask[..., None], joint, -math.inf)
        return torch.logsumexp(joint, 2).sum(1)
