"""`minilpo doctor`: looks at the installation and times this machine.

Every look is a function of what it looks at, so nothing here needs a broken machine to be tested.
Packages are imported only while they are looked at: one that is missing or broken is a finding.
"""

import contextlib
import importlib
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from minilpo.config import ModelConfig, PretrainConfig, RunConfig
from minilpo.machine.text import named, one_line, printable

Clock = Callable[[], float]
OLDEST_PYTHON = (3, 10)
PACKAGES = ("numpy", "torch", "tokenizers", "matplotlib", "tqdm")  # if nobody says with versions
TUTORIALS = ("jupyterlab", "ipykernel")
CPU_BUILD = "install the CPU build as https://pytorch.org/get-started/locally/ shows"
REINSTALL = "install minilpo and PyTorch again, in a new environment"
GB = 10**9
LEAST_ROOM, LITTLE_ROOM = 0.1 * GB, 1 * GB  # on a disk: a run, and a reproduction with its seeds
LITTLE_MEMORY = 1 * GB  # the demo takes half of it

# The demo on two cores of a server, and a step of its pretraining there in the same hour, as timed
# below. The times of the lessons are from such an hour too.
DEMO_SECONDS, STEP_SECONDS = 205.0, 0.041
DEMONSTRATIONS = 2000  # a few batches of them, of the demo's own tasks
WARM_UP = 16  # steps, a pool of batches, that don't count
MOST_STEPS = 48
TIMING = 4.0  # seconds for the training steps, if they are slow


class Finding(NamedTuple):
    """What was found by one look.

    >>> print(line(Finding("look", "little memory is free", "close other programs")))
    look   little memory is free; close other programs
    """

    mark: str  # "ok", "look" (it works, but could be better), "wrong" (minilpo can't work)
    what: str
    remedy: str = ""  # wherever the mark isn't "ok"


class Lesson(Protocol):
    """As much of a lesson as is looked at."""

    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102


def line(finding: Finding) -> str:
    """A finding as it is printed."""
    parts = [finding.what, finding.remedy] if finding.remedy else [finding.what]
    return f"{finding.mark:<6} {one_line('; '.join(parts))}"


def of_the_course() -> tuple[Sequence[Lesson], Path | None]:
    """The lessons, and the folder of their language model, as far as a broken installation says."""
    lessons: Sequence[Lesson] = ()
    with contextlib.suppress(Exception):
        from minilpo.course.lessons import LESSONS

        lessons = LESSONS
        from minilpo.course.home import home  # needs PyTorch

        return lessons, home()
    return lessons, None


def report(
    lessons: Sequence[Lesson], cache: Path | None, write: Callable[[str], Any] = print
) -> int:
    """Looks at everything, and writes a line for each finding, then the expected times.

    Args:
        lessons: those of the course.
        cache: the folder where the course keeps its language model, if it is known.
        write: takes a line.

    Returns:
        1 if something is wrong, so that minilpo can't work; else 0.
    """
    marks = []
    for finding in findings(cache):
        marks.append(finding.mark)
        write(line(finding))
    if "wrong" in marks:
        write("\nminilpo can't work before what is wrong is put right.")
        return 1
    try:
        step = step_seconds()
    except Exception as error:  # whatever a broken installation stumbles on
        write(line(Finding("wrong", f"training steps fail: {named(error)}", REINSTALL)))
        return 1
    write(line(Finding("ok", f"a training step of the demo takes {1000 * step:.0f} ms")))
    write("\nEstimates for this machine, by comparison with another on which all was timed:")
    for text in expected_times(step, lessons):
        write(f"  {text}")
    return 0


def findings(cache: Path | None = None) -> Iterator[Finding]:
    """Looks at this machine, one thing after the other."""
    yield python_finding(sys.version_info[:3])
    yield from package_findings(requirements(), metadata.version, importlib.import_module)
    yield from guarded(build_of_torch)
    yield from guarded(threads_of_machine)
    yield from guarded(matrix_product)
    yield folder_finding("this folder", Path.cwd, "go to another folder, or name one with --out")
    if cache is not None:
        remedy = "set MINILPO_HOME to a folder that you may write"
        found = folder_finding("the folder of the lessons", lambda: cache, remedy)
        # All but the lessons works without it.
        yield found._replace(mark="look") if found.mark == "wrong" else found
    yield memory_finding(free_memory())
    yield tutorials_finding(is_there)
    yield output_finding(getattr(sys.stdout, "encoding", None))


