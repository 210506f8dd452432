"""Writing with all cores: other processes, of one thread each, take batches too.

Threads of one process wait for each other at the end of every operation; processes don't. Each
batch is computed by one thread, wherever that is, so the responses are the same to the bit.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

COMMAND = [sys.executable, "-c", "from minilpo.run.workers import work; work()"]


@cache
def workers(n: int) -> list[subprocess.Popen[bytes]]:
    """Starts n processes that `work`. They end with this one, however it ends: it holds the pipes.

    They are in a session of their own, since Ctrl-C is for this process.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "start_new_session": True}
    return [subprocess.Popen(COMMAND, env=environment, **pipes, **quiet) for _ in range(n)]


def work() -> None:
    """Reads pickled items and answers function(item); a new function comes with its first item."""
    answers = os.fdopen(os.dup(1), "wb")
    function: Any = None
    os.dup2(2, 1)  # a library may print, and that is no answer
    while True:
        new, item = pickle.load(sys.stdin.buffer)
        function = new or function
        pickle.dump(function(item), answers)
        answers.flush()


def shared_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yields function(item) for all items in any order, computed by a process per thread.

    This process works from the end, the others from the beginning on. What another one can't do is
    done here: it can't be started, it ended, the function can't be pickled or raised an error.
    """
    if (n := torch.get_num_threads()) == 1:
        yield from map(function, items)
        return
    todo = list(items)
    results: SimpleQueue[list[Any]] = SimpleQueue()

    def take(place: int) -> list[Any]:
        with contextlib.suppress(IndexError):
            return [todo.pop(place)]
        return []  # nothing is left to begin

    def ask(worker: subprocess.Popen[bytes]) -> None:
        assert worker.stdin and worker.stdout
        new: Callable[[Any], Any] | None = function
        while item := take(0):
            try:
                worker.stdin.write(pickle.dumps((new, *item)))
                worker.stdin.flush()
                results.put([pickle.load(worker.stdout)])
                new = None
            except Exception:  # it has ended, or the function can't be pickled
                todo.extend(item)
                return results.put([])  # this process may be waiting

    others: list[Thread] = []
    with contextlib.suppress(OSError):
        others = [Thread(target=ask, args=[worker], daemon=True) for worker in workers(n - 1)]
    torch.set_num_threads(1)
    try:
        for thread in others:
            thread.start()
        n_left = len(items)
        while n_left:
            own = take(-1) if results.empty() else []
            found = [function(own[0])] if own else results.get()
            n_left -= len(found)
            yield from found
    finally:
        todo.clear()
        for thread in others:
            thread.join()
        torch.set_num_threads(n)
