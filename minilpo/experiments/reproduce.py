"""Runs experiments over seeds; what an interrupted reproduction has measured stays.

OUT/record.json                     the checksums of all files that are read again
OUT/reproduce.json                  the settings; a folder with other settings is left alone
OUT/NAME/seed_S.json                the numbers of one seed
OUT/NAME/result.json, table.txt, figure.png (and for fig6 strip.html, strip.txt)
OUT/report.html                     every experiment that the folder has numbers of, on one page
OUT/cache/                          language models and heads, shared by all experiments
"""

import itertools
import json
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
from minilpo.experiments.lab import OTHER, Lab
from minilpo.experiments.page import NAME as PAGE
from minilpo.experiments.page import reproduction_page
from minilpo.machine.device import device_of
from minilpo.machine.files import Record, json_bytes, must_hold, work_in, write_bytes
from minilpo.machine.progress import bar, say
from minilpo.machine.threads import pick
from minilpo.run.folder import read_config
from minilpo.show import plots

CONFIG = "reproduce.json"
ROOM = 200  # megabytes that all experiments with a few seeds need on the disk


def experiment(name: str) -> ModuleType:
    """Imports the module of an experiment."""
    return import_module(f"minilpo.experiments.{name}")


def reproduce(
    names: Sequence[str], seeds: int, out: Path, config: RunConfig, threads: int | None, device: str
) -> dict[str, Finding]:
    """Measures what is missing, seed by seed, then writes the results of every experiment.

    The seeds are 0, 1, ..., seeds - 1. By default as many threads compute as in this folder
    before, or as a measurement finds best. Returns the findings by the name of the experiment.
    Raises ValueError if the folder holds something else, or another process works there.
    """
    computes = device_of(device)
    with work_in(out, ROOM):
        record, config = open_folder(out, config)
        missing = {}
        for seed in range(seeds):
            missing[seed] = [name for name in names if read_seed(record, name, seed) is None]
        config = replace(config, threads=pick(threads, config.threads or None, say))
        record.commit({"config": (None, {CONFIG: json_bytes(config.to_dict())})})
        with bar("reproducing", "experiment", sum(map(len, missing.values()))) as progress:
            for seed, todo in missing.items():
                lab = Lab(out / "cache", replace(config, seed=seed), computes)
                for name in todo:
                    progress.set_postfix_str(f"seed {seed}, {name}")
                    numbers = experiment(name).measure(lab)
                    content = {"experiment": name, "seed": seed, "numbers": numbers}
                    files = {f"{name}/seed_{seed}.json": json_bytes(content)}
                    record.commit({f"{name} {seed}": (None, files)})
                    progress.update()
        found = {name: put_together(record, name, seeds) for name in names}
        for name, finding in found.items():
            for file, data in finding.files.items():
                write_bytes(out / name / file, data)
        # The page shows the results that earlier commands have left, too.
        results = {name: (experiment(name).PAPER, finding) for name, finding in found.items()}
        for name in EXPERIMENTS:
            of_seeds = (f"{name}/seed_{seed}.json" for seed in itertools.count())
            n = sum(1 for _ in itertools.takewhile(record.holds, of_seeds))
            if name not in found and n:
                try:
                    results[name] = experiment(name).PAPER, put_together(record, name, n)
                except ValueError as error:
                    say(f"minilpo: {PAGE} leaves out {name}: {error}")
        write_bytes(out / PAGE, reproduction_page(config, results).encode())
        return found


def open_folder(out: Path, config: RunConfig) -> tuple[Record, RunConfig]:
    """Opens a folder of the same settings, or a new one; returns its record and settings."""
    record = Record(out, OTHER)
    if CONFIG in record.files:
        record.settle()
        kept = read_config(record, CONFIG)
        if replace(kept, threads=0) != replace(config, threads=0):
            raise ValueError(f"{out} holds results of other settings; choose another folder")
        return record, kept
    if (out / CONFIG).exists():
        raise ValueError(f"{out} was made by another version of minilpo; choose another folder")
    stumps = {f".{CONFIG}.partial", ".record.json.partial"}
    if {file.name for file in out.iterdir()} - stumps:
        wanted = "a new or empty folder, or one of `minilpo reproduce`"
        raise ValueError(f"{out} must be {wanted}; choose another")
    return record, config


def read_seed(record: Record, name: str, seed: int) -> Numbers | None:
    """Reads the numbers of one seed; returns None where they are missing."""
    file = f"{name}/seed_{seed}.json"
    return json.loads(record.read(file, OTHER))["numbers"] if record.holds(file) else None


def put_together(record: Record, name: str, n_seeds: int) -> Finding:
    """Concludes from the numbers of all seeds, which carry a checksum; adds all files to write."""
    module, place = experiment(name), record.folder / name
    seeds = [read_seed(record, name, seed) for seed in range(n_seeds)]
    with must_hold(place, "numbers of this version's experiment", OTHER), plots.own_style():
        found = over_seeds(seeds)
        finding, figure = module.conclude(found), module.draw(found)
        png = plots.png(figure)
    if n_seeds == 1:
        sentence = "A single seed says nothing about the direction: run at least two."
        finding = replace(finding, agrees=False, sentence=sentence)
    rows = []
    for row in finding.rows:
        numbers = {"mean": row.mean, "ci95": row.ci95, "seeds": np.asarray(row.ours).tolist()}
        rows.append({"label": row.label, **numbers, "paper": row.paper})
    content = {"experiment": name, "paper": module.PAPER, "seeds": n_seeds, "rows": rows}
    verdict = {"agrees": finding.agrees, "sentence": finding.sentence}
    table = text_table(name, module.PAPER, finding) + "\n"
    files = {"result.json": json_bytes(content | verdict), "table.txt": table.encode()}
    files |= {"figure.png": png, **finding.files}
    return replace(finding, files=files, figure=described(figure))
