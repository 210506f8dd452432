"""Compares the page about the graders with what the graders say."""

from tests.exercises import table


def test_the_page_about_the_graders_is_what_its_program_writes():
    assert table.PAGE.read_text() == table.page(), "run python -m tests.exercises.table"


def test_a_message_is_shortened_to_what_every_machine_says():
    assert table.shortened("wrong for 3 of 9 inputs; here 0.1 is right, got 0.2") == (
        "some values are wrong (and which, and what is right)"
    )
    many_lines = "wrong for 3 of 9 inputs; here 1 is right, got 2; likely mistake: a; b"
    assert table.shortened(many_lines) == "a; b"
    assert "line" not in table.shortened("it raised KeyError: 2 (line 7); likely mistake: c")
    assert table.escaped("|a| < 1") == r"\|a\| < 1"
