"""Runs lessons from a cold start, unsolved or solved, as a learner's notebook program would.

    python tests/course/run_lessons.py FOLDER [NUMBER ...] [--solved] [--write] [--jobs 2]

It needs the package with its extra `tutorials`, and nothing of the tests, so it can be used with a
wheel. Outputs are written back only with --write; `tutorials/` then holds what a reader sees.
"""

import argparse
import base64
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import minilpo
from minilpo import exercises
from minilpo.course.lessons import LESSONS, TRAINING, Lesson

SECONDS = 600  # for a cell: the first lesson trains the language model in one
BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}


def fingerprint(notebook) -> str:
    """Of all that a reader of the notebook can change: outputs are made from it."""
    sources = "\0".join(cell.source for cell in notebook.cells)
    return hashlib.sha256(sources.encode()).hexdigest()


def time_line(lesson: Lesson) -> str:
    """The line at the top of a lesson."""
    training = f" The first that you run trains the language model: {TRAINING} seconds more."
    return (
        f"*Time: about {lesson.seconds:g} seconds on two cores of a server, from a cold start "
        f"(median of three).{training if lesson.uses_model else ''}*"
    )


def solved(notebook) -> list[str]:
    """Puts the solutions into the exercise cells; the names of the exercises."""
    names = []
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", []):
            [name] = set(cell.metadata.tags) & set(BY_NAME)
            cell.source = BY_NAME[name].solution_source()
            names.append(name)
    return names


def printed(notebook) -> str:
    """All that the cells have printed."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    return "\n".join(out.text for out in outputs if out.output_type == "stream")


def run(folder: Path, lesson: Lesson, solve: bool, write: bool) -> str:
    """Runs one lesson; what to say about it, beginning with "failed" if it did."""
    path = folder / lesson.file
    notebook = nbformat.read(path, as_version=4)
    if write:
        lines = notebook.cells[0].source.splitlines()
        lines = [time_line(lesson) if line.startswith("*Time:") else line for line in lines]
        notebook.cells[0].source = "\n".join(lines)
    names = solved(notebook) if solve else []
    where = {"metadata": {"path": str(folder)}}
    begun = perf_counter()
    try:
        NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    except CellExecutionError as error:
        return f"failed: {lesson.file}\n{error}"
    seconds = perf_counter() - begun
    if missing := [name for name in names if f"{name}: right." not in printed(notebook)]:
        return f"failed: {lesson.file}: the solutions of {missing} don't pass"
    if write:
        keep(notebook, path)
        keep_slide(notebook, folder / "figures" / f"lesson_{lesson.number:02}.png")
    return f"{lesson.file}: {seconds:.1f} seconds{', solved' if solve else ''}"


def keep(notebook, path: Path) -> None:
    """Writes the notebook with its outputs, without what belongs to one machine or one moment."""
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        cell.execution_count = number + 1
        for out in cell.outputs:
            if "execution_count" in out:
                out.execution_count = number + 1
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    made = {"version": minilpo.__version__, "sources": fingerprint(notebook)}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "minilpo": made}
    nbformat.write(notebook, path)


def keep_slide(notebook, path: Path) -> None:
    """Writes the lesson's figure for the projector to a file of its own."""
    for cell in notebook.cells:
        if "slide" in cell.metadata.get("tags", []):
            [figure] = [out for out in cell.outputs if "image/png" in out.get("data", {})]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(base64.b64decode(figure.data["image/png"]))


def main() -> int:
    """Status 1 if a lesson has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", type=int, nargs="*")
    parser.add_argument("--solved", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    chosen = [lesson for lesson in LESSONS if not args.numbers or lesson.number in args.numbers]
    outcomes = []

    def attend(lesson: Lesson) -> None:
        outcomes.append(run(args.folder, lesson, args.solved, args.write))
        print(outcomes[-1], flush=True)

    attend(chosen[0])  # alone: it may train the language model, which the others find
    if args.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # lessons side by side share the cores
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(attend, chosen[1:]))
    return int(any(outcome.startswith("failed") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
