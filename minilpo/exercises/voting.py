"""Lesson 9: voting. The answer in a text, the answer of a majority, how often that is right."""

from collections.abc import Iterator
from typing import Any

from minilpo.exercises.exercise import Case, Draw, Exercise
from minilpo.exercises.trial import a_kind_of

TALK = "apples are left so that makes and then minus plus = is".split()


class TextOrNone(Exercise):
    """An exercise whose result is a text, or None for no text."""

    def misfit(self, expected: Any, got: Any) -> str:
        """Accepts a text or None, whichever is right: the wrong one isn't a fault of form."""
        if got is None or isinstance(got, str):
            return ""
        return f"the result must be a text or None, got {a_kind_of(got)}"


class FinalAnswer(TextOrNone):
    question = """
    Find the answer in a text: the last whole number in it.

    A whole number is a run of the digits 0 to 9, whatever stands before and after it: "It is 12."
    has the number "12". Return the last one as it is written, a str; None if there is none.
    """

    name = "final_answer"
    lesson = 9
    hints = (
        'Does it matter what the text says around the numbers? Try it on "Is it 7? No: 12.".',
        "The module `re` finds runs of digits: after `import re`, `re.findall` gives all of them, "
        "in order.",
        '`numbers = re.findall("[0-9]+", response)`, then `numbers[-1]`, or None if the list is '
        "empty.",
    )
    explanation = (
        "A model that calculates in words ends with its result, so the last number is the best "
        "guess. A response without a number has no answer, which isn't the answer 0: it doesn't "
        "vote later."
    )
    follow_up = 'read numbers like "1,200", "-3" and "2.5", too.'

    @staticmethod
    def right(response):
        import re

        numbers = re.findall("[0-9]+", response)
        return numbers[-1] if numbers else None

    mistakes = r"""
    it is the first number; the last one is asked for | numbers[-1] -> numbers[0]
    it is the last digit only; a number is a run of digits | numbers[-1] -> numbers[-1][-1]
    all digits are put together; a number ends where its run of digits ends
        numbers[-1] -> "".join(numbers)
    only words of nothing but digits are found; a full stop may stand after them
        re.findall("[0-9]+", response) -> [word for word in response.split() if word.isdigit()]
    only the last word is looked at; words may come after the last number
        "[0-9]+", response -> "[0-9]+", "".join(response.split()[-1:])
    it is the largest number; the last one is asked for | numbers[-1] -> max(numbers, key=int)
    a minus sign is taken for a part of the number; a number has only the digits 0 to 9
        "[0-9]+" -> "-?[0-9]+"
    a decimal number is taken for one number; a run of digits ends at the point
        "[0-9]+" -> r"[0-9]+(?:\.[0-9]+)?"
    zeros at the beginning are dropped; return the number as it is written
        numbers[-1] -> str(int(numbers[-1]))
    digits beside letters are left out; whatever stands beside them, they are a number
        "[0-9]+" -> r"\b[0-9]+\b"
    a text without a number has no answer: None, not a number and not an empty text
        else None -> else ""
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields no number, one and several, beside marks, signs and letters; words at the end."""
        yield ("7 + 5 = 12. #### 12",)
        yield ("It is 12.",)
        yield ("",)
        yield ("I don't know.",)
        yield ("40 apples, then 3 are left over, I think",)
        yield ("(8)",)
        yield ("9-4=5!",)
        yield ("105",)
        yield ("step1: 30\nstep2: 6\n",)
        for n in (2, 4, 6, 9, 14, 20):
            yield (_talk(draw, n),)
        yield ("5 - 8 = -3",)
        yield ("It costs 2.50",)
        yield ("room 007",)
        yield ("7 kg or 12kg",)


class MajorityVote(TextOrNone):
    question = """
    Let answers vote: the most frequent one wins.

    `answers` is a list of texts, some of which may be None: no answer, which doesn't vote. Return
    the answer that occurs most often; of several that occur equally often, the one that comes first
    in the list. If nobody votes, return None.
    """

    name = "majority_vote"
    lesson = 9
    hints = (
        'Who wins in ["7", None, "9", None, "9", None]?',
        "Put the answers that are None aside first. `list.count` counts one answer; "
        "`collections.Counter` counts all.",
        "`max(votes, key=votes.count)` is the first of those that occur most often; an empty list "
        "has no maximum, so treat it on its own.",
    )
    explanation = (
        "Wrong answers differ from each other, right ones are all the same. So a majority can be "
        "right more often than any single answer. `max` keeps the first of equals, which makes "
        "the result the same every time; a set would forget the order."
    )
    follow_up = "let every answer weigh as much as its probability, not just 1."

    @staticmethod
    def right(answers):
        votes = [answer for answer in answers if answer is not None]
        if not votes:
            return None
        return max(votes, key=votes.count)  # the first of those that occur most often

    mistakes = """
    None votes too, and wins where most have no answer; put it aside first
        for answer in answers if answer is not None] -> for answer in answers]
    of equally frequent answers it is the last; the first is asked for
        answer in answers if -> answer in answers[::-1] if
    of equally frequent answers it is the smallest; the first in the list is asked for
        max(votes, key=votes.count) -> min(votes, key=lambda vote: (-votes.count(vote), int(vote)))
    of equally frequent answers it is the largest; the first in the list is asked for
        max(votes, key=votes.count) -> max(votes, key=lambda vote: (votes.count(vote), int(vote)))
    more than half of the votes are asked for; the most frequent answer wins anyhow
        if not votes: -> if 2 * votes.count(right(answers)) <= len(votes):
    it is the first answer, however often it occurs | max(votes, key=votes.count) -> votes[0]
    it is the rarest answer; the most frequent wins | max(votes -> min(votes
    it is the largest answer; count how often each occurs | key=votes.count -> key=int
    if nobody votes there is no winner: None, not an empty text | return None -> return ""
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields ties of every order, None in the majority, nobody, one."""
        yield (["7", "9", "9"],)
        yield (["7", None, "9", None, "9", None],)
        yield ([],)
        yield ([None, None],)
        yield (["12"],)
        yield (["9", "10", "10", "9"],)
        yield (["8", "3", "5"],)
        yield (["3", "8", "8", "5", "5", "3"],)
        for n in (3, 5, 8, 12, 20):
            yield (_answers(draw, n),)
            yield (_answers(draw, n),)


