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
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.rollout import Rollout, quality_and_constraint, score
from minilpo.evaluation.rehearse import rehearse
from minilpo.rivals.controls import ALL_TASKS
from minilpo.tasks import (
    Task,
    ask,
    draw_demonstrations,
    judge,
    load_tasks,
    mixed_demonstrations,
    parts_of,
    split_of,
    try_out,
)
from minilpo.tasks.calling import TimeIsUp, limited
from minilpo.tasks.own import with_defaults

ARGUMENTS = {
    "prompt": "rng",
    "ood_prompt": "rng",
    "demonstration": "prompt, rng",
    "kind": "prompt",
    "knows": "prompt",
    "reward": "prompt, response",
    "parts": "prompt, response",
}
GOOD = {
    "name": "'mine'",
    "prompt": "'Say ' + ' '.join(rng.choices(WORDS, k=rng.randint(2, 6)))",
    "demonstration": "' '.join(rng.choices(WORDS, k=3))",
    "reward": "float('yes' in response.split())",
}
FILE = "mine.py"
TINY = """
    --steps 20 --demonstrations 200 --batch-size 8 --n-layer 1 --n-head 1 --n-embd 8
    --block-size 48 --threads 1 --rounds 1 --prompts 8 --samples 4 --epochs 1 --n-hidden 4
    --validation-prompts 2 --test-prompts 4 --selection-prompts 4 --ood-prompts 2 --resamples 100
    --level token --pairs constrained --temperatures 0 1
""".split()
no_alarm = not hasattr(signal, "setitimer")


def file_of(top="", **members):
    """The text of a task file. A member is what it is or returns, its own code ("def ...", "=
    ..."), or None to be left out.
    """
    lines = [top, "WORDS = ['yes', 'no', 'maybe', 'never']", "class Mine:"]
    for member, code in (GOOD | members).items():
        if code is None:
            continue
        if code.startswith("= ") or member not in ARGUMENTS:
            code = f"{member} = {code.removeprefix('= ')}"
        elif "def " not in code:
            code = f"def {member}(self, {ARGUMENTS[member]}):\n    return {code}"
        lines += ["    " + line for line in code.splitlines()]
    return "\n".join(lines) + "\n"


def method(member, *lines):
    """A method of several lines."""
    return "\n    ".join([f"def {member}(self, {ARGUMENTS[member]}):", *lines])


def init(line, arguments=""):
    """A task file whose class has an `__init__`."""
    return file_of() + f"    def __init__(self{arguments}): {line}\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name=FILE):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return write


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr("minilpo.tasks.base.PATIENCE", 2000)


def task_of(**members):
    """An instance of a task as a notebook would define it, not from a file."""
    names = {"__name__": "__main__"}
    exec(file_of(**members), names)
    return with_defaults(names["Mine"])()


def rollout_of(*responses, prompts=("Say yes",)):
    mask = torch.ones(len(responses), 1, dtype=torch.bool)
    nothing = Decisions(torch.zeros(len(responses), 0), mask.long(), mask)
    n_samples = len(responses) // len(prompts)
    return Rollout(list(prompts), n_samples, list(responses), mask.long(), mask, nothing)


