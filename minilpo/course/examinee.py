"""The process that runs one learner's cell: `python -m minilpo.course.examinee`, for the grader.

It is told the cell and then one input after another, and answers each with what came of it. It
knows no right values: those stay with the grader. It need not be honest either, and nobody relies
on that: whatever runs here, only right values pass.

On Linux, where that is safe, PyTorch is imported only once, by a nursery that never sees a cell.
For each cell it forks a warden, which builds the walls and forks the examinee within them.
"""

import contextlib
import json
import math
import os
import random
import signal
import socket
import sys
import time
import types
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import torch

from minilpo import exercises
from minilpo.course import walls
from minilpo.course.wire import pack, receive, send, unpack
from minilpo.exercises.trial import SECONDS, UNSOLVED, Observation, observe
from minilpo.machine.text import named, one_line
from minilpo.tasks import Task
from minilpo.tasks.calling import TimeIsUp, limited

CELL = "cell"  # the __name__ in which a cell runs
NAMES = {  # what a cell finds that other cells of a lesson have imported
    **{"torch": torch, "F": torch.nn.functional, "math": math, "random": random, "np": np},
    "Task": Task,
}
ALONE = f"; of other cells, only {', '.join(NAMES)} are there"
TO_DEFINE = 10.0  # seconds for running the cell itself
LARGEST_FILE = 16 * 2**20  # bytes that may be written
MOST_FILES = 256  # open at once


def main() -> None:
    """Serves one grader: with one cell, or as a nursery if standard input is a socket."""
    line, answers = os.dup(0), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # where `print` and `input` find nobody
        os.dup2(nothing, standard)
    # The first optimizer makes PyTorch import 800 modules: not within a call that has 5 seconds.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    send(answers, {"ready": True})
    if sys.argv[1:] == ["nursery"]:
        answers.close()
        nursery(socket.socket(fileno=line))
    else:
        serve(os.fdopen(line, "rb"), answers)


def nursery(orders: socket.socket) -> None:
    """Starts an examinee for each order: in a world of its own or not, a folder, two pipes."""
    walls.die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for wardens
    while True:
        order, pipes, *_ = socket.recv_fds(orders, 4096, 2)
        if not order:
            return
        if os.fork() == 0:
            try:
                orders.close()
                ward(*json.loads(order), *pipes)
            finally:
                os._exit(1)
        for pipe in pipes:
            os.close(pipe)


def ward(own_world: bool, folder: str, question_pipe: int, answer_pipe: int) -> NoReturn:
    """Builds the walls, starts an examinee, and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    built = walls.own_world(folder) if own_world else []
    walls.die_with_parent()
    may_begin, begin = os.pipe()
    child = os.fork()
    if child == 0:
        walls.die_with_parent()
        os.close(begin)
        os.read(may_begin, 1)
        os.close(may_begin)
        if own_world:
            walls.settle_in()
        walls.gain_nothing()
        serve(os.fdopen(question_pipe, "rb"), os.fdopen(answer_pipe, "wb"))
        os._exit(0)
    os.close(question_pipe)
    answers = os.fdopen(answer_pipe, "wb")
    send(answers, {"process": child, "warden": os.getpid(), "built": built})
    os.write(begin, b"!")
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        send(answers, {"ended": os.waitstatus_to_exitcode(status)})
    os.killpg(0, signal.SIGKILL)  # itself, and whoever is left
    os._exit(0)


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Runs the cell that it is told, and answers until nobody asks any more."""
    task = receive(questions)
    os.chdir(task["folder"])
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), task["folder"]))
    set_limits(task["memory"], task["seconds"], task["processes"])
    exercise = next(one for one in exercises.ALL if one.name == task["name"])
    answer, problem = defined(task["name"], task["source"], min(TO_DEFINE, task["seconds"]))
    send(answers, {"problem": problem})
    while True:
        try:
            case = unpack(receive(questions)["case"])
        except (EOFError, OSError):
            return
        try:
            seen = observe(answer, exercise.entry, case, exercise.may_use, SECONDS)
        except BaseException as error:  # KeyboardInterrupt, or a result that holds itself
            seen = Observation(problem=f"it raised {named(error)}")
        _reply(answers, seen)


def set_limits(memory: int, seconds: float, processes: int | None) -> None:
    """Limits this process and all that it starts, where the system can.

    Args:
        memory: bytes beside those that PyTorch has taken already.
        seconds: of computing from now on.
        processes: and threads; None where they would be counted with all others of the user.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        resource.RLIMIT_CPU: math.ceil(time.process_time() + seconds) + 1,
        resource.RLIMIT_FSIZE: LARGEST_FILE,
        resource.RLIMIT_NOFILE: MOST_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if (pages := Path("/proc/self/statm")).exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = taken + memory
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes
    for kind, most in limits.items():
        _, highest = resource.getrlimit(kind)
        most = most if highest == resource.RLIM_INFINITY else min(most, highest)
        resource.setrlimit(kind, (most, most))


def defined(name: str, source: str, seconds: float) -> tuple[Any, str]:
    """Runs a cell.

    Returns:
        What it defines under the name, and a problem in a line: an empty one if it defines that.

    >>> defined("double", "def twice(x): return 2 * x", 5.0)
    (None, 'the cell must define `double`, it defines `twice`; rename it')
    """
    if not any(line.strip() and not line.strip().startswith("#") for line in source.splitlines()):
        return None, UNSOLVED
    names: dict[str, Any] = {"__name__": CELL, **NAMES}
    file = f"<{name}>"
    try:
        code = compile(source, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f" (line {error.lineno})" if error.lineno else ""
        return None, (
            f"the cell isn't Python: {one_line(str(error.msg), 100)}{line}; "
            "lines that begin with % or ! aren't either"
        )
    except Exception as error:  # null bytes, half characters, too many brackets
        return None, f"the cell isn't Python: {named(error)}"
    try:
        limited(exec, code, names, seconds=seconds)
    except NotImplementedError:
        return None, UNSOLVED
    except TimeIsUp:
        return None, f"the cell was stopped after {seconds:g} seconds; does a loop never end?"
    except BaseException as error:  # SystemExit too
        hint = ALONE if isinstance(error, NameError) else ""
        return None, f"the cell raised {named(error)}{_line(error, file)}{hint}"
    if name in names:
        return names[name], ""
    others = [f"`{other}`" for other, value in names.items() if _is_theirs(value)]
    found = f"{', '.join(others[:4])}; rename it" if others else "no function"
    return None, f"the cell must define `{name}`, it defines {found}"


def _is_theirs(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, type)) and value.__module__ == CELL


def _line(error: BaseException, file: str) -> str:
    """The last line of the cell that an error went through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def _reply(answers: IO[bytes], seen: Observation) -> None:
    """Sends what was observed; a value that can't be sent is a problem of its own."""
    reply = {"problem": one_line(seen.problem), "printed": seen.printed[:400], "value": None}
    try:
        send(answers, {**reply, "value": pack(seen.value)})
    except OSError:
        os._exit(1)
    except Exception as error:
        problem = seen.problem or one_line(str(error), 200)
        send(answers, {**reply, "problem": problem})


if __name__ == "__main__":
    main()
