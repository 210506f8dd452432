"""Shows in a lesson: a figure with its description, a guess beside the result."""

from typing import Any

from matplotlib.figure import Figure

from minilpo.show.plots import png


def show(figure: Figure, *sentences: str) -> None:
    """Shows a figure below the cell, and prints a description for readers who can't see it.

    Args:
        figure: from `minilpo.show.plots.figure`, say.
        sentences: the description, as the functions of `plots` return it.
    """
    from IPython.display import Image, display  # only a notebook has it

    words = " ".join(sentences)
    display(Image(png(figure), alt=words, embed=True))
    print(words)


def compare(guess: Any, result: Any, what: str = "") -> None:
    """Prints a guess beside the result.

    Args:
        guess: a number or a text; None if the learner has written none.
        result: the measured value.
        what: the name of the value, with its unit.

    >>> compare(0.5, 0.25, "the probability of 'fox'")
    the probability of 'fox': you guessed 0.5, it is 0.25
    >>> compare(None, 0.25)
    it is 0.25 (you made no guess: write the next one before you run the cell)
    """
    begin = f"{what}: " if what else ""
    if guess is None or guess is ...:
        reminder = "(you made no guess: write the next one before you run the cell)"
        print(f"{begin}it is {_words(result)} {reminder}")
    else:
        print(f"{begin}you guessed {_words(guess)}, it is {_words(result)}")


def _words(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
