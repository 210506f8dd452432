"""Text that is safe to show, wherever it came from."""


def printable(text: str) -> str:
    r"""Writes control characters as Python does, so that no terminal takes them for a command.

    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str, longest: int = 600) -> str:
    """Puts a text on one printable line of at most `longest` characters, without its middle.

    >>> one_line("must be a number, got " + 100 * "very " + "long", 44)
    'must be a number, g ... very very very long'
    """
    text = printable(" ".join(text.split()))
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"


def decimal(value: float, sign: str = "-", decimals: int = 3) -> str:
    """Rounds a number for a text: 0 is never negative. With `sign` "+" every number has one."""
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


def named(error: BaseException, longest: int = 200) -> str:
    """Puts an exception's class and text on one line, whatever that class does.

    >>> named(ZeroDivisionError("division by zero")), named(KeyError())
    ('ZeroDivisionError: division by zero', 'KeyError')
    """
    try:
        text = one_line(str(error), longest)
    except Exception:  # its own __str__ may be broken too
        text = ""
    return f"{one_line(type(error).__name__, 60)}{': ' if text else ''}{text}"
