"""The command line: one function per command, then a table of the commands with their flags.

Heavy imports wait until a command runs. So --help is quick, and Ctrl-C is answered even while
PyTorch loads.
"""

import argparse
import contextlib
import dataclasses
import errno
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from minilpo import __version__
from minilpo.config import LARGEST_SEED, MAX_THREADS, SECTIONS, PretrainConfig, RunConfig
from minilpo.experiments import EXPERIMENTS
from minilpo.flags import Parser, add_flags, given, number, path_of, whole_config
from minilpo.machine.signals import LostError, Terminated, answering_signals
from minilpo.machine.text import one_line, printable
from minilpo.setting import HOTTEST_TEMPERATURE

REPRODUCE: dict[str, dict[str, Any]] = {
    # Twice as many tasks need a longer training; each experiment has its own losses.
    "pretrain": {"steps": 4250, "demonstrations": 68_000},
    "lpo": {"loss": None, "train_lm": None, "lm_learning_rate": None},
}
PROMPTS_SHOWN = 3  # per task by `sample` without a prompt, in all after an unknown word
NO_SPACE = "free some space or choose a folder on another disk"
NOT_YOURS = "choose a folder that you may write"
GONE = "the folder isn't there, or was removed or renamed meanwhile; make it or begin anew"
REMEDIES = {  # by the error of the operating system
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NOT_YOURS),
    errno.ENOENT: GONE,
}
ENOUGH_TO_SPEAK = 3.0  # seconds after which torchrun has ended the other processes, if one has


def demo(args: argparse.Namespace) -> None:
    """Makes a run from nothing: pretrains, trains the head, evaluates."""
    config = whole_config(args)
    from minilpo.run.begin import create_run
    from minilpo.run.steps import evaluate_step, pretrain_step, train_step, use_machine, work_in_run

    with work_in_run(args.out, config):
        run = create_run(args.out, config)
        use_machine(run, args.threads, args.device)
        pretrain_step(run)
        train_step(run)
        print_results(run.path, evaluate_step(run))


def pretrain(args: argparse.Namespace) -> None:
    """Makes a run folder and trains its language model, or goes on with it."""
    from minilpo.run.begin import create_run
    from minilpo.run.folder import Run
    from minilpo.run.steps import pretrain_step, use_machine, work_in_run

    old = None
    if (args.run / "config.json").exists():
        old = Run.open(args.run, getattr(args, "tasks", ())).config
    config = whole_config(args, old)
    with work_in_run(args.run, config):
        run = create_run(args.run, config, compare=("model", "pretrain"))
        use_machine(run, args.threads, args.device)
        pretrain_step(run)
    print(f"wrote {shown(run.path / 'model.pt')}")


def train(args: argparse.Namespace) -> None:
    """Trains the head of a run. Without a flag a setting is as before, or as in half-done work."""
    from minilpo.run.folder import Run
    from minilpo.run.steps import half_done_lpo, train_step, use_machine, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        config, asked = half_done_lpo(run) or run.config.lpo, given(args, "lpo")
        if asked.get("rule", config.rule) != config.rule:
            asked = {"loss": "default", **asked}  # each rule has a default of its own
        lpo = dataclasses.replace(config, **asked).resolved(run.config.level)
        use_machine(run, args.threads, args.device)
        train_step(run, lpo)
    print(f"wrote {shown(run.path / 'head.pt')}")


def evaluate(args: argparse.Namespace) -> None:
    """Measures the head of a run."""
    from minilpo.run.folder import Run
    from minilpo.run.steps import evaluate_step, use_machine, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        use_machine(run, args.threads, args.device)
        asked = dataclasses.replace(run.config.evaluation, **given(args, "evaluation"))
        print_results(run.path, evaluate_step(run, asked))


def print_results(path: Path, metrics: dict[str, Any]) -> None:
    """Prints the table of results and the files of the run."""
    from minilpo.show.report import result_table

    print(result_table(metrics))
    if parts := metrics.get("joint"):
        print(
            "\nEq. 9 trained the words too. Mean reward: head alone, on the model as it was, as "
            f"under Eq. 10, {parts['head_alone']:.3f}; words alone, at their best constant, "
            f"{parts['words_alone']:.3f}; both {parts['both']:.3f}"
        )
    print(f"\nin {metrics['seconds']['total']:.0f} seconds; written to {shown(path)}:")
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        print(f"  {shown(file)}")


def shown(path: Path) -> str:
    """Writes a path as it is typed from the current folder."""
    with contextlib.suppress(OSError, ValueError):  # that folder is gone; the path isn't below it
        path = path.relative_to(Path.cwd())
    return printable(str(path))


