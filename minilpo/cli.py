"""The command line: one function per command, each with its flags before it.

Heavy imports wait until a command runs, so that --help is quick and Ctrl-C is answered even while
PyTorch loads.
"""

import argparse
import contextlib
import dataclasses
import errno
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from minilpo import __version__
from minilpo.config import MAX_THREADS, RunConfig
from minilpo.experiments import EXPERIMENTS
from minilpo.flags import SECTIONS, Parser, add_flags, all_given, folder, whole_config
from minilpo.machine.signals import LostError, Terminated, answering_signals
from minilpo.machine.text import one_line, printable
from minilpo.setting import HOTTEST_TEMPERATURE

REPRODUCE: dict[str, dict[str, Any]] = {
    # Twice as many tasks need a longer training; each experiment has its own losses.
    "pretrain": {"steps": 4250, "demonstrations": 68_000},
    "lpo": {"loss": None, "train_lm": None, "lm_learning_rate": None},
}
PROMPTS_SHOWN = 3  # of each task, by `sample` without a prompt
REMEDIES = {  # by what the operating system says
    errno.ENOSPC: "free some space or choose a folder on another disk",
    errno.EDQUOT: "free some space or choose a folder on another disk",
    errno.ENOENT: "the folder isn't there, or was removed or renamed meanwhile; "
    "make it or begin anew",
    errno.EACCES: "choose a folder that you may write",
    errno.EPERM: "choose a folder that you may write",
    errno.EROFS: "choose a folder that you may write",
}
OTHER_REMEDY = "choose another folder"
ENOUGH_TO_SPEAK = 3.0  # seconds after which torchrun has ended the other processes, if one has


def demo(args: argparse.Namespace) -> None:
    """everything from nothing: pretrain, train, evaluate"""
    config = whole_config(args, all_given(args))
    from minilpo.run.begin import create_run
    from minilpo.run.steps import evaluate_step, pretrain_step, train_step, use_machine, work_in_run

    with work_in_run(args.out, config):
        run = create_run(args.out, config)
        use_machine(run, args.threads, args.device)
        pretrain_step(run)
        train_step(run)
        print_results(run.path, evaluate_step(run))


def pretrain(args: argparse.Namespace) -> None:
    """make a run folder and train its language model"""
    settings = all_given(args)
    from minilpo.run.begin import create_run
    from minilpo.run.folder import Run
    from minilpo.run.steps import pretrain_step, use_machine, work_in_run

    if (args.run / "config.json").exists():
        # What isn't asked for is as it was.
        old = Run.open(args.run, getattr(args, "tasks", ())).config
        names = ("seed", "level", "tasks", "temperatures", "choices")
        general = {name: getattr(old, name) for name in names}
        if any(name.endswith(".py") for name in old.tasks):
            general["tasks"] = args.tasks
        both = {name: dataclasses.asdict(getattr(old, name)) | settings[name] for name in SECTIONS}
        config = whole_config(args, both, general)
    else:
        config = whole_config(args, settings)
    with work_in_run(args.run, config):
        run = create_run(args.run, config, compare=("model", "pretrain"))
        use_machine(run, args.threads, args.device)
        pretrain_step(run)
    print(f"wrote {run.path / 'model.pt'}")


def train(args: argparse.Namespace) -> None:
    """train the temperature head by LPO"""
    from minilpo.run.folder import Run
    from minilpo.run.steps import half_done_lpo, train_step, use_machine, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        # What isn't asked for is as in the half-done training, if there is one, else as it was.
        config = half_done_lpo(run) or run.config.lpo
        given = all_given(args)["lpo"]
        if given.get("rule", config.rule) != config.rule:
            given = {"loss": "default", **given}  # each rule has a default of its own
        asked = dataclasses.replace(config, **given)
        lpo = asked.resolved(run.config.level)
        use_machine(run, args.threads, args.device)
        train_step(run, lpo)
    print(f"wrote {run.path / 'head.pt'}")


