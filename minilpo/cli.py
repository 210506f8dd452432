"""The command line: each command below its text and its flags, then what all commands share.

Heavy imports wait until a command runs. So --help is quick, and Ctrl-C is answered even while
PyTorch loads.
"""

import contextlib
import dataclasses
import errno
import os
import shlex
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilpo import __version__
from minilpo.config import LARGEST_SEED, MAX_THREADS, SECTIONS, PretrainConfig, RunConfig
from minilpo.experiments import EXPERIMENTS
from minilpo.flags import Flag, Parser, flag, flags_of, given, number, path_of, whole_config
from minilpo.machine.signals import farewell
from minilpo.machine.text import one_line, printable

TOGETHER = os.environ.get("WORLD_SIZE", "1") != "1"  # torchrun has started several processes
RANK = int(os.environ.get("RANK", "0")) if TOGETHER else 0  # of this process; the first one speaks
PROMPTS_SHOWN = 3  # per task by `sample` without a prompt, in all after an unknown word
ENOUGH_TO_SPEAK = 3.0  # seconds after which torchrun has ended the other processes, if one has
LONGER = PretrainConfig(steps=4250, demonstrations=68_000)  # for twice as many tasks
PAPER: dict[str, Any] = {"steps": LONGER.steps, "demonstrations": LONGER.demonstrations}
PAPER |= dict.fromkeys(("loss", "train_lm", "lm_learning_rate"))  # each experiment has its own
PROMPT = "the text to respond to; without it, prompts are shown"
TO = "the folder to copy them to"
NAMES = ["all", *EXPERIMENTS]
SEED = number(int, 0, LARGEST_SEED)
RUN = flag("--run", "the run folder", path_of, required=True, metavar="DIR")
OWN_TASKS = "the .py files of the run's own tasks, to allow running them"
TASKS = flag("--tasks", OWN_TASKS, nargs="+", default=[], metavar="FILE")
WHAT_COMPUTES = "what computes: cpu, or an accelerator that PyTorch finds"
DEVICE = flag("--device", WHAT_COMPUTES, default="cpu", metavar="NAME")
HOW_MANY = "how many threads compute (default: the run's own number, at first the fastest measured)"
THREADS = flag("--threads", HOW_MANY, number(int, 1, MAX_THREADS))
STEP = RUN, THREADS, DEVICE
Run = Callable[[Namespace], int | None]  # returns the exit status, if it isn't 0
COMMANDS: dict[str, tuple[Run, str, tuple[Flag, ...]]] = {}  # by name: function, text, flags


def command(text: str, *flags: Flag) -> Callable[[Run], Run]:
    """Makes a command of a function. Its text isn't a docstring: `python -OO` takes these away."""

    def add(run: Run) -> Run:
        COMMANDS[run.__name__] = run, text, flags
        return run

    return add


@command(
    "everything from nothing: pretrain, train, evaluate",
    flag("--out", "the folder", path_of, default="runs/demo", metavar="DIR"),
    *(THREADS, DEVICE, *flags_of("run", *SECTIONS)),
)
def demo(args: Namespace) -> None:
    from minilpo.run import begin, steps

    config = whole_config(args, RunConfig())
    with steps.work_in_run(args.out, config):
        run = begin.create_run(args.out, config)
        steps.use_machine(run, args.threads, args.device)
        steps.pretrain_step(run)
        steps.train_step(run)
        print_results(run.path, steps.evaluate_step(run))


@command(
    "make a run folder and train its language model",
    *(*STEP, *flags_of("run", "model", "pretrain")),
)
def pretrain(args: Namespace) -> None:
    from minilpo.run import begin, folder, steps

    is_there, tasks = (args.run / "config.json").exists(), getattr(args, "tasks", ())
    old = folder.Run.open(args.run, tasks).config if is_there else RunConfig()
    config = whole_config(args, old)
    with steps.work_in_run(args.run, config):
        run = begin.create_run(args.run, config, compare=("model", "pretrain"))
        steps.use_machine(run, args.threads, args.device)
        steps.pretrain_step(run)
    print(f"wrote {shown(run.path / 'model.pt')}")


@command("train the temperature head by LPO", *STEP, *flags_of("lpo"), TASKS)
def train(args: Namespace) -> None:
    from minilpo.run import folder, steps

    run = folder.Run.open(args.run, args.tasks)
    with steps.work_in_run(args.run, run.config):
        # Without a flag a setting is as before, or as in half-done work.
        config, asked = steps.half_done_lpo(run) or run.config.lpo, given(args, "lpo")
        if asked.get("rule", config.rule) != config.rule:
            asked = {"loss": "default", **asked}  # each rule has a default of its own
        lpo = dataclasses.replace(config, **asked).resolved(run.config.level)
        steps.use_machine(run, args.threads, args.device)
        steps.train_step(run, lpo)
    print(f"wrote {shown(run.path / 'head.pt')}")


