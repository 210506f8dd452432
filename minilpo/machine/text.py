"""Text that is safe to show, wherever it came from."""

LONGEST_MESSAGE = 600  # characters


def printable(text: str) -> str:
    r"""A text that no terminal takes for a command: control characters are as Python writes them.

    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text on one printable line that is never too long: its middle is left out.

    >>> one_line("must be a number, got " + 100 * "very " + "long", 44)
    'must be a number, g ... very very very long'
    """
    text = printable(" ".join(text.split()))
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"


def named(error: BaseException, longest: int = 200) -> str:
    """An exception's class and text on one line, whatever that class does.

    >>> named(ZeroDivisionError("division by zero")), named(KeyError())
    ('ZeroDivisionError: division by zero', 'KeyError')
    """
    try:
        text = one_line(str(error), longest)
    except Exception:  # its own __str__ may be broken too
        text = ""
    return f"{one_line(type(error).__name__, 60)}{': ' if text else ''}{text}"
