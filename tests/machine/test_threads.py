"""The number of threads: chosen from times made up here, so that nothing depends on this machine."""

import os
import subprocess
import sys

import pytest
import torch

from minilpo.config import MAX_THREADS
from minilpo.machine import threads
from minilpo.machine.threads import candidates, choose, explain, measure, pick


class Machine:
    """Work that takes as long as a test says, on a clock that only this work moves."""

    def __init__(self, cost):
        self.cost, self.now, self.turns = cost, 0.0, []

    def clock(self):
        return self.now

    def work(self):
        self.turns.append(torch.get_num_threads())
        self.now += self.cost(self.turns[-1], self.turns.count(self.turns[-1]))

    def measure(self, numbers, seconds=0.35):
        return measure(numbers, seconds, clock=self.clock, work=self.work)


@pytest.fixture(autouse=True)
def threads_in_use():
    """Each test begins and ends with one thread."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def free(monkeypatch):
    """No OMP_NUM_THREADS, and two cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "candidates", lambda: [1, 2])


@pytest.mark.parametrize(
    ("seconds", "n"),
    [
        ({1: 1.0}, 1),  # one core
        ({1: 1.0, 2: 0.6}, 2),
        ({1: 1.0, 2: 0.85}, 1),  # faster, but by less than the margin
        ({1: 1.0, 2: 5.0}, 1),  # a busy machine
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.55, 8: 2.0}, 2),
        ({8: 0.39, 4: 0.4, 1: 1.0}, 4),  # in any order
    ],
)
def test_the_fastest_is_chosen_and_of_nearly_equal_ones_the_fewest_threads(seconds, n):
    assert choose(seconds) == n


def test_every_number_is_measured_in_turns_and_the_first_turn_does_not_count():
    machine = Machine(lambda n, turn: 1.0 if turn == 1 else 0.01 / n)
    assert machine.measure([1, 2], seconds=2.1) == pytest.approx({1: 0.01, 2: 0.005})
    assert machine.turns[:6] == [1, 2, 1, 2, 1, 2]


def test_the_mean_counts_bursts_that_a_median_would_not_see():
    machine = Machine(lambda n, turn: 0.1 if n == 2 and turn % 4 == 0 else 0.01 / n)
    seconds = machine.measure([1, 2])
    assert seconds[2] > 2 * seconds[1]
    assert choose(seconds) == 1


@pytest.mark.parametrize(
    ("numbers", "cost"),
    [
        ([1, 2], lambda n, turn: 0.005 / n),  # quiet
        ([1, 2], lambda n, turn: 0.005 if n == 1 else 0.04),  # one other program
        ([1, 2], lambda n, turn: 0.0075 if n == 1 else 0.06),  # two
        ([1, 2, 4, 8], lambda n, turn: 0.005 / n),
        ([1, 2, 4, 8], lambda n, turn: 0.005 * n),
    ],
)
def test_the_measurement_takes_less_than_half_a_second(numbers, cost):
    machine = Machine(cost)
    machine.measure(numbers)
    assert machine.now < 0.5


def test_a_number_that_is_clearly_slower_gets_few_turns():
    machine = Machine(lambda n, turn: 0.004 * n)
    seconds = machine.measure([1, 2, 4, 8])
    assert machine.turns.count(8) < machine.turns.count(1) / 2
    assert set(seconds) == {1, 2, 4, 8}
    assert choose(seconds) == 1


def test_every_number_has_two_turns_however_little_time_there_is():
    machine = Machine(lambda n, turn: 1.0)
    machine.measure([1, 2], seconds=0.0)
    assert sorted(machine.turns) == [1, 1, 2, 2]


def test_the_measurement_leaves_threads_random_numbers_and_settings_as_they_were():
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        before = (
            torch.get_rng_state(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        measure([1, 3], seconds=0.0)
        after = (
            torch.get_rng_state(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_ctrl_c_during_the_measurement_leaves_the_number_of_threads_as_it_was():
    def work():
        if torch.get_num_threads() == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([1, 3], work=work)
    assert torch.get_num_threads() == 1


def test_no_more_threads_are_tried_than_this_process_may_use_cores_nor_more_than_eight(monkeypatch):
    for cores, expected in [(1, [1]), (2, [1, 2]), (3, [1, 2]), (6, [1, 2, 4]), (64, [1, 2, 4, 8])]:
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False
        )
        assert candidates() == expected
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS, Windows
    for cores, expected in [(4, [1, 2, 4]), (None, [1])]:
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert candidates() == expected


def test_the_flag_comes_before_the_runs_number_before_the_variable_before_the_measurement(
    monkeypatch, free
):
    said = []
    monkeypatch.setattr(threads, "measure", lambda numbers: {1: 1.0, 2: 0.5})
    assert pick(say=said.append) == 2 == torch.get_num_threads()
    assert len(said) == 1 and "2 threads: 2.0 times as fast as 1" in said[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # an empty variable is none
    assert pick() == 2

    def never(numbers):
        raise AssertionError("nothing is measured if the number is given")

    monkeypatch.setattr(threads, "measure", never)
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert pick(say=said.append) == 1
    assert pick(stored=2) == 2 == torch.get_num_threads()
    assert pick(asked=3, stored=2) == 3 == torch.get_num_threads()
    assert len(said) == 1


@pytest.mark.parametrize("wrong", [0, -1, MAX_THREADS + 1, 10**9])
def test_a_number_that_is_none_is_refused_and_changes_nothing(wrong):
    for given in ({"asked": wrong}, {"stored": wrong}):
        with pytest.raises(
            ValueError, match=rf"--threads must be between 1 and {MAX_THREADS}, got {wrong}"
        ):
            pick(**given)
    assert torch.get_num_threads() == 1


def test_the_line_for_the_user_says_what_was_measured():
    assert "2.5 times as fast" in explain(2, {1: 1.0, 2: 0.4})
    assert "1.1 times as fast" in explain(1, {1: 1.0, 2: 0.9})
    assert "4.0 times slower" in explain(1, {1: 1.0, 2: 4.0, 4: 9.0})
    assert explain(1, {1: 1.0}) == "1 thread: one core is all there is"


def test_the_module_imports_nothing_heavy():
    code = "import minilpo.machine.threads, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
