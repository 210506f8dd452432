"""The course: lessons that a learner copies, runs and solves, and grading for a teacher.

notebook   figures with their descriptions, guesses beside results
home       the language model of the lessons, trained once and kept
lessons    the list of lessons and pages, and copying them
cells      the cells of a student's notebook: which answers an exercise, what others define
examinee   the process that grades one notebook
gradebook  the files of grades, the table
grade      all notebooks of a class

Lessons use three names: `from minilpo.course import compare, show, trained_run`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for type checkers and editors
    from minilpo.course.home import trained_run
    from minilpo.course.notebook import compare, show

__all__ = ["compare", "show", "trained_run"]


def __getattr__(name: str) -> Any:
    # When asked for: the process of a learner's cell needs none of them.
    if name == "trained_run":
        from minilpo.course.home import trained_run

        return trained_run
    if name in __all__:
        from minilpo.course import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'minilpo.course' has no attribute {name!r}")
