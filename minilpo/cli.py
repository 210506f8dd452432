"""The command line. Flags are made from the classes in `config`, so each default exists once.

Heavy imports wait until a command runs, so that --help is quick and Ctrl-C is answered even while PyTorch loads.
"""

import argparse
import contextlib
import dataclasses
import errno
import os
import sys
import typing
from pathlib import Path
from typing import Any, NoReturn

from minilpo import __version__
from minilpo.config import MAX_THREADS, EvaluationConfig, LPOConfig, ModelConfig, PretrainConfig, RunConfig
from minilpo.signals import Terminated, answering_signals
from minilpo.text import one_line, printable

SECTIONS = {"model": ModelConfig, "pretrain": PretrainConfig, "lpo": LPOConfig, "evaluation": EvaluationConfig}
COMMANDS = {
    "demo": ("everything from nothing: pretrain, train, evaluate", ("run", "model", "pretrain", "lpo", "evaluation")),
    "pretrain": ("make a run folder and train its language model", ("run", "model", "pretrain")),
    "train": ("train the temperature head by LPO", ("lpo",)),
    "evaluate": ("measure the head against every fixed temperature", ("evaluation",)),
    "sample": ("write one response and show the temperature of each word", ()),
    "reproduce": ("the paper's tables and figures in miniature", ("model", "pretrain", "lpo", "evaluation")),
}
OUT = {"demo": "runs/demo", "reproduce": "runs/reproduce"}  # the others take --run
EXPERIMENTS = ("fig3", "fig4", "fig5", "fig6", "fig7", "table1", "table3", "table4", "table5", "controls")
REPRODUCE = {  # twice as many tasks need a longer training; each experiment has its own losses
    "pretrain": {"steps": 4250, "demonstrations": 68_000},
    "lpo": {"loss": None, "train_lm": None, "lm_learning_rate": None},
}


REMEDIES = {  # by what the operating system says
    errno.ENOSPC: "free some space or choose a folder on another disk",
    errno.EDQUOT: "free some space or choose a folder on another disk",
    errno.ENOENT: "the folder isn't there, or was removed or renamed meanwhile; make it or begin anew",
    errno.EACCES: "choose a folder that you may write",
    errno.EPERM: "choose a folder that you may write",
    errno.EROFS: "choose a folder that you may write",
}
OTHER_REMEDY = "choose another folder"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and where help is, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """The parser of all commands, with one flag for each field of the settings they take."""
    parser = Parser(
        prog="minilpo", description="A tiny language model learns which temperature to use, and when.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minilpo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (help, sections) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", allow_abbrev=False)
        if name in OUT:
            command.add_argument(
                "--out",
                type=_folder,
                default=Path(OUT[name]),
                metavar="DIR",
                help="the folder (default: %(default)s)",
            )
        else:
            command.add_argument("--run", type=_folder, required=True, metavar="DIR", help="the run folder")
        if name == "sample":
            command.add_argument("prompt", help="what to respond to, in words of the tasks")
            command.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
            command.add_argument("--html", type=Path, metavar="FILE", help="also write a page that shows the temperatures")
        if name == "reproduce":
            command.add_argument("name", metavar="NAME", choices=["all", *EXPERIMENTS], help=f"all, {', '.join(EXPERIMENTS)}")
            command.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default: %(default)s)")
        command.add_argument(
            "--threads",
            type=int,
            metavar="INT",
            help="how many threads compute (default: the run's own number; for a new run, the fastest in a short measurement)",
        )
        for section in sections:
            own = REPRODUCE.get(section, {}) if name == "reproduce" else {}
            _add_flags(command, SECTIONS.get(section, RunConfig), own)
        if "run" not in sections and name != "reproduce":
            command.add_argument(
                "--tasks",
                nargs="+",
                default=[],
                metavar="FILE",
                help="the .py files of the run's own tasks, to allow running them",
            )
    return parser


def _add_flags(parser: argparse.ArgumentParser, section: type, own: dict[str, Any]) -> None:
    """A flag for each field of a class of settings; `own` holds this command's defaults, None for a flag it doesn't have."""
    types = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        value = own.get(field.name, field.default)
        if "help" not in field.metadata or value is None:
            continue  # a section within the settings, or a value that isn't set by hand
        flag, help = "--" + field.name.replace("_", "-"), field.metadata["help"]
        kind, several = types[field.name], typing.get_args(types[field.name])
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
            continue
        default = " ".join(map(str, value)) if several else value
        parser.add_argument(
            flag,
            type=several[0] if several else kind,
            nargs="+" if several else None,
            default=argparse.SUPPRESS,  # so that a resumed run keeps what it was made with
            metavar=(several[0] if several else kind).__name__.upper(),
            help=f"{help} (default: {default})",
        )


