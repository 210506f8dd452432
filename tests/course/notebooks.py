"""Notebooks for the tests of grading: right, wrong and harmful ones."""

import json
import textwrap
from pathlib import Path

from minilpo import exercises

NAME = "temperature_softmax"
BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
RIGHT = BY_NAME[NAME].solution_source()
WRONG = f"def {NAME}(logits, temperature):\n    return (logits * temperature).softmax(-1)\n"
STUB = f"def {NAME}(logits, temperature):\n    '''Text.'''\n    raise NotImplementedError\n"
PASSED, NOT_YET, NOT_WRITTEN = "passed", "not yet", "not written"


def cell(name, source, tags=None, kind="code"):
    """A cell as Jupyter writes it."""
    metadata = {"tags": ["exercise", name] if tags is None else tags}
    lines = textwrap.dedent(source).splitlines(keepends=True)
    return {"cell_type": kind, "metadata": metadata, "source": lines}


def notebook(path: Path, *cells):
    """A notebook: a text is a cell without tags, a pair an exercise's name and its cell."""
    made = list(map(_as_cell, cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}))
    return path


def _as_cell(one):
    if isinstance(one, tuple):
        return cell(*one)
    return cell("", one, tags=[]) if isinstance(one, str) else one


def inside(body):
    """A function of the right name with any body, in which `right` is the right one."""
    right = textwrap.indent(RIGHT.replace(f"def {NAME}(", "def right("), "    ")
    return f"def {NAME}(logits, temperature):\n{right}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"


# Everyday notebooks whose answer is right in the lesson: their cells.
SCALED = RIGHT.replace("logits / temperature", "scaled(logits, temperature)")
EVERYDAY = {
    "tagged": [(NAME, RIGHT)],
    "tags lost": [RIGHT],
    "no letters of English": [f"# Größe: é, 数\n{RIGHT}"],
    "Windows line ends": [(NAME, RIGHT.replace("\n", "\r\n"))],
    "right, then the stub again": [(NAME, RIGHT), (NAME, STUB)],
    "written in a cell of its own": [(NAME, STUB), RIGHT],
    "wrong at first": [(NAME, WRONG), (NAME, RIGHT)],
    "a name used elsewhere": [(NAME, RIGHT), f"{NAME} = 0.7"],
    "a wrong one to play with": [(NAME, RIGHT), WRONG],
    "checked in the same cell": [
        "from minilpo import exercises",
        (
            NAME,
            f"{RIGHT}\nexercises.{NAME}.hint()\n{NAME} = exercises.{NAME}.check({NAME}).function",
        ),
    ],
    "%%time": [(NAME, f"%%time\n{RIGHT}")],
    "%timeit": [(NAME, f"{RIGHT}\n%timeit {NAME}(torch.ones(2), 1.0)\n{NAME}?\nfiles = !ls")],
    "!pip": [(NAME, f"!pip install -q \\\n  numpy\n{RIGHT}"), "%%bash\nrm -rf x; 'it is"],
    "a trial at the end": [(NAME, f"{RIGHT}\nprint({NAME}(logits, 1.0))")],
    "a trial at the beginning": [(NAME, f"print(model)\n{RIGHT}")],
    "display": [(NAME, f"display(3)\n{RIGHT}")],
    "a helper above": ["def scaled(x, t):\n    return x / t", (NAME, SCALED)],
    "a helper below": [(NAME, SCALED), "def scaled(x, t):\n    return x / t"],
    "a helper of the same name below": [
        *("def scaled(x, t):\n    return x / t", (NAME, SCALED)),
        "def scaled(x):\n    return x",
    ],
    "an import above": ["import operator as op", (NAME, SCALED.replace("scaled(", "op.truediv("))],
    "an import that may fail": [
        "try:\n    from nowhere import scaled\nexcept ImportError:\n    from operator import truediv as scaled",
        (NAME, SCALED),
    ],
    "constants above": [
        "import re\nZERO, DIGIT = 0, re.compile('[0-9]')",
        (NAME, RIGHT.replace("== 0", "== ZERO") + "assert DIGIT.match('1')"),
    ],
    "a cell above that fails": ["1 / 0\nimport nowhere", (NAME, RIGHT)],
    "split": [
        (NAME, "class Scaled:\n    def of(self, x, t):\n        return x / t"),
        SCALED.replace("scaled(", "Scaled().of("),
    ],
    "a dataclass": [
        "from dataclasses import dataclass\n@dataclass\nclass By:\n    t: float\n",
        (NAME, RIGHT.replace("/ temperature", "/ By(temperature).t")),
    ],
    "a lambda": [
        (
            NAME,
            f"def f(l, t):\n    {RIGHT.split(':', 1)[1].strip()}\n{NAME} = lambda l, t: g(l, t)\n{RIGHT.replace(NAME, 'g')}",
        )
    ],
}