def guarded(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a look that needs PyTorch; none where that is missing, which is a finding."""
    try:
        yield from look()
    except ImportError:
        return
    except Exception as error:  # whatever a broken installation stumbles on
        yield Finding("wrong", f"PyTorch doesn't work: {named(error)}", REINSTALL)


# Python and packages


def python_finding(version: Sequence[int]) -> Finding:
    """Whether Python is new enough."""
    name = ".".join(map(str, version))
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return Finding("ok", f"Python {name}")
    oldest = ".".join(map(str, OLDEST_PYTHON))
    what = f"Python must be {oldest} or later, got {name}"
    return Finding("wrong", what, "install a newer one and make a new environment with it")


def requirements() -> list[str]:
    """What the installed minilpo says it needs, or the bare names if nothing is installed."""
    try:
        needed = metadata.requires("minilpo") or []
    except metadata.PackageNotFoundError:
        needed = list(PACKAGES)
    return [requirement for requirement in needed if "extra" not in requirement]


def package_findings(
    requirements: Sequence[str], version_of: Callable[[str], str], load: Callable[[str], object]
) -> Iterator[Finding]:
    """Whether each package is there, of a version in its range, and can be imported.

    Args:
        requirements: as packages write them: "torch<2.14,>=2.4".
        version_of: the version of an installed package; raises PackageNotFoundError.
        load: imports a package.
    """
    for requirement in requirements:
        found = re.match(r"([\w.-]+)([^;]*)", requirement)
        name, limits = (found[1], found[2].strip(" ()")) if found else (requirement, "")
        install = f'pip install "{name}{limits.replace(" ", "")}"'
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:
            yield Finding("wrong", f"{name} isn't installed", install)
            continue
        try:
            load(name)
        except Exception as error:  # a broken package raises whatever it stumbles on
            what = f"{name} {version} can't be imported ({named(error)})"
            yield Finding("wrong", what, f"{install} --force-reinstall")
            continue
        broken = [limit for limit in limits.split(",") if limit and not fits(version, limit)]
        if not broken:
            yield Finding("ok", f"{name} {version}")
        elif broken[0].strip().startswith("<"):
            what = f"{name} {version} is newer than what minilpo was tested with ({broken[0]})"
            yield Finding("look", what, f"if anything fails: {install}")
        else:
            yield Finding("wrong", f"{name} must be {broken[0].strip()}, got {version}", install)


def fits(version: str, limit: str) -> bool:
    """Whether a version keeps to one limit; only its numbers count.

    >>> fits("2.4.0+cpu", ">=2.4"), fits("2.14.1", "<2.14"), fits("1.26", "!=1.26.0")
    (True, False, False)
    """
    found = re.match(r"\s*(>=|<=|==|!=|~=|>|<)", limit)
    operator = found[1] if found else ">="
    ours, theirs = numbers_of(version), numbers_of(limit)
    return {
        ">=": ours >= theirs,
        "~=": ours >= theirs,
        "<=": ours <= theirs,
        "==": ours == theirs,
        "!=": ours != theirs,
        ">": ours > theirs,
        "<": ours < theirs,
    }[operator]


def numbers_of(version: str) -> tuple[int, ...]:
    """The first four numbers of a version or a limit, missing ones as 0."""
    found = re.search(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    return tuple([*numbers, 0, 0, 0, 0][:4])


def build_of_torch() -> Iterator[Finding]:
    """Which build of PyTorch this is."""
    import torch

    for_gpu = torch.version.cuda or getattr(torch.version, "hip", None)
    has_gpu = bool(for_gpu) and torch.cuda.is_available()
    yield build_finding(for_gpu, has_gpu, gpu_bytes() if for_gpu and not has_gpu else 0)


def build_finding(for_gpu: str | None, has_gpu: bool, n_bytes: int) -> Finding:
    """Whether PyTorch takes room for GPUs that aren't there.

    Args:
        for_gpu: the version of the GPU code that PyTorch was built with, if any.
        has_gpu: whether this machine has a GPU that it can use.
        n_bytes: the size of that code.
    """
    if not for_gpu:
        return Finding("ok", "PyTorch's CPU build, which is all that minilpo needs")
    if has_gpu:
        return Finding("ok", "PyTorch can use this machine's GPU, but minilpo doesn't need it")
    what = (
        f"PyTorch was built for GPUs ({for_gpu}) but finds none here: "
        f"{n_bytes / GB:.1f} GB of it are never used"
    )
    return Finding("look", what, f"to get that room back: pip uninstall torch, then {CPU_BUILD}")


def gpu_bytes() -> int:
    """The size of the installed code for GPUs, by what the packages' own lists say."""
    total = 0
    for package in metadata.distributions():
        name = (package.metadata["Name"] or "").lower()
        is_gpu = name.startswith(("nvidia", "triton", "pytorch-triton"))
        if not is_gpu and name != "torch":
            continue
        for file in package.files or []:
            if is_gpu or "cuda" in file.name.lower():
                total += file.size or 0
    return total


def is_there(name: str) -> bool:
    """Whether a package is installed; it isn't imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def tutorials_finding(is_there: Callable[[str], bool]) -> Finding:
    """Whether there is what the lessons are read with."""
    missing = [name for name in TUTORIALS if not is_there(name)]
    if not missing:
        return Finding("ok", f"for the lessons: {' and '.join(TUTORIALS)}")
    what = f"for the lessons {' and '.join(missing)} must be installed"
    return Finding("look", what, 'to read them: pip install "minilpo[tutorials]"')


# The machine


def threads_of_machine() -> Iterator[Finding]:
    """How many threads this machine offers, and which number is fastest: then that is used."""
    import torch

    from minilpo.machine.threads import candidates, choose, cores, measure

    asked, seconds = os.environ.get("OMP_NUM_THREADS"), measure(candidates())
    yield from threads_findings(asked, cores(), seconds)
    if not asked:  # if it is, PyTorch does so already
        torch.set_num_threads(choose(seconds))


def threads_findings(asked: str | None, cores: int, seconds: dict[int, float]) -> Iterator[Finding]:
    """Whether OMP_NUM_THREADS makes sense, and what a measurement found.

    Args:
        asked: the value of OMP_NUM_THREADS.
        cores: how many this process may use.
        seconds: of a piece of work, by number of threads.
    """
    from minilpo.machine.threads import choose, explain

    usable = "1 core" if cores == 1 else f"{cores} cores"
    if asked and not re.fullmatch(r"[1-9]\d*", asked.strip()):
        what = f"OMP_NUM_THREADS must be a number of threads, got {asked!r}"
        yield Finding("look", what, "remove it from the environment")
    elif asked and int(asked) > cores:
        what = f"OMP_NUM_THREADS asks for {int(asked)} threads, but there is room for {usable}"
        yield Finding("look", what, f"set it to {cores} or less, or remove it")
    elif asked:
        yield Finding("ok", f"{usable} usable; OMP_NUM_THREADS asks for {int(asked)}")
    else:
        yield Finding("ok", f"{usable} usable; OMP_NUM_THREADS isn't set")
    yield Finding("ok", f"fastest: {explain(choose(seconds), seconds)}")


def matrix_product(clock: Clock = perf_counter, size: int = 512) -> Iterator[Finding]:
    """How long a product of two matrices takes."""
    import torch

    numbers = torch.arange(size * size, dtype=torch.float32).sin_().view(size, size)
    turns = []
    for _ in range(7):
        begun = clock()
        numbers @ numbers
        turns.append(clock() - begun)
    seconds = max(statistics.median(turns), 1e-9)
    speed = 2 * size**3 / seconds / 1e9
    what = f"a product of two {size} x {size} matrices takes {1000 * seconds:.1f} ms"
    yield Finding("ok", f"{what}: {speed:.0f} billion operations a second")


def folder_finding(what: str, find: Callable[[], Path], remedy: str) -> Finding:
    """Whether there is room in a folder, and whether it can be written.

    Args:
        what: how to speak of it.
        find: says which it is. It need not exist yet: then the nearest one above it counts.
        remedy: what to do where it can't be written.
    """
    try:
        folder = find()
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"minilpo")
    except OSError as error:  # gone, forbidden, full
        return Finding("wrong", f"{what} can't be written ({named(error)})", remedy)
    return room_finding(f"{what} ({printable(str(folder))})", free)


def room_finding(what: str, free: int) -> Finding:
    """Whether there is room on the disk of a folder."""
    room = f"{what} can be written, {free / GB:.1f} GB are free"
    if free < LEAST_ROOM:
        return Finding("wrong", f"{room}, a run needs {LEAST_ROOM / GB:g}", "free some space")
    if free < LITTLE_ROOM:
        what = f"{room}, little for many runs"
        return Finding("look", what, "free some space before `minilpo reproduce`")
    return Finding("ok", room)


def memory_finding(free: int | None) -> Finding:
    """Whether enough memory is free."""
    if free is None:
        return Finding(
            "ok", "this system doesn't say how much memory is free; the demo needs 0.5 GB"
        )
    if free < LITTLE_MEMORY:
        what = f"{free / GB:.1f} GB of memory are free, the demo needs 0.5"
        return Finding("look", what, "close other programs")
    return Finding("ok", f"{free / GB:.1f} GB of memory are free")


def free_memory(told: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that programs can still get, or None where the system doesn't say (only Linux does)."""
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", told.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def output_finding(encoding: str | None) -> Finding:
    """Whether what is printed may hold any character."""
    if encoding is None:
        return Finding("ok", "standard output is closed")
    try:
        "τ₊".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        what = f"the terminal's encoding is {encoding}, which lacks some characters"
        return Finding("look", what, "set PYTHONUTF8=1 in the environment")
    return Finding("ok", f"the terminal's encoding is {encoding}")


# Times


def step_seconds(clock: Clock = perf_counter) -> float:
    """Mean seconds of a training step of the demo: its model, its tasks, its batches.

    It takes some seconds, with the threads that are in use.
    """
    from minilpo.lm.model import GPT
    from minilpo.lm.pretraining import Corpus, encode_examples, pretrain
    from minilpo.lm.tokenizer import Tokenizer
    from minilpo.seeds import python_rng, torch_generator
    from minilpo.tasks import load_tasks, mixed_demonstrations

    times: list[float] = []

    def note_time(n: int) -> None:
        times.append(clock())
        too_long = times[-1] - times[0] > TIMING
        if len(times) > WARM_UP + MOST_STEPS or (too_long and len(times) > 2):
            raise _EnoughError

    tasks = load_tasks(RunConfig().tasks)
    rng = python_rng(0, "doctor")
    pairs = mixed_demonstrations(tasks, DEMONSTRATIONS, "train", rng)
    tokenizer = Tokenizer.train(text for pair in pairs for text in pair)
    examples = encode_examples(tokenizer, pairs)
    model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size), torch_generator(0, "doctor"))
    config = PretrainConfig(steps=WARM_UP + MOST_STEPS + 2)
    corpus = Corpus(examples, examples[:1], tokenizer.pad_id)
    with contextlib.suppress(_EnoughError):
        pretrain(model, corpus, config, 0, progress=note_time)
    return mean_step(times)


