"""The bar, and the advice it gives on a busy machine, by a clock and times made up here."""

import io
import sys

import pytest

from minilpo.machine.progress import EVERY, Bar, Watch, say
from minilpo.machine.threads import Threads

MEASURED = Threads(2, "", {1: 0.010, 2: 0.006})


class Machine:
    """Seconds of a piece of work by number of threads, and a clock that a test moves."""

    def __init__(self, **_):
        self.now, self.seconds, self.looks = 0.0, {1: 0.010, 2: 0.006}, []

    def clock(self):
        return self.now

    def measure(self, numbers, seconds):
        self.looks.append(list(numbers))
        return {n: self.seconds[n] for n in numbers}

    def watch(self, threads=MEASURED):
        return Watch(threads, clock=self.clock, measure=self.measure)

    def advice(self, watch, looks=1):
        """Everything that is said at the next few looks."""
        said = []
        for _ in range(looks):
            self.now += EVERY
            said.append(watch.advice())
        return [line for line in said if line]


@pytest.fixture
def machine():
    return Machine()


def test_a_quiet_machine_is_looked_at_every_few_seconds_and_nothing_is_said(machine):
    watch = machine.watch()
    assert machine.advice(watch, 20) == []
    assert machine.looks == [[2]] * 20
    for _ in range(1000):
        watch.advice()
    assert len(machine.looks) == 20  # no time has passed


def test_threads_that_another_program_holds_up_are_told_of_once_with_what_helps(machine):
    watch = machine.watch()
    machine.advice(watch, 3)
    machine.seconds = {1: 0.011, 2: 0.055}
    assert machine.advice(watch, 1) == []  # a single slow look may be chance
    [line] = machine.advice(watch, 1)
    assert "2 threads" in line
    assert "5.0 times slower than 1" in line
    assert line.endswith("repeat the command with --threads 1")
    n_looks = len(machine.looks)
    assert machine.advice(watch, 50) == []
    assert len(machine.looks) == n_looks  # nothing more to find out


def test_two_slow_looks_count_only_in_a_row(machine):
    watch = machine.watch()
    for _ in range(10):
        machine.seconds = {1: 0.010, 2: 0.060}
        assert machine.advice(watch) == []
        machine.seconds = {1: 0.010, 2: 0.006}
        assert machine.advice(watch) == []


def test_a_little_slower_is_not_worth_a_word(machine):
    watch = machine.watch()
    machine.seconds = {1: 0.010, 2: 0.011}
    assert machine.advice(watch, 20) == []


def test_one_thread_is_not_advised_where_it_would_not_help(machine):
    watch = machine.watch()
    machine.seconds = {1: 0.050, 2: 0.060}
    [line] = machine.advice(watch, 5)
    assert "10.0 times as long" in line
    assert "close it" in line
    assert "--threads" not in line
    assert [1, 2] in machine.looks  # it was tried first


def test_with_one_thread_only_closing_the_other_program_is_advised(machine):
    watch = machine.watch(Threads(1, "", {1: 0.010, 2: 0.050}))
    machine.seconds = {1: 0.040}
    [line] = machine.advice(watch, 5)
    assert "4.0 times as long" in line
    assert "--threads" not in line
    assert machine.looks == [[1], [1]]


def test_a_number_that_is_slow_from_the_start_is_told_of_too(machine):
    machine.seconds = {1: 0.010, 2: 0.060}
    for threads in (Threads(2, "of the run"), Threads(2, "", {1: 0.010, 2: 0.060})):
        [line] = machine.advice(machine.watch(threads), 5)
        assert "6.0 times slower than 1" in line
        assert "--threads 1" in line


def test_a_number_that_is_fine_from_the_start_is_compared_with_the_first_look(machine):
    watch = machine.watch(Threads(2, "of the run"))
    assert machine.advice(watch, 5) == []
    machine.seconds = {1: 0.010, 2: 0.060}
    assert len(machine.advice(watch, 5)) == 1


def test_the_bar_passes_the_advice_on_in_a_line_of_its_own(machine, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    watch = machine.watch()
    machine.seconds = {1: 0.010, 2: 0.060}
    for what in ("pretraining", "evaluating"):  # one watch for all bars of a command
        with Bar(what, "step", watch) as bar:
            bar.begin(10)
            for _ in range(10):
                machine.now += EVERY
                bar.advance()
            assert bar.bar.n == 10
    lines = sys.stderr.getvalue().replace("\r", "\n").split("\n")
    assert len([line for line in lines if line.startswith("minilpo: another program")]) == 1
    assert any("evaluating: 100%" in line and "10/10" in line for line in lines)


def test_a_bar_without_a_watch_only_moves(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar("evaluating", "response") as bar:
        bar.begin(4, 1)
        bar.advance(3)
    assert "evaluating" in sys.stderr.getvalue() and "4/4" in sys.stderr.getvalue()


def test_nothing_is_shown_before_there_is_something_to_do(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar("evaluating", "response") as bar:  # the step finds that it was done before
        assert sys.stderr.getvalue() == ""
        bar.advance()
    assert sys.stderr.getvalue() == ""


class Gone(io.StringIO):
    """A terminal that was closed, or a full disk."""

    def write(self, *_):
        raise OSError(28, "No space left on device")

    flush = isatty = write


@pytest.mark.parametrize("gone", ["none", "closed", "gone"])
def test_the_run_goes_on_when_nobody_can_read_its_bar(machine, monkeypatch, gone):
    stream = {"none": None, "closed": io.StringIO(), "gone": Gone()}[gone]
    if gone == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    machine.seconds = {1: 0.010, 2: 0.060}
    with Bar("pretraining", "step", machine.watch()) as bar:
        bar.begin(10)
        bar.bar.mininterval = 0.0  # write at every step
        for _ in range(10):
            machine.now += EVERY
            bar.advance()
        assert bar.bar.n == 10
    say("a word to nobody")


def test_a_terminal_that_goes_away_in_mid_run_does_not_end_it(machine, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar("pretraining", "step", machine.watch()) as bar:
        bar.begin(10)
        bar.bar.mininterval = 0.0
        bar.advance(5)
        monkeypatch.setattr(sys, "stderr", Gone())
        bar.advance(5)
        assert bar.bar.n == 10
