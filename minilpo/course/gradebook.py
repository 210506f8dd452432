"""What was graded: `grades.csv` for spreadsheets, `grades.json` beside it, a table for the screen.

Both files are written anew after every notebook, whole or not at all.
"""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from minilpo.machine.files import write_bytes
from minilpo.machine.text import one_line, printable

MADE_BY = "minilpo grade"
PASSED, NOT_YET, NOT_WRITTEN, NOT_FOUND = "passed", "not yet", "not written", "not found"
NOT_READABLE, NOT_GRADED = "not readable", "not graded"


class Row(NamedTuple):
    """What came of one exercise of one notebook."""

    notebook: str
    lesson: int | None
    exercise: str  # empty if the row is about all of the notebook
    result: str  # one of the six above
    message: str  # one line
    seconds: float


HEADER = ",".join(Row._fields)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # without it, Excel misreads all but English letters


class Gradebook:
    """The two files.

    Args:
        out: the CSV file. One that is there must be an older one of these.
        settings: how it was graded, for the JSON file.

    Raises:
        ValueError: if there is another file of either name, or no folder for them.
    """

    def __init__(self, out: Path, settings: dict[str, Any]):
        self.csv, self.json, self.settings = out, out.with_suffix(".json"), settings
        if out.suffix.lower() != ".csv":
            raise ValueError(f"--out must be a name ending in .csv, got {out}")
        if not out.parent.is_dir():
            raise ValueError(f"--out must be in a folder that is there, got {out}; make the folder")
        beginnings = {self.csv: BYTE_ORDER_MARK + HEADER.encode(), self.json: _json({})[:-3]}
        for path, beginning in beginnings.items():
            if path.exists() and not (path.is_file() and _begins(path, beginning)):
                raise ValueError(
                    f"--out must not name what others have written, but {path} is no file of "
                    "grades; choose another name, or move it away"
                )
        if not self.csv.exists():  # whether it can be written shows now, and not after the work
            self.write([])

    def write(self, rows: list[Row]) -> None:
        """Writes both files.

        Raises:
            OSError: if they can't be written.
        """
        write_bytes(self.csv, as_csv(rows))
        content = {
            **self.settings,
            "notebooks": summary(rows),
            "grades": [row._asdict() for row in rows],
        }
        write_bytes(self.json, _json(content))


def as_csv(rows: list[Row]) -> bytes:
    """The rows below a header; no field of them is taken for a formula.

    >>> print(as_csv([Row("=1.ipynb", 2, "entropy", "passed", "", 3.14159)]).decode("utf-8-sig"))
    notebook,lesson,exercise,result,message,seconds
    '=1.ipynb,2,entropy,passed,,3.1
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in rows:
        texts = [_no_formula(str("" if field is None else field)) for field in row[:-1]]
        writer.writerow([*texts, f"{row.seconds:.1f}"])
    return BYTE_ORDER_MARK + text.getvalue().encode("utf-8", "backslashreplace")


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """How many exercises of each notebook passed, in the order of the rows."""
    by_notebook: dict[str, list[Row]] = {}
    for row in rows:
        by_notebook.setdefault(row.notebook, []).append(row)
    return [
        {
            "notebook": notebook,
            "passed": sum(row.result == PASSED for row in its_rows),
            "exercises": sum(row.exercise != "" for row in its_rows),
        }
        for notebook, its_rows in by_notebook.items()
    ]


def table(rows: list[Row]) -> str:
    """How many exercises of each notebook passed, and what isn't right of the others.

    >>> print(table([Row("a.ipynb", 2, "entropy", "passed", "", 3.0)]))
    notebook  passed
    a.ipynb   1 / 1
    """
    lines = [("notebook", "passed", "")]
    for entry in summary(rows):
        notebook = entry["notebook"]
        others = [row for row in rows if row.notebook == notebook and row.result != PASSED]
        remarks = [" ".join(filter(None, [row.exercise, row.result])) for row in others]
        share = f"{entry['passed']} / {entry['exercises']}"
        lines.append((one_line(notebook, 60), share, one_line(", ".join(remarks), 120)))
    first, second = (max(len(line[place]) for line in lines) for place in (0, 1))
    return "\n".join(f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in lines)


def _no_formula(text: str) -> str:
    """A text that no spreadsheet program computes or breaks into lines."""
    text = printable(re.sub(r"[\t\r\n]", " ", text))
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps({"made_by": MADE_BY, **content}, indent=2) + "\n").encode()


def _begins(path: Path, beginning: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning
