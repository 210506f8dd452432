"""Runs experiments over seeds. Every seed's numbers are a file of their own, so an interrupted reproduction goes on from there.

OUT/reproduce.json                  the settings; a folder with other settings is left alone
OUT/NAME/seed_S.json                the numbers of one seed
OUT/NAME/result.json, table.txt, figure.png (and for fig6 strip.html, strip.txt)
OUT/cache/                          language models and heads, shared by all experiments
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from minilpo import plots
from minilpo.config import RunConfig
from minilpo.experiments.base import Experiment, Finding, Numbers, text_table
from minilpo.experiments.lab import Lab
from minilpo.files import misfit, read_sealed_json, tidy, work_in, write_bytes, write_json, write_sealed_json
from minilpo.progress import Bar, say
from minilpo.run import read_config, write_config
from minilpo.threads import pick

ROOM = 200  # megabytes that all experiments with a few seeds need on the disk


def experiment(name: str) -> Experiment:
    """The module of an experiment."""
    return import_module(f"minilpo.experiments.{name}")


def reproduce(
    names: Sequence[str], n_seeds: int, out: Path, config: RunConfig, threads: int | None = None
) -> dict[str, Finding]:
    """Measures what is missing, seed by seed, then writes the results of every experiment.

    Args:
        names: of experiments: modules of this package.
        n_seeds: seeds 0, 1, ..., n_seeds - 1.
        out: the folder.
        config: the settings that all experiments start from.
        threads: how many compute; by default as many as in this folder before, or as a measurement finds best.

    Returns:
        What was found, by name.

    Raises:
        ValueError: if the folder holds something else, or another process works there.
    """
    with work_in(out, ROOM):
        config = open_folder(out, config)
        missing = {seed: [name for name in names if read_seed(out, name, seed) is None] for seed in range(n_seeds)}
        in_use = pick(threads, config.threads or None)
        if in_use.seconds:
            say(f"minilpo: computing with {in_use.why}")
        if config.threads != in_use.n:
            config = replace(config, threads=in_use.n)
            write_config(out / "reproduce.json", config)
        total = sum(map(len, missing.values()))
        with Bar("reproducing", total, "experiment") as bar:
            for seed, todo in missing.items():
                lab = Lab(out / "cache", replace(config, seed=seed), in_use)
                for name in todo:
                    bar.set_postfix_str(f"seed {seed}, {name}")
                    numbers = experiment(name).measure(lab)
                    (out / name).mkdir(exist_ok=True)
                    content = {"experiment": name, "seed": seed, "numbers": numbers}
                    write_sealed_json(out / name / f"seed_{seed}.json", content)
                    bar.update()
        return {name: write_result(out, name, n_seeds) for name in names}


def open_folder(out: Path, config: RunConfig) -> RunConfig:
    """Makes the folder, or checks that it holds a reproduction with the same settings; returns those settings."""
    path = out / "reproduce.json"
    if path.exists():
        there = read_config(path)
        if replace(there, threads=0) != replace(config, threads=0):
            raise ValueError(f"{out} holds results of other settings; choose another folder or delete this one")
        tidy(out, *(folder for folder in out.iterdir() if folder.is_dir()))
        return there
    if any(file.name != ".reproduce.json.partial" for file in out.iterdir()):
        raise ValueError(f"{out} must be a new or empty folder, or one of `minilpo reproduce`; choose another")
    write_config(path, config)
    return config


def read_seed(out: Path, name: str, seed: int) -> Numbers | None:
    """The numbers of one seed, or None where they are missing."""
    path = out / name / f"seed_{seed}.json"
    if not path.exists():
        return None
    content = read_sealed_json(path, "delete it and repeat the command")
    wrong = misfit(content, {"experiment": str, "seed": int, "numbers": dict})
    if wrong or (content["experiment"], content["seed"]) != (name, seed):
        raise ValueError(f"{path} must hold seed {seed} of {name}, got something else; delete it and repeat the command")
    return content["numbers"]


def write_result(out: Path, name: str, n_seeds: int) -> Finding:
    """Writes JSON, table and figure of one experiment."""
    module = experiment(name)
    seeds = [read_seed(out, name, seed) for seed in range(n_seeds)]
    try:
        finding = module.conclude(seeds)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:  # files of ours always have what it needs
        raise ValueError(
            f"{out / name} must hold numbers that this experiment measured, but they can't be put together "
            f"({type(error).__name__}: {error}); delete its seed_*.json files and repeat the command"
        ) from error
    if n_seeds == 1:
        finding = replace(finding, agrees=False, sentence="A single seed says nothing about the direction: run at least two.")
    (out / name).mkdir(exist_ok=True)
    rows = [
        {"label": row.label, "mean": row.mean, "ci95": row.ci95, "seeds": row.ours, "paper": row.paper} for row in finding.rows
    ]
    result = {"experiment": name, "paper": module.PAPER, "seeds": n_seeds, "rows": rows}
    write_json(out / name / "result.json", {**result, "agrees": finding.agrees, "sentence": finding.sentence})
    write_bytes(out / name / "table.txt", (text_table(name, module.PAPER, finding) + "\n").encode())
    buffer = io.BytesIO()
    with plots.own_style():
        module.draw(seeds).savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(out / name / "figure.png", buffer.getvalue())
    for file, data in (module.more_files(seeds) if hasattr(module, "more_files") else {}).items():
        write_bytes(out / name / file, data)
    return finding
