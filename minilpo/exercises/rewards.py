"""Lesson 3: rewards. What a program says of a response, and the best single temperature."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise

WORDS = "fox bear key map moon river small old ran sang and the".split()


class VarietyReward(Exercise):
    question = """
    Reward a response for not repeating itself: its number of different words by that of all.

    `prompt` and `response` are texts. Words are the texts between spaces (one or more). Capital
    or small letters make no difference, and neither do the marks . , ! and ?, so "Fox," and "fox"
    are the same word, "3.5" and "35" are, and a mark on its own is none. Return a Python float from
    0 to 1, and 0.0 for a response without words. A reward function gets the prompt too; this one
    doesn't use it.
    """

    name = "variety_reward"
    lesson = 3
    hints = (
        "Make one simple text of the response first, then the words, then count.",
        "`set(words)` has each word once. What if there is no word at all?",
        "`response.lower()`, then `.replace(mark, '')` for each of the four marks, then "
        "`.split()` without an argument.",
    )
    explanation = (
        "`split()` without an argument cuts at any number of spaces and makes no empty words. A "
        "reward must say something about any text, however broken, so the empty one is treated "
        "on its own: there 0 would be divided by 0."
    )
    follow_up = (
        "how does a response get the full reward without saying anything? Change the reward so "
        "that this no longer pays."
    )

    @staticmethod
    def right(prompt, response):
        text = response.lower()
        for mark in ".,!?":
            text = text.replace(mark, "")
        words = text.split()
        return len(set(words)) / len(words) if words else 0.0

    mistakes = r"""
    characters are counted; words are asked for | words = text.split() -> words = text
    capital and small letters make different words; lower() them | response.lower() -> response
    marks belong to the words: 'fox,' and 'fox' are counted as two | ".,!?" -> ""
    of two spaces in a row, split(' ') makes an empty word; split() doesn't
        text.split() -> text.split(" ") if text.strip() else []
    it is the share of repeated words; 1 minus that is asked for | return len -> return 1 - len
    it is the number of different words; divide by the number of all
        len(set(words)) / len(words) if words else 0.0 -> float(len(set(words)))
    only words that occur once are counted; of those that repeat, each counts once too
        len(set(words)) -> sum(words.count(word) == 1 for word in words)
    a response without words gets 1; it gets 0.0 | else 0.0 -> else 1.0
    the words of the prompt are counted as well; only the response is judged
        response.lower() -> f"{prompt} {response}".lower()
    it judges the prompt; the response is the second argument | response.lower() -> prompt.lower()
    other marks part words too, as in don't; only spaces do, and . , ! ? are taken away
        text.split() -> re.findall(r"\w+", response.lower())
    only letters are kept; 7 and + are words too
        text.split() -> re.findall("[a-z]+", response.lower())
    all marks are taken away; only . , ! and ? are
        text.split() -> re.sub(r"[^\w\s]|_", "", response.lower()).split()
    words are cut at the marks . , ! ?; take the marks away, so that 3.5 is one word
        text.replace(mark, "") -> text.replace(mark, " ")
    marks are taken away at the ends of words only; those inside, as in 3.5, go too
        text.split() -> list(filter(None, [w.strip(".,!?") for w in response.lower().split()]))
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields repeated words in capital and small letters, marks, many spaces, no words."""
        yield "Say something.", "The fox saw the bear."
        yield "Say something.", "fox fox Fox, fox!"
        yield "Say something.", "bear"
        yield "Say something.", ""
        yield "Say something.", " ... ! ?"
        yield "Say something.", "  the fox ,  the key  "
        for _ in range(12):
            prompt = f"Tell me of the {draw.choice(WORDS)} and the {draw.choice(WORDS)}."
            yield prompt, self._text(draw, 3 + int(draw.integers(12, 1)))
        for response in (
            "don't can't",
            "7 + 5 = 12 + 0",
            "it's its",
            "3.5 is 35",
            "3.5 3,5",
            "e.g. eg, no",
        ):
            yield "Say something.", response

    @staticmethod
    def _text(draw: Draw, n_words: int) -> str:
        """Draws words, some with a capital letter, with marks and spaces between them."""
        text = ""
        for _ in range(n_words):
            word = draw.choice(WORDS)
            word = word.capitalize() if draw.choice([True, False, False]) else word
            text += word + draw.choice(["", "", "", ",", ".", "!", "?", " ,"])
            text += draw.choice([" ", " ", " ", "  "])
        return text


class BestConstant(Exercise):
    question = """
    Find the best single temperature without peeking, and say how good it is.

    `train_rewards` has shape (P, K): the reward of each of P training prompts at each of K
    temperatures. `test_rewards`, of shape (Q, K), has those of Q other prompts. Choose the column
    with the highest mean on the training prompts, the first of equals. Return a tuple: the number
    of the column, a Python int, and its mean on the test prompts, a Python float.
    """

    name = "best_constant"
    lesson = 3
    hints = (
        "Somebody who chooses a temperature today doesn't know the prompts of tomorrow. Which of "
        "the two tensors may the choice look at?",
        "`train_rewards.mean(0)` has one number per temperature.",
        "`k = int(train_rewards.mean(0).argmax())`; the reward is `test_rewards[:, k].mean()`.",
    )
    explanation = (
        "Of several noisy means the largest is too high by some luck, so a number that was used "
        "for choosing can't be reported as well. On prompts that played no part in the choice, "
        "the same column has a fair mean."
    )
    follow_up = "how much higher is the reward if you do peek? Try it with rewards of pure chance."

    @staticmethod
    def right(train_rewards, test_rewards):
        k = int(train_rewards.mean(0).argmax())
        return k, test_rewards[:, k].mean().item()

    mistakes = """
    it peeks: the column is chosen on the test prompts; choose on the training prompts
        train_rewards.mean -> test_rewards.mean
    training and test prompts are swapped | return right(test_rewards, train_rewards)
    the mean is that on the training prompts; report the one on the test prompts
        test_rewards[:, k] -> train_rewards[:, k]
    it peeks: the column is chosen on training and test prompts together
        train_rewards.mean -> torch.cat([train_rewards, test_rewards]).mean
    the best of each test prompt is taken; it must be the same column for all
        test_rewards[:, k] -> test_rewards.amax(1)
    it is the worst column; argmax finds the best | argmax -> argmin
    of equal columns it takes the last; the first is asked for
        k = int( -> k = train_rewards.shape[1] - 1 - int(
        .argmax() -> .flip(0).argmax()
    the column of the single highest reward is taken; compare the means | .mean(0) -> .amax(0)
    the column that is best for most prompts is taken; compare the means
        train_rewards.mean(0) -> train_rewards.argmax(1).bincount()
    the rewards are added up; their mean is asked for | .mean().item() -> .sum().item()
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields test prompts with another best column; ties; rewards below 0; one prompt."""
        yield torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
        yield torch.tensor([[0.25, 0.75, 0.75]]), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.5]])
        yield torch.tensor([[0.5], [0.0]]), torch.tensor([[0.25], [1.0], [1.0]])
        yield torch.tensor([[-0.75, -0.25, -0.5]]), torch.tensor([[-1.0, -0.5, 0.0]])
        for P, Q, K in [(2, 3, 4), (5, 1, 3), (1, 6, 5), (8, 4, 2), (4, 4, 4), (20, 10, 6)]:
            yield draw.normal(P, K), draw.normal(Q, K)
        for P, Q, K in [(4, 3, 5), (8, 5, 4), (2, 7, 6)]:  # quarters: many ties, no rounding
            yield draw.integers(3, P, K) / 4, draw.integers(5, Q, K) / 4
        yield -draw.uniform(6, 3), -draw.uniform(9, 3)
        yield draw.uniform(3, 4).double(), draw.uniform(5, 4).double()
        yield draw.uniform(30, 6), draw.uniform(12, 6)


variety_reward = VarietyReward()
best_constant = BestConstant()
