"""Runs experiments over seeds. Every seed's numbers are a file of their own, so an interrupted reproduction goes on from there.

OUT/reproduce.json                  the settings; a folder with other settings is left alone
OUT/NAME/seed_S.json                the numbers of one seed
OUT/NAME/result.json, table.txt, figure.png (and for fig6 strip.html, strip.txt)
OUT/cache/                          language models and heads, shared by all experiments
"""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minilpo.config import RunConfig
from minilpo.experiments.base import Experiment, Finding, Numbers, text_table
from minilpo.experiments.lab import Lab
from minilpo.files import read_json, write_bytes, write_json

KEYS = {"experiment", "seed", "numbers"}  # of seed_S.json


def experiment(name: str) -> Experiment:
    """The module of an experiment."""
    return import_module(f"minilpo.experiments.{name}")


def reproduce(names: Sequence[str], n_seeds: int, out: Path, config: RunConfig) -> dict[str, Finding]:
    """Measures what is missing, seed by seed, then writes the results of every experiment.

    Args:
        names: of experiments: modules of this package.
        n_seeds: seeds 0, 1, ..., n_seeds - 1.
        out: the folder.
        config: the settings that all experiments start from.

    Returns:
        What was found, by name.

    Raises:
        ValueError: if the folder holds something else.
    """
    open_folder(out, config)
    missing = {seed: [name for name in names if read_seed(out, name, seed) is None] for seed in range(n_seeds)}
    total = sum(map(len, missing.values()))
    with tqdm(total=total, desc="reproducing", unit=" experiment", file=sys.stderr, dynamic_ncols=True) as bar:
        for seed, todo in missing.items():
            lab = Lab(out / "cache", replace(config, seed=seed))
            for name in todo:
                bar.set_postfix_str(f"seed {seed}, {name}")
                numbers = experiment(name).measure(lab)
                write_json(out / name / f"seed_{seed}.json", {"experiment": name, "seed": seed, "numbers": numbers})
                bar.update()
    return {name: write_result(out, name, n_seeds) for name in names}


def open_folder(out: Path, config: RunConfig) -> None:
    """Makes the folder, or checks that it holds a reproduction with the same settings."""
    path, settings = out / "reproduce.json", {**config.to_dict(), "seed": None}
    if path.exists():
        there = read_json(path)
        if there != _as_json(settings):
            raise ValueError(f"{out} holds results of other settings; choose another folder or delete this one")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} must be a new or empty folder, or one of `minilpo reproduce`; choose another")
    else:
        write_json(path, settings)


def read_seed(out: Path, name: str, seed: int) -> Numbers | None:
    """The numbers of one seed, or None where they are missing."""
    path = out / name / f"seed_{seed}.json"
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.keys() != KEYS or (content["experiment"], content["seed"]) != (name, seed):
        raise ValueError(f"{path} must hold seed {seed} of {name}, got something else; delete it and run again")
    return content["numbers"]


def write_result(out: Path, name: str, n_seeds: int) -> Finding:
    """Writes JSON, table and figure of one experiment."""
    module = experiment(name)
    seeds = [read_seed(out, name, seed) for seed in range(n_seeds)]
    finding = module.conclude(seeds)
    if n_seeds == 1:
        finding = replace(finding, agrees=False, sentence="A single seed says nothing about the direction: run at least two.")
    rows = [
        {"label": row.label, "mean": row.mean, "ci95": row.ci95, "seeds": row.ours, "paper": row.paper} for row in finding.rows
    ]
    result = {"experiment": name, "paper": module.PAPER, "seeds": n_seeds, "rows": rows}
    write_json(out / name / "result.json", {**result, "agrees": finding.agrees, "sentence": finding.sentence})
    write_bytes(out / name / "table.txt", (text_table(name, module.PAPER, finding) + "\n").encode())
    buffer = io.BytesIO()
    module.draw(seeds).savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(out / name / "figure.png", buffer.getvalue())
    for file, data in (module.more_files(seeds) if hasattr(module, "more_files") else {}).items():
        write_bytes(out / name / file, data)
    return finding


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """The same with lists for tuples, as it comes back from a file."""
    return {
        name: _as_json(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
    }
