"""The command line. Flags are made from the classes in `config`, so each default exists once.

Heavy imports wait until a command runs, so that --help is quick and Ctrl-C is answered even while PyTorch loads.
"""

import argparse
import dataclasses
import os
import sys
import typing
from pathlib import Path
from typing import Any, NoReturn

from minilpo import __version__
from minilpo.config import EvaluationConfig, LPOConfig, ModelConfig, PretrainConfig, RunConfig

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


MAX_THREADS = 8  # a guess beyond two cores: among many threads, small matrices cost more waiting than they save


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and where help is, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
                type=Path,
                default=Path(OUT[name]),
                metavar="DIR",
                help="the folder (default: %(default)s)",
            )
        else:
            command.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder")
        if name == "sample":
            command.add_argument("prompt", help="what to respond to, in words of the tasks")
            command.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
            command.add_argument("--html", type=Path, metavar="FILE", help="also write a page that shows the temperatures")
        if name == "reproduce":
            command.add_argument("name", metavar="NAME", choices=["all", *EXPERIMENTS], help=f"all, {', '.join(EXPERIMENTS)}")
            command.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default: %(default)s)")
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


def given_settings(args: argparse.Namespace, section: type) -> dict[str, Any]:
    """The settings of one section that were given on the command line."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(section) if hasattr(args, field.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def main(argv: list[str] | None = None) -> int:
    """Runs a command. Returns 0 on success, 2 on bad input (one line on stderr), 130 on Ctrl-C."""
    # Threads that wait may not spin for long: on a machine that is also doing other things they'd hold everything up.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    args = make_parser().parse_args(argv)
    folder = args.out if args.command in OUT else args.run
    try:
        run_command(args)
        sys.stdout.flush()
        return 0
    except (ValueError, OSError) as error:
        print(f"minilpo: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\rminilpo: interrupted; {folder} keeps what was finished, the same command goes on from there", file=sys.stderr)
        return 130


def run_command(args: argparse.Namespace) -> None:
    """Checks all settings first, then does the work."""
    settings = {name: given_settings(args, section) for name, section in SECTIONS.items()}
    if args.command == "reproduce":
        settings["pretrain"] = REPRODUCE["pretrain"] | settings["pretrain"]
        run_reproduce(args, settings)
        return
    if args.command in ("demo", "pretrain"):
        sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
        config = RunConfig(**given_settings(args, RunConfig), **sections)
    limit_threads()
    from minilpo.report import result_table
    from minilpo.run import Run, evaluate_step, pretrain_step, train_step

    if args.command == "demo":
        run = Run.create(args.out, config)
        pretrain_step(run)
        train_step(run)
        metrics = evaluate_step(run)
    elif args.command == "pretrain":
        run = Run.create(args.run, config, compare=("model", "pretrain"))
        pretrain_step(run)
        print(f"wrote {run.path / 'model.pt'}")
        return
    else:
        run = Run.open(args.run, args.tasks)
        if args.command == "sample":
            print_sample(run, args.prompt, args.seed, args.html)
            return
        name = {"train": "lpo", "evaluate": "evaluation"}[args.command]
        run.set(**{name: dataclasses.replace(getattr(run.config, name), **settings[name])})
        if args.command == "train":
            train_step(run)
            print(f"wrote {run.path / 'head.pt'}")
            return
        metrics = evaluate_step(run)
    print(result_table(metrics))
    print(f"\nin {metrics['seconds']['total']:.0f} seconds; written to {run.path}:")
    for path in sorted(p for p in run.path.rglob("*") if p.is_file()):
        print(f"  {path}")


def limit_threads() -> None:
    """At most `MAX_THREADS` threads, unless the user has set OMP_NUM_THREADS."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), MAX_THREADS))


def run_reproduce(args: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> None:
    """Checks the settings, runs the experiments and prints their tables."""
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}; intervals need at least 2")
    sections = {name: section(**settings[name]) for name, section in SECTIONS.items()}
    limit_threads()
    from minilpo.experiments.base import text_table
    from minilpo.experiments.reproduce import experiment, reproduce
    from minilpo.tasks import TASKS

    config = RunConfig(tasks=tuple(TASKS), **sections)
    findings = reproduce(EXPERIMENTS if args.name == "all" else [args.name], args.seeds, args.out, config)
    for name, finding in findings.items():
        print(text_table(name, experiment(name).PAPER, finding), end="\n\n")
    print(f"tables, figures and numbers are in {args.out}")


def print_sample(run: Any, prompt: str, seed: int, page: Path | None) -> None:
    """Writes one response with the run's head and prints which temperature wrote each word."""
    from minilpo import strip
    from minilpo.files import write_bytes
    from minilpo.report import strips_of
    from minilpo.rollout import generate
    from minilpo.seeds import torch_generator

    prompt = " ".join(prompt.split())
    if not prompt:
        raise ValueError("the prompt must have at least one word, got none")
    head, tokenizer = run.head(), run.tokenizer()
    rollout = generate(run.model(trained=True), tokenizer, [prompt], head, torch_generator(seed, "sample"))
    [shown] = strips_of(rollout, tokenizer)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(strip.terminal(shown) if colour else strip.plain(shown))
    if page:
        write_bytes(page, strip.html_page([shown], "Which temperature wrote which word").encode())
    if run.config.level == "sequence":
        probs, choices = head(rollout.hidden_states[0]).softmax(-1).tolist(), run.config.temperatures
        said = ", ".join(f"{choice:g}: {100 * prob:.0f}%" for choice, prob in zip(choices, probs, strict=True))
        print(f"\nchosen for the whole response: temperature {rollout.temperatures[0, 0]:g} (the head says {said})")


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return f"can't read or write{where}: {error.strerror}; free some space or choose another folder"
    return " ".join(str(error).split())
