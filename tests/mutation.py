"""Changes the code in thousands of small ways, one at a time, and counts how many of these changes
a module's own tests notice.

    python -m tests.mutation                    everything in PARTS
    python -m tests.mutation losses rewards     some of it

Prints the changes that no test noticed, then a table. The tool is mutmut (in the extra `dev`), set
up in pyproject.toml; it works on a copy in build/mutation. This file is also the plugin that pytest
is run with.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import Phase, settings

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "mutation"
MUTMUT = Path(sys.executable).with_name("mutmut")


class Part(NamedTuple):
    """A part of the package, and the tests that have to notice what is changed in it, beside its
    own doctests.
    """

    files: tuple[str, ...]  # in minilpo
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ("*",)  # by mutmut's names: x_function, xǁClassǁmethod


JUDGING = (
    "xǁ*ǁreward",
    "x*parts",
    "xǁ*ǁ*read*",
    "x_read_*",
    "xǁ*ǁ__init__",
    "xǁ*ǁknows",
    "x_final_answer",
    "xǁ*ǁ_numbers",
    "xǁ*ǁ_things",
)
JUDGING += (
    "xǁ*ǁkind",
    "x__hidden_bit",
    "x_majority",
    "x_letter_of",
    "x_sentences_of",
    "x__apply",
    "x__patterns",
)
PARTS = {
    "losses": Part(("losses.py",), ("test_losses.py",)),
    "reward_rules": Part(("rivals/reward_rules.py",), ("rivals/test_reward_rules.py",)),
    "joint": Part(("rivals/joint.py",), ("rivals/test_joint_scores.py", "test_lpo.py")),
    "sampling": Part(
        ("decoding/sampling.py", "decoding/choices.py", "decoding/policies.py"),
        ("decoding/test_sampling.py", "decoding/test_choices.py", "decoding/test_policies.py"),
    ),
    "preferences": Part(("preferences.py",), ("test_preferences.py",)),
    "rollout": Part(
        ("decoding/rollout.py", "decoding/generate.py"),
        ("decoding/test_rollout_claims.py", "decoding/test_rollout.py"),
    ),
    "lpo": Part(
        ("lpo.py", "training.py", "constant_control.py"), ("test_lpo.py", "test_training.py")
    ),
    "evaluation": Part(
        ("evaluation/measure.py", "evaluation/summary.py", "evaluation/evaluate.py"),
        ("evaluation/test_evaluation_claims.py", "evaluation/test_evaluation.py"),
    ),
    "statistics": Part(("evaluation/statistics.py",), ("evaluation/test_statistics.py",)),
    # The rest of a task's file draws prompts and demonstrations.
    "rewards": Part(
        ("tasks/*.py", "rivals/controls.py", "rivals/think_or_answer.py"),
        ("tasks/test_tasks.py", "tasks/test_rewards.py", "tasks/test_rewards_letter.py"),
        JUDGING,
    ),
}
NOTICED = ("killed", "timeout", "segfault")
# Tests that take longer, in seconds, are left out, or each change that isn't noticed would take a
# minute.
LONGEST = 0.5

# Pytest's plugin: the first failure will do, so the quickest tests come first and none looks for
# its simplest case.

settings.register_profile(
    "mutation",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)


def pytest_configure() -> None:
    settings.load_profile("mutation")
    torch.testing.assert_close(
        torch.zeros(1), torch.zeros(1)
    )  # imports a lot: here once, not again for every change


def pytest_collection_modifyitems(items: list) -> None:
    timed = Path("mutmut-stats.json")  # in the folder that mutmut runs the tests in
    seconds = json.loads(timed.read_text())["duration_by_test"] if timed.is_file() else {}
    taken = {
        item: seconds.get(item.nodeid, 0) for item in items if "__mutmut_" not in item.name
    }  # copies of doctests
    items[:] = sorted((item for item in taken if taken[item] <= LONGEST), key=taken.get)


def undecorated(source: str) -> str:
    """The same code with the decorators of functions behind them, because mutmut leaves decorated
    functions alone.

    >>> print(undecorated("@torch.no_grad()\\ndef f(x):\\n    return x\\n"), end="")
    def f(x):
        return x
    f = torch.no_grad()(f)
    """
    lines = source.splitlines()
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    for function in sorted(
        functions, key=lambda node: -node.lineno
    ):  # from the end, so that the numbers stay right
        indent, name = " " * function.col_offset, function.name
        applied = [
            f"{indent}{name} = {ast.unparse(decorator)}({name})"
            for decorator in reversed(function.decorator_list)
        ]
        lines[function.end_lineno : function.end_lineno] = applied
        del lines[function.decorator_list[0].lineno - 1 : function.lineno - 1]
    return "\n".join(lines) + "\n"


def make_copy(part: Part) -> None:
    """A fresh copy of all that the tests need, in which mutmut is told what to change and by which
    tests.
    """
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("minilpo", "tests"):
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = sorted(path for file in part.files for path in (COPY / "minilpo").glob(file))
    for path in files:
        path.write_text(undecorated(path.read_text(encoding="utf-8")), encoding="utf-8")
    changed = [str(path.relative_to(COPY)) for path in files]
    own = {
        "only_mutate": changed,
        "pytest_add_cli_args_test_selection": [f"tests/{name}" for name in part.tests] + changed,
    }
    section = 'source_paths = ["minilpo"]\n'
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in own.items())
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8").replace(section, section + lines)
    (COPY / "pyproject.toml").write_text(config, encoding="utf-8")


def mutmut(*args: str) -> str:
    return subprocess.run(
        [MUTMUT, *args], cwd=COPY, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        help="at once; one for every core by default",
    )
    args = parser.parse_args()
    if not MUTMUT.exists():
        parser.error(f"mutmut must be installed beside {sys.executable}; run pip install '.[dev]'")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"part must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    table = {}
    for name in args.parts or PARTS:
        part = PARTS[name]
        make_copy(part)
        mutmut(
            "run",
            "--max-children",
            str(args.processes),
            *[f"minilpo.*.{function}__mutmut_*" for function in part.functions],
        )
        results = dict(
            line.strip().split(": ") for line in mutmut("results", "--all", "true").splitlines()
        )
        tried = {mutant: status for mutant, status in results.items() if status != "not checked"}
        for mutant, status in tried.items():
            if status not in NOTICED:
                print(mutmut("show", mutant), flush=True)
        table[name] = Counter(status in NOTICED for status in tried.values())
    print(f"{'part':16} {'changes':>8} {'noticed':>8} {'share':>7}")
    for name, counts in [*table.items(), ("all", sum(table.values(), Counter()))]:
        print(f"{name:16} {counts.total():8} {counts[True]:8} {counts[True] / counts.total():7.1%}")


if __name__ == "__main__":
    main()
