"""Work is never lost: whenever a process is killed, refused or pushed aside, the same command goes
on to the same bytes.
"""

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from minilpo import __main__
from minilpo.cli import main
from minilpo.machine import signals
from minilpo.machine.files import Record
from tests.outside import TINY, fails, files_of, interrupt_after

BRIEF = "--tasks coin_flip hidden_wish --steps 80 --demonstrations 1500 --rounds 2 --prompts 16 --n-hidden 4".split()
SETTINGS = [*TINY, *BRIEF]
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs a system with fork and SIGKILL"
)


@pytest.fixture(autouse=True, scope="module")
def brief():
    """Half-done work is saved often, and figures are quick to draw: they aren't what is tested
    here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilpo.lm.pretraining.LOG_EVERY", 20)
        patch.setattr("minilpo.show.plots.png", lambda fig: b"a figure")
        patch.setattr("minilpo.show.plots.panels", lambda fig, whole: [whole] * len(fig.axes))
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        # tqdm's own lock is shared with forked processes: one killed with it would hold up the next.
        patch.setattr(tqdm, "_lock", threading.RLock(), raising=False)
        yield


def demo(folder: Path, *more: str) -> list[str]:
    return ["demo", "--out", str(folder), *SETTINGS, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run comes to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(demo(folder)) == 0
    return folder


@contextlib.contextmanager
def at_every_place(act):
    """Calls `act(place)` before and after everything that changes a file: made, written, renamed,
    removed.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (os, "open"),
            (os, "fsync"),
            (os, "replace"),
            (Path, "unlink"),
            (Path, "mkdir"),
            (Path, "rmdir"),
        ):
            real = getattr(module, name)

            @functools.wraps(real)
            def spied(*args, _real=real, _name=name, **kwargs):
                act(f"before {_name}")
                done = _real(*args, **kwargs)
                act(f"after {_name}")
                return done

            patch.setattr(module, name, spied)
        yield


def snapshots_of(folder: Path, into: Path) -> list[Path]:
    """All that a disk can look like when an undisturbed run is killed, at any stage of any write,
    each once.
    """
    seen: dict[tuple, Path] = {}

    def copy(place: str) -> None:
        if not folder.exists():
            return
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        content = tuple(
            (str(p), "" if "record.json.p" in p.name else p.read_bytes()) for p in paths
        )
        if content not in seen:
            seen[content] = into / str(len(seen))
            shutil.copytree(folder, seen[content])

    with at_every_place(copy):
        assert main(demo(folder)) == 0
    return list(seen.values())


@pytest.mark.slow
def test_killed_at_any_stage_of_any_write_a_run_goes_on_to_the_same_bytes_and_leaves_nothing_over(
    whole, tmp_path
):
    snapshots = snapshots_of(tmp_path / "run", tmp_path / "snapshots")
    assert len(snapshots) > 60
    for snapshot in snapshots:
        held = sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*"))
        assert main(demo(snapshot)) == 0, held
        assert files_of(snapshot) == files_of(whole), held


