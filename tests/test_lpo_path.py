"""What one has to read to follow an LPO step stays short: of the code that runs, in another process.

Not counted are the language model and the tasks, which are theirs, and docstrings, comments and
blank lines. A limit may be lowered; whoever raises one says why.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import minilpo

PACKAGE = Path(minilpo.__file__).parent
MOST = {"files": 11, "functions": 60, "types": 10, "lines of code": 480}
LONGEST_PAGE, MOST_NAMES, MOST_MODULES = 120, 22, 10

# Prints file and first line of everything that was called while a head was trained for one round.
ONE_ROUND = """
import json, sys, torch
from minilpo import GPT, AdaptiveDecoder, GPTLanguageModel, LPOConfig, ModelConfig, Temperatures
from minilpo import Task, Tokenizer, load_tasks, python_rng, torch_generator, train_lpo

[asker] = load_tasks(["instruct"])

class Lengths(Task):
    name, prompt = "lengths", asker.prompt
    def reward(self, prompt, response):  # a model of random weights can earn something
        return len(response) % 7 / 6

rng = python_rng(0, "path")
texts = [text for prompt in (asker.prompt(rng) for _ in range(2000))
         for text in (prompt, asker.demonstration(prompt, rng))]
tokenizer = Tokenizer.train(texts)
config = ModelConfig(tokenizer.vocab_size, n_layer=1, n_embd=32, n_head=2)
lm = GPTLanguageModel(GPT(config, torch_generator(0, "path")), tokenizer)
config = LPOConfig(rounds=1, prompts=32, samples=4, epochs=1, validation_prompts=2)
training = lm, [Lengths()], AdaptiveDecoder(32, 3), Temperatures([0.0, 0.5, 1.0]), config, 0
train_lpo(*training)  # imports that wait for the first call
ran = set()
sys.setprofile(lambda frame, event, _: event == "call" and ran.add(frame.f_code))
train_lpo(*training)
sys.setprofile(None)
print(json.dumps([[code.co_filename, code.co_firstlineno] for code in ran]))
"""


def code_lines(node, source):
    """The lines of a definition that hold code: (numbers)."""
    lines = {n for n in range(node.lineno, node.end_lineno + 1) if is_code(source[n - 1])}
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner):
            lines -= {*range(inner.body[0].lineno, inner.body[0].end_lineno + 1)}
    return lines


def is_code(line):
    return bool(line.strip()) and not line.strip().startswith("#")


def counted(path, called):
    """What is to be read of a file: its functions and types that ran, and their lines of code.

    A type is read where one of its methods ran: without its other methods.
    """
    source, functions, types, lines = path.read_text(encoding="utf-8").splitlines(), [], [], set()
    ran = lambda node: {node.lineno, *(d.lineno for d in node.decorator_list)} & called  # noqa: E731
    for node in ast.walk(ast.parse("\n".join(source))):
        if isinstance(node, ast.FunctionDef) and ran(node):
            functions.append(node.name)
            lines |= code_lines(node, source)
        if isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            if any(map(ran, methods)):
                types.append(node.name)
                inside = [{*range(m.lineno, m.end_lineno + 1)} for m in methods]
                lines |= code_lines(node, source).difference(*inside)
    return functions, types, lines


@pytest.fixture(scope="module")
def path():
    """By file, what ran below `train_lpo`."""
    command = [sys.executable, "-c", ONE_ROUND]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    called = {}
    for name, line in json.loads(done.stdout):
        file = Path(name)
        if PACKAGE in file.parents and file.relative_to(PACKAGE).parts[0] not in ("lm", "tasks"):
            called.setdefault(file, set()).add(line)
    return {str(file.relative_to(PACKAGE)): counted(file, lines) for file, lines in called.items()}


def test_what_ran_is_seen(path):
    """Or the counts would be small for another reason."""
    functions, types, lines = path["lpo.py"]
    assert set(functions) == {"train_lpo", "fit", "lpo_loss", "response_scores"} and not types
    assert 40 < len(lines) < LONGEST_PAGE
    assert {"choice_scores", "preference_loss"} <= set(path["losses.py"][0])
    assert "latent_scores" not in path["losses.py"][0]
    assert path["training.py"][1] == ["TrainState"]


@pytest.mark.parametrize("what", MOST)
def test_what_runs_in_an_lpo_step_can_be_read(path, what):
    totals = [sum(map(len, parts)) for parts in zip(*path.values(), strict=True)]
    found = dict(zip(MOST, [len(path), *totals], strict=True))[what]
    parts = {name: [len(part) for part in found] for name, found in sorted(path.items())}
    assert found <= MOST[what], f"functions, types and lines of code by file: {parts}"


def test_the_method_stands_on_one_page_and_names_few_things_from_elsewhere():
    source = (PACKAGE / "lpo.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_PAGE
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.split(".")[0] == "minilpo"]
    names = {(node.module, alias.name) for node in ours for alias in node.names}
    assert len(names) <= MOST_NAMES and len({module for module, _ in names}) <= MOST_MODULES
