"""Answers to the exercises of lesson 9."""

import re
from collections import Counter

from minilpo.tasks import math, math_paths
from tests.exercises.answers import WRONG, right


@right("final_answer", "with a regular expression")
def final_answer(response):
    match = re.search(r"([0-9]+)[^0-9]*$", response)
    return match[1] if match else None


@right("final_answer", "with loops")
def final_answer_with_loops(response):
    end = len(response)
    while end > 0 and response[end - 1] not in "0123456789":
        end -= 1
    start = end
    while start > 0 and response[start - 1] in "0123456789":
        start -= 1
    return response[start:end] or None


WRONG["final_answer"] = r"""
the first number | it is the first number | ([0-9]+)[^0-9]*$ -> ([0-9]+)
the last digit | it is the last digit only | ([0-9]+)[^0-9]*$ -> ([0-9])[^0-9]*$
all digits | all digits are put together
    return "".join(c for c in response if c.isdigit()) or None
words that are numbers | only words of nothing but digits are found
    found = [word for word in response.split() if word.isdigit()]
    return found[-1] if found else None
the last word | only the last word is looked at
    return final_answer(response.split()[-1]) if response.split() else None
the largest number | it is the largest number
    return max(re.findall("[0-9]+", response), key=int, default=None)
an empty text for None | not an empty text | return final_answer(response) or ""
an int | must be a text or None, got a Python int | return int(final_answer(response) or 0)
no number, no mercy | it raised IndexError | return re.findall("[0-9]+", response)[-1]
nothing found | it says the same whatever it is given
    found = None
    return found
after #### only | wrong for
    return final_answer(response.split("####")[1]) if "####" in response else None
the library's own | it calls minilpo's own final_answer | return math.final_answer(response)
with its sign | a minus sign is taken for a part of the number | ([0-9]+) -> (-?[0-9]+)
decimal numbers | a decimal number is taken for one number | ([0-9]+) -> ([0-9]+(\.[0-9]+)?)
as a number | zeros at the beginning are dropped | match[1] if -> (match[1].lstrip("0") or "0") if
between words only | digits beside letters are left out | ([0-9]+)[^0-9]*$ -> (?s:.*)\b([0-9]+)\b
"""


@right("majority_vote", "with a Counter")
def majority_vote(answers):
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


@right("majority_vote", "with loops")
def majority_vote_with_loops(answers):
    best, most = None, 0
    for answer in answers:
        n = 0
        for other in answers:
            n += answer == other
        if answer is not None and n > most:
            best, most = answer, n
    return best


def given(answers):
    return [answer for answer in answers if answer is not None]


WRONG["majority_vote"] = """
None votes | None votes too | if answer is not None and n > most: -> if n > most:
the last of equals | of equally frequent answers it is the last | n > most -> n >= most
the smallest of equals | it is the smallest
    answer for answer in answers if answer is not None -> sorted(given(answers), key=int)
the largest of equals | it is the largest; the first in the list
    answer for answer in answers if answer is not None -> sorted(given(answers), key=int)[::-1]
more than half | more than half of the votes are asked for
    n > most -> n > (len(answers) - answers.count(None)) / 2
the first answer | it is the first answer | n > most -> best is None
the rarest | it is the rarest answer | counts.most_common(1)[0][0] -> min(counts, key=counts.get)
the largest number | it is the largest answer
    counts.most_common(1)[0][0] -> str(max(map(int, counts)))
an empty text for None | None, not an empty text | best, most = None, 0 -> best, most = "", 0
nobody is asked | it raised ValueError
    counts.most_common(1)[0][0] if counts else None -> max(counts, key=counts.get)
with the count | must be a text or None, got a Python tuple | 1)[0][0] if counts else None -> 1)[0]
removes None from the list | changes its input in place
    while None in answers:
        answers.remove(None)
    return majority_vote(answers)
the library's own | it calls minilpo's own majority | return math_paths.majority(answers)
"""


@right("vote_accuracy", "with a Counter")
def vote_accuracy(answers, right_answers):
    hits = [majority_vote(votes) == r for votes, r in zip(answers, right_answers, strict=True)]
    return sum(hits) / len(hits)


@right("vote_accuracy", "with loops")
def vote_accuracy_with_loops(answers, right_answers):
    hits = 0
    for p in range(len(answers)):
        winner, most = None, 0
        for answer in answers[p]:
            if answer is not None and answers[p].count(answer) > most:
                winner, most = answer, answers[p].count(answer)
        if winner == right_answers[p]:
            hits += 1
    return hits / len(answers)


WRONG["vote_accuracy"] = """
single answers | it is the share of right answers
    majority_vote(votes) == r -> votes.count(r) / len(votes)
one right answer is enough | one right answer among many is enough
    majority_vote(votes) == r -> votes.count(r) > 0
None votes | None votes too | majority_vote(votes) -> Counter(votes).most_common(1)[0][0]
the last of equals | of equally frequent answers the last wins | (answer) > most -> (answer) >= most
more than half | more than half of the answers must be right
    majority_vote(votes) == r -> votes.count(r) > len(votes) / 2
the first response | only the first response to each prompt | majority_vote(votes) -> votes[0]
the share that went wrong | it is the share of prompts that went wrong | (votes) == -> (votes) !=
a number of prompts | divide by how many there are | sum(hits) / len(hits) -> float(sum(hits))
one vote for all prompts | wrong for | majority_vote(votes) -> majority_vote(sum(answers, []))
right answers ignored | it ignores its argument `right_answers` | == r -> == "3"
prompt by prompt | must be a Python float, got a Python list | sum(hits) / len(hits) -> hits
"""
