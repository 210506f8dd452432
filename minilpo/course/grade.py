"""`minilpo grade`: the exercises of a class's notebooks, each notebook in a process of its own.

A process has limits of time and memory. That isn't a sandbox; where bubblewrap is installed, the
process runs inside one. The check runs beside the student's code, so a student who tampers with it
can forge a pass; the table names cells that look like it.
"""

import contextlib
import glob
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import minilpo
from minilpo.course.examinee import BY_NAME
from minilpo.course.gradebook import Row, texts_of, write
from minilpo.machine.files import work_in
from minilpo.machine.progress import bar
from minilpo.machine.signals import raised
from minilpo.machine.text import named, one_line
from minilpo.machine.threads import cores

TO_START = 120.0  # seconds: importing PyTorch takes 2, on a slow disk 60
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
PACKAGE = Path(minilpo.__file__).parent
SANDBOX = "in bubblewrap's sandbox: cells had no network, and none of your files to read or write"
NO_SANDBOX = (
    "without a sandbox: cells ran under your account with limits of time and memory; grade "
    "strangers' code in a container, or install bubblewrap (Linux)"
)


def grade(
    paths: Sequence[Path],
    out: Path = Path("grades.csv"),
    jobs: int | None = None,
    seed: int | None = None,
    seconds: float = 60.0,
) -> tuple[list[Row], str]:
    """Grades notebooks.

    Args:
        paths: the notebooks, or patterns such as `*.ipynb` that the shell hasn't expanded.
        out: the CSV file; the names of the other files begin like its own.
        jobs: number of notebooks at a time; without it, one per core.
        seed: of the random inputs, the same for all notebooks; without it, a new one.
        seconds: for each exercise.

    Returns:
        A row for every notebook and exercise, in the order of the paths, and a sentence that names
        the seed and the sandbox.

    Raises:
        ValueError: if an argument is wrong, or another process writes these files.
        OSError: if the grades can't be written.
    """
    notebooks = expanded(paths)
    texts, rows, stop = texts_of(out, notebooks), list[Row](), threading.Event()
    seed = secrets.randbelow(2**53) if seed is None else seed
    progress = bar("grading", "notebook", len(notebooks))
    pool = ThreadPoolExecutor(jobs or cores())
    # Ctrl-C raises an exception, so that the processes of cells are ended too.
    with raised(), work_in(next(iter(texts.values())).parent), progress, pool:
        write(out, texts, [])  # if it can't be written, this shows now and not after the work
        prefix, isolation = sandbox()
        start = partial(rows_of, prefix=prefix, seed=seed, seconds=seconds, stop=stop)
        try:
            for future in [pool.submit(start, path) for path in notebooks]:
                # In short turns: Ctrl-C that another thread was told of is heard on waking up.
                while not wait([future], timeout=1.0).done:
                    pass
                rows += future.result()
                write(out, texts, rows)
                progress.update()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return rows, f"with --seed {seed}, {isolation}"


def expanded(paths: Sequence[Path]) -> list[Path]:
    """Expands patterns, and keeps each notebook once; raises ValueError if one isn't there."""
    found: dict[str, Path] = {}
    for path in paths:
        matches = [] if path.exists() else sorted(map(Path, glob.glob(str(path))))
        for match in matches or [path]:
            if not match.is_file():
                raise ValueError(f"NOTEBOOK must be a file that is there, got {match}")
            found.setdefault(os.path.realpath(match), match)
    return list(found.values())