def killed_at(arguments: list[str], count: int) -> bool:
    """Runs a command in a process that gets SIGKILL at its `count`-th place; says whether it came
    that far.
    """
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    left = [count]

    def count_down(place: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        with at_every_place(count_down):
            status = main(arguments)
        os._exit(status)
    finally:
        os._exit(99)


@needs_fork
def test_a_run_killed_again_and_again_at_random_places_comes_to_the_same_bytes(whole, tmp_path):
    rng, kills = random.Random(0), 0
    while killed_at(demo(tmp_path / "run"), rng.randint(1, 30 + 6 * kills)):
        kills += 1
        assert kills < 60
    assert kills > 5
    assert files_of(tmp_path / "run") == files_of(whole)


@needs_fork
@pytest.mark.parametrize("count", range(1, 26, 3))
def test_killed_in_its_very_first_writes_a_run_can_be_started_again(whole, tmp_path, count):
    assert killed_at(demo(tmp_path / "run"), count)
    assert main(demo(tmp_path / "run")) == 0 and files_of(tmp_path / "run") == files_of(whole)


# Refused or interrupted, the old results stay


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize(
    "command",
    [
        "train --prompts 20000",
        "train --validation-prompts 20000",
        "train --head-learning-rate 11",
        "train --loss eq11_marginal --samples 1",
        "evaluate --test-prompts 20000",
        "evaluate --ood-prompts 0",
        "evaluate --resamples 1",
        "pretrain --steps 61",
        "pretrain --seed 1",
        "train --threads 0",
        "evaluate --threads 5000",
        "train --prompts 20000 --threads 2",
        "evaluate --test-prompts 20000 --threads 2",
    ],
)
def test_a_refused_flag_changes_nothing(run, capsys, command):
    before = files_of(run)
    name, *flags = command.split()
    fails(capsys, name, "--run", run, *flags)
    assert files_of(run) == before
    assert main(["evaluate", "--run", str(run)]) == 0 and files_of(run) == before


def test_an_interrupted_second_training_keeps_the_first_head_until_it_is_done(run, tmp_path):
    before, train = files_of(run), ["train", "--run", str(run)]
    undisturbed = Path(shutil.copytree(run, tmp_path / "undisturbed"))
    assert main(["train", "--run", str(undisturbed), "--beta", "0.5"]) == 0
    interrupt_after("lpo_state.pt", [*train, "--beta", "0.5"])
    begun = files_of(run)
    changed = {name for name in begun if begun[name] != before.get(name)}
    assert changed == {"lpo_state.pt", "record.json"}
    assert main(["evaluate", "--run", str(run)]) == 0  # of the first head
    assert main([*train, "--beta", "1.0"]) == 0  # which is there
    assert files_of(run) == begun
    assert main(train) == 0  # goes on with what was begun
    assert files_of(run) == files_of(undisturbed)
    assert json.loads((run / "config.json").read_text())["lpo"]["beta"] == 0.5
    gone = {"metrics.json", "examples.txt", "report.html", "figures/win_rate.png"}
    assert not gone & files_of(run).keys()  # they showed the first head


def test_half_done_training_with_other_settings_is_begun_anew(run, tmp_path):
    for folder, first in ((run, True), (Path(shutil.copytree(run, tmp_path / "plain")), False)):
        if first:
            interrupt_after("lpo_state.pt", ["train", "--run", str(folder), "--beta", "0.5"])
        assert main(["train", "--run", str(folder), "--beta", "0.25"]) == 0
    assert files_of(run) == files_of(tmp_path / "plain")


def test_a_folder_removed_in_mid_run_is_said_and_leaves_no_stump(
    whole, tmp_path, capsys, monkeypatch
):
    def commit(record, finished, undone=(), commit=Record.commit):
        commit(record, finished, undone)
        if "half-done pretrain" in finished:
            shutil.rmtree(record.folder)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "commit", commit)
        said = fails(capsys, *demo(tmp_path / "run"))
    assert "removed" in said and str(tmp_path / "run") in said and not (tmp_path / "run").exists()
    assert main(demo(tmp_path / "run")) == 0 and files_of(tmp_path / "run") == files_of(whole)


# The folder is somebody else's, full, or can't be written


def test_two_processes_in_one_folder_the_second_is_told_so_and_the_first_goes_on(
    whole, tmp_path, capsys
):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    busy, told = tmp_path / "busy", []

    def commit(record, finished, undone=(), commit=Record.commit):
        commit(record, finished, undone)
        if len(told) < 4:
            print(file=sys.stderr)  # to end the line of the bar
            told.append(fails(capsys, *demo(busy)))
            told.append(fails(capsys, "evaluate", "--run", busy))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "commit", commit)
        assert main(demo(busy)) == 0
    assert len(told) == 4 and all("at work" in line and "wait" in line for line in told)
    assert files_of(busy) == files_of(whole)


