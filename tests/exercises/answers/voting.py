"""Answers to the exercises of lesson 9."""

import re
from collections import Counter

from tests.exercises.answers import WrongAnswers, right, wrong

# final_answer


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


def numbers(response):
    return re.findall(r"\d+", response)


# majority_vote


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


class MajorityVote(WrongAnswers, to="majority_vote"):
    @wrong("None votes", "None votes too")
    def vote_of_none(answers):
        return Counter(answers).most_common(1)[0][0] if answers else None

    @wrong("the last of equals", "of equally frequent answers it is the last")
    def vote_last(answers):
        best = None
        for answer in given(answers):
            if best is None or answers.count(answer) >= answers.count(best):
                best = answer
        return best

    @wrong("the smallest of equals", "it is the smallest")
    def vote_smallest(answers):
        votes = sorted(given(answers), key=int)
        return max(votes, key=votes.count) if votes else None

    @wrong("the largest of equals", "it is the largest; the first in the list")
    def vote_largest(answers):
        votes = sorted(given(answers), key=int, reverse=True)
        return max(votes, key=votes.count) if votes else None

    @wrong("more than half", "more than half of the votes are asked for")
    def vote_absolute(answers):
        votes = given(answers)
        for vote in votes:
            if votes.count(vote) > len(votes) / 2:
                return vote
        return None

    @wrong("the first answer", "it is the first answer")
    def vote_first(answers):
        return given(answers)[0] if given(answers) else None

    @wrong("the rarest", "it is the rarest answer")
    def vote_rarest(answers):
        counts = Counter(given(answers))
        return min(counts, key=counts.get) if counts else None

    @wrong("the largest number", "it is the largest answer")
    def vote_largest_number(answers):
        return str(max(map(int, given(answers)))) if given(answers) else None

    @wrong("an empty text for None", "None, not an empty text")
    def vote_empty(answers):
        return majority_vote(answers) or ""

    @wrong("nobody is asked", "it raised ValueError")
    def vote_error(answers):
        votes = given(answers)
        return max(votes, key=votes.count)

    @wrong("with the count", "must be a text or None, got a Python tuple")
    def vote_with_count(answers):
        return Counter(given(answers)).most_common(1)[0]

    @wrong("removes None from the list", "changes its input in place")
    def vote_in_place(answers):
        while None in answers:
            answers.remove(None)
        return majority_vote(answers)

    @wrong("the library's own", "it calls minilpo's own majority")
    def vote_of_the_library(answers):
        from minilpo.tasks.math_paths import majority

        return majority(answers)


# vote_accuracy


@right("vote_accuracy", "with a Counter")
def vote_accuracy(answers, right_answers):
    winners = map(majority_vote, answers)
    return [winner == right for winner, right in zip(winners, right_answers, strict=True)].count(
        True
    ) / len(answers)


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


def mean(values):
    values = list(values)
    return sum(values) / len(values)


