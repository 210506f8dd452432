"""The lessons: a list of them, the time that each takes, and a copy next to the learner."""

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import minilpo


class Lesson(NamedTuple):
    """A lesson of the course."""

    number: int
    stem: str  # of the notebook's name
    title: str
    seconds: float  # on two cores of a server, without training the language model
    uses_model: bool = True  # that of all lessons

    @property
    def file(self) -> str:
        """Name of the notebook."""
        return f"{self.number:02}_{self.stem}.ipynb"


TRAINING = 110  # seconds on the same cores, for the language model of all lessons, once
LESSONS = (
    Lesson(1, "a_tiny_language_model", "A tiny language model", 5),
    Lesson(2, "temperature", "Temperature", 5),
    Lesson(3, "no_single_temperature", "No single temperature wins", 12),
    Lesson(4, "a_head_that_chooses", "A head that chooses", 9),
    Lesson(5, "samples_to_preferences", "From samples to preferences", 11),
    Lesson(6, "the_lpo_loss", "The LPO loss by hand", 6, uses_model=False),
    Lesson(7, "training_and_judging", "Training it and judging it", 24),
    Lesson(8, "word_by_word", "Word by word", 24),
    Lesson(9, "voting", "Voting: where to be random", 17),
    Lesson(10, "your_own", "Your own task, and the paper's tables", 16, uses_model=False),
)

# Only what stands here is copied and goes into the wheel: a teacher's solved notebook doesn't.
PAGES = tuple(
    f"{name}.md"
    for name in (
        "README",
        "graders",
        "huggingface",
        "pairs",
        "paper",
        "results",
        "scaling",
        "speed",
    )
)
FIGURES = ("pairs", "reward_by_temperature", "rivals", "scaling", "temperature_strip", "think")
FOR_STUDENTS = (
    *(lesson.file for lesson in LESSONS),
    *PAGES,
    *(f"figures/{name}.png" for name in FIGURES),
)
FOR_TEACHERS = (
    *("grading.md", "teaching.md"),
    *(f"figures/lesson_{lesson.number:02}.png" for lesson in LESSONS),
)


def folder() -> Path:
    """Finds the folder of the lessons: in the installed package, or beside it in a checkout.

    Raises:
        ValueError: if they are in neither place.
    """
    package = Path(minilpo.__file__).parent
    for place in (package / "tutorials", package.parent / "tutorials"):
        if (place / LESSONS[0].file).is_file():
            return place
    raise ValueError(
        "the lessons must be installed with the package, but they aren't there; "
        "install minilpo again"
    )


class Copied(NamedTuple):
    """Names of the files, by what became of them when lessons were copied."""

    new: list[str]
    kept: list[str]  # the learner's own file of that name, which differs
    same: list[str]


def copy_lessons(destination: Path, teacher: bool = False) -> Copied:
    """Copies the lessons, without their outputs, so that a learner runs them.

    A file that is there already is never touched, whatever it holds.

    Args:
        destination: a folder; it need not exist.
        teacher: also copies the pages and figures for teachers.

    Raises:
        ValueError: if it is no folder.
        OSError: if it can't be written.
    """
    if os.path.lexists(destination) and not destination.is_dir():
        raise ValueError(
            f"the lessons must go into a folder, but {str(destination)!r} is something else; "
            "choose another name"
        )
    copied, source = Copied([], [], []), folder()
    destination.mkdir(parents=True, exist_ok=True)
    # Files are written in a folder of this command, then moved: two commands may run at a time.
    with tempfile.TemporaryDirectory(dir=destination, prefix=".copying-") as own:
        for name in (*FOR_STUDENTS, *(FOR_TEACHERS if teacher else ())):
            target, content = destination / name, _for_a_learner(source / name)
            if os.path.lexists(target):
                is_same = target.is_file() and target.read_bytes() == content
                (copied.same if is_same else copied.kept).append(name)
                continue
            target.parent.mkdir(exist_ok=True)
            whole = Path(own, "file")
            whole.write_bytes(content)
            os.replace(whole, target)
            copied.new.append(name)
    return copied


def _for_a_learner(file: Path) -> bytes:
    """Reads a file; of a notebook, leaves out the outputs of its cells."""
    content = file.read_bytes()
    if file.suffix != ".ipynb":
        return content
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
