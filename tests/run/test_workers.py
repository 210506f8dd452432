"""Writing with other processes: the same responses, whatever happens to one of them."""

import os
import signal
import subprocess
import sys
import time
from operator import neg

import pytest
import torch

from minilpo.cli import main
from minilpo.decoding import SampledHead, respond
from minilpo.run import processes, workers
from minilpo.tasks import Prompt
from tests.conftest import CHOICES, seeded
from tests.outside import TINY, files_of

TWO = "--threads 2 --tasks coin_flip hidden_wish --steps 30 --demonstrations 900 --rounds 1".split()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def negatives(numbers):
    return sorted(workers.shared_map(neg, numbers))


def test_responses_are_those_that_one_process_writes_to_the_bit(two_threads, lm, tasks, head):
    texts = [f"Mia has {n} apples. How many apples are left?" for n in (*range(20), 7)]
    asked = lm, [Prompt(text, tasks[0]) for text in texts], SampledHead(head, CHOICES)
    options = {"n_samples": 2, "max_new_tokens": 5, "rows_per_batch": 8}
    told = []
    ours, rewards = processes.respond(*asked, seeded(0), progress=told.append, **options)
    torch.set_num_threads(1)
    expected, expected_rewards = respond(*asked, seeded(0), **options)
    assert ours.responses == expected.responses and torch.equal(rewards, expected_rewards)
    assert torch.equal(ours.decisions.features, expected.decisions.features)
    assert sum(told) == len(ours) == 42


def test_both_processes_work_and_every_item_is_done_once(two_threads):
    deadline, pids = time.monotonic() + 120, set()
    while len(pids) < 2 and time.monotonic() < deadline:  # it takes seconds to start one
        here = "__import__('time').sleep(0.02) or __import__('os').getpid()"
        pids = set(workers.shared_map(eval, [here] * 20))
    assert len(pids) == 2 and os.getpid() in pids
    assert negatives(range(200)) == list(range(-199, 1))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("how", ["ended", "cannot start"])
def test_without_a_worker_this_process_does_all(two_threads, monkeypatch, how):
    monkeypatch.setattr(workers, "workers", workers.workers.__wrapped__)
    if how == "ended":
        [worker] = workers.workers(1)
        worker.kill(), worker.wait()
        monkeypatch.setattr(workers, "workers", lambda n: [worker])
    else:
        monkeypatch.setattr(workers, "COMMAND", ["no such program"])
    assert negatives([3, 1, 2]) == [-3, -2, -1]


def test_an_error_of_a_worker_is_raised_here(two_threads):
    with pytest.raises(TypeError, match="bad operand"):
        negatives([1, 2, "three", 4])
    assert negatives([1, 2]) == [-2, -1]


def test_a_function_that_cannot_be_pickled_is_called_here(two_threads):
    assert sorted(workers.shared_map(lambda number: -number, range(9))) == list(range(-8, 1))


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_has_started_them(number):
    code = "from minilpo.run.workers import workers as w; import time; print(w(1)[0].pid, flush=1)"
    command = [sys.executable, "-c", f"{code}; time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        pid = int(parent.stdout.readline())
        assert os.getsid(pid) != os.getsid(parent.pid)  # Ctrl-C isn't for it
        parent.send_signal(number)
    deadline = time.monotonic() + 120
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_is_the_same_with_workers_and_where_none_can_start(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    for folder in ("with", "without"):
        if folder == "without":
            monkeypatch.setattr(workers, "workers", workers.workers.__wrapped__)
            monkeypatch.setattr(workers, "COMMAND", ["no such program"])
        assert main(["demo", "--out", str(tmp_path / folder), *TINY, *TWO]) == 0
    torch.set_num_threads(before)
    assert files_of(tmp_path / "with") == files_of(tmp_path / "without")