class VoteAccuracy(WrongAnswers, to="vote_accuracy"):
    @wrong("single answers", "it is the share of right answers")
    def accuracy_single(answers, right_answers):
        return mean(
            votes.count(r) / len(votes) for votes, r in zip(answers, right_answers, strict=True)
        )

    @wrong("one right answer is enough", "one right answer among many is enough")
    def accuracy_any(answers, right_answers):
        return mean(votes.count(r) > 0 for votes, r in zip(answers, right_answers, strict=True))

    @wrong("None votes", "None votes too")
    def accuracy_none(answers, right_answers):
        return mean(
            Counter(votes).most_common(1)[0][0] == r
            for votes, r in zip(answers, right_answers, strict=True)
        )

    @wrong("the last of equals", "of equally frequent answers the last wins")
    def accuracy_last(answers, right_answers):
        return mean(
            MajorityVote.vote_last(votes) == r
            for votes, r in zip(answers, right_answers, strict=True)
        )

    @wrong("more than half", "more than half of the answers must be right")
    def accuracy_half(answers, right_answers):
        return mean(
            votes.count(r) > len(votes) / 2 for votes, r in zip(answers, right_answers, strict=True)
        )

    @wrong("the first response", "only the first response to each prompt")
    def accuracy_first(answers, right_answers):
        return mean(votes[0] == r for votes, r in zip(answers, right_answers, strict=True))

    @wrong("the share that went wrong", "it is the share of prompts that went wrong")
    def accuracy_turned(answers, right_answers):
        return mean(
            majority_vote(votes) != r for votes, r in zip(answers, right_answers, strict=True)
        )

    @wrong("a number of prompts", "divide by how many there are")
    def accuracy_total(answers, right_answers):
        return float(
            sum(majority_vote(votes) == r for votes, r in zip(answers, right_answers, strict=True))
        )

    @wrong("one vote for all prompts", "wrong for")
    def accuracy_of_all(answers, right_answers):
        winner = majority_vote([answer for votes in answers for answer in votes])
        return mean(winner == r for r in right_answers)

    @wrong("right answers ignored", "it ignores its argument `right_answers`")
    def accuracy_of_nothing(answers, right_answers):
        return mean(majority_vote(votes) == "3" for votes in answers)

    @wrong("prompt by prompt", "must be a Python float, got a Python list")
    def accuracy_list(answers, right_answers):
        return [majority_vote(votes) == r for votes, r in zip(answers, right_answers, strict=True)]


def last_match(pattern, response):
    matches = [match[0] for match in re.finditer(pattern, response)]
    return matches[-1] if matches else None


class FinalAnswer(WrongAnswers, to="final_answer"):
    @wrong("the first number", "it is the first number")
    def answer_first(response):
        match = re.search("[0-9]+", response)
        return match[0] if match else None

    @wrong("the last digit", "it is the last digit only")
    def answer_digit(response):
        digits = re.findall("[0-9]", response)
        return digits[-1] if digits else None

    @wrong("all digits", "all digits are put together")
    def answer_all_digits(response):
        return "".join(c for c in response if c.isdigit()) or None

    @wrong("words that are numbers", "only words of nothing but digits are found")
    def answer_words(response):
        found = None
        for word in response.split():
            if word.isdigit():
                found = word
        return found

    @wrong("the last word", "only the last word is looked at")
    def answer_last_word(response):
        words = response.split()
        found = numbers(words[-1]) if words else []
        return found[-1] if found else None

    @wrong("the largest number", "it is the largest number")
    def answer_largest(response):
        found = numbers(response)
        return max(found, key=int) if found else None

    @wrong("an empty text for None", "not an empty text")
    def answer_empty(response):
        return final_answer(response) or ""

    @wrong("an int", "must be a text or None, got a Python int")
    def answer_int(response):
        return int(final_answer(response) or 0)

    @wrong("no number, no mercy", "it raised IndexError")
    def answer_error(response):
        return numbers(response)[-1]

    @wrong("nothing found", "it says the same whatever it is given")
    def answer_none(response):
        found = None
        return found

    @wrong("after #### only", "wrong for")
    def answer_marked(response):
        return final_answer(response.split("####")[1]) if "####" in response else None

    @wrong("the library's own", "it calls minilpo's own final_answer")
    def answer_of_the_library(response):
        from minilpo.tasks.math import final_answer

        return final_answer(response)

    @wrong("with its sign", "a minus sign is taken for a part of the number")
    def with_sign(response):
        return last_match(r"-?\d+", response)

    @wrong("decimal numbers", "a decimal number is taken for one number")
    def decimal_numbers(response):
        return last_match(r"\d+(\.\d+)?", response)

    @wrong("as a number", "zeros at the beginning are dropped")
    def as_a_number(response):
        found = last_match("[0-9]+", response)
        return found.lstrip("0") or "0" if found else None

    @wrong("between words only", "digits beside letters are left out")
    def between_words(response):
        return last_match(r"\b\d+\b", response)
