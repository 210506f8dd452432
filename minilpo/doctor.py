"""`minilpo doctor`: looks at the installation, times this machine and says what to fix.

Packages are imported only while they are looked at: one that is missing or broken is a finding.
"""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from minilpo.config import ModelConfig, PretrainConfig, RunConfig
from minilpo.machine.text import named, one_line, printable

Finding = tuple[str, str, str]  # "ok", "look" (works) or "wrong"; what was found; what to do
PACKAGES = ["numpy", "torch", "tokenizers", "matplotlib", "tqdm"]  # if minilpo isn't installed
# The demo on two cores of a server, and a step of its pretraining there in the same hour. The times
# of the lessons are from such an hour too.
DEMO_SECONDS, STEP_SECONDS = 205.0, 0.041


def report() -> int:
    """Prints a line per finding; returns 1 if something is wrong, else 0."""
    status = 0
    for mark, what, remedy in findings():
        status = 1 if mark == "wrong" else status
        print(f"{mark:<6} {one_line(f'{what}; {remedy}' if remedy else what)}")
    return status


def findings() -> Iterator[Finding]:
    """Looks at one thing after the other; a look that fails is a finding too."""
    for look in (packages, torch, folders, reading, times):
        try:
            yield from look()
        except ImportError:
            continue  # of a package that `packages` has named
        except Exception as error:  # a broken installation raises anything
            remedy = "install minilpo again, in a new environment"
            yield "wrong", f"the look at {look.__name__} fails: {named(error)}", remedy


def packages() -> Iterator[Finding]:
    """Imports each package that minilpo needs, and compares its version with the range."""
    yield "ok", f"Python {'.'.join(map(str, sys.version_info[:3]))}", ""
    needed = PACKAGES
    with contextlib.suppress(metadata.PackageNotFoundError):
        needed = metadata.requires("minilpo") or PACKAGES
    for requirement in sorted(line for line in needed if "extra" not in line):
        name, install = re.split(r"[^\w-]", requirement)[0], f'pip install "{requirement}"'
        limits = dict(re.findall(r"(>=|<)([\d.]+)", requirement))
        try:
            version = metadata.version(name)
            importlib.import_module(name)
        except Exception as error:  # a broken package raises anything
            remedy = f"{install} --force-reinstall"
            yield "wrong", f"{name} can't be imported ({named(error)})", remedy
            continue
        low, has, high = (
            [int(number) for number in re.findall(r"\d+", one)[:3]]  # [2, 10, 1] of "2.10.1+cu124"
            for one in (limits.get(">=", ""), version, limits.get("<", "999"))
        )
        mark = "wrong" if has < low else "ok" if has < high else "look"
        yield mark, f"{name} {version}", "" if mark == "ok" else f"minilpo is tested with {install}"


def torch() -> Iterator[Finding]:
    """Tells if PyTorch takes room for GPUs that aren't there; measures the threads, uses them."""
    import torch

    from minilpo.machine.threads import cores, fastest

    if torch.version.cuda and not torch.cuda.is_available():
        what = "PyTorch was built for GPUs but finds none: gigabytes of it are never used"
        place = "https://pytorch.org/get-started/locally/"
        yield "look", what, f"pip uninstall torch, then install the CPU build as {place} shows"
    asked, (n, found) = os.environ.get("OMP_NUM_THREADS"), fastest()
    yield "ok", f"{cores()} usable cores; fastest: {found}", ""
    if not asked:
        torch.set_num_threads(n)
    elif not (asked.strip().isdecimal() and 1 <= int(asked) <= cores()):
        what = f"OMP_NUM_THREADS must be a number of threads from 1 to {cores()}, got {asked!r}"
        yield "look", what, "set it so, or remove it from the environment"


def folders() -> Iterator[Finding]:
    """Writes to this folder and to the lessons' one; reads the lessons' language model there."""
    yield writable("this folder", Path.cwd, "go to another folder, or name one with --out")
    from minilpo.course.home import home, run_folder
    from minilpo.run.folder import Run

    remedy = "set MINILPO_HOME to a folder that you may write; lessons keep their model there"
    yield (found := writable("the folder of the lessons", home, remedy))
    if found[0] == "wrong":
        return
    path = run_folder()
    try:
        is_done = (path / "model.pt").is_file() and Run.open(path).is_done("pretrain")
        state = "is there" if is_done else "isn't there yet: the first lesson trains it"
        yield "ok", f"the lessons' language model {state}", ""
    except (ValueError, OSError) as error:
        yield "wrong", f"the lessons' language model can't be read ({error})", f"rename {path}"


def writable(what: str, find: Callable[[], Path], remedy: str) -> Finding:
    """Writes to a folder; if it isn't there yet, to the nearest one above it."""
    try:
        path = find().absolute()
        place = next(p for p in (path, *path.parents) if os.path.lexists(p))
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"minilpo")
    except (OSError, RuntimeError) as error:  # forbidden, full, gone; no home is a RuntimeError
        return "wrong", f"{what} can't be written ({named(error)})", remedy
    return "ok", f"{what} ({printable(str(path))}) can be written", ""


def reading() -> Iterator[Finding]:
    """Looks for Jupyter, and for the characters of the terminal."""
    if missing := [name for name in ("jupyterlab", "ipykernel") if find_spec(name) is None]:
        what = f"to read the lessons, {' and '.join(missing)} must be installed"
        yield "look", what, 'pip install "minilpo[tutorials]"'
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        "τ₊".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        what = f"the terminal's encoding is {encoding}, which lacks some characters"
        yield "look", what, "set PYTHONUTF8=1 in the environment"


def times() -> Iterator[Finding]:
    """Times a training step, and estimates from it how long the demo and the lessons take."""
    from minilpo.course.lessons import LESSONS, TRAINING

    step = step_seconds()
    yield "ok", f"a training step takes {1000 * step:.0f} ms; estimates from this:", ""
    expected = {"minilpo demo": DEMO_SECONDS, "the lessons' language model, once": TRAINING}
    expected |= {f"lesson {one.number}, {one.title}": one.seconds for one in LESSONS}
    for name, there in expected.items():
        time = there * step / STEP_SECONDS
        words = f"{time:.0f} seconds" if time < 90 else f"{time / 60:.0f} minutes"
        yield "ok", f"{name}: about {words}", ""


def step_seconds() -> float:
    """Measures the mean seconds of a training step of the demo, with the threads in use."""
    from minilpo.lm.model import GPT
    from minilpo.lm.pretraining import Corpus, encode_examples, pretrain
    from minilpo.lm.tokenizer import Tokenizer
    from minilpo.seeds import python_rng, torch_generator
    from minilpo.tasks import load_tasks, mixed_demonstrations

    tasks = load_tasks(RunConfig().tasks)
    pairs = mixed_demonstrations(tasks, 2000, "train", python_rng(0, "doctor"))  # a few batches
    tokenizer = Tokenizer.train(text for pair in pairs for text in pair)
    examples = encode_examples(tokenizer, pairs)
    model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size), torch_generator(0, "doctor"))
    corpus = Corpus(examples, examples[:1], tokenizer.pad_id)
    for steps in (8, 32):  # the first ones start threads and fill caches
        begun = perf_counter()
        pretrain(model, corpus, PretrainConfig(steps=steps), 0)
    return (perf_counter() - begun) / steps