class _EnoughError(Exception):
    """Ends a training that was only to be timed."""


def mean_step(times: Sequence[float]) -> float:
    """Mean seconds between steps, without the first ones if there are others.

    >>> mean_step([0.0, 9.0, 10.0])
    5.0
    """
    counted = times[WARM_UP:] if len(times) > WARM_UP + 4 else times
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def expected_times(step: float, lessons: Sequence[Lesson]) -> list[str]:
    """How long the demo and the lessons will take, where a training step takes `step` seconds."""
    ratio = step / STEP_SECONDS
    lines = [f"minilpo demo: {in_words(ratio * DEMO_SECONDS)}"]
    if lessons:
        from minilpo.course.lessons import TRAINING

        once = in_words(ratio * TRAINING)
        lines.append(f"the language model of the lessons, trained once: {once}")
    for lesson in lessons:
        lines.append(f"lesson {lesson.number}, {lesson.title}: {in_words(ratio * lesson.seconds)}")
    return lines


def in_words(seconds: float) -> str:
    """A time as roughly as it is known.

    >>> in_words(4), in_words(42), in_words(250), in_words(9000)
    ('some seconds', 'about 40 seconds', 'about 4 minutes', 'about 2.5 hours')
    """
    if seconds < 15:
        return "some seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"
