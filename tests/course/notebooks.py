"""Notebooks for the tests of grading: right, wrong and hostile ones."""

import json
import textwrap
from pathlib import Path

from minilpo import exercises

NAME = "temperature_softmax"
BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
RIGHT = BY_NAME[NAME].solution_source()
WRONG = f"def {NAME}(logits, temperature):\n    return (logits * temperature).softmax(-1)\n"


def cell(name, source, tags=None, kind="code"):
    """A cell as Jupyter writes it."""
    metadata = {"tags": ["exercise", name] if tags is None else tags}
    lines = textwrap.dedent(source).splitlines(keepends=True)
    return {"cell_type": kind, "metadata": metadata, "source": lines}


def notebook(path: Path, *cells):
    """A notebook of some cells; a pair is the name of an exercise and a source."""
    made = [cell(*one) if isinstance(one, tuple) else one for one in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}))
    return path


def inside(body):
    """A function of the right name with any body, in which `right` is the right one."""
    right = textwrap.indent(RIGHT.replace(f"def {NAME}(", "def right("), "    ")
    return f"def {NAME}(logits, temperature):\n{right}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"


# What a cell may try, and a part of what must be said about it. None of them may pass.
FORGED = """
import json, os, stat, struct

def forged(value):
    data = json.dumps({"problem": "", "printed": "", "value": value}).encode()
    return struct.pack(">I", len(data)) + data

pipes = [fd for fd in range(3, 64) if os.path.exists(f"/dev/fd/{fd}") and stat.S_ISFIFO(os.fstat(fd).st_mode)]
for fd in pipes:
    try:
        os.write(fd, forged({"tensor": ["float32", [3], "AAAAAAAAAAAAAAAA"]}) * 60)
    except OSError:
        pass
"""
EVERYWHERE = """
import os
for fd in range(64):
    try:
        os.write(fd, b"\\xff\\x00\\xfe garbage" * 10)
    except OSError:
        pass
"""
PATCHED = """
import sys
import torch
from minilpo.exercises import exercise, trial, verdict
from minilpo.exercises.temperature import TemperatureSoftmax
verdict.agree = exercise.agree = TemperatureSoftmax.agree = lambda *arguments, **options: True
exercise.misfit = trial.same = exercise.same = lambda *arguments: ""
torch.allclose = torch.equal = lambda *arguments, **options: True
TemperatureSoftmax.cases = lambda self, draw: iter([])
sys.modules["__main__"].observe = lambda answer, entry, case, *rest: trial.Observation(case[0])
def temperature_softmax(logits, temperature):
    return logits
"""
ESCAPED = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
def temperature_softmax(logits, temperature):
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            libc.prctl(1, 0, 0, 0, 0)  # live on without a parent
            time.sleep(60)
    libc.prctl(1, 0, 0, 0, 0)
    os.kill(os.getppid(), signal.SIGKILL)  # in a world of its own, 0: all of its group
    os.setsid()
    time.sleep(60)
"""
DEAF = """
import signal, time
def temperature_softmax(logits, temperature):
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(1000)
"""
HOSTILE = {
    "not Python": ("def temperature_softmax(:\n", "the cell isn't Python: invalid syntax (line 1)"),
    "a magic": (f"%timeit 1\n{RIGHT}", "lines that begin with % or ! aren't either"),
    "a null byte": ("x = '\0'", "the cell isn't Python"),
    "half a character": ("x = '\ud800'", "the cell isn't Python"),
    "brackets": ("(" * 5000, "the cell isn't Python"),
    "raises": ("x = 1\n1 / 0\n", "the cell raised ZeroDivisionError: division by zero (line 2)"),
    "needs others": (f"{RIGHT}\nrun.tasks\n", "only torch, F, math, random, np, Task are there"),
    "asks": (f"input()\n{RIGHT}", "the cell raised EOFError"),
    "leaves": ("import os\nos._exit(0)", "its process ended, with status 0, instead of answering"),
    "leaves later": (inside("import os; os._exit(3)"), "its process ended, with status 3"),
    "exits": ("raise SystemExit(0)", "the cell raised SystemExit: 0 (line 1)"),
    "interrupts": (inside("raise KeyboardInterrupt"), "it raised KeyboardInterrupt"),
    "other name": (RIGHT.replace(NAME, "softmax"), "it defines `softmax`; rename it"),
    "no function": ("x = 1", "the cell must define `temperature_softmax`, it defines no function"),
    "a number": (f"{NAME} = 3", "it must be a function, got a Python int"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "its process was ended by SIGSEGV"),
    "recursive": (inside("return temperature_softmax(logits, temperature)"), "RecursionError"),
    "memory": (inside("return torch.zeros(2**33)"), "it raised RuntimeError"),
    "more memory": (inside("x = [0] * 2**33"), "it raised MemoryError"),
    "much printed": (inside("for _ in range(2000): print('x' * 1000)\nreturn logits"), "wrong for"),
    "closes": (
        f"import os, time\nos.closerange(3, 64)\ntime.sleep(3)\n{RIGHT}",
        "its process ended, with status 1, instead of answering",
    ),
    "writes everywhere": (EVERYWHERE + RIGHT, "its process sent something that is no answer"),
    "forges": (FORGED + RIGHT, "the result must have shape (5,), got (3,)"),
    "escapes": (ESCAPED, "it was stopped after 5 seconds"),
    "deaf": (DEAF, "it took longer than 12 seconds in all and was stopped"),
    "endless": (inside("while True: pass"), "it was stopped after 5 seconds"),
    "endless outside": ("while True: pass", "the cell was stopped after 10 seconds"),
    "slow": (
        inside("import time; time.sleep(3); return right(logits, temperature)"),
        "longer than 12 seconds in all",
    ),
    "patches": (PATCHED, "wrong for"),
    "large": (inside("return torch.zeros(3000, 3000)"), "the result is too large"),
    "long": (inside("return 'x' * 10**7"), "the result is too large"),
    "holds itself": (inside("x = []; x.append(x); return x"), "RecursionError"),
    "deep": (inside("x = []\nfor _ in range(50): x = [x]\nreturn x"), "deep in each other"),
    "sparse": (inside("return logits.to_sparse()"), "must be an ordinary tensor"),
    "nowhere": (inside("return logits.to('meta')"), "must be an ordinary tensor"),
    "a set": (inside("return {1, 2}"), "must be a tensor of shape (3,), got a Python set"),
    "NumPy": (inside("return right(logits, temperature).numpy()"), "got a numpy ndarray"),
    "the library's": (
        "from minilpo.exercises.temperature import TemperatureSoftmax\n"
        "temperature_softmax = TemperatureSoftmax.right\n",
        "it calls minilpo's own right",
    ),
    "in place": (inside("logits.mul_(1); logits.add_(1); return logits"), "in place"),
    "environment": (inside("import os; raise ValueError(sorted(os.environ))"), "'HOME', "),
    "a large file": (
        inside("open('x', 'wb').write(b'0' * 2**26)\nreturn logits"),
        "it raised OSError",
    ),
}
