"""Writes grades: a CSV with a row per exercise, one with a row per student, and a text for each.

All are written anew after every notebook, whole or not at all.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minilpo.machine.files import write_bytes
from minilpo.machine.text import one_line, printable

TEXT = "Your exercises, tried by minilpo grade"
STUDENTS = ("notebook", "points", "exercises")


class Row(NamedTuple):
    """Result of one exercise of one notebook."""

    notebook: str
    lesson: int | str
    exercise: str  # empty if the row is about all of the notebook
    result: str
    message: str  # one line
    seconds: float
    touches: str = ""  # what could tamper with the check


def texts_of(out: Path, notebooks: Sequence[Path]) -> dict[str, Path]:
    """Names the text file of each notebook, in a folder beside the CSV file `out`.

    Raises:
        ValueError: if there is a link, or a file of others, in the place of a file of ours.
    """
    if out.suffix.lower() != ".csv" or not out.parent.is_dir():
        raise ValueError(
            f"--out must be a name ending in .csv, in a folder that is there; got {out}"
        )
    folder, texts = out.with_name(f"{out.stem}_texts"), dict[str, Path]()
    for path in notebooks:
        name = re.sub(r"\W+", "_", str(path.with_suffix(""))).strip("_")[-100:]
        while folder / f"{name}.txt" in texts.values():
            name += "_"
        texts[str(path)] = folder / f"{name}.txt"
    begins = {out: ",".join(Row._fields), _students(out): ",".join(STUDENTS)}
    for path, text in (begins | dict.fromkeys(texts.values(), TEXT)).items():
        is_ours = path.is_file() and text.encode() in path.read_bytes()[:200]
        if path.is_symlink() or folder.is_symlink() or (path.exists() and not is_ours):
            raise ValueError(
                f"--out must name no link and nothing that others have written, but {path} is; "
                "choose another name, or move it away"
            )
    return texts


def _students(out: Path) -> Path:
    return out.with_name(f"{out.stem}_students.csv")


def write(out: Path, texts: dict[str, Path], rows: list[Row]) -> None:
    """Writes all files; raises OSError if they can't be written."""
    write_bytes(out, as_csv(Row._fields, rows))
    write_bytes(_students(out), as_csv(STUDENTS, points(rows)))
    for notebook, passed, n_exercises in points(rows):
        text = f"{TEXT}: {passed} of {n_exercises} passed\n\n"
        for row in rows:
            if row.notebook == notebook:
                why = "" if row.result == "passed" else f"\n    {row.message}"
                text += f"{row.exercise or 'the notebook'}: {row.result}{why}\n"
        write_bytes(texts[notebook], text.encode("utf-8", "backslashreplace"))


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
        writer.writerow([re.sub(r"^(?=\s*[=+@-])", "'", field) for field in fields])
    # Without the byte order mark, Excel misreads all but English letters.
    return ("\ufeff" + text.getvalue()).encode("utf-8", "backslashreplace")


def points(rows: list[Row]) -> list[tuple[str, int, int]]:
    """Counts the exercises of each notebook: (notebook, passed, all)."""
    passed = Counter(row.notebook for row in rows if row.result == "passed")
    expected = Counter(row.notebook for row in rows if row.exercise)
    return [(name, passed[name], expected[name]) for name in {row.notebook: 0 for row in rows}]


def table(rows: list[Row]) -> str:
    """Shows the points of each notebook, and the exercises to look at.

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
