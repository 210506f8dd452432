"""The size of the package: lines per room, and types with two users. A new line pays with another."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minilpo"
METHOD = ("adaptive_decoder", "losses", "preferences", "lpo", "training")
# At most so many lines of Python, as `wc -l` counts. A room may give lines to another.
BUDGETS = {
    "the method": (METHOD, 850),
    "settings": (("__init__", "seeds", "config", "setting", "constant_control"), 545),
    "lm": (("lm",), 740),
    "decoding": (("decoding",), 893),
    "tasks": (("tasks",), 1729),
    "evaluation": (("evaluation",), 834),
    "rivals": (("rivals",), 1001),
    "experiments": (("experiments",), 2336),
    "run and machine": (("run", "machine"), 1404),
    "show": (("show",), 1050),
    "play": (("play",), 465),
    "exercises": (("exercises",), 3749),
    "course and doctor": (("course", "doctor"), 1105),
    "huggingface": (("huggingface",), 498),
    "command line": (("flags", "cli", "__main__"), 505),
}
WHOLE, TESTS = 17_694, 19_952
# Types with one user, and the reason for each.
ONE_USER = {
    "Attention": "a part of `Block`, which reads as a sentence",
    "Block": "a layer of `GPT`",
    "GPTBatch": "the `Batch` of our language model",
    "HuggingFaceBatch": "the `Batch` of another library's language model",
    "Examination": "the state of one check of an exercise",
    "Lesson": "the rows of the table of lessons",
    "Copied": "names for the parts of a result",
    "Sampler": "the state of `minilpo sample`",
    "_Filler": "asked for by string.Formatter",
    "Handler": "asked for by http.server",
    "Parser": "asked for by argparse",
    "_Printed": "a stream that keeps a part of its text",
    "_StandardError": "asked for by tqdm",
}


def lines_of(*paths: Path) -> int:
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def paths_of(names) -> list[Path]:
    return [
        path for name in names for path in (PACKAGE / name, PACKAGE / f"{name}.py") if path.exists()
    ]


@pytest.mark.parametrize("room", BUDGETS)
def test_a_room_keeps_within_its_lines(room):
    names, budget = BUDGETS[room]
    assert lines_of(*paths_of(names)) <= budget


def test_every_file_is_in_one_room_and_the_whole_keeps_within_its_lines():
    rooms = [path for names, _ in BUDGETS.values() for path in paths_of(names)]
    front = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or list(p.glob("*.py"))]
    assert sorted(rooms) == sorted(front)
    assert lines_of(PACKAGE) <= WHOLE and lines_of(ROOT / "tests") <= TESTS


def users_of_types() -> dict[str, set[str]]:
    """Counts the users of each class that inherits from none of ours: functions, and base classes.

    A method of the class itself is no user. A subclass isn't counted: its base class is.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    classes = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    names, users = {node.name for node in classes}, defaultdict(set)
    ours = {node.name: not names & {ast.unparse(base) for base in node.bases} for node in classes}
    for path, tree in trees.items():
        for top in tree.body:
            if isinstance(top, ast.Import | ast.ImportFrom) or path.name == "__init__.py":
                continue
            parts = [(top, getattr(top, "name", top.lineno))]
            if isinstance(top, ast.ClassDef):
                parts = [
                    (part, f"{top.name}.{getattr(part, 'name', part.lineno)}") for part in top.body
                ]
                parts += [(base, top.name) for base in top.bases]
            for part, user in parts:
                for node in ast.walk(part):
                    named = getattr(node, "id", getattr(node, "attr", getattr(node, "value", None)))
                    if (
                        isinstance(named, str)
                        and ours.get(named)
                        and not str(user).startswith(f"{named}.")
                    ):
                        users[named].add(f"{path.stem}.{user}")
    return {name: users[name] for name, root in ours.items() if root}


def test_a_type_has_two_users():
    assert {name for name, users in users_of_types().items() if len(users) < 2} == set(ONE_USER)
