"""How fast is minilpo? `python -m tests.benchmarks [--demo]`, from the repository root, prints one table.

Seconds differ from machine to machine, so what counts are ratios of numbers that were measured in the same run: our
pretraining against transformers' GPT-2 of the same shape on the same batches, and the whole demo against transformers'
pretraining alone.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from minilpo.config import ModelConfig, PretrainConfig, RunConfig
from minilpo.model import GPT
from minilpo.pretraining import POOL, Example, collate, encode_examples, language_model_loss, pretrain, training_batches
from minilpo.run import Run
from minilpo.seeds import python_rng
from minilpo.tasks import corpus
from tests.gpt2_weights import as_transformers_weights

DEMO = ("-m", "minilpo", "demo", "--seed", "0")
DEMO_RATIO, DEMO_MEGABYTES = 2.5, 500  # the targets

# Runs a command and prints its seconds and its peak memory. It stands between us and the demo because a process starts out
# with the peak of the one it was forked from: our own memory, transformers included, would be counted as the demo's.
OBSERVER = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def matmul_peak(size: int = 1024, repeats: int = 10) -> float:
    """Floating-point operations a second of the fastest of several fp32 products of two (size, size) matrices."""
    a, b = torch.rand(2, size, size)
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))


def demonstrations(n: int) -> tuple[Run, int, list[Example]]:
    """The run that the demo makes, its padding id, and the first `n` of the examples it is pretrained on."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder), RunConfig())
        tokenizer = run.tokenizer()
    rng = python_rng(run.config.seed, "demonstrations")
    texts = corpus(run.tasks, run.config.pretrain.demonstrations, "train", rng)
    examples = (example for block in texts for example in encode_examples(tokenizer, block))
    return run, tokenizer.pad_id, list(islice(examples, n))


def transformers_model(model: GPT) -> GPT2LMHeadModel:
    """transformers' GPT-2 with our shape and weights, ready to be trained."""
    shape = dataclasses.asdict(model.config)
    shape["n_positions"] = shape.pop("block_size")  # the other names are the same
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    other = GPT2LMHeadModel(GPT2Config(**shape, **no_dropout, use_cache=False, bos_token_id=None, eos_token_id=None))
    other.loss_type = "ForCausalLM"  # what it would take anyway, with a warning
    other.load_state_dict(as_transformers_weights(model))
    return other.train()


def transformers_loss(model: GPT2LMHeadModel, token_ids: Tensor, target_mask: Tensor, pad_id: int) -> Tensor:
    """`language_model_loss` the way transformers is used: labels beside the tokens, -100 where nothing is to be learned."""
    labels = token_ids.clone()
    labels[:, 0] = -100
    labels[:, 1:][~target_mask] = -100
    return model(input_ids=token_ids, attention_mask=(token_ids != pad_id).long(), labels=labels).loss


def transformers_pretrain(model: GPT2LMHeadModel, examples: Sequence[Example], pad_id: int, config: PretrainConfig) -> None:
    """What `pretrain` does, without its schedule, its two groups of parameters and its log."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches = training_batches(examples, config.batch_size, pad_id, python_rng(0, "order of the demonstrations"))
    for _, (token_ids, target_mask) in zip(range(config.steps), batches, strict=False):
        transformers_loss(model, token_ids, target_mask, pad_id).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def training_flops(model: GPT, examples: Sequence[Example]) -> float:
    """Floating-point operations that one pass of training over the examples can't do without."""
    # A product of matrices costs 2 operations a weight and token forward and 4 backward. The non-embedding parameters count at
    # every token that is read, the un-embedding only at targets. Attention has two products, each with 2 C operations a pair of
    # tokens and layer, over the n^2 / 2 pairs that causality leaves. Padding, norms and look-ups count nothing.
    config: ModelConfig = model.config
    parameters = sum(p.numel() for p in [*model.blocks.parameters(), *model.norm.parameters()])
    flops = 0.0
    for token_ids, prompt_length in examples:
        n = len(token_ids) - 1  # the last token is a target, but isn't read
        flops += 6 * parameters * n + 6 * config.n_layer * config.n_embd * n**2
        flops += 6 * config.vocab_size * config.n_embd * (n - prompt_length)
    return flops


