"""Where the lessons are, how long they take, and copying them next to the learner."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import minilpo
from minilpo.machine.files import write_bytes


class Lesson(NamedTuple):
    """One lesson of the course."""

    number: int
    stem: str  # of the notebook's name
    title: str
    seconds: float  # on two cores of a server, without training the language model
    uses_model: bool = True  # that of all lessons

    @property
    def file(self) -> str:
        """The name of the notebook."""
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


def folder() -> Path:
    """The folder with the lessons: inside the installed package, or beside it in a checkout.

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
    """What became of each file when lessons were copied."""

    new: list[str]
    kept: list[str]  # the learner's own file of that name, which differs
    same: list[str]


def copy_lessons(destination: Path) -> Copied:
    """Copies the lessons, without their outputs, so that a learner runs them.

    A file that is there already is never touched, whatever it holds.

    Args:
        destination: a folder; it need not exist.

    Raises:
        ValueError: if it is no folder.
        OSError: if it can't be written.
    """
    if os.path.lexists(destination) and not destination.is_dir():
        raise ValueError(
            f"the lessons must go into a folder, but {str(destination)!r} is something else; "
            "choose another name"
        )
    copied = Copied([], [], [])
    source = folder()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source).as_posix()
        target, content = destination / name, _for_a_learner(file)
        if os.path.lexists(target):
            is_same = target.is_file() and target.read_bytes() == content
            (copied.same if is_same else copied.kept).append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)
        copied.new.append(name)
    return copied


def _for_a_learner(file: Path) -> bytes:
    """A file's content; of a notebook, without what the cells have shown."""
    content = file.read_bytes()
    if file.suffix != ".ipynb":
        return content
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