# What a cell may do, and a part of what is said about it. None of them passes.
ESCAPED = """
import os, time
def temperature_softmax(logits, temperature):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
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
    "half a character": ("x = '\ud800'", "the cell isn't Python"),
    "brackets": ("(" * 5000, "the cell isn't Python"),
    "raises": ("x = 1\n1 / 0\n", "(line 2 of the cell raised ZeroDivisionError: division by zero)"),
    "asks": ("input()\n", "(line 1 of the cell raised EOFError"),
    "leaves": ("import os\nos._exit(0)", "its process ended with status 0 instead of answering"),
    "leaves later": (inside("import os; os._exit(3)"), "its process ended with status 3"),
    "exits": ("raise SystemExit(0)", "(line 1 of the cell raised SystemExit: 0)"),
    "interrupts": (inside("raise KeyboardInterrupt"), "its process ended by SIGINT"),
    "other name": (RIGHT.replace(NAME, "softmax"), "it defines softmax; rename it"),
    "no function": ("x = 1", "the cell must define `temperature_softmax`, it defines x; rename it"),
    "a number": (f"{NAME} = 3", "it must be a function, got a Python int"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "its process ended by SIGSEGV"),
    "recursive": (inside("return temperature_softmax(logits, temperature)"), "RecursionError"),
    "holds itself": (inside("x = []; x.append(x); return x"), "RecursionError"),
    "memory": (inside("return torch.zeros(2**33)"), "it raised RuntimeError"),
    "more memory": (inside("x = [0] * 2**33"), "it raised MemoryError"),
    "much printed": (inside("for _ in range(2000): print('x' * 1000)\nreturn logits"), "wrong for"),
    "floods": (f"import os\nfor fd in range(3): os.write(fd, b'x' * 10**7)\n{WRONG}", "multiplied"),
    "closes": (f"import os\nos.closerange(0, 64)\n{WRONG}", "multiplied by the temperature"),
    "escapes": (ESCAPED, "it was stopped after 5 seconds"),
    "deaf": (DEAF, "it took longer than 12 seconds in all and was stopped"),
    "endless": (inside("while True: pass"), "it was stopped after 5 seconds"),
    "endless outside": ("while True: pass", "(line 1 of the cell never ended)"),
    "slow": (
        inside("import time; time.sleep(3); return right(logits, temperature)"),
        "longer than 12 seconds in all",
    ),
    "the library's": (
        "from minilpo.exercises.temperature import TemperatureSoftmax\n"
        "temperature_softmax = TemperatureSoftmax.right\n",
        "it calls minilpo's own right",
    ),
    "environment": (inside("import os; raise ValueError(sorted(os.environ))"), "'HOME', "),
    "takes the results' place": (
        "import os\nos.remove('results')\nos.mkfifo('results')\nos._exit(0)",
        "its process ended with status 0",
    ),
    "a large file": (
        inside("open('x', 'wb').write(b'0' * 2**26)\nreturn logits"),
        "it raised OSError",
    ),
}
# Those that only a process of their own survives, or that take their time.
HARM = (
    *("endless", "endless outside", "leaves", "leaves later", "crashes", "escapes", "deaf"),
    *("interrupts", "takes the results' place", "slow", "memory", "more memory", "floods"),
    *("closes", "a large file", "environment", "asks"),
)
