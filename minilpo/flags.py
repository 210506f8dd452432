"""Command-line flags, made from the classes of settings in `config`: each default exists once."""

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any, NoReturn

from minilpo.config import NOT_BOTH, SECTIONS, RunConfig
from minilpo.machine.text import one_line

Settings = dict[str, dict[str, Any]]  # by section, then by name


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and where help is, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def folder(name: str) -> Path:
    """Reads a flag that names a folder."""
    if not name.strip():
        raise argparse.ArgumentTypeError(
            "must name a folder, got an empty name; a point stands for the folder you are in"
        )
    return Path(name)


def add_flags(parser: argparse.ArgumentParser, section: str, other: dict[str, Any]) -> None:
    """Adds a flag for each field of a section of the settings, or of "run", for the general ones.

    `other` holds the command's own defaults, and None for a flag that it doesn't have.
    """
    kind_of_section = SECTIONS.get(section, RunConfig)
    types = typing.get_type_hints(kind_of_section)
    for field in dataclasses.fields(kind_of_section):
        value = other.get(field.name, field.default)
        if "help" not in field.metadata or value is None:
            continue  # a section within the settings, or a value that isn't set by hand
        flag, meaning = "--" + field.name.replace("_", "-"), field.metadata["help"]
        kind, several = types[field.name], typing.get_args(types[field.name])
        # No default: so a resumed run keeps what it was made with.
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": meaning}
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
            continue
        default = " ".join(map(str, value)) or "none" if several else value
        options["type"] = several[0] if several else kind
        options["metavar"] = options["type"].__name__.upper()
        options["help"] = f"{meaning} (default: {default})"
        parser.add_argument(flag, nargs="+" if several else None, **options)


def given(args: argparse.Namespace, section: type) -> dict[str, Any]:
    """Collects the settings of one section that were given on the command line."""
    names = [field.name for field in dataclasses.fields(section) if "help" in field.metadata]
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return values | lists


def all_given(args: argparse.Namespace) -> Settings:
    """Collects the settings that were given, section by section."""
    return {name: given(args, section) for name, section in SECTIONS.items()}


def whole_config(
    args: argparse.Namespace, settings: Settings, general: dict[str, Any] | None = None
) -> RunConfig:
    """Makes a run's settings: those of the sections, and general ones unless others were given."""
    sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
    asked, general = given(args, RunConfig), dict(general or {})
    if {"temperatures", "choices"} <= asked.keys():
        raise ValueError(NOT_BOTH)
    # Each takes the other's place.
    for name, other in (("temperatures", "choices"), ("choices", "temperatures")):
        if name in asked:
            general.pop(other, None)
    return RunConfig(**{**general, **asked, **sections})