@pytest.mark.parametrize("command", ["demo", "pretrain", "train", "evaluate"])
@pytest.mark.parametrize("error", ["ENOSPC", "EACCES", "EROFS"])
def test_a_full_or_read_only_disk_is_told_before_the_work(
    run, tmp_path, capsys, monkeypatch, command, error
):
    import errno

    number = getattr(errno, error)

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    before = files_of(run)
    monkeypatch.setattr("os.posix_fallocate", refuse)
    monkeypatch.setattr("minilpo.run.steps.pretrain", refuse)  # nobody comes that far
    monkeypatch.setattr("minilpo.rivals.by_config.train_lpo", refuse)
    monkeypatch.setattr("minilpo.run.steps.evaluate", refuse)
    fresh = tmp_path / "deep" / "run"
    arguments = (
        demo(fresh)
        if command == "demo"
        else ["pretrain", "--run", fresh]
        if command == "pretrain"
        else None
    )
    said = fails(capsys, *(arguments or [command, "--run", run]))
    assert os.strerror(number) in said and str(fresh if arguments else run) in said
    assert files_of(run) == before and not (tmp_path / "deep").exists()


# Ctrl-C and SIGTERM in another process

WORDS = {signal.SIGINT: "minilpo: interrupted; ", signal.SIGTERM: "minilpo: told to end; "}


def lines_of(stderr: bytes) -> list[str]:
    """What was said apart from progress bars."""
    lines = re.split(r"[\n\r]", stderr.decode())
    return [line for line in lines if line.strip() and not re.search(r"%\||/s\]|after \d+", line)]


@pytest.fixture
def told_to_end(tmp_path, monkeypatch):
    """Forks a command and sends it signals once it has begun to pretrain."""
    monkeypatch.setattr(sys, "argv", ["minilpo", *demo(tmp_path / "run", "--steps", "100000")])

    def told_to_end(*numbers):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", 1)
            __main__.main()
        os.close(writing)
        with os.fdopen(reading, "rb") as stderr:
            said = b""
            while b"pretraining" not in said:
                said += stderr.read1(64) or pytest.fail(said.decode())
            for number in numbers:
                os.kill(child, number)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return code, lines_of(said + stderr.read())

    return told_to_end


@needs_fork
@pytest.mark.parametrize("numbers", [[signal.SIGINT] * 2, [signal.SIGTERM], [*WORDS]])
def test_ctrl_c_and_sigterm_end_with_one_line_also_both_at_once(told_to_end, numbers):
    code, [line] = told_to_end(*numbers)
    number = code - 128
    assert number in numbers and line.startswith(WORDS[number]) and "finished is kept" in line


@pytest.mark.parametrize(("rank", "size"), [("0", "2"), ("1", "2"), ("1", "1")])
def test_of_several_processes_only_the_first_one_speaks(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank), monkeypatch.setenv("WORLD_SIZE", size)
    said, ends, handlers = [], [], {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(os, "write", lambda handle, data: said.append((handle, data)))
    monkeypatch.setattr(os, "_exit", ends.append)
    signals.leave_when_told()
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ends == [143] and len(said) == ((rank, size) != ("1", "2"))


@needs_fork
def test_a_library_that_swallows_exceptions_does_not_make_the_command_deaf(
    told_to_end, monkeypatch
):
    def swallow(*_, **__):
        while True:
            with contextlib.suppress(BaseException):
                print("pretraining", file=sys.stderr, flush=True)
                time.sleep(0.1)  # a signal just before the system call waits until it ends

    monkeypatch.setattr("minilpo.run.steps.pretrain", swallow)
    assert told_to_end(signal.SIGINT)[0] == 130


@needs_fork
def test_ctrl_c_while_everything_is_still_being_imported_is_one_line(tmp_path):
    """From the first line of our code on: Python itself needs some 20 milliseconds before."""
    for delay in (0.0, 0.1, 0.4):
        code = "import minilpo.__main__ as m, os\nm.leave_when_told()\nos.write(1, b'x')\nm.main()"
        words = [sys.executable, "-c", code, *demo(tmp_path / "run", "--steps", "100000")]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.read(1)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        [line] = lines_of(process.communicate(timeout=60)[1])
        assert process.returncode == 130 and line.startswith("minilpo: interrupted; ")
