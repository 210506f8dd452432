"""Writes grades: a CSV with a row per exercise, one with a row per student, JSON, and texts.

All are written anew after every notebook, whole or not at all.
"""

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minilpo.machine.files import write_bytes
from minilpo.machine.text import one_line, printable

PASSED = "passed"
TEXT_BEGINS = "Your exercises, tried by minilpo grade"


class Row(NamedTuple):
    """Result of one exercise of one notebook."""

    notebook: str
    lesson: int | None
    exercise: str  # empty if the row is about all of the notebook
    result: str
    message: str  # one line
    seconds: float
    touches: str = ""  # what could tamper with the check


STUDENTS = ("notebook", "points", "exercises")


class Gradebook:
    """The files of one grading.

    Args:
        out: the CSV file; the names of the others begin like its own.
        notebooks: their paths.

    Raises:
        ValueError: if there is a link, or a file of others, in the place of one of them.
    """

    def __init__(self, out: Path, notebooks: Sequence[Path]):
        if out.suffix.lower() != ".csv" or not out.parent.is_dir():
            raise ValueError(
                f"--out must be a name ending in .csv, in a folder that is there; got {out}"
            )
        self.csv, self.json = out, out.with_suffix(".json")
        self.students = out.with_name(f"{out.stem}_students.csv")
        self.folder = out.with_name(f"{out.stem}_texts")
        self.texts = {str(path): self.folder / name for path, name in _names(notebooks).items()}
        begins = {self.csv: ",".join(Row._fields[:6]), self.students: ",".join(STUDENTS)}
        begins |= {self.json: '{\n  "made_by": "minilpo grade"'}
        for path, text in (begins | dict.fromkeys(self.texts.values(), TEXT_BEGINS)).items():
            is_ours = path.is_file() and text in path.read_bytes()[:200].decode(errors="replace")
            if path.is_symlink() or (path.exists() and not is_ours):
                raise ValueError(
                    f"--out must name no link and nothing that others have written, but {path} "
                    "is; choose another name, or move it away"
                )

    def write(self, rows: list[Row], **settings: Any) -> None:
        """Writes all files.

        Raises:
            OSError: if they can't be written.
        """
        write_bytes(self.csv, as_csv(Row._fields, rows))
        write_bytes(self.students, as_csv(STUDENTS, points(rows)))
        content = {
            "made_by": "minilpo grade",
            **settings,
            "grades": [row._asdict() for row in rows],
        }
        write_bytes(self.json, (json.dumps(content, indent=2) + "\n").encode())
        for notebook, passed, n_exercises in points(rows):
            lines = [f"{TEXT_BEGINS}: {passed} of {n_exercises} passed", ""]
            for row in rows:
                if row.notebook == notebook:
                    why = "" if row.result == PASSED else f"\n    {row.message}"
                    lines.append(f"{row.exercise or 'the notebook'}: {row.result}{why}")
            text = "\n".join([*lines, ""])
            write_bytes(self.texts[notebook], text.encode("utf-8", "backslashreplace"))


def _names(notebooks: Sequence[Path]) -> dict[Path, str]:
    """File names for texts, from the part of a path that differs: it may be a student's folder."""
    paths = [Path(os.path.abspath(path)) for path in notebooks]
    top = os.path.commonpath([path.parent for path in paths])
    names: dict[Path, str] = {}
    for path, full in zip(notebooks, paths, strict=True):
        name = re.sub(r"[^\w. ()=-]", " ", os.path.relpath(full.with_suffix(""), top))[-100:]
        while f"{name}.txt" in names.values():
            name += "_"
        names[path] = f"{name}.txt"
    return names


def as_csv(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Writes rows below a header; no field of them is taken for a formula.

    >>> print(as_csv(["notebook", "points"], [("=1.ipynb", 2)]).decode("utf-8-sig"))
    notebook,points
    '=1.ipynb,2
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow(["" if field is None else _no_formula(field) for field in row])
    # Without the byte order mark, Excel misreads all but English letters.
    return ("\ufeff" + text.getvalue()).encode("utf-8", "backslashreplace")


def _no_formula(field: Any) -> str:
    """A text that no spreadsheet program computes or breaks into lines."""
    text = f"{field:.1f}" if isinstance(field, float) else str(field)
    text = printable(re.sub(r"[\t\r\n]", " ", text))
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def points(rows: list[Row]) -> list[tuple[str, int, int]]:
    """Counts the exercises of each notebook: (notebook, passed, all)."""
    counts = {row.notebook: (0, 0) for row in rows}
    for row in rows:
        passed, n_exercises = counts[row.notebook]
        counts[row.notebook] = (passed + (row.result == PASSED), n_exercises + bool(row.exercise))
    return [(notebook, *count) for notebook, count in counts.items()]


def table(rows: list[Row]) -> str:
    """Shows the points of each notebook, and what isn't right of the others.

    >>> print(table([Row("a.ipynb", 2, "entropy", "passed", "", 3.0, "gc")]))
    notebook  passed
    a.ipynb   1 / 1   look at entropy: touches gc
    """
    lines = [("notebook", "passed", "")]
    for notebook, passed, n_exercises in points(rows):
        its = [row for row in rows if row.notebook == notebook]
        remarks = [f"{row.exercise} {row.result}".strip() for row in its if row.result != PASSED]
        remarks += [f"look at {row.exercise}: touches {row.touches}" for row in its if row.touches]
        remark = one_line(", ".join(remarks), 120)
        lines.append((one_line(notebook, 60), f"{passed} / {n_exercises}", remark))
    first, second = (max(len(line[place]) for line in lines) for place in (0, 1))
    return "\n".join(f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in lines)
