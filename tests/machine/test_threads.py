"""The number of threads: chosen from times made up here, so that nothing depends on this machine."""

import os

import pytest
import torch

from minilpo.machine import threads
from minilpo.machine.threads import cores, fastest, pick


@pytest.fixture
def machine(monkeypatch):
    """Work that takes as long as a test says, on a clock that only this work moves, on two cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def machine(cost, n_cores=2):
        turns, now = [], [0.0]

        def work():
            turns.append(torch.get_num_threads())
            now[0] += cost(turns[-1], turns.count(turns[-1]))

        monkeypatch.setattr(threads, "cores", lambda: n_cores)
        monkeypatch.setattr(threads, "work", work)
        monkeypatch.setattr(threads, "perf_counter", lambda: now[0])
        return turns, now

    torch.set_num_threads(1)
    yield machine
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "n_cores, cost, n, said",
    [
        (1, None, 1, "1 thread: one core is all there is"),
        (2, lambda n, turn: 0.005 / n, 2, "2 threads: 2 are 2.0 times as fast as 1 just now"),
        (2, lambda n, turn: 0.005 / (1 + 0.1 * n), 1, "1 thread: 2 are 1.1 times"),  # hardly faster
        (2, lambda n, turn: 0.005 * n**3, 1, "1 thread: 2 are 0.1 times"),  # a busy machine
        (4, lambda n, turn: 0.005 / n, 4, "4 threads: 4 are 4.0 times"),
        (64, lambda n, turn: 0.005 / n, 8, "8 threads"),
        # Bursts count that a median wouldn't see; the first turn doesn't.
        (2, lambda n, turn: 0.1 if n == 2 and turn % 4 == 0 else 0.01 / n, 1, "1 thread"),
        (2, lambda n, turn: 9.0 if turn == 1 and n == 2 else 0.01 / n, 2, "2 threads: 2 are 2.0"),
    ],
)
def test_all_threads_are_chosen_if_they_are_clearly_faster(machine, n_cores, cost, n, said):
    turns, now = machine(cost, n_cores)
    found = fastest()
    assert found[0] == n and found[1].startswith(said)
    assert now[0] < 0.6 or turns.count(2) < 50
    assert turns[0::2] == [1] * (len(turns) // 2) and torch.get_num_threads() == 1


def test_the_work_leaves_random_numbers_and_settings_as_they_were():
    torch.set_default_dtype(torch.float64)
    try:
        before = torch.get_rng_state()
        threads.work()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS, Windows
    for counted, expected in [(4, 4), (None, 1)]:
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert cores() == expected


def test_the_flag_comes_before_the_runs_number_before_the_variable_before_the_measurement(
    monkeypatch, machine
):
    turns, _ = machine(lambda n, turn: 0.1 / n)
    said = []
    assert pick(say=said.append) == 2 == torch.get_num_threads()
    assert len(said) == 1 and "2 threads" in said[0] and "--threads" in said[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # an empty variable is none
    assert pick() == 2
    measured = len(turns)
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert pick(say=said.append) == 1
    assert pick(stored=2) == 2 == torch.get_num_threads()
    assert pick(asked=3, stored=2) == 3 == torch.get_num_threads()
    assert len(said) == 1 and len(turns) == measured
