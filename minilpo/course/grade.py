"""`minilpo grade`: the exercise cells of many notebooks, each tried in a process of its own.

The checks run here. A learner's process is given inputs and asked for results; the right values
never leave this process, so no notebook can reach or change them.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import minilpo
from minilpo import exercises
from minilpo.course import examinee
from minilpo.course.cells import LONGEST_CELL, TAG, Cells, read_cells
from minilpo.course.gradebook import (
    NOT_FOUND,
    NOT_GRADED,
    NOT_READABLE,
    NOT_WRITTEN,
    NOT_YET,
    PASSED,
    Gradebook,
    Row,
)
from minilpo.course.sitting import CAN_FORK, MEMORY, PROCESSES, Exam, Sitting, UnavailableError
from minilpo.exercises.exercise import Exercise
from minilpo.exercises.trial import SECONDS, UNSOLVED
from minilpo.machine.progress import Bar
from minilpo.machine.text import named, one_line, printable
from minilpo.machine.threads import cores

BY_NAME = {exercise.name: exercise for exercise in exercises.ALL}
MOST_JOBS = 64
MOST_SECONDS = 3600


class Grades(NamedTuple):
    """What came of all notebooks."""

    rows: list[Row]
    isolation: str  # in words: what stood between the notebooks and this computer


def grade(
    paths: Sequence[Path],
    out: Path = Path("grades.csv"),
    jobs: int | None = None,
    seed: int | None = None,
    seconds: float = 60.0,
) -> Grades:
    """Grades notebooks.

    Args:
        paths: the notebooks; one that is named twice is graded once.
        out: the CSV file; a JSON file of the same name is written beside it.
        jobs: how many cells are tried at a time; without it, as many as there are cores.
        seed: of the random inputs, the same for all notebooks; without it, a new one.
        seconds: for each exercise.

    Returns:
        A row for every notebook and exercise, in the order of the paths.

    Raises:
        ValueError: if an argument is wrong, or the files of minilpo itself were changed meanwhile.
        OSError: if the grades can't be written.
    """
    jobs = cores() if jobs is None else jobs
    seed = secrets.randbelow(2**53) if seed is None else seed
    _check(paths, jobs, seed, seconds)
    book = Gradebook(out, _settings(jobs, seed, seconds))
    notebooks = [Notebook.read(path) for path in _once(paths)]
    rows: list[Row] = []
    with (
        Bar("grading", "exercise") as bar,
        Exam() as exam,
        ThreadPoolExecutor(jobs) as pool,
        Room(exam, seed, seconds) as room,
    ):
        book.settings["isolation"] = exam.isolation
        bar.begin(sum(len(notebook.names) for notebook in notebooks))
        before = fingerprint()
        work = [notebook.begin(pool, room, bar) for notebook in notebooks]
        for notebook, graded in zip(notebooks, work, strict=True):
            rows += notebook.rows(graded)
            if changed := difference(before, fingerprint()):
                raise ValueError(
                    f"minilpo's own files must stay as they are, but {changed} was changed while "
                    f"{printable(str(notebook.path))} or one after it was graded; "
                    "install minilpo again"
                )
            book.write(rows)
    return Grades(rows, exam.isolation)


class Notebook(NamedTuple):
    """One notebook, and the exercises that are expected of it."""

    path: Path
    cells: Cells
    problem: str  # why it can't be read; else empty
    names: list[str]  # all exercises of the lessons of which it has any

    @staticmethod
    def read(path: Path) -> "Notebook":
        """Reads a notebook; whatever is wrong with it becomes its problem."""
        cells, problem = Cells({}, set(), {}), ""
        try:
            cells = read_cells(path, list(BY_NAME))
        except OSError as error:
            problem = f"can't be read: {error.strerror or error}"
        except ValueError as error:
            problem = str(error)
        lessons = {BY_NAME[name].lesson for name in cells.sources}
        names = [name for name, exercise in BY_NAME.items() if exercise.lesson in lessons]
        return Notebook(path, cells, problem, names)

    def begin(
        self, pool: ThreadPoolExecutor, room: "Room", bar: Bar
    ) -> dict[str, Future[tuple[str, str, float]]]:
        """Begins to grade all cells that are there."""
        work = {}
        for name in self.names:
            if name in self.cells.sources:
                work[name] = pool.submit(room.judge, BY_NAME[name], self.cells.sources[name])
                work[name].add_done_callback(lambda _: bar.advance())
            else:
                bar.advance()
        return work

    def rows(self, work: dict[str, Future[tuple[str, str, float]]]) -> list[Row]:
        """Waits until all of it is graded."""
        path = str(self.path)
        if self.problem:
            return [Row(path, None, "", NOT_READABLE, one_line(self.problem), 0.0)]
        if not self.names:
            return [Row(path, None, "", NOT_FOUND, self._without_exercises(), 0.0)]
        rows = []
        for name in self.names:
            result, message, seconds = NOT_FOUND, self._without(name), 0.0
            if name in work:
                # In short turns: Ctrl-C that another thread was told of is heard on waking up.
                while not wait([work[name]], timeout=1.0).done:
                    pass
                result, message, seconds = work[name].result()
            if name in self.cells.repeated:
                message = f"(the last of the cells with its tag) {message}"
            rows.append(Row(path, BY_NAME[name].lesson, name, result, one_line(message), seconds))
        return rows

    def _without(self, name: str) -> str:
        message = f"no cell has the tags `{TAG}` and `{name}`"
        if number := self.cells.untagged.get(name):
            message += f"; cell {number} defines it: give it the tags and grade again"
        return message

    def _without_exercises(self) -> str:
        message = f"no cell has the tags `{TAG}` and an exercise's name"
        if found := list(self.cells.untagged)[:4]:
            message += f"; cells without tags define {', '.join(found)}: give them their tags"
        return message


class Room:
    """Where cells are tried, several at a time. On leaving it, nobody is waited for."""

    def __init__(self, exam: Exam, seed: int, seconds: float):
        self.exam, self.seed, self.seconds = exam, seed, seconds
        self.lock, self.is_closed = threading.Lock(), False
        self.sittings: list[Sitting] = []

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *raised: object) -> None:
        with self.lock:
            self.is_closed = True
        for sitting in self.sittings:
            sitting.end()

    def judge(self, exercise: Exercise, source: str) -> tuple[str, str, float]:
        """Result, message and seconds of one cell; never raises because of it."""
        begun = perf_counter()
        if len(source) > LONGEST_CELL:
            message = f"the cell must have at most {LONGEST_CELL:,} characters, got {len(source):,}"
            return NOT_YET, message, 0.0
        try:
            with self._sitting() as sitting:
                result, message = _judged(exercise, source, sitting, self.seed)
        except UnavailableError as error:
            result, message = NOT_GRADED, str(error)
        except Exception as error:  # a fault of ours must not take the others' grades along
            result, message = NOT_GRADED, f"the check failed: {named(error)}"
        return result, one_line(message), perf_counter() - begun

    def _sitting(self) -> Sitting:
        sitting = Sitting(self.exam, self.seconds)
        with self.lock:
            if self.is_closed:
                raise UnavailableError("stopped")
            self.sittings.append(sitting)
        return sitting


def _judged(exercise: Exercise, source: str, sitting: Sitting, seed: int) -> tuple[str, str]:
    if problem := sitting.begin(exercise.name, source):
        return (NOT_WRITTEN if problem == UNSOLVED else NOT_YET), problem
    verdict = exercise.examine(sitting.call, seed)
    if sitting.problem:  # it ended in between, so what else was found doesn't count
        return NOT_YET, sitting.problem
    if verdict.passed is None:
        return NOT_WRITTEN, UNSOLVED
    return (PASSED if verdict.passed else NOT_YET), verdict.message


# The files of minilpo itself


def fingerprint() -> dict[str, str]:
    """A checksum of each file of the package."""
    folder = Path(minilpo.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def difference(before: dict[str, str], now: dict[str, str]) -> str:
    """The first file that isn't as it was; new bytecode is Python's own doing.

    >>> difference({"a.py": "1"}, {"a.py": "1", "a.pyc": "2"}), difference({"a.py": "1"}, {})
    ('', 'a.py')
    """
    new = [name for name in now if name not in before and not name.endswith(".pyc")]
    other = [name for name in before if now.get(name) != before[name]]
    return next(iter([*other, *new]), "")


# What is asked for


def _check(paths: Sequence[Path], jobs: int, seed: int, seconds: float) -> None:
    if not paths:
        raise ValueError("one notebook or more must be named, got none; name FILE.ipynb")
    if not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"--jobs must be from 1 to {MOST_JOBS}, got {jobs}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed must be from 0 to {2**63 - 1:,}, got {seed}")
    if not 1 <= seconds <= MOST_SECONDS:
        raise ValueError(f"--seconds must be from 1 to {MOST_SECONDS:,}, got {seconds:g}")


def _once(paths: Sequence[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        if (real := os.path.realpath(path)) not in seen:
            seen.add(real)
            yield path


def _settings(jobs: int, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "version": minilpo.__version__,
        "seed": seed,
        "jobs": jobs,
        "limits": {
            "seconds_per_exercise": seconds,
            "seconds_per_call": SECONDS,
            "seconds_to_define": min(examinee.TO_DEFINE, seconds),
            "memory_bytes": MEMORY if os.path.exists("/proc/self/statm") else None,
            "file_bytes": examinee.LARGEST_FILE if os.name == "posix" else None,
            "processes": PROCESSES if CAN_FORK and os.geteuid() != 0 else None,
        },
    }
