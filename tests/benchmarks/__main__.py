"""How fast is minilpo? `python -m tests.benchmarks [--demo] [--figure FILE]` prints one table.

Run it from the repository root. Seconds differ from machine to machine, so what counts are ratios
of numbers that were measured in the same run, in turns: against transformers' GPT-2 with our
weights, and against the machine's own peak in products of matrices.

    measure    how things are timed
    peer       transformers' GPT-2 with our shape and weights
    speed      pretraining, sampling, the head, an LPO epoch
    scaling    how each phase grows
    commands   the demo, phase by phase, and the memory of training
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from minilpo.config import PretrainConfig, RunConfig
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.pretraining import POOL, Corpus, Example, pretrain
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.threads import in_words, pick
from minilpo.run.folder import Run
from tests.benchmarks.commands import print_demo, print_memory
from tests.benchmarks.measure import matmul_peak, print_row
from tests.benchmarks.peer import transformers_step_seconds
from tests.benchmarks.scaling import draw_scaling, measure_scaling, print_scaling
from tests.benchmarks.speed import print_head, print_lpo, print_pretraining, print_sampling


def demonstrations(n: int) -> tuple[Run, Tokenizer, list[Example]]:
    """The run that the demo makes, its tokenizer, and the first `n` examples of its corpus."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder), RunConfig())
        tokenizer = run.tokenizer()
    examples = run.corpus(tokenizer).examples[:n]
    run.forget_corpus()
    return run, tokenizer, list(examples)


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Ratios of speeds, measured in one run."
    )
    parser.add_argument(
        "--repeats", type=int, default=7, help="turns that each median is of (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=3 * POOL,
        help="pretraining steps a turn (default: %(default)s)",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="also run the whole demo, and measure the memory of training",
    )
    parser.add_argument("--figure", type=Path, help="write the figure of how each phase grows")
    args = parser.parse_args()
    if args.repeats < 5 or args.steps < 1:
        parser.error("--repeats must be at least 5 and --steps at least 1")
    threads = pick()

    size = args.steps * PretrainConfig().batch_size
    run, tokenizer, examples = demonstrations((args.repeats + 1) * size)
    if len(examples) < (args.repeats + 1) * size:
        parser.error(
            f"--repeats and --steps must need at most {len(examples)} demonstrations; "
            "make one of them smaller"
        )
    blocks = [examples[start : start + size] for start in range(0, len(examples), size)]
    model, peak = run.new_model(), matmul_peak()
    print(f"torch {torch.__version__}, {in_words(threads.n)}")
    print(f"matrix-product peak {peak / 1e9:.0f} GFLOP/s in fp32")
    print(f"medians of {args.repeats} turns; ratio: how many times as fast as the peer\n")
    print_row("", "minilpo", "transformers", "ratio")
    print_pretraining(model, tokenizer.pad_id, blocks, args.steps, peak)

    # For the rest a model that ends its responses as a trained one does: a fifth of the demo's
    # training is enough.
    corpus = Corpus(examples, examples[:1], tokenizer.pad_id)
    pretrain(model, corpus, PretrainConfig(steps=600), seed=0)
    lm = GPTLanguageModel(model.requires_grad_(False), tokenizer)
    peak = max(peak, matmul_peak())
    print_sampling(lm, run, args.repeats, peak)
    print_head(lm, run.choices, args.repeats)
    print_lpo(lm, run, args.repeats)
    if args.demo:
        with tempfile.TemporaryDirectory() as folder:
            peer_step = partial(
                transformers_step_seconds, model, tokenizer.pad_id, blocks, args.steps
            )
            print_demo(Path(folder) / "demo", peer_step, run.config.pretrain.steps)
            print_memory(Path(folder) / "demo")
    curves = measure_scaling(lm, run, 5)
    print_scaling(curves, 5)
    if args.figure:
        draw_scaling(curves, args.figure)


if __name__ == "__main__":
    main()