def _folder(name: str) -> Path:
    if not name.strip():
        raise argparse.ArgumentTypeError("must name a folder, got an empty name; a point stands for the folder you are in")
    return Path(name)


def given_settings(args: argparse.Namespace, section: type) -> dict[str, Any]:
    """The settings of one section that were given on the command line."""
    names = [field.name for field in dataclasses.fields(section) if "help" in field.metadata]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 on success, 2 on bad input (one line on stderr), 130 after Ctrl-C, 143 if it was told to end (SIGTERM).
    """
    # Threads that wait may not spin for long: on a machine that is also doing other things they'd hold everything up.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ["MPLBACKEND"] = "agg"  # no window is ever opened, and a name that matplotlib doesn't know does no harm
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with answering_signals():
        try:
            run_command(make_parser().parse_args(argv))
            sys.stdout.flush()
            return 0
        except (ValueError, OSError) as error:
            _complain(f"error: {_in_words(error)}")
            return 2
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "alloc" not in str(error):  # PyTorch's word for too little memory
                raise
            _complain("error: there must be enough memory for these settings, but there isn't; lower the largest of them")
            return 2
        except KeyboardInterrupt as stop:
            ended = isinstance(stop, Terminated)
            _complain(f"{'told to end' if ended else 'interrupted'}; {_kept(argv)}", "\r")  # over the terminal's ^C
            return 143 if ended else 130


def _kept(argv: list[str] | None) -> str:
    """What becomes of the work when it is interrupted."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["sample"]:
        return "nothing was changed"
    folders = [next_word for word, next_word in zip(words, words[1:], strict=False) if word in ("--run", "--out")]
    folder = printable(folders[-1] if folders else OUT.get(words[0] if words else "", "the folder"))
    return f"{folder} keeps what was finished, the same command goes on from there"


def _complain(message: str, start: str = "") -> None:
    """One line on stderr, if there is one to write to."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        print(f"{start}minilpo: {message}", file=sys.stderr, flush=True)


def run_command(args: argparse.Namespace) -> None:
    """Checks all settings first, then does the work."""
    _check_numbers(args)
    settings = {name: given_settings(args, section) for name, section in SECTIONS.items()}
    if args.command == "reproduce":
        settings["pretrain"] = REPRODUCE["pretrain"] | settings["pretrain"]
        run_reproduce(args, settings)
    elif args.command == "demo":
        run_demo(args, _whole_config(args, settings))
    elif args.command == "pretrain":
        run_pretrain(args, settings)
    elif args.command == "train":
        run_train(args, settings["lpo"])
    elif args.command == "evaluate":
        run_evaluate(args, settings["evaluation"])
    else:
        run_sample(args)


def run_demo(args: argparse.Namespace, config: RunConfig) -> None:
    """Everything from nothing, or from where it was interrupted."""
    from minilpo.run import Run, evaluate_step, pretrain_step, train_step, use_threads, work_in_run

    with work_in_run(args.out, config):
        run = Run.create(args.out, config)
        use_threads(run, args.threads)
        pretrain_step(run)
        train_step(run)
        print_results(run.path, evaluate_step(run))


def run_pretrain(args: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> None:
    """Makes a run folder with its language model. In a folder that is there, what isn't asked for is as it was."""
    from minilpo.run import Run, pretrain_step, use_threads, work_in_run

    if (args.run / "config.json").exists():
        there = Run.open(args.run, getattr(args, "tasks", ())).config
        general = {"seed": there.seed, "level": there.level, "tasks": there.tasks, "temperatures": there.temperatures}
        given = {name: dataclasses.asdict(getattr(there, name)) | settings[name] for name in SECTIONS}
        if any(name.endswith(".py") for name in there.tasks):
            general["tasks"] = args.tasks
        config = _whole_config(args, given, general)
    else:
        config = _whole_config(args, settings)
    with work_in_run(args.run, config):
        run = Run.create(args.run, config, compare=("model", "pretrain"))
        use_threads(run, args.threads)
        pretrain_step(run)
    print(f"wrote {run.path / 'model.pt'}")