def evaluate(args: argparse.Namespace) -> None:
    """measure the head against every fixed temperature"""
    from minilpo.run.folder import Run
    from minilpo.run.steps import evaluate_step, use_machine, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        use_machine(run, args.threads, args.device)
        asked = dataclasses.replace(run.config.evaluation, **all_given(args)["evaluation"])
        print_results(run.path, evaluate_step(run, asked))


def print_results(path: Path, metrics: dict[str, Any]) -> None:
    """The table, and where everything is."""
    from minilpo.show.report import result_table

    print(result_table(metrics))
    if parts := metrics.get("joint"):
        print(
            "\nEq. 9 trained the words too. Mean reward: head alone, on the model as it was, as "
            f"under Eq. 10, {parts['head_alone']:.3f}; words alone, at their best constant, "
            f"{parts['words_alone']:.3f}; both {parts['both']:.3f}"
        )
    seconds = metrics["seconds"]["total"]
    print(f"\nin {seconds:.0f} seconds; written to {printable(str(path))}:")
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        print(f"  {printable(str(file))}")


def sample_flags(parser: Parser) -> None:
    """Those that no other command has."""
    add = parser.add_argument
    add("prompt", nargs="?", help="what to respond to; without it, some prompts to copy are shown")
    add("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    add("--temperature", type=float, metavar="T", help="also write one at this fixed temperature")
    add("--html", type=Path, metavar="FILE", help="also write a page that shows the temperatures")


def sample(args: argparse.Namespace) -> None:
    """write one response and show the temperature of each word"""
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
    sampler = Sampler(lm, run.tasks, run.head(), run.choices, args.seed)
    shown, lines = sampler.with_head(prompt)
    compared = None if args.temperature is None else sampler.at(args.temperature, prompt)
    if page:
        write_bytes(page, strip.html_page([shown], "Which temperature wrote which word").encode())
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(strip.terminal(shown) if colour else strip.plain(shown))
    for paragraph in filter(None, ["\n".join(lines), compared]):
        print(f"\n{paragraph}")


def page_to_write(page: Path, path: Path) -> Path:
    """Where a page goes, links followed: never over a file of the run, or what is no file."""
    from minilpo.show.page import NAME as PAGE

    target = Path(os.path.realpath(page))
    if target.exists() and not target.is_file():
        raise ValueError(
            f"--html must name a file, got {str(page)!r}, which is something else; "
            "give it another name"
        )
    is_report = target == path.resolve() / PAGE
    if is_report or (target.suffix != ".html" and path.resolve() in target.parents):
        raise ValueError(
            f"--html must not be one of the run's own files, got {str(page)!r}; "
            f"let the name end in .html, and be another than {PAGE}"
        )
    return target


def reproduce_flags(parser: Parser) -> None:
    """Those that no other command has."""
    names = ["all", *EXPERIMENTS]
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))
    meaning = "seeds 0, 1, ... (default: %(default)s)"
    parser.add_argument("--seeds", type=int, default=5, help=meaning)


def reproduce(args: argparse.Namespace) -> None:
    """the paper's tables and figures in miniature"""
    settings = all_given(args)
    settings["pretrain"] = REPRODUCE["pretrain"] | settings["pretrain"]
    sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
    from minilpo.experiments.base import text_table
    from minilpo.experiments.reproduce import experiment, reproduce
    from minilpo.rivals.controls import CORPUS

    config = RunConfig(tasks=tuple(task.name for task in CORPUS), **sections)
    names = EXPERIMENTS if args.name == "all" else [args.name]
    findings = reproduce(names, args.seeds, args.out, config, args.threads, args.device)
    for name, finding in findings.items():
        print(text_table(name, experiment(name).PAPER, finding), end="\n\n")
    print(f"tables, figures and numbers are in {printable(str(args.out))}")


def play_flags(parser: Parser) -> None:
    """Those that no other command has."""
    meaning = "the port of the page (default: any that is free)"
    parser.add_argument("--port", type=int, default=0, help=meaning)
    meaning = "only print the address, open no browser"
    parser.add_argument("--no-browser", action="store_true", help=meaning)


def play(args: argparse.Namespace) -> None:
    """a page on this machine to play with a trained run"""
    from minilpo.machine.threads import pick
    from minilpo.play.server import serve
    from minilpo.run.folder import Run

    run = Run.open(args.run, args.tasks)
    pick(args.threads, run.config.threads or None)
    serve(run, args.port, open_browser=not args.no_browser)


