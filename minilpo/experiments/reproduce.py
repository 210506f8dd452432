"""Runs experiments over seeds; what an interrupted reproduction has measured stays.

OUT/reproduce.json                  the settings; a folder with other settings is left alone
OUT/NAME/seed_S.json                the numbers of one seed
OUT/NAME/result.json, table.txt, figure.png (and for fig6 strip.html, strip.txt)
OUT/report.html                     every experiment that the folder has numbers of, on one page
OUT/cache/                          language models and heads, shared by all experiments
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from minilpo.config import RunConfig
from minilpo.experiments import EXPERIMENTS
from minilpo.experiments.base import Finding, Numbers, over_seeds, text_table
from minilpo.experiments.figures import described
from minilpo.experiments.lab import Lab
from minilpo.experiments.page import NAME as PAGE
from minilpo.experiments.page import Result, reproduction_page
from minilpo.machine import files
from minilpo.machine.device import device_of
from minilpo.machine.progress import Bar, say
from minilpo.machine.threads import pick
from minilpo.run.folder import read_config
from minilpo.show import plots

OTHER = "choose another folder, or move its seed_*.json files away and repeat the command"
ROOM = 200  # megabytes that all experiments with a few seeds need on the disk


def experiment(name: str) -> ModuleType:
    """Imports the module of an experiment."""
    return import_module(f"minilpo.experiments.{name}")


def reproduce(
    names: Sequence[str],
    n_seeds: int,
    out: Path,
    config: RunConfig,
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Finding]:
    """Measures what is missing, seed by seed, then writes the results of every experiment.

    The seeds are 0, 1, ..., n_seeds - 1. By default as many threads compute as in this folder
    before, or as a measurement finds best. Returns the findings by the name of the experiment.
    Raises ValueError if the folder holds something else, or another process works there.
    """
    computes = device_of(device)
    with files.work_in(out, ROOM):
        config = open_folder(out, config)
        missing = {
            seed: [name for name in names if read_seed(out, name, seed) is None]
            for seed in range(n_seeds)
        }
        in_use = pick(threads, config.threads or None)
        if in_use.seconds:
            say(f"minilpo: computing with {in_use.why}")
        if config.threads != in_use.n:
            config = replace(config, threads=in_use.n)
            files.write_sealed_json(out / "reproduce.json", config.to_dict())
        with Bar("reproducing", "experiment") as bar:
            bar.begin(sum(map(len, missing.values())))
            for seed, todo in missing.items():
                lab = Lab(out / "cache", replace(config, seed=seed), in_use, computes)
                for name in todo:
                    bar.say_now(f"seed {seed}, {name}")
                    numbers = experiment(name).measure(lab)
                    (out / name).mkdir(exist_ok=True)
                    content = {"experiment": name, "seed": seed, "numbers": numbers}
                    files.write_sealed_json(out / name / f"seed_{seed}.json", content)
                    bar.advance()
        results = {name: put_together(out, name, n_seeds) for name in names}
        for result in results.values():
            write_result(out / result.name, result)
        write_page(out, config, results)
        return {name: result.finding for name, result in results.items()}


def open_folder(out: Path, config: RunConfig) -> RunConfig:
    """Writes the settings, or checks that the folder has the same ones; returns the folder's."""
    path = out / "reproduce.json"
    if path.exists():
        kept = read_config(path)
        if replace(kept, threads=0) != replace(config, threads=0):
            raise ValueError(
                f"{out} holds results of other settings; choose another folder or delete this one"
            )
        files.tidy(out, *(folder for folder in out.iterdir() if folder.is_dir()))
        return kept
    if any(file.name != ".reproduce.json.partial" for file in out.iterdir()):
        raise ValueError(
            f"{out} must be a new or empty folder, or one of `minilpo reproduce`; choose another"
        )
    files.write_sealed_json(path, config.to_dict())
    return config


def read_seed(out: Path, name: str, seed: int) -> Numbers | None:
    """Reads the numbers of one seed; None where they are missing."""
    path = out / name / f"seed_{seed}.json"
    if not path.exists():
        return None
    content = files.read_sealed_json(path, "delete it and repeat the command")
    with files.must_hold(path, f"seed {seed} of {name}", OTHER):
        if (got := (content["experiment"], content["seed"])) != (name, seed):
            raise ValueError(f"it holds seed {got[1]} of {got[0]}")
        return content["numbers"]


def put_together(out: Path, name: str, n_seeds: int) -> Result:
    """Concludes from the numbers of all seeds, and draws the figure."""
    module = experiment(name)
    seeds = [read_seed(out, name, seed) for seed in range(n_seeds)]
    numbers = "numbers of this version's experiment"
    with files.must_hold(out / name, numbers, OTHER), plots.own_style():
        found = over_seeds(seeds)
        finding, figure = module.conclude(found), module.draw(found)
        png = plots.png(figure)
    if n_seeds == 1:
        sentence = "A single seed says nothing about the direction: run at least two."
        finding = replace(finding, agrees=False, sentence=sentence)
    return Result(name, module.PAPER, n_seeds, finding, png, described(figure))


def write_result(folder: Path, result: Result) -> None:
    """Writes JSON, table and figure of one experiment."""
    name, finding = result.name, result.finding
    folder.mkdir(exist_ok=True)
    rows = []
    for row in finding.rows:
        numbers = {"mean": row.mean, "ci95": row.ci95, "seeds": np.asarray(row.ours).tolist()}
        rows.append({"label": row.label, **numbers, "paper": row.paper})
    content = {"experiment": name, "paper": result.paper, "seeds": result.n_seeds, "rows": rows}
    verdict = {"agrees": finding.agrees, "sentence": finding.sentence}
    files.write_json(folder / "result.json", content | verdict)
    table = text_table(name, result.paper, finding) + "\n"
    others = {"table.txt": table.encode(), "figure.png": result.png, **finding.files}
    for file, data in others.items():
        files.write_bytes(folder / file, data)


def write_page(out: Path, config: RunConfig, results: dict[str, Result]) -> None:
    """Writes the page of these results, and of those that earlier commands have left."""
    for name in EXPERIMENTS:
        paths = (out / name / f"seed_{seed}.json" for seed in itertools.count())
        n_seeds = sum(1 for _ in itertools.takewhile(Path.is_file, paths))
        if name not in results and n_seeds:
            # Tables and figures are made again from the numbers, which carry a checksum.
            try:
                results[name] = put_together(out, name, n_seeds)
            except ValueError as error:
                say(f"minilpo: {PAGE} leaves out {name}: {error}")
    files.write_bytes(out / PAGE, reproduction_page(config, list(results.values())).encode())