def measure_demo() -> tuple[float, float]:
    """Wall-clock seconds and peak memory in MB of a whole demo in a process of its own; its progress goes to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", OBSERVER, sys.executable, *DEMO, "--out", str(Path(folder) / "demo")]
        observed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak = map(float, observed.split())
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux kilobytes


def print_row(what: str, ours: str = "", theirs: str = "", ratio: str = "", note: str = "") -> None:
    """Prints a line of the table."""
    print(f"{what:<32}{ours:>10}{theirs:>14}{ratio:>9}   {note}".rstrip(), flush=True)


def print_pretraining(
    seconds: list[tuple[float, float]], blocks: list[list[Example]], model: GPT, steps: int, peak: float
) -> None:
    """Prints medians over blocks, given the seconds that (minilpo, transformers) spent on each and the matrix-product peak."""
    tokens = [sum(len(token_ids) - 1 for token_ids, _ in block) for block in blocks]
    flops = [training_flops(model, block) for block in blocks]
    ms = [median(1000 * s[i] / steps for s in seconds) for i in (0, 1)]
    rate = [median(n / s[i] for n, s in zip(tokens, seconds, strict=True)) for i in (0, 1)]
    share = [median(f / s[i] / peak for f, s in zip(flops, seconds, strict=True)) for i in (0, 1)]
    ratios = [ours / theirs for ours, theirs in seconds]
    spread = f"blocks from {min(ratios):.2f} to {max(ratios):.2f}"
    print_row("pretraining, ms/step", f"{ms[0]:.1f}", f"{ms[1]:.1f}", f"{median(ratios):.2f}", spread)
    print_row("pretraining, tokens/s", f"{rate[0]:.0f}", f"{rate[1]:.0f}")
    print_row("share of matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}")


def main() -> None:
    """Measures everything, then prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Ratios of speeds, measured in one run.")
    parser.add_argument("--blocks", type=int, default=9, help="blocks of pretraining steps (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3 * POOL, help="steps a block (default: %(default)s)")
    parser.add_argument("--demo", action="store_true", help="also run the whole demo")
    args = parser.parse_args()
    if args.blocks < 1 or args.steps < 1:
        parser.error("--blocks and --steps must be at least 1")

    config = PretrainConfig(steps=args.steps)
    size = args.steps * config.batch_size
    run, pad_id, examples = demonstrations((args.blocks + 1) * size)  # a block more, to warm up
    if len(examples) < (args.blocks + 1) * size:
        parser.error(f"--blocks and --steps must need at most {len(examples)} demonstrations, got {(args.blocks + 1) * size}")
    blocks = [examples[start : start + size] for start in range(0, len(examples), size)]

    ours = run.new_model()
    theirs = transformers_model(ours)
    batch = collate(examples[: config.batch_size], pad_id)
    torch.testing.assert_close(language_model_loss(ours, *batch), transformers_loss(theirs, *batch, pad_id))  # the same work

    seconds, peak = [], 0.0
    for i, block in enumerate(blocks):
        if args.demo and i == len(blocks) // 2:  # amid the blocks, so that both see the same machine if it slows down
            demo_seconds, demo_megabytes = measure_demo()
        trainings = [
            partial(pretrain, ours, block, block[:1], pad_id, config, seed=0),  # held-out loss on one example: next to nothing
            partial(transformers_pretrain, theirs, block, pad_id, config),
        ]
        peak = max(peak, matmul_peak())
        times = {j: seconds_of(trainings[j]) for j in ((0, 1), (1, 0))[i % 2]}  # they take turns at going first
        seconds.append((times[0], times[1]))
    blocks, seconds = blocks[1:], seconds[1:]  # without the warm-up

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, matrix-product peak {peak / 1e9:.0f} GFLOP/s in fp32")
    print(f"pretraining: medians of {args.blocks} blocks of {args.steps} steps; ratio: minilpo / transformers\n")
    print_row("", "minilpo", "transformers", "ratio")
    print_pretraining(seconds, blocks, ours, args.steps, peak)
    if args.demo:
        steps = run.config.pretrain.steps
        needed = steps * median(theirs_s for _, theirs_s in seconds) / args.steps
        note = f"target: at most {DEMO_RATIO}; transformers: {steps} steps of pretraining alone"
        print_row("whole demo, s", f"{demo_seconds:.0f}", f"{needed:.0f}", f"{demo_seconds / needed:.2f}", note)
        print_row("whole demo, peak memory in MB", f"{demo_megabytes:.0f}", note=f"target: under {DEMO_MEGABYTES}")


if __name__ == "__main__":
    main()