@command("measure the head against every fixed temperature", *STEP, *flags_of("evaluation"), TASKS)
def evaluate(args: Namespace) -> None:
    from minilpo.run import folder, steps

    run = folder.Run.open(args.run, args.tasks)
    with steps.work_in_run(args.run, run.config):
        steps.use_machine(run, args.threads, args.device)
        asked = dataclasses.replace(run.config.evaluation, **given(args, "evaluation"))
        print_results(run.path, steps.evaluate_step(run, asked))


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


@command(
    "write one response and show the temperature of each word",
    RUN,
    flag("prompt", PROMPT, nargs="?", default="", metavar="prompt"),
    flag("--seed", "seed of the sampling (default: 0)", SEED, default=0),
    flag("--temperature", "also write one at this constant", float, metavar="T"),
    flag("--html", "also write a page with the temperatures", path_of, metavar="FILE"),
    *(THREADS, TASKS),
)
def sample(args: Namespace) -> None:
    from minilpo.machine.files import write_bytes
    from minilpo.machine.threads import pick
    from minilpo.run.folder import Run
    from minilpo.show import samples, strip

    run, prompt = Run.open(args.run, args.tasks), " ".join(args.prompt.split())
    page = args.html and args.html.resolve()  # links followed
    if page and (page.suffix != ".html" or page.name == "report.html"):  # a file of a run
        raise ValueError(f"--html must name a page, got {str(args.html)!r}; try page.html")
    asked = run.tasks, PROMPTS_SHOWN, args.seed
    if not prompt:
        if page or args.temperature is not None:
            raise ValueError("--html and --temperature must come with a prompt, got none")
        for name, quoted in samples.prompts_to_copy(*asked).items():
            print(f"{name}:", *quoted, sep="\n  ")
        return
    run.log("pretrain"), run.log("train")  # say if a file isn't there, or isn't what it was
    pick(args.threads, run.config.threads or None)
    lm = run.language_model(trained=True)
    try:
        lm.tokenizer.encode(prompt)
    except ValueError as error:  # an unknown word
        rows = zip(*samples.prompts_to_copy(*asked).values(), strict=True)
        some = ", ".join([prompt for row in rows for prompt in row][:PROMPTS_SHOWN])
        raise ValueError(f"{error}; or copy one of {some}") from None
    sampler = samples.Sampler(lm, run.tasks, run.head(), run.choices, args.seed)
    words, lines = sampler.with_head(prompt)
    if args.temperature is not None:
        lines += ["", sampler.at(args.temperature, prompt)]
    if page:
        write_bytes(page, strip.html_page([words], "Which temperature wrote which word").encode())
    print(strip.terminal(words) if strip.has_colours(sys.stdout) else strip.plain(words))
    print("", *lines, sep="\n")


@command(
    "the paper's tables and figures in miniature",
    flag("--out", "the folder", path_of, default="runs/reproduce", metavar="DIR"),
    flag("name", ", ".join(NAMES), metavar="NAME", choices=NAMES),
    flag("--seeds", "seeds 0, 1, ...", number(int, 1, 1000), default=5),
    *(THREADS, DEVICE, *flags_of(*SECTIONS, **PAPER)),
)
def reproduce(args: Namespace) -> None:
    from minilpo.experiments.reproduce import reproduce
    from minilpo.rivals.controls import CORPUS

    base = RunConfig(tasks=tuple(task.name for task in CORPUS), pretrain=LONGER)
    config = whole_config(args, base)
    names = EXPERIMENTS if args.name == "all" else [args.name]
    findings = reproduce(names, args.seeds, args.out, config, args.threads, args.device)
    for finding in findings.values():
        print(finding.files["table.txt"].decode())
    print(f"tables, figures and numbers are in {shown(args.out)}")


@command(
    "a page on this machine to play with a trained run",
    RUN,
    flag("--port", "the port of the page (default: any that is free)", int, default=0),
    ("--no-browser", {"action": "store_true", "help": "only print the address, open no browser"}),
    *(THREADS, TASKS),
)
def play(args: Namespace) -> None:
    from minilpo.machine.threads import pick
    from minilpo.play.server import serve
    from minilpo.run.folder import Run

    run = Run.open(args.run, args.tasks)
    pick(args.threads, run.config.threads or None)
    serve(run, args.port, open_browser=not args.no_browser)


