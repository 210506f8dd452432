"""Tasks as a stranger would write them: good ones work, and each bad one ends in one line that
names it and its member.
"""

import json
import os
import random
import re
import signal
import sys
import threading

import numpy as np
import pytest
import torch

from minilpo.adaptive_decoder import Decisions
from minilpo.cli import main
from minilpo.decoding.rollout import Rollout, quality_and_constraint, score
from minilpo.evaluation.summary import mean_parts
from minilpo.rivals.controls import ALL_TASKS
from minilpo.tasks import (
    ask,
    draw_demonstrations,
    draw_prompts,
    judge,
    kind_of,
    load_tasks,
    mixed_demonstrations,
    parts_of,
    split_of,
    try_out,
)
from minilpo.tasks.base import PATIENCE
from minilpo.tasks.calling import TimeIsUp, limited
from minilpo.tasks.own import with_defaults
from tests.standin import compared

ARGUMENTS = {
    "prompt": "rng",
    "ood_prompt": "rng",
    "demonstration": "prompt, rng",
    "kind": "prompt",
    "knows": "prompt",
}
METHODS = ("prompt", "demonstration", "reward", "ood_prompt", "kind", "knows", "parts")
GOOD = {
    "name": "'mine'",
    "prompt": "'Say ' + ' '.join(rng.choices(WORDS, k=rng.randint(2, 6)))",
    "demonstration": "' '.join(rng.choices(WORDS, k=3))",
    "reward": "float('yes' in response.split())",
}
FILE = "mine.py"
TINY = "--steps 20 --demonstrations 200 --batch-size 8 --n-layer 1 --n-head 1 --n-embd 8 --block-size 48 --threads 1"
TINY += " --rounds 1 --prompts 8 --samples 4 --epochs 1 --n-hidden 4 --validation-prompts 2 --test-prompts 4 --selection-prompts 4"
TINY = (
    TINY + " --ood-prompts 2 --resamples 100 --level token --pairs constrained --temperatures 0 1"
).split()

# Matplotlib's oldest releases call what the newest pyparsing has deprecated, when they are
# imported.
no_warnings = pytest.mark.filterwarnings("error", "ignore::DeprecationWarning:matplotlib")


def file_of(top="", **members):
    """The text of a task file. A member is what it is or returns, its own code ("def ...", "=
    ..."), or None to be left out.
    """
    lines = [top, "WORDS = ['yes', 'no', 'maybe', 'never']", "class Mine:"]
    for member, code in (GOOD | members).items():
        if code is None:
            continue
        if code.startswith("= ") or member not in METHODS:
            code = f"{member} = {code.removeprefix('= ')}"
        elif "def " not in code:
            code = f"def {member}(self, {ARGUMENTS.get(member, 'prompt, response')}):\n    return {code}"
        lines += ["    " + line for line in code.splitlines()]
    return "\n".join(lines) + "\n"


def method(member, *lines):
    """A method of several lines."""
    return "\n    ".join(
        [f"def {member}(self, {ARGUMENTS.get(member, 'prompt, response')}):", *lines]
    )


def init(line, arguments=""):
    """A task file whose class has an `__init__`."""
    return file_of() + f"    def __init__(self{arguments}): {line}\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name=FILE):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return write


