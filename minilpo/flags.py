"""Command-line flags, made from the classes of settings in `config`: each default exists once."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from minilpo.config import NOT_BOTH, SECTIONS, RunConfig
from minilpo.machine.text import one_line

Flag = tuple[str, dict[str, Any]]  # name and options, as `add_argument` of argparse takes them


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and how to get help, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def path_of(name: str) -> Path:
    """Reads a path. It becomes absolute at once: a task file may change the current folder."""
    return Path(name).absolute()


def number(kind: type, low: int, high: int) -> Callable[[str], Any]:
    """Makes a function that reads a number from `low` to `high`, of type `kind`.

    >>> number(int, 1, 64)("8")
    8
    """

    def read(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:,} to {high:,}, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse names it for a text that is no number
    return read


def flag(name: str, meaning: str, kind: Callable[[str], Any] = str, **more: Any) -> Flag:
    """Describes a flag for argparse. Its metavar is its type, if no other is given."""
    if default := more.get("default"):
        meaning += f" (default: {default})"
    return name, {"help": meaning, "type": kind, "metavar": kind.__name__.upper(), **more}


def fields_of(section: str) -> list[dataclasses.Field]:
    """Lists the settings of a section that have a flag; "run" holds the general settings."""
    return [f for f in dataclasses.fields(SECTIONS.get(section, RunConfig)) if "help" in f.metadata]


def flags_of(*sections: str, **other: Any) -> list[Flag]:
    """Describes a flag for each setting of some sections.

    `other` maps settings to the command's own defaults, and to None if they have no flag.
    """
    flags = []
    for field in [field for section in sections for field in fields_of(section)]:
        value, meaning = other.get(field.name, field.default), field.metadata["help"]
        name = "--" + field.name.replace("_", "-")
        more: dict[str, Any] = {"help": meaning, "action": argparse.BooleanOptionalAction}
        if isinstance(value, tuple):
            text, kind = " ".join(map(str, value)) or "none", type(value[0]) if value else str
            _, more = flag(name, meaning, kind, default=text, nargs="+")
        elif not isinstance(value, bool):
            _, more = flag(name, meaning, type(value), default=str(value))
        if value is not None:
            # No default here: a resumed run keeps the settings that it was made with.
            flags.append((name, {**more, "default": argparse.SUPPRESS}))
    return flags


def given(args: argparse.Namespace, section: str) -> dict[str, Any]:
    """Collects the settings of one section that were given on the command line."""
    values = {f.name: getattr(args, f.name) for f in fields_of(section) if f.name in args}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def whole_config(args: argparse.Namespace, old: RunConfig) -> RunConfig:
    """Makes a run's settings from the flags; without a flag a setting is as in `old`."""
    settings = given(args, "run")
    if {"temperatures", "choices"} <= settings.keys():
        raise ValueError(NOT_BOTH)
    if {"temperatures", "choices"} & settings.keys():  # each takes the other's place
        settings = {"temperatures": RunConfig.temperatures, "choices": (), **settings}
    if settings.get("level", old.level) != old.level:  # the loss is that level's, unless given
        args = argparse.Namespace(**{"loss": "default", **vars(args)})
    for name in SECTIONS:
        settings[name] = dataclasses.replace(getattr(old, name), **given(args, name))
    return dataclasses.replace(old, **settings)
