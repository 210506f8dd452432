"""Lesson 8: a temperature before every word. Eq. 11, a rule of two, a reward."""

import re
from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise, mistake

NAMES = "Ben Bella Anna Otto Mia tom nora".split()
WORDS = "found saw a the fox map in of big old and then lost".split()


class Eq11Score(Exercise):
    """Score a response without knowing which temperatures wrote it: sum over all of them, Eq. 11.

    `choice_logits` has shape (B, S, K): the head's logits before each token (S = T) or once for
    the whole response (S = 1, the same for every token). `choice_logprobs` (B, T, K) holds
    log P(y_t | tau_k): how likely each of K temperatures makes the token that was written.
    `response_mask` (B, T) is True at the tokens of the response. With P(tau_k | h_t) the softmax of
    the logits, the score of a response is the sum over its tokens of
    log sum_k P(y_t | tau_k) P(tau_k | h_t). The result has shape (B,) and the dtype of the inputs.
    It must be right even where all log-probabilities are -1000.
    """

    name = "eq11_score"
    lesson = 8
    hints = (
        "For one token: the probability that the mixture gives it, a sum over K, and of that the "
        "log. Only then comes the sum over the tokens.",
        "A product of probabilities is a sum of logs: add `choice_logits.log_softmax(-1)` to "
        "`choice_logprobs`. With S = 1 it is broadcast over the tokens.",
        "`logsumexp(-1)` takes exp, adds up and takes the log, without rounding anything to 0. "
        "Then `masked_fill(~response_mask, 0.0).sum(-1)`.",
    )
    explanation = (
        "In Eq. 10 the temperature that was drawn gets all credit. Here every temperature gets as "
        "much as it would have deserved: those that make the token likely. exp(-1000) is 0 in "
        "floating point; logsumexp sets the largest number aside first. The mask comes after "
        "the sum over temperatures: 0 in place of a log-probability would mean certainty."
    )
    follow_up = (
        "for one temperature per response, the exact score is log sum_k P(tau_k | h) times the "
        "product over tokens. Write that, and find a response where the two differ."
    )

    @staticmethod
    def right(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + choice_logits.log_softmax(-1)  # (B, T, K)
        token_scores = joint.logsumexp(-1)  # (B, T)
        return token_scores.masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("the mask plays no part: tokens beyond the response count too")
    def without_mask(choice_logits, choice_logprobs, response_mask):
        return (choice_logprobs + choice_logits.log_softmax(-1)).logsumexp(-1).sum(-1)

    @mistake("the mask comes before the sum over choices: each place outside adds log K, not 0")
    def masked_too_early(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + choice_logits.log_softmax(-1)
        return joint.masked_fill(~response_mask[..., None], 0.0).logsumexp(-1).sum(-1)

    @mistake("the mask comes before the sum over choices: a token outside adds log 0, not 0")
    def masked_with_infinity(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + choice_logits.log_softmax(-1)
        return joint.masked_fill(~response_mask[..., None], -torch.inf).logsumexp(-1).sum(-1)

    @mistake("it is the mean over the tokens; add them up")
    def mean(choice_logits, choice_logprobs, response_mask):
        total = Eq11Score.right(choice_logits, choice_logprobs, response_mask)
        return total / response_mask.sum(-1)

    @mistake("the log stands inside the sum over choices: it is the log of a mean probability")
    def log_inside(choice_logits, choice_logprobs, response_mask):
        token_scores = (choice_logprobs * choice_logits.softmax(-1)).sum(-1)
        return token_scores.masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("exp(-1000) is 0, and its log minus infinity; logsumexp never gets there")
    def rounded_to_zero(choice_logits, choice_logprobs, response_mask):
        token_probs = (choice_logprobs.exp() * choice_logits.softmax(-1)).sum(-1)
        return token_probs.log().masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("the log of what has become 0 is taken, and 0 times that is NaN; use logsumexp")
    def zero_times_infinity(choice_logits, choice_logprobs, response_mask):
        token_probs = (choice_logprobs.exp() * choice_logits.softmax(-1)).sum(-1)
        return (token_probs.log() * response_mask).sum(-1)

    @mistake("logs are added up over the choices; it is probabilities that add: logsumexp")
    def logs_added(choice_logits, choice_logprobs, response_mask):
        token_scores = (choice_logprobs + choice_logits.log_softmax(-1)).sum(-1)
        return token_scores.masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("the logits aren't probabilities yet; take their log-softmax first")
    def of_logits(choice_logits, choice_logprobs, response_mask):
        token_scores = (choice_logprobs + choice_logits).logsumexp(-1)
        return token_scores.masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("tokens are added up before the choices; for each token, sum over choices first")
    def tokens_first(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + choice_logits.log_softmax(-1)
        return joint.masked_fill(~response_mask[..., None], 0.0).sum(1).logsumexp(-1)

    @mistake("the head plays no part: all choices weigh the same")
    def without_head(choice_logits, choice_logprobs, response_mask):
        return Eq11Score.right(torch.zeros_like(choice_logits), choice_logprobs, response_mask)

    @mistake("only the likeliest choice counts; Eq. 11 sums over all")
    def likeliest(choice_logits, choice_logprobs, response_mask):
        joint = choice_logprobs + choice_logits.log_softmax(-1)
        return joint.amax(-1).masked_fill(~response_mask, 0.0).sum(-1)

    @mistake("every number has the wrong sign: a log-probability is at most 0")
    def sign_lost(choice_logits, choice_logprobs, response_mask):
        return -Eq11Score.right(choice_logits, choice_logprobs, response_mask)

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields choices per token and one for all; short and long masks; unlikely tokens."""
        half = torch.tensor([[[0.5, 0.25]]]).log()
        yield torch.zeros(1, 1, 2), half, torch.tensor([[True]])
        for B, T, K in [(1, 3, 2), (3, 5, 3), (5, 2, 4), (2, 7, 6), (4, 4, 4), (2, 1, 3)]:
            for S in {1, T}:
                logprobs = draw.normal(B, T, K, scale=2.0).abs().neg()
                yield draw.normal(B, S, K, scale=2.0), logprobs, draw.mask(B, T)
        logprobs = draw.normal(2, 4, 3).abs().neg()
        yield draw.normal(2, 4, 3), logprobs, torch.arange(4).expand(2, 4) == 2
        yield draw.normal(2, 3, 3), logprobs[:, :3] - 1000, draw.mask(2, 3)
        yield draw.normal(2, 1, 3, scale=30.0), logprobs * 500, draw.mask(2, 4)
        yield draw.normal(2, 4, 3).double(), logprobs.double(), draw.mask(2, 4)


class TwoTemperatures(Exercise):
    """Write the rule of two temperatures: one for the first word of a sentence, one for the rest.

    `words` is the list of the words of a text. Its first word begins a sentence, and so does every
    word after one that ends in a full stop. Return a list of as many floats: `first` for each word
    that begins a sentence, `rest` for the others.
    """

    name = "two_temperatures"
    lesson = 8
    hints = (
        "What has to be known about the words before this one? Only one thing.",
        "Remember whether a sentence begins: True before the first word; after each word, whether "
        "that word ended in a full stop.",
        '`begins = word.endswith(".")` at the end of a loop, after `first if begins else rest` '
        "was appended.",
    )
    explanation = (
        "Whether a word comes first is known before it is written: it depends on the word before "
        "it. So a decoder can follow the rule. A head at token level has to find out by itself "
        "that the first word is where a letter can be kept or a story can go another way."
    )
    follow_up = 'let "!" and "?" end a sentence too, and a closing quotation mark stand after them.'

    @staticmethod
    def right(words, first, rest):
        temperatures = []
        begins = True
        for word in words:
            temperatures.append(first if begins else rest)
            begins = word.endswith(".")
        return temperatures

    @mistake("the two are swapped: `first` is for the words that begin a sentence")
    def swapped(words, first, rest):
        return TwoTemperatures.right(words, rest, first)

    @mistake("the word with the full stop gets `first`; the one after it begins the sentence")
    def too_early(words, first, rest):
        ends = [first if word.endswith(".") else rest for word in words]
        return [first, *ends[1:]] if words else []

    @mistake("only the first word of the text counts; every full stop begins a sentence")
    def first_only(words, first, rest):
        return ([first] + [rest] * (len(words) - 1)) if words else []

    @mistake("the first word of the text begins a sentence too")
    def beginning_forgotten(words, first, rest):
        return [rest, *TwoTemperatures.right(words, first, rest)[1:]] if words else []

    @mistake("for the first word, words[i - 1] is words[-1], the last; it begins a sentence anyway")
    def round_the_corner(words, first, rest):
        return [first if words[i - 1].endswith(".") else rest for i in range(len(words))]

    @mistake("a full stop is expected as a word of its own; it stands at the end of one")
    def full_stop_alone(words, first, rest):
        begins = [True, *(word == "." for word in words)]
        return [first if begin else rest for begin in begins[: len(words)]]

    @mistake("capital letters are taken for beginnings; names have them in the middle, too")
    def by_capitals(words, first, rest):
        return [first if word[:1].isupper() else rest for word in words]

    @mistake("full stops inside a word count too; only one at its end ends a sentence")
    def inside_words(words, first, rest):
        begins = [True, *("." in word for word in words)]
        return [first if begin else rest for begin in begins[: len(words)]]

    @mistake("the marks ! and ? end a sentence too; here only a full stop does")
    def all_marks(words, first, rest):
        begins = [True, *(word.endswith((".", "!", "?")) for word in words)]
        return [first if begin else rest for begin in begins[: len(words)]]

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields names in the middle, small letters at the beginning, numbers, one word, none."""
        yield "Ben ran home. Bella hid. The fox saw Ben.".split(), 0.2, 1.0
        yield ["Stop."], 0.0, 0.7
        yield [], 0.3, 0.9
        yield "Yes. No. Yes. it is.".split(), 1.0, 0.0
        yield "Then Anna paid 3.5 coins and left".split(), 0.4, 0.8
        yield "the fox . the map".split(), 0.6, 0.1
        for n in (2, 3, 5, 8, 12, 17, 25, 40):
            yield _words(draw, n), float(draw.uniform(1)), 1.1 + float(draw.uniform(1))
        yield "Stop! Who? Ben ran. Anna hid".split(), 0.3, 0.8


class LetterReward(Exercise):
    """Reward a text whose sentences begin with a given letter.

    Cut `response` after each full stop; the rest at the end, without one, is a sentence too.
    Spaces and line breaks around a sentence don't belong to it, and nothing but these is no
    sentence. Return the share of sentences whose first character is `letter`, a float from 0 to 1;
    capital and small letters count as the same. A response without any sentence gets 0.0.
    """

    name = "letter_reward"
    lesson = 8
    hints = (
        "How many sentences are there, and how many of them begin with the letter? What if there "
        "are none?",
        '`response.split(".")` cuts at the full stops; the piece after the last one is empty. '
        "`strip()` takes the spaces away.",
        "Keep the pieces that aren't empty after `strip()`, count those whose `[0].lower()` is "
        "`letter.lower()`, divide by their number; return 0.0 first if there are none.",
    )
    explanation = (
        "A share instead of all or nothing gives the training something to prefer even between "
        "two imperfect responses. Whatever a language model writes must get a reward, the empty "
        "text too: it kept the rule nowhere, so it gets 0."
    )
    follow_up = "multiply it by `variety_reward`: which responses get all from one alone?"

    @staticmethod
    def right(letter, response):
        sentences = [part.strip() for part in response.split(".") if part.strip()]
        if not sentences:
            return 0.0
        kept = [sentence[0].lower() == letter.lower() for sentence in sentences]
        return sum(kept) / len(sentences)

    @mistake("capital and small letters are told apart; compare both in lower case")
    def case_matters(letter, response):
        sentences = _sentences(response)
        kept = [sentence[0] == letter for sentence in sentences]
        return sum(kept) / len(sentences) if sentences else 0.0

    @mistake("the empty piece after the last full stop is counted as a sentence")
    def empty_counted(letter, response):
        pieces = [piece.strip().lower() for piece in response.split(".")]
        return sum(piece.startswith(letter.lower()) for piece in pieces) / len(pieces)

    @mistake("the pieces begin with a space and the last is empty; use `strip()`, drop the empty")
    def only_cut(letter, response):
        pieces = response.split(".")
        return sum(piece.startswith(letter) for piece in pieces) / len(pieces)

    @mistake("only the first sentence finds its letter: the others begin with a space; strip it")
    def not_stripped(letter, response):
        pieces = [piece.lower() for piece in response.split(".") if piece.strip()]
        return sum(piece[0] == letter.lower() for piece in pieces) / len(pieces) if pieces else 0.0

    @mistake("words are judged; only the first of each sentence counts")
    def of_words(letter, response):
        words = [word.lower() for word in response.split()]
        return sum(word[0] == letter.lower() for word in words) / len(words) if words else 0.0

    @mistake("the letter may stand anywhere in the sentence; it must be the first character")
    def anywhere(letter, response):
        sentences = _sentences(response.lower())
        kept = [letter.lower() in sentence for sentence in sentences]
        return sum(kept) / len(sentences) if sentences else 0.0

    @mistake("it is all or nothing; a share is asked for")
    def all_or_nothing(letter, response):
        return float(LetterReward.right(letter, response) == 1.0)

    @mistake("it is the number of sentences that begin with the letter; divide by all")
    def total(letter, response):
        return LetterReward.right(letter, response) * float(len(_sentences(response)))

    @mistake("it is the share of sentences that do not begin with the letter")
    def turned(letter, response):
        return 1.0 - LetterReward.right(letter, response) if _sentences(response) else 0.0

    @mistake("only the first sentence is looked at")
    def first_only(letter, response):
        return float(response.strip().lower().startswith(letter.lower()))

    @mistake("the text is cut at ! and ? too; only a full stop ends a sentence")
    def cut_at_all_marks(letter, response):
        return LetterReward.right(letter, response.replace("!", ".").replace("?", "."))

    @mistake("the text is cut at line breaks too; only a full stop ends a sentence")
    def cut_at_lines(letter, response):
        return LetterReward.right(letter, response.replace("\n", "."))

    @mistake("it is the first letter of a sentence; the first character may be a mark")
    def first_letter(letter, response):
        beginnings = [re.sub("[^A-Za-z]", "", sentence) for sentence in _sentences(response)]
        kept = [beginning[:1].lower() == letter.lower() for beginning in beginnings]
        return sum(kept) / len(kept) if kept else 0.0

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields nothing, spaces, one sentence, small letters, no full stop at the end."""
        yield "B", "Ben ran. Bella hid."
        yield "B", ""
        yield "A", "   "
        yield "b", "Ben ran. anna hid. Tom is big"
        yield "O", "otto saw a fox.  Otto lost the map.\nthen Otto ran."
        yield "T", "Tom"
        yield "M", "Anna met Mia. Mia ran. mia hid. Mia"
        yield "B", "A fox. A bear. A boy."
        for n in (4, 7, 11, 16, 22, 30, 40):
            yield draw.choice("AaBbMmNnOo"), " ".join(_words(draw, n))
        yield "B", "Ben ran! Anna hid. Bella? No."
        yield "b", "Ben ran\nand hid. Bella saw\nBen."
        yield "B", '"Ben ran. (Bella hid). 2 boys ran.'


def _words(draw, n):
    """Draws names, other words and some full stops."""
    words = []
    for _ in range(n):
        word = draw.choice(NAMES) if draw.uniform(1) < 0.5 else draw.choice(WORDS)
        words.append(word + "." if draw.uniform(1) < 0.3 else word)
    return words


def _sentences(response):
    return [piece.strip() for piece in response.split(".") if piece.strip()]


eq11_score = Eq11Score()
two_temperatures = TwoTemperatures()
letter_reward = LetterReward()
