"""Commands run from outside, as a user would: small settings, what a folder holds, what a refusal
looks like.
"""

import json
import re
from pathlib import Path

import pytest

from minilpo.cli import main
from minilpo.machine.files import Record, json_bytes, sha256

TINY = "--tasks instruct story --steps 250 --batch-size 16 --learning-rate 0.006 --demonstrations 4000 --warmup-steps 5 "
TINY += "--n-layer 1 --n-embd 32 --n-head 2 "
TINY += "--rounds 2 --prompts 32 --samples 4 --epochs 2 --validation-prompts 2 --test-prompts 8 --selection-prompts 4 "
TINY += "--ood-prompts 4 --temperatures 0 0.5 1"
TINY = TINY.split()
BAR = re.compile(r"%\||\[\d\d:\d\d,")  # a progress bar
RESULTS = {
    *"config.json tokenizer.json model.pt pretrain_log.json head.pt constant_head.pt".split()
}
RESULTS |= {*"lpo_log.json metrics.json examples.txt report.html record.json".split()}
FIGURES = (
    "reward_by_temperature.png win_rate.png chosen_temperatures.png training.png descriptions.txt"
)
RESULTS |= {f"figures/{name}" for name in FIGURES.split()}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, without what is a time."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if "metrics.json" in files:
        metrics = json.loads(files["metrics.json"])
        del metrics["seconds"]
        files["metrics.json"] = json.dumps(metrics).encode()
    for name in files:
        if Path(name).name == "record.json":
            record = json.loads(files[name])
            record["steps"].pop("evaluate", None)  # its files have times in them
            steps = {"steps": record["steps"], "gone": record["gone"]}
            files[name] = json.dumps(steps, sort_keys=True).encode()
        if Path(name).name == "report.html":
            files[name] = re.sub(rb'<p id="times".*?</p>', b"", files[name], flags=re.DOTALL)
    return files


def fails(capsys, *arguments) -> str:
    """Runs a command that must fail with status 2 and one line on stderr; returns the line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capsys.readouterr()
    lines = [line for line in re.split(r"[\n\r]", err) if line.strip() and not BAR.search(line)]
    assert status == 2 and out == "", (status, out)
    assert len(lines) == 1 and lines[0].startswith("minilpo"), lines
    return lines[0]


def run_of(folder: Path, *more: str) -> Path:
    """A finished run with small settings, in a folder of that name."""
    assert main(["demo", "--out", str(folder), *TINY, *more]) == 0
    return folder


def interrupt_after(name: str, arguments: list[str]) -> None:
    """Runs a command that is interrupted right after it has written a file of that name."""

    commit = Record.commit

    def interrupted(record, finished, undone=()):
        commit(record, finished, undone)
        if any(name in files for _, files in finished.values()):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "commit", interrupted)
        assert main(arguments) == 130


def forge(folder: Path, name: str, data: bytes, **entry) -> None:
    """Replaces a file, and lets the record name the new one: as another version would have it."""
    (folder / name).write_bytes(data)
    record = json.loads((folder / "record.json").read_bytes())
    del record["sha256"]
    for step in record["steps"].values():
        if name in step["files"]:
            step["files"][name] = sha256(data)
    record |= entry
    (folder / "record.json").write_bytes(
        json_bytes({**record, "sha256": sha256(json_bytes(record))})
    )