def run_train(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Trains the head. What isn't asked for is as in the half-done training, if there is one, else as it was."""
    from minilpo.run import Run, half_done_lpo, train_step, use_threads, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        lpo = dataclasses.replace(half_done_lpo(run) or run.config.lpo, **given).resolved(run.config.level)
        use_threads(run, args.threads)
        train_step(run, lpo)
    print(f"wrote {run.path / 'head.pt'}")


def run_evaluate(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Measures the head. What isn't asked for is as it was."""
    from minilpo.run import Run, evaluate_step, use_threads, work_in_run

    run = Run.open(args.run, args.tasks)
    with work_in_run(args.run, run.config):
        use_threads(run, args.threads)
        print_results(run.path, evaluate_step(run, dataclasses.replace(run.config.evaluation, **given)))


def print_results(folder: Path, metrics: dict[str, Any]) -> None:
    """The table, and where everything is."""
    from minilpo.report import result_table

    print(result_table(metrics))
    print(f"\nin {metrics['seconds']['total']:.0f} seconds; written to {printable(str(folder))}:")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(f"  {printable(str(path))}")


def _whole_config(args: argparse.Namespace, settings: dict[str, dict[str, Any]], general: Any = None) -> RunConfig:
    sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
    return RunConfig(**{**(general or {}), **given_settings(args, RunConfig), **sections})


def _check_numbers(args: argparse.Namespace) -> None:
    """What can be said of the numbers before anything is read."""
    for name, limits in {"threads": (1, MAX_THREADS), "seeds": (1, 1000), "seed": (0, 2**63 - 1)}.items():
        value = getattr(args, name, None)
        if value is not None and not limits[0] <= value <= limits[1]:
            raise ValueError(f"--{name} must be from {limits[0]} to {limits[1]:,}, got {value}")


def run_reproduce(args: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> None:
    """Checks the settings, runs the experiments and prints their tables."""
    sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
    from minilpo.experiments.base import text_table
    from minilpo.experiments.reproduce import experiment, reproduce
    from minilpo.tasks import TASKS

    config = RunConfig(tasks=tuple(TASKS), **sections)
    names = EXPERIMENTS if args.name == "all" else [args.name]
    findings = reproduce(names, args.seeds, args.out, config, args.threads)
    for name, finding in findings.items():
        print(text_table(name, experiment(name).PAPER, finding), end="\n\n")
    print(f"tables, figures and numbers are in {printable(str(args.out))}")


def run_sample(args: argparse.Namespace) -> None:
    """Writes one response with the run's head and prints which temperature wrote each word."""
    from minilpo import strip
    from minilpo.files import write_bytes
    from minilpo.report import strips_of
    from minilpo.rollout import generate
    from minilpo.run import Run
    from minilpo.seeds import torch_generator
    from minilpo.threads import pick

    prompt = " ".join(args.prompt.split())
    if not prompt:
        raise ValueError("the prompt must have at least one word, got none")
    run = Run.open(args.run, args.tasks)
    page = _page_to_write(args.html, run.path) if args.html else None
    run.log("pretrain"), run.log("train")  # say if a file isn't there, or isn't what it was
    pick(args.threads, run.config.threads or None)
    head, tokenizer = run.head(), run.tokenizer()
    rollout = generate(run.model(trained=True), tokenizer, [prompt], head, torch_generator(args.seed, "sample"))
    [shown] = strips_of(rollout, tokenizer)
    if page:
        write_bytes(page, strip.html_page([shown], "Which temperature wrote which word").encode())
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(strip.terminal(shown) if colour else strip.plain(shown))
    if run.config.level == "sequence":
        probs, choices = head(rollout.hidden_states[0]).softmax(-1).tolist(), run.config.temperatures
        said = ", ".join(f"{choice:g}: {100 * prob:.0f}%" for choice, prob in zip(choices, probs, strict=True))
        print(f"\nchosen for the whole response: temperature {rollout.temperatures[0, 0]:g} (the head says {said})")


def _page_to_write(page: Path, folder: Path) -> Path:
    """Where a page goes: never over something that isn't a file, nor over the run's own files. A link is followed."""
    target = Path(os.path.realpath(page))
    if target.exists() and not target.is_file():
        raise ValueError(f"--html must name a file, got {str(page)!r}, which is something else; give it another name")
    if target.suffix != ".html" and folder.resolve() in target.parents:
        raise ValueError(f"--html must not be one of the run's own files, got {str(page)!r}; let the name end in .html")
    return target


def _in_words(error: Exception) -> str:
    """What went wrong, on a line that is never too long, whatever was typed, and that no terminal takes for a command."""
    if isinstance(error, BrokenPipeError):
        return "standard output was closed before everything was written there; files are not affected"
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return one_line(f"can't read or write{where}: {error.strerror}; {REMEDIES.get(error.errno, OTHER_REMEDY)}")
    return one_line(str(error))
