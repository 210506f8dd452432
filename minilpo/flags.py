"""Command-line flags, made from the classes of settings in `config`: each default exists once."""

import argparse
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from minilpo.config import NOT_BOTH, SECTIONS, RunConfig
from minilpo.machine.text import one_line


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and how to get help, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def path_of(name: str) -> Path:
    """Reads a path. It becomes absolute at once: a task file may change the current folder."""
    if not name.strip():
        raise argparse.ArgumentTypeError(
            "must name a folder, got an empty name; a point stands for the folder you are in"
        )
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


def add_flags(parser: argparse.ArgumentParser, section: str, other: dict[str, Any]) -> None:
    """Adds a flag for each field of a section of the settings; "run" holds the general ones.

    `other` maps fields to the command's own defaults, and to None if it has no such flag.
    """
    settings = SECTIONS.get(section, RunConfig)
    types = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        value = other.get(field.name, field.default)
        if "help" not in field.metadata or value is None:
            continue  # a section, or a value that nobody sets by hand
        flag, meaning = "--" + field.name.replace("_", "-"), field.metadata["help"]
        kind, several = types[field.name], typing.get_args(types[field.name])
        # No default here: a resumed run keeps the settings that it was made with.
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": meaning}
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
            continue
        default = " ".join(map(str, value)) or "none" if several else value
        options["type"] = several[0] if several else kind
        options["metavar"] = options["type"].__name__.upper()
        options["help"] = f"{meaning} (default: {default})"
        parser.add_argument(flag, nargs="+" if several else None, **options)


def given(args: argparse.Namespace, section: str) -> dict[str, Any]:
    """Collects the settings of one section that were given on the command line."""
    settings = dataclasses.fields(SECTIONS.get(section, RunConfig))
    names = [field.name for field in settings if "help" in field.metadata and field.name in args]
    values = {name: getattr(args, name) for name in names}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def whole_config(args: argparse.Namespace, old: RunConfig | None = None) -> RunConfig:
    """Makes a run's settings from the flags; without a flag a setting is as in `old`, if given."""
    settings: dict[str, Any] = given(args, "run")
    if {"temperatures", "choices"} <= settings.keys():
        raise ValueError(NOT_BOTH)
    for name, section in SECTIONS.items():
        before = dataclasses.asdict(getattr(old, name)) if old else {}
        settings[name] = section(**{**before, **given(args, name)})
    # Each takes the other's place.
    if "temperatures" in settings:
        settings["choices"] = ()
    elif "choices" in settings:
        settings["temperatures"] = RunConfig.temperatures
    return dataclasses.replace(old, **settings) if old else RunConfig(**settings)
