"""Prints minilpo's speed as one table: `python -m tests.benchmarks [--demo] [--figure FILE]`

Run it from the repository root. Seconds differ from machine to machine. Ratios of numbers from the
same run compare: against transformers' GPT-2 with our weights, and against the machine's own peak
in products of matrices.

    measure    times two ways in turns, and whole commands
    peer       transformers' GPT-2 with our shape and weights
    speed      pretraining, sampling, the head, an LPO epoch
    scaling    how each phase grows
    commands   the demo, phase by phase, and the memory of training
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from minilpo.config import PretrainConfig, RunConfig
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.pretraining import Corpus, Example, pretrain
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.threads import pick
from minilpo.run.begin import corpus_of, create_run
from minilpo.run.folder import Run
from tests.benchmarks.commands import print_demo, print_memory
from tests.benchmarks.measure import QUICK, Sizes, matmul_peak, print_row
from tests.benchmarks.peer import transformers_step_seconds
from tests.benchmarks.scaling import draw_scaling, measure_scaling, print_scaling
from tests.benchmarks.speed import print_head, print_lpo, print_pretraining, print_sampling


def demonstrations(sizes: Sizes) -> tuple[Run, Tokenizer, list[Example]]:
    """The run that the demo makes, its tokenizer, and the first examples of its corpus."""
    few = PretrainConfig(demonstrations=sizes.demonstrations)
    config = RunConfig(model=sizes.shape, pretrain=few)
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), config)
        tokenizer = run.tokenizer()
    return run, tokenizer, list(corpus_of(run, tokenizer).examples[: sizes.n_examples])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Ratios of speeds, measured in one run."
    )
    demo = "also run the whole demo, and measure the memory of training"
    parser.add_argument("--demo", action="store_true", help=demo)
    figure = "write the figure of how each phase grows"
    parser.add_argument("--figure", type=Path, help=figure)
    quick = "try everything in seconds, at sizes too small to mean anything"
    parser.add_argument("--quick", action="store_true", help=quick)
    args = parser.parse_args(arguments)
    sizes, threads = QUICK if args.quick else Sizes(), pick()

    run, tokenizer, examples = demonstrations(sizes)
    starts = range(0, len(examples), sizes.block)
    blocks = [examples[start : start + sizes.block] for start in starts]
    model, peak = run.new_model(), matmul_peak()
    print(f"torch {torch.__version__}, threads: {threads}")
    print(f"matrix-product peak {peak / 1e9:.0f} GFLOP/s in fp32")
    print(f"medians of {sizes.repeats} turns; ratio: how many times as fast as the peer\n")
    print_row("", "minilpo", "transformers", "ratio")
    print_pretraining(model, tokenizer.pad_id, blocks, sizes.steps, peak)

    # For the rest a model that ends its responses as a trained one does: a fifth of the demo's
    # training is enough.
    corpus = Corpus(examples, examples[:1], tokenizer.pad_id)
    settings = PretrainConfig(steps=sizes.steps_of_writer, learning_rate=sizes.learning_rate)
    pretrain(model, corpus, settings, seed=0)
    lm = GPTLanguageModel(model.requires_grad_(False), tokenizer)
    peak = max(peak, matmul_peak())
    print_sampling(lm, run, sizes, peak)
    print_head(lm, run.choices, sizes)
    print_lpo(lm, run, sizes)
    if args.demo:
        with tempfile.TemporaryDirectory() as folder:
            peer_step = partial(
                transformers_step_seconds, model, tokenizer.pad_id, blocks, sizes.steps
            )
            print_demo(Path(folder) / "demo", sizes, peer_step, run.config.pretrain.steps)
            print_memory(Path(folder), sizes)
    curves = measure_scaling(lm, run, sizes)
    print_scaling(curves)
    if args.figure:
        draw_scaling(curves, args.figure)


if __name__ == "__main__":
    main()
