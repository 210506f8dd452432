"""Writes grades: a CSV and JSON with a row per exercise, a CSV and texts per student.

All are written anew after every notebook, whole or not at all.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minilpo.machine.files import write_bytes
from minilpo.machine.text import one_line, printable

TEXT = "Your exercises, tried by minilpo grade"


class Row(NamedTuple):
    """Result of one exercise of one notebook."""

    notebook: str
    lesson: int | str
    exercise: str  # empty if the row is about all of the notebook
    result: str
    message: str  # one line
    seconds: float
    touches: str = ""  # what could tamper with the check


class Gradebook:
    """Files of one grading.

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
        self.csv, self.students = out, out.with_name(f"{out.stem}_students.csv")
        self.folder, self.texts = out.with_name(f"{out.stem}_texts"), dict[str, Path]()
        for path in notebooks:
            name = re.sub(r"\W+", "_", str(path.with_suffix(""))).strip("_")[-100:]
            while self.folder / f"{name}.txt" in self.texts.values():
                name += "_"
            self.texts[str(path)] = self.folder / f"{name}.txt"
        begins = {self.csv: "notebook,lesson,exercise", self.students: "notebook,points,exercises"}
        begins[out.with_suffix(".json")] = '{\n  "made_by": "minilpo grade"'
        for path, text in (begins | dict.fromkeys(self.texts.values(), TEXT)).items():
            is_ours = path.is_file() and text in path.read_bytes()[:200].decode(errors="replace")
            is_linked = path.is_symlink() or (
                path.parent == self.folder and self.folder.is_symlink()
            )
            if is_linked or (path.exists() and not is_ours):
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
        write_bytes(self.students, as_csv(("notebook", "points", "exercises"), points(rows)))
        grades = [row._asdict() for row in rows]
        content = {"made_by": "minilpo grade", **settings, "grades": grades}
        write_bytes(self.csv.with_suffix(".json"), json.dumps(content, indent=2).encode())
        for notebook, passed, n_exercises in points(rows):
            text = f"{TEXT}: {passed} of {n_exercises} passed\n\n"
            for row in rows:
                if row.notebook == notebook:
                    why = "" if row.result == "passed" else f"\n    {row.message}"
                    text += f"{row.exercise or 'the notebook'}: {row.result}{why}\n"
            write_bytes(self.texts[notebook], text.encode("utf-8", "backslashreplace"))


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
        fields = [f"{field:.1f}" if isinstance(field, float) else str(field) for field in row]
        fields = [printable(re.sub(r"[\t\r\n]", " ", field)) for field in fields]
        is_formula = [field.lstrip().startswith(("=", "+", "-", "@")) for field in fields]
        writer.writerow(["'" * one + field for one, field in zip(is_formula, fields, strict=True)])
    # Without the byte order mark, Excel misreads all but English letters.
    return ("\ufeff" + text.getvalue()).encode("utf-8", "backslashreplace")


def points(rows: list[Row]) -> list[tuple[str, int, int]]:
    """Counts the exercises of each notebook: (notebook, passed, all)."""
    passed = Counter(row.notebook for row in rows if row.result == "passed")
    expected = Counter(row.notebook for row in rows if row.exercise)
    return [(name, passed[name], expected[name]) for name in {row.notebook: 0 for row in rows}]


def table(rows: list[Row]) -> str:
    """Shows the points of each notebook, and what isn't right of the others.

    >>> print(table([Row("a.ipynb", 2, "entropy", "passed", "", 3.0, "gc")]))
    notebook  passed
    a.ipynb   1 / 1   look at entropy: touches gc
    """
    lines = [("notebook", "passed", "")]
    for notebook, passed, n_exercises in points(rows):
        its = [row for row in rows if row.notebook == notebook]
        remarks = [f"look at {row.exercise}: touches {row.touches}" for row in its if row.touches]
        remarks += [f"{row.exercise} {row.result}".strip() for row in its if row.result != "passed"]
        remark = one_line(", ".join(remarks), 120)
        lines.append((one_line(notebook, 60), f"{passed} / {n_exercises}", remark))
    first, second = (max(len(line[place]) for line in lines) for place in (0, 1))
    return "\n".join(f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in lines)