@command(
    "copy the lessons next to you, never over your own work",
    flag("folder", TO, path_of, nargs="?", default="minilpo-lessons", metavar="DEST"),
    ("--teacher", {"action": "store_true", "help": "also the pages and figures for teachers"}),
)
def tutorials(args: Namespace) -> None:
    from minilpo.course.lessons import copy_lessons

    copied, place = copy_lessons(args.folder, args.teacher), shown(args.folder)
    print(f"{len(copied.new)} files copied to {place}, {len(copied.same)} were there already")
    remedy = "to get a new one, rename yours and repeat the command"
    for name in copied.kept:
        print(f"kept yours: {printable(name)} ({remedy})")
    print(f'begin with: jupyter lab {shlex.quote(place)} (it comes with "minilpo[tutorials]")')


@command(
    "which exercises the notebooks of a class pass",
    flag("notebooks", "notebooks of students", Path, nargs="+", metavar="NOTEBOOK"),
    flag("--out", "the table", Path, default="grades.csv", metavar="FILE"),
    flag("--jobs", "how many at the same time (default: one per core)", number(int, 1, 64)),
    flag("--seconds", "limit per exercise", number(float, 1, 3600), default=60.0),
    flag("--seed", "of the random inputs (default: another one every time)", SEED),
)
def grade(args: Namespace) -> None:
    from minilpo.course.grade import grade
    from minilpo.course.gradebook import table

    rows, how = grade(args.notebooks, args.out, args.jobs, args.seed, args.seconds)
    print(table(rows))
    print(f"\nmessages are in {shown(args.out)}; graded {how}")


@command("check the installation, time this machine, say what to fix")
def doctor(args: Namespace) -> int:
    from minilpo.doctor import report

    return report()


def make_parser() -> Parser:
    """Makes the parser of all commands."""
    purpose = "A tiny language model learns which temperature to use, and when."
    parser = Parser(prog="minilpo", description=purpose, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"minilpo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text, flags) in COMMANDS.items():
        purpose = f"{text[0].upper()}{text[1:]}."
        own = commands.add_parser(name, help=text, description=purpose, allow_abbrev=False)
        for flag_name, options in flags:
            own.add_argument(flag_name, **options)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    That is 0 on success, 2 on bad input (one line on stderr), 130 after Ctrl-C, 143 if it was told
    to end (SIGTERM); 1 if `doctor` found something that must be mended.
    """
    # Threads that wait may not spin for long, or other work on this machine would stand still.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # No window is ever opened, and a name that matplotlib doesn't know does no harm.
    os.environ["MPLBACKEND"] = "agg"
    try:
        status = run_command(make_parser().parse_args(argv))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        number = int(stop.args[0]) if stop.args else signal.SIGINT
        if RANK == 0:
            _complain(farewell(number))
        return 128 + number
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        message = f"error: {_in_words(error)}"
        if RANK == 0:
            _complain(f"minilpo: {message}")
        elif not isinstance(error, ConnectionAbortedError):  # the first one has lost it too
            # An error in every process is said by the first; then torchrun ends this one.
            time.sleep(ENOUGH_TO_SPEAK)
            _complain(f"minilpo: process {RANK}: {message}")
        return 2


def run_command(args: Namespace) -> int:
    """Runs a command, here or in all processes that torchrun has started."""
    run = COMMANDS[args.command][0]
    if getattr(args, "device", "cpu") != "cpu":
        from minilpo.machine.device import device_of

        device_of(args.device)  # raises an error if it isn't there
    if not TOGETHER:
        return run(args) or 0
    if "device" not in args:
        shared = ", ".join(name for name, (*_, flags) in COMMANDS.items() if DEVICE in flags)
        got = f"got {args.command}; start that without torchrun"
        raise ValueError(f"torchrun must start one of {shared}, {got}")
    from minilpo.run import processes

    name = "out" if "out" in args else "run"
    with processes.joined(getattr(args, name)) as folder:
        setattr(args, name, folder)
        return run(args) or 0


def _complain(line: str) -> None:
    """Prints one line on stderr, if it is open."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _in_words(error: Exception) -> str:
    """Describes an error on one line. Raises it again if it is a fault of the program."""
    if isinstance(error, RuntimeError):
        if "alloc" not in str(error):  # PyTorch has no other for too little memory
            raise error
        error = MemoryError()
    if isinstance(error, MemoryError):
        return "there must be enough memory for these settings; lower the largest of them"
    if isinstance(error, BrokenPipeError):
        return "standard output was closed before all was written there; files are not affected"
    if not (isinstance(error, OSError) and error.strerror):
        return one_line(str(error))
    where = f" {error.filename}" if error.filename else ""
    remedy = "choose a folder that you may write, on a disk with free space"
    if error.errno == errno.ENOENT:
        remedy = "it was removed or renamed, or never made; make its folder or begin anew"
    return one_line(f"can't read or write{where}: {error.strerror}; {remedy}")