def sandbox() -> tuple[list[str], str]:
    """Tries bubblewrap.

    Returns:
        The beginning of a command, and a sentence. Whatever follows the beginning runs where Python
        and its packages can be read, and nothing else can be read, written or reached.
    """
    if shutil.which("bwrap") is None:
        return [], NO_SANDBOX
    places = ["/usr", "/bin", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(PACKAGE)]
    places += [path for path in sys.path if path.endswith("-packages")]
    prefix = "bwrap --unshare-all --die-with-parent --new-session --proc /proc --dev /dev".split()
    for place in places:
        prefix += ["--ro-bind-try", place, place]
    trial = [*prefix, sys.executable, "-c", "import minilpo.course.examinee"]
    tried = subprocess.run(trial, env=environment("/"), capture_output=True, text=True)
    if tried.returncode == 0:
        return prefix, SANDBOX
    return [], f"{NO_SANDBOX}, which is there but fails: {one_line(tried.stderr[-200:])}"


def environment(folder: str) -> dict[str, str]:
    """Returns the variables for a process: none that might be secret."""
    paths = dict.fromkeys([str(PACKAGE.parent), *filter(os.path.isabs, sys.path)])
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), folder),
        **{"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        **{"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},  # so that a seed repeats everything
    }


def rows_of(path: Path, **how: Any) -> list[Row]:
    """Grades one notebook. An exercise that ends its process costs its author this one alone."""

    def row(name: str, result: str, message: str, seconds: float = 0, touches: str = "") -> Row:
        lesson = BY_NAME[name].lesson if name else ""
        return Row(str(path), lesson, name, result, one_line(message), float(seconds), touches)

    rows: list[Row] = []
    try:
        while True:
            first, *said, end = attend(path, len(rows), **how)
            if "result" in first:  # about all of the notebook
                return [row("", **first)]
            names = first["exercises"][len(rows) :]
            # The process ended during the exercise after those that it reported.
            said = [*said, {"result": "not yet", "message": end}][: len(names)]
            rows += [row(name, **one) for name, one in zip(names, said, strict=False)]
            if len(said) == len(names):
                return sorted(rows, key=lambda row: list(BY_NAME).index(row.exercise))
    except Exception as error:  # one notebook must not take the others' grades along
        return [row("", "not graded", f"the notebook couldn't be graded: {named(error)}")]


def attend(
    path: Path, n_done: int, prefix: list[str], seed: int, seconds: float, stop: threading.Event
) -> list[Any]:
    """Starts a process for a notebook and waits for its end, or ends it when time is up.

    Returns:
        The objects that it wrote, and a sentence about its end.
    """
    words = [sys.executable, "-m", "minilpo.course.examinee", str(seed), str(n_done)]
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="minilpo-", ignore_cleanup_errors=True)
        folder = os.path.realpath(stack.enter_context(place))
        # Read through this handle: a cell may put anything else in the file's place.
        results = stack.enter_context(Path(folder, "results").open("w+b", buffering=0))
        stderr = stack.enter_context(tempfile.TemporaryFile())
        files = (stack.enter_context(path.open("rb")), subprocess.DEVNULL, stderr)
        if prefix:
            words = [*prefix, "--bind", folder, folder, "--chdir", folder, *words]
        process = subprocess.Popen(
            words, -1, None, *files, cwd=folder, env=environment(folder), start_new_session=True
        )  # in a session of its own, so that Ctrl-C reaches only us
        stack.callback(_kill, process)
        n_said, until = 0, monotonic() + TO_START
        while (code := process.poll()) is None and monotonic() < until and not stop.is_set():
            sleep(0.05)
            if (n := _content(results).count(b"\n")) > n_said:
                n_said, until = n, monotonic() + seconds
        _kill(process)
        said = [json.loads(line) for line in _content(results).splitlines()]
        end = f"it took longer than {seconds:g} seconds in all and was stopped"
        if code is not None:
            code = 128 - code if prefix and code > 128 else code  # as bubblewrap tells a signal
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
            end = f"its process ended {how} instead of answering"
        if not said:
            raise ValueError(f"{end} {_content(stderr)[-200:].decode(errors='replace')}")
        return [*said, end]


def _content(file: Any) -> bytes:
    file.seek(0)
    return file.read()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError, AttributeError):  # Windows has no groups
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