def sample(args: argparse.Namespace) -> None:
    """Writes one response and shows its temperatures; without a prompt, shows prompts to copy."""
    from minilpo.machine.files import write_bytes
    from minilpo.machine.threads import pick
    from minilpo.run.folder import Run
    from minilpo.show import strip
    from minilpo.show.samples import Sampler, prompts_to_copy

    prompt = None if args.prompt is None else " ".join(args.prompt.split())
    if prompt == "":
        raise ValueError("the prompt must have at least one word, got none")
    if prompt is None and (args.html or args.temperature is not None):
        raise ValueError("--html and --temperature must come with a prompt to respond to, got none")
    run = Run.open(args.run, args.tasks)
    page = page_to_write(args.html, run.path) if args.html else None
    if prompt is None:
        print(prompts_to_copy(run.tasks, PROMPTS_SHOWN, args.seed))
        return
    run.log("pretrain"), run.log("train")  # say if a file isn't there, or isn't what it was
    pick(args.threads, run.config.threads or None)
    lm = run.language_model(trained=True)
    try:
        lm.tokenizer.encode(prompt)
    except ValueError as error:  # an unknown word
        per_task = -(-PROMPTS_SHOWN // len(run.tasks))
        lines = prompts_to_copy(run.tasks, per_task, args.seed).splitlines()
        prompts = [line.strip() for line in lines if line.startswith("  ")][:PROMPTS_SHOWN]
        raise ValueError(f"{error}; or copy one of {', '.join(prompts)}") from None
    sampler = Sampler(lm, run.tasks, run.head(), run.choices, args.seed)
    words, lines = sampler.with_head(prompt)
    compared = None if args.temperature is None else sampler.at(args.temperature, prompt)
    if page:
        write_bytes(page, strip.html_page([words], "Which temperature wrote which word").encode())
    print(strip.terminal(words) if strip.has_colours(sys.stdout) else strip.plain(words))
    for paragraph in filter(None, ["\n".join(lines), compared]):
        print(f"\n{paragraph}")


def page_to_write(page: Path, path: Path) -> Path:
    """Checks where a page goes, links followed: never over a file of the run in `path`."""
    from minilpo.show.page import NAME as PAGE

    target = Path(os.path.realpath(page))
    is_own = path.resolve() in target.parents and (target.suffix != ".html" or target.name == PAGE)
    if is_own or (target.exists() and not target.is_file()):
        wrong = "one of the run's own files" if is_own else "something else than a file"
        raise ValueError(f"--html must name a page, got {str(page)!r}, {wrong}; try page.html")
    return target


def reproduce(args: argparse.Namespace) -> None:
    """Makes the paper's tables and figures in miniature."""
    from minilpo.experiments.reproduce import reproduce
    from minilpo.rivals.controls import CORPUS

    pretraining = PretrainConfig(**REPRODUCE["pretrain"])
    base = RunConfig(tasks=tuple(task.name for task in CORPUS), pretrain=pretraining)
    config = whole_config(args, base)
    names = EXPERIMENTS if args.name == "all" else [args.name]
    findings = reproduce(names, args.seeds, args.out, config, args.threads, args.device)
    for finding in findings.values():
        print(finding.files["table.txt"].decode())
    print(f"tables, figures and numbers are in {shown(args.out)}")


def play(args: argparse.Namespace) -> None:
    """Serves the page to play with a trained run."""
    from minilpo.machine.threads import pick
    from minilpo.play.server import serve
    from minilpo.run.folder import Run

    run = Run.open(args.run, args.tasks)
    pick(args.threads, run.config.threads or None)
    serve(run, args.port, open_browser=not args.no_browser)


def tutorials(args: argparse.Namespace) -> None:
    """Copies the lessons, never over the learner's own work."""
    from minilpo.course.lessons import copy_lessons

    copied, place = copy_lessons(args.folder, args.teacher), shown(args.folder)
    print(f"{len(copied.new)} files copied to {place}, {len(copied.same)} were there already")
    for name in copied.kept:
        print(
            f"kept yours: {printable(name)} (to get a new one, rename yours and repeat the command)"
        )
    print(f'begin with: jupyter lab {shlex.quote(place)} (it comes with "minilpo[tutorials]")')


def grade(args: argparse.Namespace) -> None:
    """Grades the notebooks of a class."""
    from minilpo.course.grade import grade
    from minilpo.course.gradebook import table

    rows, how = grade(args.notebooks, args.out, args.jobs, args.seed, args.seconds)
    print(table(rows))
    print(f"\nmessages are in {shown(args.out)}; graded {how}")


def doctor(args: argparse.Namespace) -> int:
    """Checks the installation; returns the exit status."""
    from minilpo.doctor import report

    return report()


FOLDER = "the folder keeps what was finished, the same command goes on from there"
UNCHANGED, GRADED = "nothing was changed", "the table has what was graded so far"


class Command(NamedTuple):
    """A command. Its text stands here: `python -OO` takes all docstrings away."""

    run: Callable[[argparse.Namespace], int | None]  # returns the exit status, if it isn't 0
    summary: str
    sections: tuple[str, ...] = ()  # of the settings: each field has a flag
    out: str | None = None  # the folder that it makes by default
    takes_run: bool = False  # works on a run folder
    kept: str = FOLDER  # said when it is interrupted


FROM_NOTHING = "everything from nothing: pretrain, train, evaluate"
PRETRAIN = "make a run folder and train its language model"
TRAIN = "train the temperature head by LPO"
EVALUATE = "measure the head against every fixed temperature"
SAMPLE = "write one response and show the temperature of each word"
PAPER = "the paper's tables and figures in miniature"
PLAY = "a page on this machine to play with a trained run"
TUTORIALS = "copy the lessons next to you, never over your own work"
GRADE = "which exercises the notebooks of a class pass"
DOCTOR = "check the installation, time this machine, say what to fix"
COMMANDS = {
    "demo": Command(demo, FROM_NOTHING, ("run", *SECTIONS), out="runs/demo"),
    "pretrain": Command(pretrain, PRETRAIN, ("run", "model", "pretrain"), takes_run=True),
    "train": Command(train, TRAIN, ("lpo",), takes_run=True),
    "evaluate": Command(evaluate, EVALUATE, ("evaluation",), takes_run=True),
    "sample": Command(sample, SAMPLE, takes_run=True, kept=UNCHANGED),
    "reproduce": Command(reproduce, PAPER, tuple(SECTIONS), out="runs/reproduce"),
    "play": Command(play, PLAY, takes_run=True, kept=UNCHANGED),
    "tutorials": Command(tutorials, TUTORIALS, kept=UNCHANGED),
    "grade": Command(grade, GRADE, kept=GRADED),
    "doctor": Command(doctor, DOCTOR, kept=UNCHANGED),
}


def add_own_flags(name: str, add: Callable[..., object]) -> None:
    """Adds the flags that only the command of this name has."""
    seed = {"type": number(int, 0, LARGEST_SEED), "metavar": "INT"}
    if name == "sample":
        add("prompt", nargs="?", help="the text to respond to; without it, prompts are shown")
        add("--seed", default=0, help="seed of the sampling (default: %(default)s)", **seed)
        temperature = number(float, 0, int(HOTTEST_TEMPERATURE))
        add("--temperature", type=temperature, metavar="T", help="also write one at this constant")
        add("--html", type=path_of, metavar="FILE", help="also write a page with the temperatures")
    elif name == "reproduce":
        names = ["all", *EXPERIMENTS]
        add("name", metavar="NAME", choices=names, help=", ".join(names))
        meaning = "seeds 0, 1, ... (default: %(default)s)"
        add("--seeds", type=number(int, 1, 1000), metavar="INT", default=5, help=meaning)
    elif name == "play":
        add("--port", type=int, default=0, help="the port of the page (default: any that is free)")
        add("--no-browser", action="store_true", help="only print the address, open no browser")
    elif name == "tutorials":
        meaning = "the folder to copy them to (default: %(default)s)"
        options = {"nargs": "?", "type": path_of, "metavar": "DEST", "help": meaning}
        add("folder", default="minilpo-lessons", **options)
        add("--teacher", action="store_true", help="also the pages and figures for teachers")
    elif name == "grade":
        add("notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="notebooks of students")
        table = {"type": Path, "default": Path("grades.csv"), "metavar": "FILE"}
        add("--out", help="the table (default: %(default)s)", **table)
        meaning = "how many at the same time (default: one per core)"
        add("--jobs", type=number(int, 1, 64), metavar="INT", help=meaning)
        meaning = "limit per exercise (default: %(default)s)"
        add("--seconds", type=number(float, 1, 3600), default=60.0, help=meaning)
        add("--seed", help="of the random inputs (default: another one every time)", **seed)


def make_parser() -> Parser:
    """Makes the parser of all commands, with one flag for each field of their settings."""
    purpose = "A tiny language model learns which temperature to use, and when."
    parser = Parser(prog="minilpo", description=purpose, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"minilpo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        purpose = command.summary[0].upper() + command.summary[1:] + "."
        texts: dict[str, Any] = {"help": command.summary, "description": purpose}
        flags = commands.add_parser(name, allow_abbrev=False, **texts)
        add = flags.add_argument
        folder: dict[str, Any] = {"type": path_of, "metavar": "DIR"}
        if command.out:
            add("--out", default=command.out, help="the folder (default: %(default)s)", **folder)
        if command.takes_run:
            add("--run", required=True, help="the run folder", **folder)
        add_own_flags(name, add)
        if command.out or command.takes_run:
            meaning = (
                "how many threads compute (default: the run's own number; "
                "for a new run, the fastest in a measurement)"
            )
            add("--threads", type=number(int, 1, MAX_THREADS), metavar="INT", help=meaning)
        if command.sections:
            meaning = "what computes: cpu, or an accelerator that PyTorch finds (default: cpu)"
            add("--device", default="cpu", metavar="NAME", help=meaning)
        for section in command.sections:
            add_flags(flags, section, REPRODUCE.get(section, {}) if name == "reproduce" else {})
        if "run" not in command.sections and command.takes_run:
            meaning = "the .py files of the run's own tasks, to allow running them"
            add("--tasks", nargs="+", default=[], metavar="FILE", help=meaning)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 on success, 2 on bad input (one line on stderr), 130 after Ctrl-C, 143 if it was told to
        end (SIGTERM); 1 if `doctor` found something that must be mended.
    """
    # Threads that wait may not spin for long: on a machine that is also doing other things they'd
    # hold everything up.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # No window is ever opened, and a name that matplotlib doesn't know does no harm.
    os.environ["MPLBACKEND"] = "agg"
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115

    def leave(stop: KeyboardInterrupt) -> NoReturn:
        os._exit(_say_goodbye(stop, argv))

    with answering_signals(leave):
        try:
            status = run_command(make_parser().parse_args(argv))
            sys.stdout.flush()
            return status
        except (ValueError, OSError) as error:
            if _is_first() or not isinstance(error, LostError):
                _complain(f"error: {_in_words(error)}")
        except (MemoryError, RuntimeError) as error:
            # PyTorch has a RuntimeError for too little memory, which says "allocate".
            if isinstance(error, RuntimeError) and "alloc" not in str(error):
                raise
            remedy = "lower the largest of them"
            _complain(f"error: there must be enough memory for these settings; {remedy}")
        except KeyboardInterrupt as stop:
            return _say_goodbye(stop, argv)
    return 2


def _say_goodbye(stop: KeyboardInterrupt, argv: list[str] | None) -> int:
    """Says that the work was interrupted and what of it is kept; returns the exit status."""
    ended = isinstance(stop, Terminated)
    name = next(iter(sys.argv[1:] if argv is None else argv), "")
    kept = COMMANDS[name].kept if name in COMMANDS else UNCHANGED
    if _is_first():
        # Over the terminal's ^C.
        _complain(f"{'told to end' if ended else 'interrupted'}; {kept}", "\r")
    return 143 if ended else 130


def _complain(message: str, start: str = "") -> None:
    """Prints one line on stderr, if it is open."""
    if not _is_first():
        # An error in every process is said by the first one, and then torchrun ends this one.
        time.sleep(ENOUGH_TO_SPEAK)
        message = f"process {os.environ['RANK']}: {message}"
    with contextlib.suppress(AttributeError, OSError, ValueError):
        print(f"{start}minilpo: {message}", file=sys.stderr, flush=True)


def _is_first() -> bool:
    """Tells if this process is alone, or the first one that torchrun has started."""
    return os.environ.get("RANK", "0") == "0" or not _together()


def _together() -> bool:
    """Tells if torchrun has started several processes for this command."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def run_command(args: argparse.Namespace) -> int:
    """Runs a command, here or in all processes that torchrun has started."""
    if getattr(args, "device", "cpu") != "cpu":
        from minilpo.machine.device import device_of

        device_of(args.device)  # raises an error if it isn't there
    command = COMMANDS[args.command]
    return (run_together(command, args) if _together() else command.run(args)) or 0


def run_together(command: Command, args: argparse.Namespace) -> int | None:
    """Runs a command in all processes that torchrun has started; see `run.processes`."""
    if not command.sections:
        shared = ", ".join(name for name, other in COMMANDS.items() if other.sections)
        raise ValueError(
            f"torchrun must start one of {shared}, got {args.command}; start that without torchrun"
        )
    from minilpo.run import processes

    flag = "out" if command.out else "run"
    with processes.joined(getattr(args, flag)) as folder:
        setattr(args, flag, folder)
        return command.run(args)


def _in_words(error: Exception) -> str:
    """Describes an error on one line that is never too long and harmless in a terminal."""
    if isinstance(error, BrokenPipeError):
        return "standard output was closed before all was written there; files are not affected"
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        remedy = REMEDIES.get(error.errno or 0, "choose another folder")
        return one_line(f"can't read or write{where}: {error.strerror}; {remedy}")
    return one_line(str(error))
