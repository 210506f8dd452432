"""The floors of the house: a module imports only from the floors below its own."""

import ast
from pathlib import Path

from minilpo.cli import EXPERIMENTS

PACKAGE = Path(__file__).parent.parent / "minilpo"
FLOORS = [
    ["text", "signals", "config", "losses", "sampling", "seeds", "plots", "statistics"],
    ["files", "tasks", "strip", "threads"],
    ["tokenizer", "model", "adaptive_decoder", "progress"],
    ["rollout"],
    ["preferences", "word_scores"],
    ["pretraining", "lpo", "evaluation"],
    ["report"],
    ["run"],
    ["experiments"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imports_of(path: Path) -> set[str]:
    """First-level minilpo modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minilpo"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name != "__version__"}
    return found


def test_a_module_imports_only_from_floors_below():
    for path in PACKAGE.glob("*.py"):
        if path.stem != "__init__":
            up = {name for name in imports_of(path) if FLOOR_OF[name] >= FLOOR_OF[path.stem]}
            assert not up, f"{path.name} imports {up}, which isn't below it"


def test_tasks_know_nothing_but_tasks():
    for path in (PACKAGE / "tasks").glob("*.py"):
        assert imports_of(path) <= {"tasks", "text"}


def test_an_experiment_imports_no_other_experiment():
    names = set(EXPERIMENTS)
    for path in (PACKAGE / "experiments").glob("*.py"):
        assert {FLOOR_OF[name] for name in imports_of(path)} <= set(range(FLOOR_OF["experiments"] + 1))
        for node in ast.walk(ast.parse(path.read_text())):
            if path.stem in names and isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[-1] not in names


def test_every_module_has_its_floor_and_the_package_says_so():
    stems = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"tasks", "experiments"}
    assert stems == set(FLOOR_OF)
    said = (PACKAGE / "__init__.py").read_text()
    for floor, names in enumerate(FLOORS[:-1]):
        line = next(line for line in said.splitlines() if line.strip().startswith(f"floor {floor}"))
        assert sorted(line.replace("/", "").replace(",", "").split()[2:]) == sorted(names)


def test_importing_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import minilpo, minilpo.cli, sys; assert not {'torch', 'numpy', 'matplotlib', 'tokenizers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
