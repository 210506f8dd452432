"""The constrained letter counts where a sentence begins, and nowhere else."""

import pytest

from minilpo.tasks import load_tasks

PROMPT = "Write three sentences about a cat in the cave. Every sentence must begin with B."
GOOD = [
    "Ben found a tiny map with the cat in the cave.",
    "Beth helped the cat and a magic giant.",
    "Bella gave the cat a round bell at noon.",
]


@pytest.mark.parametrize("elsewhere", ["Anna B", "Anna Ben", "anna, B", "A Bella", "aB", "the B"])
@pytest.mark.parametrize("n_wrong", [1, 2, 3])
def test_the_letter_in_the_middle_of_a_sentence_is_no_letter_at_its_beginning(elsewhere, n_wrong):
    [task] = load_tasks(["constrained_story"])
    wrong = [f"{elsewhere} {sentence.split(' ', 1)[1]}" for sentence in GOOD[:n_wrong]]
    response = " ".join([*wrong, *GOOD[n_wrong:]])
    assert task.parts(PROMPT, " ".join(GOOD))["letter"] == task.reward(PROMPT, " ".join(GOOD)) == 1
    assert task.parts(PROMPT, response)["letter"] == pytest.approx(1 - n_wrong / 3)
    assert task.reward(PROMPT, response) <= 1 - n_wrong / 3