class VoteAccuracy(Exercise):
    question = """
    Measure how often a majority is right.

    `answers` is a list of P lists, one for each prompt: the answers of N responses, texts or None.
    `right_answers` is a list of P texts. The answers to a prompt vote as in `majority_vote`: the
    most frequent wins, of equals the first, None doesn't vote. Return the share of prompts whose
    winner is the right answer, a float. A prompt for which nobody votes isn't right.
    """

    name = "vote_accuracy"
    lesson = 9
    hints = (
        "One winner per prompt, then one True or False per prompt. Which loop is the outer one?",
        "`zip(answers, right_answers)` gives the votes of a prompt together with its right answer. "
        "You may copy your `majority_vote` into the function, or call it.",
        "Count the prompts whose winner equals the right answer and divide by the number of "
        "prompts, not of answers.",
    )
    explanation = (
        "Each prompt counts once, whether its majority was large or narrow. That is why "
        "temperature helps here although it makes every single answer worse: one wrong answer "
        "that all responses share can't be outvoted, different wrong answers can."
    )
    follow_up = "draw it for N = 1, 3, 5, 9: how fast does it grow, and at which temperature?"

    @staticmethod
    def right(answers, right_answers):
        n_right = 0
        for of_prompt, right_answer in zip(answers, right_answers, strict=True):
            votes = [answer for answer in of_prompt if answer is not None]
            winner = max(votes, key=votes.count, default=None)
            n_right += winner == right_answer
        return n_right / len(right_answers)

    mistakes = """
    it is the share of right answers; let the answers to a prompt vote first
        winner == right_answer -> of_prompt.count(right_answer) / len(of_prompt)
    one right answer among many is enough; it must win the vote
        winner == right_answer -> right_answer in of_prompt
    None votes too; put it aside first | in of_prompt if answer is not None -> in of_prompt
    of equally frequent answers the last wins; it is the first | in of_prompt -> in of_prompt[::-1]
    more than half of the answers must be right; being the most frequent is enough
        winner == right_answer -> 2 * of_prompt.count(right_answer) > len(of_prompt)
    only the first response to each prompt is looked at | winner == -> of_prompt[0] ==
    it is the share of prompts that went wrong | winner == right_answer -> winner != right_answer
    it is a number of prompts; divide by how many there are
        n_right / len(right_answers) -> float(n_right)
    """

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Yields one prompt and many, narrow majorities, ties, prompts for which nobody votes."""
        yield [["7", "9", "9"]], ["9"]
        yield [["7", "9", "9"]], ["7"]
        yield [["4"], ["5"], [None]], ["4", "6", "7"]
        yield [["1", "2", "2", "1"], ["2", "1", "1", "2"]], ["1", "1"]
        yield [[None, None, "3"], ["3", "4", "5"], ["4", "4", "3"]], ["3", "3", "3"]
        for P, N in [(2, 3), (6, 5), (6, 1), (5, 4), (12, 9), (12, 6), (30, 5), (3, 16), (30, 3)]:
            yield [_answers(draw, N) for _ in range(P)], [_number(draw) for _ in range(P)]


def _number(draw):
    return draw.choice(["3", "8", "10", "24"])


def _answers(draw, n):
    """Draws numbers as texts, a quarter of them None."""
    return [None if draw.uniform(1) < 0.25 else _number(draw) for _ in range(n)]


def _talk(draw, n):
    """Draws words and numbers, the numbers with something beside them."""
    words = []
    for _ in range(n):
        number = str(int(draw.integers(500, 1)))
        framed = draw.choice(["{}.", "{}", "{},", "({})", "#{}", "-{}", "0{}", "{}kg"]).format(
            number
        )
        words.append(framed if draw.uniform(1) < 0.5 else draw.choice(TALK))
    return " ".join(words)


final_answer = FinalAnswer()
majority_vote = MajorityVote()
vote_accuracy = VoteAccuracy()