def tutorials_flags(parser: Parser) -> None:
    """Those that no other command has."""
    meaning = "the folder to copy them to (default: %(default)s)"
    place = Path("minilpo-lessons")
    parser.add_argument(
        "folder", nargs="?", type=folder, default=place, metavar="DEST", help=meaning
    )


def tutorials(args: argparse.Namespace) -> None:
    """copy the lessons next to you, never over your own work"""
    from minilpo.course.lessons import copy_lessons

    copied, place = copy_lessons(args.folder), printable(str(args.folder))
    print(f"{len(copied.new)} files copied to {place}, {len(copied.same)} were there already")
    for name in copied.kept:
        print(
            f"kept yours: {printable(name)} (to get a new one, rename yours and repeat the command)"
        )
    print(f'begin with: jupyter lab {shlex.quote(place)} (it comes with "minilpo[tutorials]")')


def grade_flags(parser: Parser) -> None:
    """Those that no other command has."""
    add = parser.add_argument
    add("notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="notebooks of students")
    add(
        "--out",
        type=Path,
        default=Path("grades.csv"),
        metavar="FILE",
        help="the table (default: %(default)s)",
    )
    add("--jobs", type=int, metavar="INT", help="how many at the same time (default: one per core)")
    add("--seconds", type=float, default=60.0, help="limit for one exercise (default: %(default)s)")
    add("--seed", type=int, help="of the random inputs (default: another one every time)")


def grade(args: argparse.Namespace) -> None:
    """which exercises the notebooks of a class pass"""
    from minilpo.course.grade import grade
    from minilpo.course.gradebook import table

    limits = {"jobs": args.jobs, "seed": args.seed, "seconds": args.seconds}
    graded = grade(args.notebooks, args.out, **limits)
    print(table(graded.rows))
    print(f"\n{graded.isolation}; every message is in {printable(str(args.out))}")


def doctor(args: argparse.Namespace) -> int:
    """check the installation, time this machine, say what to fix"""
    from minilpo.doctor import of_the_course, report

    return report(*of_the_course())


class Command(NamedTuple):
    """A command: what it does, the sections of settings it has flags for, and its own flags."""

    run: Callable[[argparse.Namespace], int | None]  # the exit status, if it isn't 0
    sections: tuple[str, ...] = ()
    own_flags: Callable[[Parser], None] | None = None
    out: str | None = None  # the folder that it makes by default
    takes_run: bool = False  # or works on one
    kept: str = ""  # said when it is interrupted; if empty, what is true of folders


UNCHANGED = "nothing was changed"
COMMANDS = {
    "demo": Command(demo, ("run", *SECTIONS), out="runs/demo"),
    "pretrain": Command(pretrain, ("run", "model", "pretrain"), takes_run=True),
    "train": Command(train, ("lpo",), takes_run=True),
    "evaluate": Command(evaluate, ("evaluation",), takes_run=True),
    "sample": Command(sample, (), sample_flags, takes_run=True, kept=UNCHANGED),
    "reproduce": Command(reproduce, tuple(SECTIONS), reproduce_flags, out="runs/reproduce"),
    "play": Command(play, (), play_flags, takes_run=True, kept=UNCHANGED),
    "tutorials": Command(tutorials, (), tutorials_flags, kept=UNCHANGED),
    "grade": Command(grade, (), grade_flags, kept="the table has what was graded so far"),
    "doctor": Command(doctor, kept=UNCHANGED),
}


def make_parser() -> Parser:
    """The parser of all commands, with one flag for each field of the settings they take."""
    purpose = "A tiny language model learns which temperature to use, and when."
    parser = Parser(prog="minilpo", description=purpose, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"minilpo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary = command.run.__doc__ or ""
        purpose = summary[0].upper() + summary[1:] + "."
        flags = commands.add_parser(name, help=summary, description=purpose, allow_abbrev=False)
        path: dict[str, Any] = {"type": folder, "metavar": "DIR"}
        if command.out:
            meaning = "the folder (default: %(default)s)"
            flags.add_argument("--out", default=Path(command.out), help=meaning, **path)
        if command.takes_run:
            flags.add_argument("--run", required=True, help="the run folder", **path)
        if command.own_flags:
            command.own_flags(flags)
        if command.out or command.takes_run:
            meaning = (
                "how many threads compute (default: the run's own number; "
                "for a new run, the fastest in a measurement)"
            )
            flags.add_argument("--threads", type=int, metavar="INT", help=meaning)
        if command.sections:
            meaning = "what computes: cpu, or an accelerator that PyTorch finds (default: cpu)"
            flags.add_argument("--device", default="cpu", metavar="NAME", help=meaning)
        for section in command.sections:
            add_flags(flags, section, REPRODUCE.get(section, {}) if name == "reproduce" else {})
        if "run" not in command.sections and command.takes_run:
            meaning = "the .py files of the run's own tasks, to allow running them"
            flags.add_argument("--tasks", nargs="+", default=[], metavar="FILE", help=meaning)
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
        except LostError as error:
            if _is_first():
                _complain(f"error: {_in_words(error)}")
            return 2
        except (ValueError, OSError) as error:
            _complain(f"error: {_in_words(error)}")
            return 2
        except (MemoryError, RuntimeError) as error:
            # PyTorch has a RuntimeError for too little memory, which says "allocate".
            if isinstance(error, RuntimeError) and "alloc" not in str(error):
                raise
            _complain(
                "error: there must be enough memory for these settings, but there isn't; "
                "lower the largest of them"
            )
            return 2
        except KeyboardInterrupt as stop:
            return _say_goodbye(stop, argv)


def _say_goodbye(stop: KeyboardInterrupt, argv: list[str] | None) -> int:
    """Says that the work was interrupted, and what of it is kept; the exit status."""
    ended = isinstance(stop, Terminated)
    if not _is_first():
        return 143 if ended else 130
    why = "told to end" if ended else "interrupted"
    _complain(f"{why}; {_kept(argv)}", "\r")  # over the terminal's ^C
    return 143 if ended else 130


def _kept(argv: list[str] | None) -> str:
    """What becomes of the work when it is interrupted."""
    words = sys.argv[1:] if argv is None else argv
    command = COMMANDS.get(words[0]) if words else None
    if command and command.kept:
        return command.kept
    path = command.out if command and command.out else "the folder"
    for flag, value in itertools.pairwise(words):
        if flag in ("--run", "--out"):
            path = value
    return f"{printable(path)} keeps what was finished, the same command goes on from there"


def _complain(message: str, start: str = "") -> None:
    """One line on stderr, if there is one to write to."""
    if not _is_first():
        # What is wrong in every process the first one says, and then this one is told to end.
        time.sleep(ENOUGH_TO_SPEAK)
        message = f"process {os.environ['RANK']}: {message}"
    with contextlib.suppress(AttributeError, OSError, ValueError):
        print(f"{start}minilpo: {message}", file=sys.stderr, flush=True)


def _is_first() -> bool:
    """Whether this process is alone, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0" or not _together()


def _together() -> bool:
    """Whether torchrun has started several processes for this command."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def run_command(args: argparse.Namespace) -> int:
    """Checks what can be said of the numbers before anything is read, then does the work."""
    limits = {"threads": (1, MAX_THREADS), "seeds": (1, 1000), "seed": (0, 2**63 - 1)}
    limits["temperature"] = (0, int(HOTTEST_TEMPERATURE))
    for name, (low, high) in limits.items():
        value = getattr(args, name, None)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name} must be from {low} to {high:,}, got {value}")
    if getattr(args, "device", "cpu") != "cpu":
        from minilpo.machine.device import device_of

        device_of(args.device)  # says if it isn't there
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
    """What went wrong, on one line that is never too long and harmless in a terminal."""
    if isinstance(error, BrokenPipeError):
        return (
            "standard output was closed before everything was written there; files are not affected"
        )
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        remedy = REMEDIES.get(error.errno or 0, OTHER_REMEDY)
        return one_line(f"can't read or write{where}: {error.strerror}; {remedy}")
    return one_line(str(error))