def complaint(capsys, *arguments):
    """The one line on stderr of a command that is refused."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    lines = [
        line for line in re.split(r"[\n\r]", err) if line.strip() and "%|" not in line
    ]  # no bars
    assert (status, len(lines), out) == (2, 1, ""), (status, lines, out)
    assert lines[0].startswith("minilpo: error: ") and lines[0].isprintable()
    assert len(lines[0]) < 800
    return lines[0]


# Refused before anything is trained

BAD_ANSWERS = [  # a member, what it is or returns, and what the line says of it
    ("reward", "None", "got None;"),
    ("reward", "float('nan')", "got nan;"),
    ("reward", "1.001", "got 1.001;"),
    ("reward", "10**400", "got 1000"),
    ("reward", "'0.5'", "got '0.5';"),
    ("reward", "(0.5, 'good')", r"got \(0.5, 'good'\);"),
    ("reward", "'a' * 10**6", "got 'aaa.*aaa';"),
    ("reward", "__import__('decimal').Decimal('sNaN')", r"got Decimal\('sNaN'\);"),
    ("reward", "__import__('numpy').str_('0.5')", "got .*'0.5'"),
    ("reward", "__import__('torch').tensor([0.1, 0.2])", r"got tensor\("),
    ("reward", "response.count('yes') - response.count('no')", "got -?[1-9]"),
    ("reward", "1 - len(response.split()) / 50", "got -1.0;"),  # for a long text
    ("reward", "1 / len(response)", "raised ZeroDivisionError: .* .line 10 of mine.py.;"),
    ("reward", "self.reward(prompt, response)", "raised RecursionError: "),
    ("reward", "exit(1)", "raised SystemExit: 1 "),
    ("reward", "(_ for _ in ()).throw(BaseException('all'))", "raised BaseException: all"),
    (
        "reward",
        "(_ for _ in ()).throw(ValueError('\\x1b[2J\\x07'))",
        r"ValueError: \\x1b\[2J\\x07 ",
    ),
    ("reward", "(_ for _ in ()).throw(ValueError('long ' * 10**5))", r"long long .*\.\.\..*long"),
    ("reward", "def reward(prompt, response): return 1.0", "raised TypeError: .*positional"),
    ("reward", "= property(lambda self: 1 / 0)", "raised ZeroDivisionError"),
    ("reward", "type('W', (), {'__repr__': lambda self: 1 / 0})()", "got <W>;"),
    ("prompt", "None", "got None;"),
    ("prompt", "' \\n'", "got ' .n';"),
    ("prompt", "('1 + 1?', '2')", r"got \('1 \+ 1\?', '2'\);"),
    ("prompt", "'Say yes \\x1b[2J'", r"got 'Say yes \\x1b\[2J';"),
    ("prompt", "'Say yes\\r\\n'", r"got 'Say yes\\r\\n';"),
    ("prompt", "'Say \\ud800'", r"got 'Say \\ud800';"),  # half a letter
    ("prompt", "rng.choice([])", r"raised IndexError.*\(line \d+ of mine.py\)"),
    ("demonstration", "None", r"\('Say .*', rng\) .*got None;"),
    ("demonstration", "'yes\\a'", r"got 'yes\\x07';"),
    ("demonstration", "exit('bye')", "raised SystemExit: bye"),
    ("ood_prompt", "None", "got None;.*leave"),
    ("kind", "None", "got None;"),
    ("kind", "'short\\nlong'", r"got 'short\\nlong';"),
    ("kind", "'short ' * 20", "got 'short"),
    ("parts", "[0.5]", r"got \[0.5\];"),
    ("parts", "{'\\x1bc': 0.5}", r"got {'\\x1bc': 0.5};"),
    ("parts", "{'a': '1'}", "got {'a': '1'};"),
    ("parts", "{'a': 1, 'b': float('inf')}", "got {'a': 1, 'b': inf};"),
    ("parts", "dict.fromkeys(response.split(), 1)", "without one of .*return the same names"),
    ("knows", "None", "must be True or False, got None;"),
    ("knows", "= True", "raised TypeError"),
    ("corpus_weight", "0", "must be a number above 0 .*got 0;"),
    ("corpus_weight", "'2'", "got '2';"),
    ("corpus_weight", "float('nan')", "got nan;"),
    ("corpus_weight", "10**5000", "got "),
    ("name", "None", "got None;"),
    ("name", "'my task'", "got 'my task';"),
    ("name", "'-rf'", "got '-rf';"),
    ("name", "'mine\\n'", r"got 'mine\\n';"),
    ("name", "'mine٣'", "got 'mine٣';"),  # a digit of another script
    ("name", "'n' * 41", "got 'nnn"),
    ("name", "property(lambda self: 1 / 0)", "raised ZeroDivisionError"),
]
NO_RANDOM = "must not draw from the global generators of random and NumPy"
BAD_FILES = {  # files, and what the line says beyond the file's name
    "a prompt by a counter": (
        file_of("import itertools\nN = itertools.count()", prompt="f'Say {next(N)}'"),
        "must return the same texts .*keep no count of the calls",
    ),
    "a prompt in no training split": (
        file_of(prompt="'Sort these numbers: 3 9 14.'"),
        "must have prompts of the train split",
    ),
    "an ood_prompt that the reward can't read": (
        file_of(ood_prompt="'Please answer'", reward="float(response == prompt.split('Say ')[1])"),
        r"reward\('Please answer', .*raised IndexError",
    ),
    "a demonstration by random": (
        file_of("import random", demonstration="random.choice(WORDS)"),
        f"{NO_RANDOM}.*; write rng.choice",
    ),
    "a reward by random": (
        file_of("import random", reward="random.random()"),
        f"{NO_RANDOM}.*; .*in a reward draw from",
    ),
    "a constraint that is no part": (
        file_of(parts="{'a': 1}", quality="'a'", constraint="'b'"),
        r"parts\(.*got {'a': 1.0} without one of \['a', 'b'\]",
    ),
    "no code": ("", "must define one class with name, prompt, demonstration and reward, got 0$"),
    "an imported task": (
        "from minilpo.tasks.story import Story\nMine = Story",
        "must define one class .*got 0$",
    ),
    "no reward": (file_of(reward=None), "got 0: Mine has no reward"),
    "no name": (file_of(name=None), "class Mine: name must be .*raised AttributeError"),
    "two tasks": (file_of() + file_of().replace("Mine", "Yours"), "got 2: Mine; Yours"),
    "an abstract class alone": (
        file_of("import abc").replace("Mine:", "Mine(abc.ABC):")
        + "    @abc.abstractmethod\n    def more(self): pass\n",
        "got 0: Mine has no more",
    ),
    "a file that exits": (
        "import sys\nsys.exit()",
        r"must run, but it raised SystemExit \(line 2 of mine.py\)",
    ),
    "a file that raises": (
        file_of("{}['key']"),
        r"must run, but it raised KeyError: 'key' \(line 1 of mine.py\)",
    ),
    "a typo": ("class Mine(:\n", r"must run, but it raised SyntaxError: .*\(mine.py, line 1\)"),
    "another encoding": (b"NAME = '\xe4\xf6'\n", "must run, but it raised SyntaxError"),
    "brackets": ("x = " + "(" * 100_000, "must run, but it raised"),
    "__init__ that wants more": (init("pass", ", n"), "must run, .*raised TypeError: .*'n'"),
}


@pytest.mark.parametrize("member, code, said", BAD_ANSWERS)
def test_a_bad_answer_is_refused_with_its_task_its_member_and_its_value(write, member, code, said):
    with pytest.raises(ValueError) as refused:
        load_tasks([write(file_of(**{member: code}))])
    line = str(refused.value)
    whose = "the task of class Mine|task .*" if member == "name" else "task 'mine'"
    assert re.search(f"^the task file '.*{FILE}' can't be used: ({whose}): {member}.*{said}", line)
    assert " must be " in line and len(line) < 1000 and line.isprintable()


@pytest.mark.parametrize("content, said", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_good_task_is_refused_with_its_name(write, few_draws, content, said):
    with pytest.raises(ValueError, match=rf"^the task file '.*{FILE}' .*{said}"):
        load_tasks([write(content)])


@pytest.mark.parametrize("draw", ["random.choice(WORDS)", "numpy.random.choice(WORDS)"])
def test_a_draw_from_a_global_generator_is_found_each_time(write, draw):
    """Also where so few words are drawn that two draws are often the same."""
    file = write(file_of("import random, numpy", demonstration=f"str({draw})"))
    for _ in range(5):
        with pytest.raises(ValueError, match=NO_RANDOM):
            load_tasks([file])


@pytest.mark.parametrize("content", ["import sys\nsys.exit()", file_of(reward="None")])
def test_a_command_with_a_bad_task_is_one_line_and_writes_nothing(write, tmp_path, capsys, content):
    line = complaint(capsys, "demo", "--tasks", write(content), "--out", tmp_path / "run", *TINY)
    assert line.startswith("minilpo: error: the task file '")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    (tmp_path / "folder.py").mkdir()
    whys = {"folder.py": "Is a directory", "gone.py": "No such file", "a\0b.py": "null"}
    for name, why in whys.items():
        with pytest.raises(ValueError, match=f"--tasks must name existing files, got .* .*{why}"):
            load_tasks([str(tmp_path / name)])


# Stopped


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


LOOP = "while True: pass"
TRIES_AGAIN = ["    try:", "        import time; time.sleep(10**6)", "    except:", "        pass"]
ENDLESS = {
    "__init__": (init("[None for _ in iter(int, 1)]"), "must run, but it took"),
    "demonstration": (
        file_of(demonstration=method("demonstration", "import time", "time.sleep(10**6)")),
        r"demonstration\(.* took",
    ),
    "reward for an empty response": (
        file_of(reward=method("reward", "while not response: pass", "return 1.0")),
        r"reward\('Say .*', ''\) .* took",
    ),
    "reward that swallows all": (
        file_of(reward=method("reward", "while True:", *TRIES_AGAIN)),
        r"reward\(.* took",
    ),
    "parts by a slow pattern": (
        file_of("import re", parts="{'a': bool(re.fullmatch('(a|a)*b', 'a' * 200))}"),
        r"parts\(.* took",
    ),
}


@pytest.mark.skipif(no_alarm, reason="only an alarm stops every loop without end")
@pytest.mark.parametrize("content, said", ENDLESS.values(), ids=ENDLESS)
def test_a_loop_without_end_is_stopped_and_named(write, impatient, content, said):
    took = rf"{said} longer than 0.5 seconds .line \d+ of mine.py"
    with pytest.raises(ValueError, match=rf"^the task file '.*{FILE}' .*{took}"):
        load_tasks([write(content)])


def test_a_class_of_a_notebook_has_the_same_limit(impatient):
    task = task_of(reward=method("reward", LOOP))
    with pytest.raises(ValueError, match="'mine': reward.*took longer than 0.5 seconds"):
        judge(task, "Say yes", "yes")


def test_in_another_thread_a_task_works_and_a_loop_of_python_is_stopped(write, impatient):
    said = []

    def load(content):
        try:
            said.append(load_tasks([write(content)])[0].name)
        except ValueError as error:
            said.append(str(error))

    for content in (file_of(), file_of(reward=method("reward", "while True:", "    pass"))):
        thread = threading.Thread(target=load, args=[content], daemon=True)
        thread.start()
        thread.join(20)
    assert said[0] == "mine" and "took longer than 0.5 seconds (line" in said[1]


@pytest.mark.skipif(no_alarm, reason="there is no alarm to leave alone")
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


@pytest.mark.skipif(no_alarm, reason="there is no alarm")
def test_the_alarm_stops_the_users_code_and_never_what_switches_it_off():
    rings = []

    def code_of_the_user():
        rings.append(signal.getsignal(signal.SIGALRM))
        with pytest.raises(TimeIsUp):
            rings[0](signal.SIGALRM, sys._getframe())

    limited(code_of_the_user)
    assert rings[0](signal.SIGALRM, sys._getframe()) is None  # outside of the call


class Pressed(KeyboardInterrupt):
    """Ctrl-C may be of a class of its own."""


@pytest.mark.parametrize("member", ["prompt", "demonstration", "reward", "kind", "corpus_weight"])
def test_ctrl_c_in_a_tasks_code_stays_ctrl_c(write, member):
    def press(*_):
        raise Pressed

    task = type("Mine", (), {"name": "mine", member: property(press)})()
    with pytest.raises(Pressed):
        ask(task, member, *ARGUMENTS.get(member, "").split())
    with pytest.raises(KeyboardInterrupt):
        load_tasks([write("raise KeyboardInterrupt")])


# Accepted

GOOD_REWARDS = {  # what the reward returns for "yes" (and for "no"), and the number it counts as
    "True": 1.0,
    "1": 1.0,
    "-0.0": 0.0,
    "sum([0.1] * 3) + 0.7": 1.0,
    "0.7 + 0.1 + 0.2 + 1e-9": 1.0,
    "-1e-9": 0.0,
    "__import__('fractions').Fraction(1, 3)": 1 / 3,
    "__import__('decimal').Decimal('0.3')": 0.3,
    "__import__('numpy').float32(0.25)": 0.25,
    "__import__('numpy').bool_(True)": 1.0,
    "__import__('torch').tensor(0.75)": 0.75,
    "__import__('torch').tensor(True)": 1.0,
}
GOOD_FILES = {
    "a plain dataclass": file_of("from dataclasses import dataclass", name=None).replace(
        "class Mine:", "@dataclass\nclass Mine:\n    name: str = 'mine'"
    ),
    "equality without a hash": file_of() + "    def __eq__(self, other): raise TypeError\n",
    "a named tuple": file_of("import typing", name=None).replace(
        "Mine:", "Mine(typing.NamedTuple):\n    name: str = 'mine'"
    ),
    "a name from __init__": file_of(name=None) + "    def __init__(self): self.name = 'mine'\n",
    "the protocol": file_of("from minilpo.tasks import Task").replace("Mine:", "Mine(Task):"),
    "a child of another task": "from minilpo.tasks.math import Math\n"
    "class Mine(Math): name = 'mine'\n",
    "a child of a class without a name": file_of(name=None) + "class Child(Mine): name = 'mine'\n",
    "helpers": file_of("class Helper:\n    name = 'helper'\nclass Problem(Exception): pass\n"),
    "an abstract task beside it": file_of("import abc").replace("Mine:", "Base(abc.ABC):")
    + "    @abc.abstractmethod\n    def more(self): pass\n"
    + "class Mine(Base):\n    def more(self): pass\n",
    "lambdas": file_of(reward="= lambda self, prompt, response: 1"),
    "a prompt of two lines": file_of(prompt="'Say:\\n\\t' + ' '.join(rng.choices(WORDS, k=5))"),
    "other letters": file_of(demonstration="rng.choice('één ja, 你好 да 🙂'.split())"),
    "an empty demonstration": file_of(demonstration="''"),
    "parts that are ints and bools": file_of(parts="{'a': -len(response), 'b': response == 'yes'}"),
    "a constraint": file_of(parts="{'a': 1, 'b': False}", quality="'a'", constraint="'b'"),
    "weight 0.5": file_of(corpus_weight="0.5"),
    "a byte order mark": b"\xef\xbb\xbf" + file_of().encode(),
    "lines of Windows": file_of().replace("\n", "\r\n"),
    "a script too": file_of() + "if __name__ == '__main__':\n    raise SystemExit\n",
    "its own path": file_of("from pathlib import Path\nHERE = Path(__file__).read_text()"),
    "a noisy reward": file_of("import random", reward="random.Random(prompt + response).random()"),
    "a count of its rewards": file_of(
        reward=method("reward", "self.n = getattr(self, 'n', 0) + 1", "return 1 / self.n")
    ),
    **{f"name {name}": file_of(name=repr(name)) for name in ("m", "My-task_2", "0", "n" * 40)},
}


@pytest.mark.parametrize("reward, number", GOOD_REWARDS.items(), ids=GOOD_REWARDS)
def test_any_kind_of_number_from_0_to_1_is_a_reward(write, reward, number):
    [task] = load_tasks([write(file_of(reward=reward))])
    rewards = score(rollout_of("yes", "yes"), [task])
    assert rewards.dtype == torch.float32 and rewards.tolist() == [[np.float32(number)] * 2]


@pytest.mark.parametrize("content", GOOD_FILES.values(), ids=GOOD_FILES)
def test_a_good_task_is_loaded_joins_the_mixture_and_goes_through_the_whole_work(
    write, tmp_path, content
):
    tasks = load_tasks([write(content), "story"])
    assert isinstance(tasks[0], Task) and tasks[1].name == "story"
    pairs = mixed_demonstrations(tasks, 50, "train", random.Random(0))
    assert len(pairs) == 50 and {split_of(prompt) for prompt, _ in pairs} == {"train"}
    rehearse(tasks, Temperatures([0.0, 1.0]), "token")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # no __pycache__ either


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_class_that_breaks_in_the_midst_of_the_work_is_found_by_the_rehearsal(level):
    class Bare:  # whoever leaves `Task` out has no `kind`, no `constraint` and no `parts`
        name = "bare"

        def prompt(self, rng):
            return f"Say {rng.choice('abcdefghijklmnop')}"

        def reward(self, prompt, response):
            return 1

    with pytest.raises(ValueError, match="bare.*derive the class from minilpo.tasks.Task"):
        rehearse([Bare()], Temperatures([0.0, 1.0]), level)


def test_a_module_beside_the_file_can_be_imported_and_each_file_gets_its_own(write, tmp_path):
    path, files = list(sys.path), []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.py").write_text(f"WORD = '{name}'\n")
        late = method("reward", "import words", "return float(words.WORD in response)")
        code = file_of("from words import WORD", name="WORD", demonstration="WORD", reward=late)
        files.append(write(code, f"{name}/{FILE}"))
    try:
        tasks = load_tasks(files)
        assert [task.name for task in tasks] == ["one", "two"]
        assert tasks[0].reward("Say one", "one") == 1
    finally:
        sys.path[:] = path
        sys.modules.pop("words", None)


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


@pytest.mark.usefixtures("figures_undrawn")
def test_a_task_with_every_member_is_trained_on_and_measured(write, tmp_path):
    file, run = write(file_of(**ALL_MEMBERS)), tmp_path / "run"
    assert main(["demo", "--tasks", file, "--out", str(run), *TINY]) == 0
    metrics = json.loads((run / "metrics.json").read_text())["tasks"]["mine"]
    assert set(metrics["kinds"]) <= {"long", "short"} and set(metrics["parts"]) == {"words", "yes"}
    # Of two responses to each of four prompts.
    assert all(reward * 8 in range(9) for reward in metrics["fixed"])


HARMLESS = """
import os, torch
def meddle():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
meddle()
"""


@pytest.mark.usefixtures("figures_undrawn")
def test_a_task_that_changes_switches_and_the_folder_changes_nothing(write, tmp_path, monkeypatch):
    """Compared with the same task without: the same bytes, at the place that was asked for."""
    write(file_of(), "plain.py")
    reward = method("reward", "meddle()", f"return {GOOD['reward']}")
    write(file_of(HARMLESS, reward=reward), "meddling.py")
    for name in ("plain", "meddling"):
        monkeypatch.chdir(tmp_path)
        assert main(["demo", "--tasks", f"{name}.py", "--out", f"runs/{name}", *TINY]) == 0
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert torch.get_default_device().type == "cpu"
    for file in ("model.pt", "head.pt", "examples.txt"):
        plain, meddling = (tmp_path / "runs" / name / file for name in ("plain", "meddling"))
        assert plain.read_bytes() == meddling.read_bytes()


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


@pytest.mark.parametrize("reward", ["response * 9", "{}[response]", "int(prompt)", "exit(prompt)"])
def test_what_is_long_is_shown_in_short_and_without_control_characters(reward):
    with pytest.raises(ValueError) as refused:
        judge(task_of(reward=reward), "Say \x1b[2J " + "yes " * 10**5, "no\n" * 10**5)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 600
    assert str(refused.value).startswith(r"task 'mine': reward('Say \x1b[2J yes")


def test_the_error_names_the_line_of_the_users_file_and_keeps_the_original_error(write):
    code = file_of("import json", reward=method("reward", "x = 1", "return json.loads(response)"))
    [line] = [number for number, text in enumerate(code.splitlines(), 1) if "json.loads" in text]
    with pytest.raises(ValueError, match=rf"raised JSONDecodeError: .* \(line {line} of mine.py\)"):
        load_tasks([write(code)])
    with pytest.raises(ValueError) as refused:
        judge(task_of(reward="{}[response]"), "Say yes", "no")
    assert isinstance(refused.value.__cause__, KeyError)


def test_pairs_by_a_constraint_need_parts_that_are_numbers():
    task = task_of(parts="{'a': 1, 'b': None}", quality="'a'", constraint="'b'")
    with pytest.raises(ValueError, match=r"parts\('Say yes', 'yes'\) must be a dict .*'b': None}"):
        quality_and_constraint(rollout_of("yes", "no"), [task], torch.zeros(1, 2))
    assert parts_of(task_of(parts="{'a': True}"), "Say yes", "yes") == {"a": 1.0}


@pytest.mark.parametrize(
    "weight, share", [("1", 0.5), ("3", 0.75), ("0.25", 0.2), ("1e-6", 0.01), ("1_000_000", 0.99)]
)
def test_a_weight_may_be_any_number_above_0(weight, share):
    tasks = [task_of(corpus_weight=weight), task_of(prompt="f'Count to {rng.randrange(1000)}'")]
    pairs = mixed_demonstrations(tasks, 100, "train", random.Random(0))
    assert sum(prompt.startswith("Say") for prompt, _ in pairs) == pytest.approx(100 * share, abs=1)


def test_a_task_with_next_to_no_prompts_of_a_split_is_given_up_in_the_end(few_draws):
    """One prompt in a thousand is of the split."""
    rare, usual = (
        next(f"Say {i}" for i in range(99) if split_of(f"Say {i}") == split)
        for split in ("train", "test")
    )
    task = task_of(prompt=f"{rare!r} if rng.random() < 0.001 else {usual!r}")
    said = r"task 'mine' must have prompts of the train split, but only \d of 2\d\d\d were"
    with pytest.raises(ValueError, match=said):
        draw_demonstrations(task, 10**6, "train", random.Random(0))
    assert len(draw_demonstrations(task, 1, "train", random.Random(0))) == 1  # a few are found


# Loading leaves alone


def test_trying_a_task_out_changes_no_other_random_numbers(write):
    drawn = "import random, numpy\nWORD = random.choice('abcdefgh') + str(numpy.random.rand())"
    file = write(file_of(drawn, ood_prompt="'Say ' + ' '.join(rng.choices(WORDS, k=5))"))
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    before = random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())
    [task] = load_tasks([file])
    assert before == (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state()))
    first = draw_demonstrations(task, 20, "train", random.Random(3))
    try_out(task)
    assert first == draw_demonstrations(task, 20, "train", random.Random(3))


def test_what_a_file_draws_while_it_is_run_is_the_same_in_each_command(write):
    file = write(file_of("import random", name="'n' + str(random.randrange(10**9))"))
    random.seed(1)
    [first], [second] = load_tasks([file]), load_tasks([file])
    assert first.name == second.name


def test_the_built_in_tasks_pass_what_a_users_task_must_pass():
    for name in ALL_TASKS:
        try_out(*load_tasks([name], ALL_TASKS))


def test_a_changed_file_runs_as_it_is_now_even_if_its_size_and_its_time_are_the_same(write):
    for name in ("mine", "ours"):
        file = write(file_of(name=repr(name)))
        os.utime(file, (10**9, 10**9))
        assert [task.name for task in load_tasks([file])] == [name]


def test_the_second_file_is_found_although_the_first_one_changes_the_folder(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(file_of(f"import os; os.makedirs('{tmp_path}/x'); os.chdir('{tmp_path}/x')"), "a.py")
    write(file_of(name="'yours'"), "b.py")
    assert [task.name for task in load_tasks(["a.py", "b.py"])] == ["mine", "yours"]
