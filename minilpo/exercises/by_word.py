"""Lesson 8: a temperature before every word. Eq. 11, a rule of two, a reward."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise

NAMES = "Ben Bella Anna Otto Mia tom nora".split()
WORDS = "found saw a the fox map in of big old and then lost".split()


class Eq11Score(Exercise):
    question = """
    Score a response without knowing which temperatures wrote it: sum over all of them, Eq. 11.

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

    mistakes = """
    the mask plays no part: tokens beyond the response count too
        token_scores.masked_fill(~response_mask, 0.0) -> token_scores
    the mask comes before the sum over choices: each place outside adds log K, not 0
        joint.logsumexp -> joint.masked_fill(~response_mask[..., None], 0.0).logsumexp
        token_scores.masked_fill(~response_mask, 0.0) -> token_scores
    the mask comes before the sum over choices: a token outside adds log 0, not 0
        joint.logsumexp -> joint.masked_fill(~response_mask[..., None], -torch.inf).logsumexp
        token_scores.masked_fill(~response_mask, 0.0) -> token_scores
    it is the mean over the tokens; add them up
        0.0).sum(-1) -> 0.0).sum(-1) / response_mask.sum(-1)
    the log stands inside the sum over choices: it is the log of a mean probability
        joint.logsumexp(-1) -> (choice_logprobs * choice_logits.softmax(-1)).sum(-1)
    exp(-1000) is 0, and its log minus infinity; logsumexp never gets there
        joint.logsumexp(-1) -> (choice_logprobs.exp() * choice_logits.softmax(-1)).sum(-1).log()
    the log of what has become 0 is taken, and 0 times that is NaN; use logsumexp
        joint.logsumexp(-1) -> (choice_logprobs.exp() * choice_logits.softmax(-1)).sum(-1).log()
        token_scores.masked_fill(~response_mask, 0.0) -> (token_scores * response_mask)
    logs are added up over the choices; it is probabilities that add: logsumexp | .logsumexp -> .sum
    the logits aren't probabilities yet; take their log-softmax first
        choice_logits.log_softmax(-1) -> choice_logits
    tokens are added up before the choices; for each token, sum over choices first
        joint = choice_logprobs + choice_logits.log_softmax(-1)
        return joint.masked_fill(~response_mask[..., None], 0.0).sum(1).logsumexp(-1)
    the head plays no part: all choices weigh the same
        return right(torch.zeros_like(choice_logits), choice_logprobs, response_mask)
    only the likeliest choice counts; Eq. 11 sums over all | joint.logsumexp(-1) -> joint.amax(-1)
    every number has the wrong sign: a log-probability is at most 0
        return token_scores -> return -token_scores
    """

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
    question = """
    Write the rule of two temperatures: one for the first word of a sentence, one for the rest.

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

    mistakes = """
    the two are swapped: `first` is for the words that begin a sentence
        first if begins else rest -> rest if begins else first
    the word with the full stop gets `first`; the one after it begins the sentence
        first if begins -> first if begins or word.endswith(".")
        begins = word.endswith -> begins = False and word.endswith
    only the first word of the text counts; every full stop begins a sentence
        word.endswith(".") -> False
    the first word of the text begins a sentence too | begins = True -> begins = False
    for the first word, words[i - 1] is words[-1], the last; it begins a sentence anyway
        begins = True -> begins = "".join(words).endswith(".")
    a full stop is expected as a word of its own; it stands at the end of one
        word.endswith(".") -> word == "."
    capital letters are taken for beginnings; names have them in the middle, too
        first if begins -> first if word[:1].isupper()
    full stops inside a word count too; only one at its end ends a sentence
        word.endswith(".") -> "." in word
    the marks ! and ? end a sentence too; here only a full stop does
        word.endswith(".") -> word.endswith((".", "!", "?"))
    """

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
    question = """
    Reward a text whose sentences begin with a given letter.

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

    mistakes = r"""
    capital and small letters are told apart; compare both in lower case
        sentence[0].lower() == letter.lower() -> sentence[0] == letter
    the empty piece after the last full stop is counted as a sentence
        response.split(".") if part.strip()] -> response.split(".")]
        sentence[0].lower() -> sentence[:1].lower()
    the pieces begin with a space and the last is empty; use `strip()`, drop the empty
        [part.strip() for part in response.split(".") if part.strip()] -> response.split(".")
        sentence[0].lower() == letter.lower() -> sentence[:1] == letter
    only the first sentence finds its letter: the others begin with a space; strip it
        [part.strip() for -> [part for
    words are judged; only the first of each sentence counts
        [part.strip() for part in response.split(".") if part.strip()] -> response.split()
    the letter may stand anywhere in the sentence; it must be the first character
        sentence[0].lower() == letter.lower() -> letter.lower() in sentence.lower()
    it is all or nothing; a share is asked for | sum(kept) / len(sentences) -> float(all(kept))
    it is the number of sentences that begin with the letter; divide by all
        sum(kept) / len(sentences) -> float(sum(kept))
    it is the share of sentences that do not begin with the letter | == letter. -> != letter.
    only the first sentence is looked at
        return float(response.strip().lower().startswith(letter.lower()))
    the text is cut at ! and ? too; only a full stop ends a sentence
        return right(letter, response.replace("!", ".").replace("?", "."))
    the text is cut at line breaks too; only a full stop ends a sentence
        return right(letter, response.replace("\n", "."))
    it is the first letter of a sentence; the first character may be a mark
        sentence[0].lower() -> re.sub("[^A-Za-z]", "", sentence)[:1].lower()
    """

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


eq11_score = Eq11Score()
two_temperatures = TwoTemperatures()
letter_reward = LetterReward()