def complaint(capsys, *arguments):
    """The one line on stderr of a command that is refused."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    lines = [
        line for line in re.split(r"[\n\r]", err) if line.strip() and "%|" not in line
    ]  # progress bars aside
    assert (status, len(lines), out) == (2, 1, ""), (status, lines, out)
    assert (
        lines[0].startswith("minilpo: error: ") and lines[0].isprintable() and len(lines[0]) < 800
    )
    return lines[0]


# Refused before anything is trained

RAISED = "must be a number from 0 to 1, but it raised"
BAD_REWARDS = {  # what the reward returns, and what the line says
    "None": "got None;",
    "float('nan')": "got nan;",
    "float('inf')": "got inf;",
    "-float('inf')": "got -inf;",
    "-0.5": "got -0.5;",
    "37.5": "got 37.5;",
    "2": "got 2;",
    "-1": "got -1;",
    "10**400": "got ",
    "1.001": "got 1.001;",
    "'0.5'": "got '0.5';",
    "b'1'": r"got b'1';",
    "''": "got '';",
    "[1.0]": r"got \[1.0\];",
    "(0.5, 'good')": r"got \(0.5, 'good'\);",
    "{'reward': 1.0}": "got {'reward': 1.0};",
    "1j": "got 1j;",
    "print": "got <built-in function print>;",
    "(yes for yes in response)": "got <generator object",
    "WORDS": "got .'yes', 'no', 'maybe', 'never'.;",
    "'a' * 10**6": "got 'aaa.*aaa';",
    "__import__('fractions').Fraction(3, 2)": r"got Fraction\(3, 2\);",
    "__import__('decimal').Decimal('NaN')": r"got Decimal\('NaN'\);",
    "__import__('decimal').Decimal('sNaN')": r"got Decimal\('sNaN'\);",
    "__import__('numpy').float64('nan')": "got .*nan",
    "__import__('numpy').array([0.1, 0.2])": r"got array\(",
    "__import__('numpy').str_('0.5')": "got .*'0.5'",
    "__import__('torch').tensor([0.1, 0.2])": r"got tensor\(",
    "__import__('torch').tensor(float('nan'))": r"got tensor\(nan\);",
    "response.count('yes') - response.count('no')": "got -?[1-9]",  # negative, or beyond 1
    "1 - len(response.split()) / 50": "got -1.0;",  # for a long text
    "sum(word == 'yes' for word in response.split())": "got [2-9]",
    "1 / len(response)": "'\\).*raised ZeroDivisionError: division by zero \\(line 10 of mine.py\\);",
    "float(response.split()[0] == 'yes')": "''\\).*raised IndexError: list index out of range \\(line 10 of mine.py\\);",
    "float(int(response) == 7)": "raised ValueError: invalid literal",
    "float(__import__('re').search('yes', response).start() == 0)": "raised AttributeError: 'NoneType' object has no attribute",
    "{'yes': 1.0}[response]": "raised KeyError: ",
    "undefined": "raised NameError: name 'undefined' is not defined",
    "self.reward(prompt, response)": "raised RecursionError: ",
    "__import__('sys').exit()": "raised SystemExit \\(line 10",
    "exit(1)": "raised SystemExit: 1 ",
    "next(iter([]))": "raised StopIteration \\(line 10",
    "(_ for _ in ()).throw(BaseException('all'))": "raised BaseException: all",
    "(_ for _ in ()).throw(ValueError('two\\nlines'))": "raised ValueError: two lines ",
    "(_ for _ in ()).throw(ValueError('\\x1b[2J\\x07'))": r"raised ValueError: \\x1b\[2J\\x07 ",
    "(_ for _ in ()).throw(ValueError('long ' * 10**5))": r"raised ValueError: long long .*\.\.\..*long",
}


BAD = {  # files, and what the line says beyond the file's name
    **{
        f"reward: {value[:50]}": (file_of(reward=value), rf"task 'mine': reward\('.*{said}")
        for value, said in BAD_REWARDS.items()
    },
    "reward without return": (
        file_of(reward=method("reward", "print(end='')")),
        r"reward\(.* got None;",
    ),
    "reward that yields": (
        file_of(reward=method("reward", "yield 1.0")),
        r"reward\(.* got <generator",
    ),
    "reward that is awaited": (
        file_of(reward="async def reward(self, p, r): return 1.0"),
        r"reward\(.* got <coroutine",
    ),
    "reward that asserts": (
        file_of(reward=method("reward", "assert response in WORDS", "return 1.0")),
        f"{RAISED} AssertionError",
    ),
    "reward not written yet": (
        file_of(reward=method("reward", "raise NotImplementedError")),
        f"{RAISED} NotImplementedError",
    ),
    "reward without self": (
        file_of(reward="def reward(prompt, response): return 1.0"),
        f"{RAISED} TypeError: .*positional",
    ),
    "reward without prompt": (
        file_of(reward="def reward(self, response): return 1.0"),
        f"{RAISED} TypeError: .*positional",
    ),
    "reward of more": (
        file_of(reward="def reward(self, prompt, a, b): return 1.0"),
        f"{RAISED} TypeError: .*missing",
    ),
    "reward is a number": (file_of(reward="= 1.0"), f"{RAISED} TypeError: 'float' object is not"),
    "reward as a property": (
        file_of(reward="= property(lambda self: 1 / 0)"),
        f"{RAISED} ZeroDivisionError",
    ),
    "reward with an error that can't be printed": (
        file_of(
            "class Weird(Exception):\n    def __str__(self): return 1 / 0",
            reward=method("reward", "raise Weird"),
        ),
        rf"{RAISED} Weird \(line",
    ),
    "reward that can't be printed": (
        file_of("class Weird:\n    def __repr__(self): return 1 / 0", reward="Weird()"),
        "got <Weird>;",
    ),
    "reward that is no float": (
        file_of(
            "class Weird:\n    def __float__(self): raise SystemError\n    def __repr__(self): return '?'",
            reward="Weird()",
        ),
        "got [?];",
    ),
    # prompt
    "prompt is None": (
        file_of(prompt="None"),
        r"task 'mine': prompt\(rng\) must be a str .*got None;",
    ),
    "prompt is empty": (file_of(prompt="''"), r"prompt\(rng\) .*got '';"),
    "prompt is blank": (file_of(prompt="' \\n'"), r"prompt\(rng\) .*got ' .n';"),
    "prompt is a number": (file_of(prompt="rng.random()"), r"prompt\(rng\) .*got 0\.\d+;"),
    "prompt is bytes": (file_of(prompt="b'Say yes'"), r"prompt\(rng\) .*got b'Say yes';"),
    "prompt is a list": (
        file_of(prompt="['Say', 'yes']"),
        r"prompt\(rng\) .*got \['Say', 'yes'\];",
    ),
    "prompt with its answer": (
        file_of(prompt="('1 + 1?', '2')"),
        r"prompt\(rng\) .*got \('1 \+ 1\?', '2'\);",
    ),
    "prompt that clears the screen": (
        file_of(prompt="'Say yes \\x1b[2J'"),
        r"prompt\(rng\) .*got 'Say yes \\x1b\[2J';",
    ),
    "prompt with a null": (file_of(prompt="'Say\\0yes'"), r"prompt\(rng\) .*got 'Say\\x00yes';"),
    "prompt with a return": (
        file_of(prompt="'Say yes\\r\\n'"),
        r"prompt\(rng\) .*got 'Say yes\\r\\n';",
    ),
    "prompt with half a letter": (
        file_of(prompt="'Say \\ud800'"),
        r"prompt\(rng\) .*got 'Say \\ud800';",
    ),
    "prompt that raises": (
        file_of(prompt="rng.choice([])"),
        r"prompt\(rng\) .*raised IndexError.*\(line \d+ of mine.py\)",
    ),
    "prompt that exits": (file_of(prompt="quit()"), r"prompt\(rng\) .*raised SystemExit"),
    "prompt that runs out": (
        file_of("LINES = iter(['Say a', 'Say b'])", prompt="next(LINES)"),
        r"prompt\(rng\) .*raised StopIteration",
    ),
    "prompt with another rng's methods": (
        file_of(prompt="str(rng.integers(5))"),
        r"prompt\(rng\) .*no attribute 'integers'",
    ),
    "prompt without rng": (
        file_of(prompt="def prompt(self): return 'Say yes'"),
        r"prompt\(rng\) .*raised TypeError",
    ),
    "prompt is a text": (
        file_of(prompt="= 'Say yes'"),
        r"prompt\(rng\) .*'str' object is not callable",
    ),
    "prompt by the module random": (
        file_of("import random", prompt="'Say ' + ' '.join(random.choices(WORDS, k=9))"),
        "must not draw from the global generators of random and NumPy, .* write rng.choice",
    ),
    "prompt by a counter": (
        file_of("import itertools\nN = itertools.count()", prompt="f'Say {next(N)}'"),
        "must return the same texts .*keep no count of the calls",
    ),
    "prompt in no training split": (
        file_of(prompt=repr("Sort these numbers: 3 9 14.")),
        "must have prompts of the train split",
    ),
    # demonstration
    "demonstration is None": (
        file_of(demonstration="None"),
        r"task 'mine': demonstration\('Say .*', rng\) must .*got None;",
    ),
    "demonstration is a number": (file_of(demonstration="7"), r"demonstration\(.* got 7;"),
    "demonstration is a list": (
        file_of(demonstration="['yes']"),
        r"demonstration\(.* got \['yes'\];",
    ),
    "demonstration is bytes": (file_of(demonstration="b'yes'"), r"demonstration\(.* got b'yes';"),
    "demonstration rings": (
        file_of(demonstration="'yes\\a'"),
        r"demonstration\(.* got 'yes\\x07';",
    ),
    "demonstration with half a letter": (
        file_of(demonstration="'\\udfff'"),
        r"demonstration\(.* got '\\udfff';",
    ),
    "demonstration that raises": (
        file_of(demonstration="prompt.split()[9]"),
        r"demonstration\(.* raised IndexError",
    ),
    "demonstration that exits": (
        file_of(demonstration="exit('bye')"),
        r"demonstration\(.* raised SystemExit: bye",
    ),
    "demonstration without rng": (
        file_of(demonstration="def demonstration(self, prompt): return ''"),
        r"raised TypeError",
    ),
    "demonstration by the module random": (
        file_of("import random", demonstration="random.choice(WORDS)"),
        "must not draw from the global generators of random and NumPy",
    ),
    "demonstration by NumPy": (
        file_of("import numpy", demonstration="str(numpy.random.choice(WORDS))"),
        "must not draw from the global generators of random and NumPy",
    ),
    "reward by the module random": (
        file_of("import random", reward="random.random()"),
        r"reward must not draw from the global generators .* take random.Random\(prompt",
    ),
    # ood_prompt
    "ood_prompt is None": (
        file_of(ood_prompt="None"),
        r"task 'mine': ood_prompt\(rng\) must be a str .*got None;.*leave",
    ),
    "ood_prompt is empty": (file_of(ood_prompt="''"), r"ood_prompt\(rng\) .*got '';"),
    "ood_prompt that raises": (
        file_of(ood_prompt="1 / 0"),
        r"ood_prompt\(rng\) .*raised ZeroDivisionError",
    ),
    "ood_prompt is missing on purpose": (
        file_of(ood_prompt="= None"),
        r"ood_prompt\(rng\) .*'NoneType' object is not",
    ),
    "ood_prompt the reward can't read": (
        file_of(ood_prompt="'Please answer'", reward="float(response == prompt.split('Say ')[1])"),
        r"reward\('Please answer', .*raised IndexError",
    ),
    # kind
    "kind is None": (
        file_of(kind="None"),
        r"task 'mine': kind\('Say .*'\) must be a str of 1 to 80 .*got None;",
    ),
    "kind is a number": (file_of(kind="len(prompt)"), r"kind\('Say .*got \d+;"),
    "kind is empty": (file_of(kind="''"), r"kind\('Say .*got '';"),
    "kind in two lines": (file_of(kind="'short\\nlong'"), r"kind\('Say .*got 'short\\nlong';"),
    "kind is an essay": (file_of(kind="'short ' * 20"), r"kind\('Say .*got 'short"),
    "kind that raises": (file_of(kind="{}[prompt]"), r"kind\('Say .*raised KeyError"),
    # parts
    "parts is None": (
        file_of(parts="None"),
        r"task 'mine': parts\('Say .*\) must be a dict .*got None;",
    ),
    "parts is a list": (file_of(parts="[0.5]"), r"parts\(.* got \[0.5\];"),
    "parts is a number": (file_of(parts="0.5"), r"parts\(.* got 0.5;"),
    "parts with numbers for names": (file_of(parts="{1: 0.5}"), r"parts\(.* got {1: 0.5};"),
    "parts with an empty name": (file_of(parts="{'': 0.5}"), r"parts\(.* got {'': 0.5};"),
    "parts with a name that clears the screen": (
        file_of(parts="{'\\x1bc': 0.5}"),
        r"parts\(.* got {'\\x1bc': 0.5};",
    ),
    "parts with None": (file_of(parts="{'a': None}"), r"parts\(.* got {'a': None};"),
    "parts with a text": (file_of(parts="{'a': '1'}"), r"parts\(.* got {'a': '1'};"),
    "parts with NaN": (file_of(parts="{'a': float('nan')}"), r"parts\(.* got {'a': nan};"),
    "parts with infinity": (
        file_of(parts="{'a': 1, 'b': float('inf')}"),
        r"parts\(.* got {'a': 1, 'b': inf};",
    ),
    "parts that depend on the words": (
        file_of(parts="dict.fromkeys(response.split(), 1)"),
        r"parts\(.*return the same names",
    ),
    "parts that raise": (
        file_of(parts="{'a': 1 / len(response)}"),
        r"parts\(.*, ''\).*raised ZeroDivisionError",
    ),
    "a constraint without parts": (
        file_of(quality="'a'", constraint="'b'"),
        r"parts\(.*got \{\} without one of \['a', 'b'\]",
    ),
    "a constraint without quality": (
        file_of(parts="{'a': 1}", constraint="'a'"),
        r"parts\(.* without one of \['', 'a'\]",
    ),
    "a constraint that is no part": (
        file_of(parts="{'a': 1}", quality="'a'", constraint="'b'"),
        r"parts\(.* without one of .*'b'",
    ),
    "a quality that is no part": (
        file_of(parts="{'a': 1}", quality="'b'", constraint="'a'"),
        r"parts\(.* without one of .*'b'",
    ),
    "a constraint by number": (
        file_of(parts="{'a': 1}", quality="'a'", constraint="['a']"),
        r"parts\(.* without one of \['a', \['a'\]\]",
    ),
    # knows
    "knows None": (
        file_of(knows="None"),
        r"task 'mine': knows\('Say .*\) must be True or False, got None;",
    ),
    "knows a number": (file_of(knows="1"), r"knows\(.*must be True or False, got 1;"),
    "knows that raises": (file_of(knows="{}[prompt]"), r"knows\(.*raised KeyError"),
    "knows that exits": (file_of(knows="exit()"), r"knows\(.*raised SystemExit"),
    "knows as a value": (file_of(knows="= True"), r"knows\(.*raised TypeError"),
    # corpus_weight
    "corpus_weight 0": (
        file_of(corpus_weight="0"),
        "task 'mine': corpus_weight must be a number above 0 .*got 0;",
    ),
    "corpus_weight -1": (file_of(corpus_weight="-1"), "corpus_weight must .*got -1;"),
    "corpus_weight None": (file_of(corpus_weight="None"), "corpus_weight must .*got None;"),
    "corpus_weight '2'": (file_of(corpus_weight="'2'"), "corpus_weight must .*got '2';"),
    "corpus_weight NaN": (file_of(corpus_weight="float('nan')"), "corpus_weight must .*got nan;"),
    "corpus_weight infinity": (
        file_of(corpus_weight="float('inf')"),
        "corpus_weight must .*got inf;",
    ),
    "corpus_weight 1e300": (file_of(corpus_weight="1e300"), r"corpus_weight must .*got 1e\+300;"),
    "corpus_weight 10**5000": (file_of(corpus_weight="10**5000"), "corpus_weight must .*got "),
    "corpus_weight that raises": (
        file_of(corpus_weight="property(lambda self: {}['w'])"),
        "corpus_weight must .*raised KeyError",
    ),
    "corpus_weight as a method": (
        file_of(corpus_weight="lambda self: 2"),
        "corpus_weight must .*got <",
    ),
    # name
    "name None": (file_of(name="None"), "the task of class Mine: name must be a str .*got None;"),
    "name 3": (file_of(name="3"), "class Mine: name must .*got 3;"),
    "name is empty": (file_of(name="''"), "name must .*got '';"),
    "name in two words": (file_of(name="'my task'"), "name must .*got 'my task';"),
    "name is a path": (file_of(name="'../../mine'"), r"name must .*got '\.\./\.\./mine';"),
    "name for a shell": (file_of(name="'$(reboot)'"), r"name must .*got '\$\(reboot\)';"),
    "name for a terminal": (file_of(name="'\\x1b[31m'"), r"name must .*got '\\x1b\[31m';"),
    "name is a flag": (file_of(name="'-rf'"), "name must .*got '-rf';"),
    "name with a line break": (file_of(name="'mine\\n'"), r"name must .*got 'mine\\n';"),
    "name with a digit of another script": (file_of(name="'mine٣'"), "name must .*got 'mine٣';"),
    "name of 41 letters": (file_of(name="'n' * 41"), "name must .*got 'nnn"),
    "name that raises": (
        file_of(name="property(lambda self: 1 / 0)"),
        "must run, .*raised|name must .*raised ZeroDivisionError",
    ),
    "name as a method": (file_of(name="lambda self: 'mine'"), "name must .*got <"),
    # the file
    "no code": ("", "must define one class with name, prompt, demonstration and reward, got 0$"),
    "functions only": ("def prompt(rng): return 'Say yes'", "must define one class .*got 0$"),
    "an imported task": ("from minilpo.tasks.story import Story", "must define one class .*got 0$"),
    "an imported task by another name": (
        "from minilpo.tasks.story import Story\nMine = Story",
        "must define one class .*got 0$",
    ),
    **{
        f"no {member}": (file_of(**{member: None}), f"must define one class .*Mine has no {member}")
        for member in GOOD
        if member != "name"
    },
    "no name": (file_of(name=None), "class Mine: name must be .*raised AttributeError"),
    "no prompt and no reward": (
        file_of(prompt=None, reward=None),
        "got 0: Mine has no prompt and no reward",
    ),
    "two tasks": (
        file_of() + file_of().replace("Mine", "Yours"),
        "must define one class .*got 2: Mine; Yours",
    ),
    "a task and its parent": (
        file_of() + "class Child(Mine): name = 'child'",
        "got 2: Child; Mine",
    ),
    "a file that exits": (
        "import sys\nsys.exit()",
        r"must run, but it raised SystemExit \(line 2 of mine.py\)",
    ),
    "a file that exits with a message": (
        file_of() + "raise SystemExit('bye')",
        "must run, but it raised SystemExit: bye",
    ),
    "a file that raises": (
        file_of("{}['key']"),
        r"must run, but it raised KeyError: 'key' \(line 1 of mine.py\)",
    ),
    "a file with a typo": (
        "class Mine(:\n",
        r"must run, but it raised SyntaxError: .*\(mine.py, line 1\)",
    ),
    "a file out of step": (
        "class Mine:\nname = 'mine'\n",
        "must run, but it raised IndentationError",
    ),
    "a file with tabs and blanks": (
        "if 1:\n\tx = 1\n        y = 2\n",
        "must run, but it raised TabError",
    ),
    "a file in another encoding": (b"NAME = '\xe4\xf6'\n", "must run, but it raised SyntaxError"),
    "a file with a null": (b"x = 1\0\n", "must run, but it raised"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "must run, but it raised"),
    "a file of brackets": ("x = " + "(" * 100_000, "must run, but it raised"),
    "a file that needs another": (
        "import no_such_module\n",
        "raised ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "a file that divides": (
        "x = 1 / 0\n" + file_of(),
        r"raised ZeroDivisionError: division by zero \(line 1 of mine.py\)",
    ),
    "a file that calls itself": ("def f(): f()\nf()", "must run, but it raised RecursionError"),
    "__init__ that raises": (init("1 / 0"), "must run, .*raised ZeroDivisionError"),
    "__init__ that exits": (init("exit()"), "must run, .*raised SystemExit"),
    "__init__ that wants more": (init("pass", ", n"), "must run, .*raised TypeError: .*'n'"),
    "__init__ without its data": (
        init("open('/no/such/words.txt')"),
        "must run, .*raised FileNotFoundError: .*words.txt",
    ),
    "an abstract class": (
        file_of("import abc").replace("Mine:", "Mine(abc.ABC):")
        + "    @abc.abstractmethod\n    def more(self): pass\n",
        "must define one class .*got 0: Mine has no more",
    ),
}


@no_warnings
@pytest.mark.parametrize("content, said", BAD.values(), ids=BAD)
def test_a_bad_task_is_refused_in_one_line_before_anything_is_written(
    write, tmp_path, capsys, content, said
):
    file = write(content)
    line = complaint(capsys, "demo", "--tasks", file, "--out", tmp_path / "run", *TINY)
    assert re.search(rf"^minilpo: error: the task file '.*{FILE}' .*{said}", line), line
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("minilpo.tasks.calling.LIMIT", 0.5)
    monkeypatch.setattr("minilpo.tasks.calling.AGAIN", 0.01)
    done = threading.Event()

    def rescue():  # if the limit doesn't work, this test shall fail, and not hang
        while not done.wait(20):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=rescue, daemon=True).start()
    yield
    done.set()


SWALLOWS = [
    "import time",
    "while True:",
    "    try:",
    "        time.sleep(10**6)",
    "    except Exception:",
    "        pass",
]
SWALLOWS_ALL = [
    "import time",
    "for _ in range(3):",
    "    try:",
    "        time.sleep(10**6)",
    "    except:",
    "        pass",
]
SWALLOWS_ALL += ["time.sleep(10**6)"]
ENDLESS = {
    "a file": ("while True: pass\n", "must run, but it took"),
    "__init__": (init("[None for _ in iter(int, 1)]"), r"must run, but it took"),
    "prompt": (
        file_of(prompt=method("prompt", "while True: rng.random()")),
        r"prompt\(rng\) .* but it took",
    ),
    "demonstration": (
        file_of(demonstration=method("demonstration", "import time", "time.sleep(10**6)")),
        r"demonstration\(.* took",
    ),
    "reward": (
        file_of(reward=method("reward", "while not response: pass", "return 1.0")),
        r"reward\('Say .*', ''\) .* took",
    ),
    "reward that swallows errors": (
        file_of(reward=method("reward", *SWALLOWS)),
        r"reward\(.* took",
    ),
    "reward that swallows all": (
        file_of(reward=method("reward", *SWALLOWS_ALL)),
        r"reward\(.* took",
    ),
    "parts by a slow pattern": (
        file_of("import re", parts="{'a': bool(re.fullmatch('(a|a)*b', 'a' * 200))}"),
        r"parts\(.* took",
    ),
}


@pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="only an alarm can stop a loop without end"
)
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content, said", ENDLESS.values(), ids=ENDLESS)
def test_a_loop_without_end_is_stopped_and_named(write, tmp_path, capsys, impatient, content, said):
    line = complaint(capsys, "demo", "--tasks", write(content), "--out", tmp_path / "run", *TINY)
    assert re.search(
        f"the task file '.*{FILE}' .*{said} longer than 0.5 seconds .line \\d+ of mine.py", line
    ), line
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    (tmp_path / "folder.py").mkdir()
    for name, said in {
        "folder.py": "Is a directory",
        "gone.py": "No such file",
        "a\0b.py": "null",
    }.items():
        line = complaint(
            capsys, "demo", "--tasks", tmp_path / name, "--out", tmp_path / "run", *TINY
        )
        assert re.search(f"--tasks must name existing files, got .*{said}", line)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.py"]


def test_two_tasks_of_one_name_are_refused(write, tmp_path, capsys):
    tasks = write(file_of(name="'story'")), "story"
    assert "each once, got story, story" in complaint(
        capsys, "demo", "--out", tmp_path / "run", *TINY, "--tasks", *tasks
    )


# Accepted

GOOD_REWARDS = {  # what the reward returns for "yes" (and for "no"), and the number it counts as
    "True": 1.0,
    "False": 0.0,
    "1": 1.0,
    "0": 0.0,
    "-0.0": 0.0,
    "1e-30": 1e-30,
    "response == 'yes'": 1.0,
    "response.count('yes') and 1": 1.0,
    "1 if response == 'yes' else 0.5": 1.0,
    "sum([0.1] * 3) + 0.7": 1.0,
    "0.7 + 0.1 + 0.2 + 1e-9": 1.0,
    "-1e-9": 0.0,
    "__import__('fractions').Fraction(1, 3)": 1 / 3,
    "__import__('decimal').Decimal('0.3')": 0.3,
    "__import__('numpy').float32(0.25)": 0.25,
    "__import__('numpy').float64(0.3)": 0.3,
    "__import__('numpy').bool_(True)": 1.0,
    "__import__('numpy').mean([0, 1])": 0.5,
    "__import__('torch').tensor(0.75)": 0.75,
    "__import__('torch').tensor(True)": 1.0,
    "__import__('difflib').SequenceMatcher(None, 'yes', response).ratio()": 1.0,
}
GOOD_FILES = {
    "plain": file_of(),
    "a dataclass": file_of(
        "from __future__ import annotations\nfrom dataclasses import dataclass"
    ).replace("class Mine", "@dataclass\nclass Mine")
    + "    n: int = 3",
    "a dataclass with its name": file_of("from dataclasses import dataclass", name=None).replace(
        "class Mine:", "@dataclass\nclass Mine:\n    name: str = 'mine'"
    ),
    "a named tuple": file_of("import typing", name=None).replace(
        "Mine:", "Mine(typing.NamedTuple):\n    name: str = 'mine'"
    ),
    "a name from __init__": file_of(name=None) + "    def __init__(self): self.name = 'mine'\n",
    "a name as a property": file_of(name="property(lambda self: 'mine')"),
    "slots": file_of() + "    __slots__ = ()\n",
    "the protocol": file_of("from minilpo.tasks import Task").replace("Mine:", "Mine(Task):"),
    "a child of another task": "from minilpo.tasks.math import Math\nclass Mine(Math): name = 'mine'\n",
    "a child of a class without a name": file_of(name=None) + "class Child(Mine): name = 'mine'\n",
    "two names for it": file_of() + "Other = Mine\n",
    "helpers": file_of("class Helper:\n    name = 'helper'\nclass Problem(Exception): pass\n"),
    "an abstract parent": file_of(
        "import abc\nclass Parent(abc.ABC):\n    @abc.abstractmethod\n    def more(self): pass\n"
    ),
    "static methods": file_of(reward="@staticmethod\ndef reward(prompt, response): return 1.0"),
    "class methods": file_of(
        prompt="@classmethod\ndef prompt(cls, rng): return 'Say ' + ' '.join(rng.choices(WORDS, k=5))"
    ),
    "lambdas": file_of(reward="= lambda self, prompt, response: 1"),
    "its own rng": file_of("import random", prompt="f'Say {random.Random(rng.random()).random()}'"),
    "a list of lines": file_of(
        "LINES = [f'Line {i}' for i in range(100)]", prompt="rng.choice(LINES)"
    ),
    "a prompt of two lines": file_of(
        prompt="'Say this:\\n\\t' + ' '.join(rng.choices(WORDS, k=5))"
    ),
    "other letters": file_of("WORDS = 'één ja, 你好 да 🙂'.split()").replace(
        "WORDS = ['yes', 'no', 'maybe', 'never']", ""
    ),
    "an empty demonstration": file_of(demonstration="''"),
    "an enum's text": file_of(
        "import enum\nclass Kind(str, enum.Enum):\n    long, short = 'long', 'short'\n",
        kind="Kind.long if len(prompt) > 20 else Kind.short",
    ),
    "a kind in words": file_of(kind="'more than one word' if len(prompt) > 20 else 'short'"),
    "parts that are ints and bools": file_of(
        parts="{'length': len(response), 'yes': response == 'yes'}"
    ),
    "parts that are negative": file_of(parts="{'length': -len(response) / 3}"),
    "a constraint": file_of(parts="{'a': 1, 'b': False}", quality="'a'", constraint="'b'"),
    "a quality of another sort": file_of(parts="{'a': 1}", quality="0.9"),
    "ood prompts": file_of(ood_prompt="'Please say ' + ' '.join(rng.choices(WORDS, k=5))"),
    "weight 0.5": file_of(corpus_weight="0.5"),
    "weight 3": file_of(corpus_weight="3"),
    "weight as a Fraction": file_of(
        "from fractions import Fraction", corpus_weight="Fraction(1, 3)"
    ),
    "weight of NumPy": file_of("import numpy", corpus_weight="numpy.int64(2)"),
    "a byte order mark": b"\xef\xbb\xbf" + file_of().encode(),
    "lines of Windows": file_of().replace("\n", "\r\n"),
    "another encoding that it names": b"# -*- coding: latin-1 -*-\nGREETING = '\xe4'\n"
    + file_of().encode(),
    "a script too": file_of() + "if __name__ == '__main__':\n    raise SystemExit\n",
    "its own path": file_of("from pathlib import Path\nHERE = Path(__file__).read_text()"),
    "an alarm of its own": file_of(
        "import signal",
        reward=method(
            "reward",
            "old = signal.signal(signal.SIGALRM, print)",
            "signal.alarm(0)",
            "signal.signal(signal.SIGALRM, old)",
            "return 1",
        ),
    ),
    "errors that it handles": file_of(
        reward=method(
            "reward", "try:", "    return 1 / len(response)", "except Exception:", "    return 0"
        )
    ),
    "a noisy reward": file_of("import random", reward="random.Random(prompt + response).random()"),
    "a count of its rewards": file_of(
        reward=method("reward", "self.n = getattr(self, 'n', 0) + 1", "return 1 / self.n")
    ),
    **{f"name {name}": file_of(name=repr(name)) for name in ("m", "My-task_2", "0", "n" * 40, "_")},
}


@pytest.mark.parametrize("reward, number", GOOD_REWARDS.items(), ids=GOOD_REWARDS)
def test_any_kind_of_number_from_0_to_1_is_a_reward(write, reward, number):
    [task] = load_tasks([write(file_of(reward=reward))])
    rewards = score(rollout_of("yes", "yes"), [task])
    assert rewards.dtype == torch.float32 and rewards.shape == (1, 2)
    assert rewards.tolist() == [[np.float32(number)] * 2]


@no_warnings
@pytest.mark.parametrize("content", GOOD_FILES.values(), ids=GOOD_FILES)
def test_a_good_task_is_loaded_and_joins_the_mixture(write, tmp_path, content):
    tasks = load_tasks([write(content), "story"])
    pairs = mixed_demonstrations(tasks, 50, "train", random.Random(0))
    assert len(pairs) == 50 and {split_of(prompt) for prompt, _ in pairs} == {"train"}
    task = tasks[0]
    prompts = draw_prompts(task, 3, "train", random.Random(0))
    rollout = rollout_of("yes", "", "no yes", "maybe", "<eos>", "yes " * 40, prompts=prompts)
    rewards = score(rollout, [task] * 3)
    assert rewards.dtype == torch.float32 and (rewards >= 0).all() and (rewards <= 1).all()
    assert isinstance(kind_of(task, prompts[0]), str) and ask(task, "corpus_weight") > 0
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # no __pycache__ either


# Trained on, from outside

ALL_MEMBERS = {
    "reward": "response.count('yes') > response.count('no')",  # a bool
    "kind": "'long' if len(prompt) > 20 else 'short'",
    "knows": "prompt.startswith('Say ')",
    "parts": "{'words': len(response.split()), 'yes': 'yes' in response}",
    "quality": "'words'",
    "constraint": "'yes'",
    "ood_prompt": "'Say no ' + ' '.join(rng.choices(WORDS, k=5))",
    "corpus_weight": "0.5",
}


def test_a_task_with_every_member_is_trained_on_and_measured(write, tmp_path, capsys):
    assert (
        main(
            [
                "demo",
                "--tasks",
                write(file_of(**ALL_MEMBERS)),
                "--out",
                str(tmp_path / "run"),
                *TINY,
            ]
        )
        == 0
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]["mine"]
    assert set(metrics["kinds"]) <= {"long", "short"} and set(metrics["parts"]) == {"words", "yes"}
    # Of two responses to each of four prompts.
    assert all(reward * 8 in range(9) for reward in metrics["fixed"])


@pytest.mark.parametrize(
    "value, said, finished",
    [
        ("float('nan')", "got nan", ["model.pt"]),  # while LPO trains
        ("1 / 0", "but it raised ZeroDivisionError: division by zero", ["model.pt", "head.pt"]),
    ],
)
def test_a_reward_that_fails_in_the_midst_of_the_work_is_one_line_and_what_was_finished_stays(
    write, tmp_path, capsys, value, said, finished
):
    run = tmp_path / "run"
    too_late = f"{value} if os.path.exists({str(run / finished[-1])!r}) else len(response) % 2"
    file = write(file_of("import os", reward=too_late))
    line = complaint(capsys, "demo", "--tasks", file, "--out", run, *TINY)
    must = r"task 'mine': reward\('Say [a-z ]*', '.*'\) must be a number from 0 to 1"
    assert re.search(f"{must}, {said}", line), line
    assert [name for name in ("model.pt", "head.pt") if (run / name).exists()] == finished


# Once a task is loaded


def task_of(**members):
    """An instance of a task as a notebook would define it, not from a file."""
    names = {}
    exec(file_of(**members), names)
    return with_defaults(names["Mine"])()


def rollout_of(*responses, prompts=("Say yes",)):
    mask = torch.ones(len(responses), 1, dtype=torch.bool)
    nothing = Decisions(torch.zeros(len(responses), 0), mask.long(), mask)
    n_samples = len(responses) // len(prompts)
    return Rollout(list(prompts), n_samples, list(responses), mask.long(), mask, nothing)


def test_rewards_of_different_kinds_make_one_tensor_of_floats():
    task = task_of(
        reward="{'a': True, 'b': 0, 'c': 0.1, 'd': __import__('fractions').Fraction(1, 3)}[response]"
    )
    rewards = score(rollout_of(*"abcd"), [task])
    assert rewards.dtype == torch.float32 and torch.equal(
        rewards, torch.tensor([[1.0, 0.0, 0.1, 1 / 3]])
    )


@pytest.mark.parametrize("value", [*BAD_REWARDS][:16])
def test_a_bad_reward_is_named_with_task_prompt_response_and_value_wherever_it_comes_up(value):
    task = task_of(reward=f"{value} if response == 'no' else 1")
    with pytest.raises(
        ValueError,
        match=r"^task 'mine': reward\('Say yes', 'no'\) must be a number from 0 to 1, got ",
    ):
        score(rollout_of("yes", "no"), [task])


@pytest.mark.parametrize(
    "reward",
    ["None", "response * 9", "{}[response]", "[response] * 9", "int(prompt)", "exit(prompt)"],
)
def test_what_is_long_is_shown_in_short_and_without_control_characters(reward):
    with pytest.raises(ValueError) as refused:
        judge(task_of(reward=reward), "Say \x1b[2J " + "yes " * 10**5, "no\n" * 10**5)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 600
    assert str(refused.value).startswith(r"task 'mine': reward('Say \x1b[2J yes")


def test_the_error_names_the_line_of_the_users_file_not_that_of_a_library_it_calls(write):
    code = file_of("import json", reward=method("reward", "x = 1", "return json.loads(response)"))
    [line] = [number for number, text in enumerate(code.splitlines(), 1) if "json.loads" in text]
    with pytest.raises(ValueError, match=rf"raised JSONDecodeError: .* \(line {line} of mine.py\)"):
        load_tasks([write(code)])


def test_the_original_error_is_kept_for_those_who_call_from_python():
    with pytest.raises(ValueError) as refused:
        judge(task_of(reward="{}[response]"), "Say yes", "no")
    assert isinstance(refused.value.__cause__, KeyError)


class Pressed(KeyboardInterrupt):
    """Ctrl-C may be of a class of its own."""


@pytest.mark.parametrize("pressed", [KeyboardInterrupt, Pressed])
@pytest.mark.parametrize(
    "member", ["prompt", "demonstration", "reward", "kind", "parts", "corpus_weight"]
)
def test_ctrl_c_in_a_tasks_code_stays_ctrl_c(member, pressed):
    def press(*_):
        raise pressed

    task = type("Mine", (), {"name": "mine", member: property(press)})()
    calls = {
        "prompt": lambda: draw_prompts(task, 1, "train", random.Random(0)),
        "demonstration": lambda: ask(task, "demonstration", "Say yes", random.Random(0)),
        "reward": lambda: judge(task, "Say yes", "yes"),
        "kind": lambda: kind_of(task, "Say yes"),
        "parts": lambda: parts_of(task, "Say yes", "yes"),
        "corpus_weight": lambda: ask(task, "corpus_weight"),
    }
    with pytest.raises(pressed):
        calls[member]()


def test_ctrl_c_while_a_file_is_loaded_stays_ctrl_c(write):
    with pytest.raises(KeyboardInterrupt):
        load_tasks([write("raise KeyboardInterrupt")])


@pytest.mark.parametrize(
    "fixed, adaptive",
    [(["yes", "maybe", "no", "yes"], ["yes", "yes"]), (["yes"] * 4, ["yes", "no"])],
)
def test_the_parts_of_every_response_must_be_those_of_the_first(fixed, adaptive):
    task = task_of(parts="{'a': 1, 'b': 0} if response != 'no' else {'a': 1}")
    test = compared(task, ["Say a", "Say b"], fixed, adaptive)
    with pytest.raises(
        ValueError,
        match=r"task 'mine': parts\('Say b', 'no'\) must be a dict .* got {'a': 1.0} without one of",
    ):
        mean_parts(task, test, np.array([0, 1]))
    means = mean_parts(task_of(parts="{'b': len(response), 'a': True}"), test, np.array([0, 1]))
    assert list(means) == ["b", "a"] and means["a"] == {"fixed": [1.0, 1.0], "adaptive": 1.0}
    lengths = [len(response) for response in fixed]
    assert means["b"]["fixed"] == [(lengths[0] + lengths[2]) / 2, (lengths[1] + lengths[3]) / 2]


def test_pairs_by_a_constraint_need_parts_that_are_numbers():
    task = task_of(parts="{'a': 1, 'b': None}", quality="'a'", constraint="'b'")
    with pytest.raises(
        ValueError,
        match=r"task 'mine': parts\('Say yes', 'yes'\) must be a dict .* got {'a': 1, 'b': None}",
    ):
        quality_and_constraint(rollout_of("yes", "no"), [task], torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("weight", "share"),
    [("1", 0.5), ("3", 0.75), ("0.25", 0.2), ("1e-6", 0.01), ("1_000_000", 0.99)],
)
def test_a_weight_may_be_any_number_above_0(weight, share):
    tasks = [task_of(corpus_weight=weight), task_of(prompt="f'Count to {rng.randrange(1000)}'")]
    pairs = mixed_demonstrations(tasks, 100, "train", random.Random(0))
    assert sum(prompt.startswith("Say") for prompt, _ in pairs) == pytest.approx(100 * share, abs=1)


def test_a_task_with_next_to_no_prompts_of_a_split_is_given_up_after_a_bounded_number_of_draws():
    class Skewed:
        """One prompt in a thousand is of the split."""

        name, n = "skewed", 0
        usual, rare = (
            next(f"Say {i}" for i in range(99) if split_of(f"Say {i}") == split)
            for split in ("test", "train")
        )

        def prompt(self, rng):
            self.n += 1
            assert self.n < 10**5
            return self.rare if self.n % 1000 == 0 else self.usual

        def demonstration(self, prompt, rng):
            return "yes"

    task = Skewed()
    with pytest.raises(
        ValueError, match="task 'skewed' must have prompts of the train split, but only 22 of 22"
    ):
        draw_demonstrations(task, 10**6, "train", random.Random(0))
    assert PATIENCE < task.n < 1.2 * PATIENCE
    assert (
        len(draw_demonstrations(task, 5, "train", random.Random(0))) == 5
    )  # a few can still be found


# What loading leaves alone


def test_trying_a_task_out_changes_no_other_random_numbers(write):
    file = write(file_of(ood_prompt="'Say ' + ' '.join(rng.choices(WORDS, k=5))"))
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    before = random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())
    [task] = load_tasks([file])
    assert before == (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state()))
    first = draw_demonstrations(task, 20, "train", random.Random(3))
    try_out(task)
    assert first == draw_demonstrations(task, 20, "train", random.Random(3))


def test_the_built_in_tasks_pass_what_a_users_task_must_pass():
    for name in ALL_TASKS:
        try_out(*load_tasks([name], ALL_TASKS))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no alarm to leave alone")
def test_somebody_elses_alarm_is_left_as_it_was(write):
    file = write(file_of())
    before = signal.signal(signal.SIGALRM, handler := lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 5000, 70)
        load_tasks([file])
        assert signal.getsignal(signal.SIGALRM) is handler
        left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 4000 < left <= 5000 and interval == 70
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no alarm")
def test_the_alarm_stops_the_users_code_and_never_what_switches_it_off():
    rings = []

    def code_of_the_user():
        rings.append(signal.getsignal(signal.SIGALRM))
        with pytest.raises(TimeIsUp):
            rings[0](signal.SIGALRM, sys._getframe())

    limited(code_of_the_user)
    assert rings[0](signal.SIGALRM, sys._getframe()) is None  # outside of the call


def test_in_another_thread_a_task_works_without_a_limit(write):
    found = []
    thread = threading.Thread(target=lambda: found.extend(load_tasks([write(file_of())])))
    thread.start()
    thread.join()
    assert [task.name for task in found] == ["mine"]


def test_a_changed_file_runs_as_it_is_now_even_if_its_size_and_its_time_are_the_same(write):
    for name in ("mine", "ours"):
        file = write(file_of(name=repr(name)))
        os.utime(file, (10**9, 10**9))
        assert [task.name for task in load_tasks([file])] == [name]
