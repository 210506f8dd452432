"""minilpo against transformers, and what LPO saves by storing what the head read."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.config import LPOConfig, ModelConfig, PretrainConfig
from minilpo.losses import preference_loss
from minilpo.lpo import collect_pairs, response_scores
from minilpo.model import GPT
from minilpo.pretraining import Example, collate, language_model_loss, pretrain
from minilpo.rollout import Rollout, _write, generate, read, with_choice_logprobs
from minilpo.run import Run
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts
from minilpo.tokenizer import Tokenizer
from tests.benchmarks.measure import print_row, print_timed, side_by_side
from tests.benchmarks.peer import transformers_loss, transformers_model, transformers_pretrain, transformers_sample

ROWS_AT_ONCE = 128  # the default of `generate`
PROMPT_TOKENS, NEW_TOKENS = 14, 43


def block_parameters(model: GPT) -> tuple[int, int]:
    """Parameters that work on every token, and those that work only where a hidden state is wanted (see `GPT.forward`)."""
    last = model.blocks[-1]
    n_late = sum(p.numel() for part in (last.attention.out, last.norm_2, last.up, last.down) for p in part.parameters())
    return sum(p.numel() for p in model.blocks.parameters()) - n_late, n_late


def training_flops(model: GPT, examples: Sequence[Example]) -> float:
    """Floating-point operations that one pass of training over the examples can't do without."""
    # A product of matrices costs 2 operations a weight and token forward and 4 backward. Most of the last block and the
    # un-embedding count only at targets. Attention has two products, each with 2 C operations a pair of tokens and layer, over
    # the n^2 / 2 pairs that causality leaves. Padding, norms and look-ups count nothing.
    config: ModelConfig = model.config
    everywhere, late = block_parameters(model)
    flops = 0.0
    for token_ids, prompt_length in examples:
        n = len(token_ids) - 1  # the last token is a target, but isn't read
        flops += 6 * everywhere * n + 6 * config.n_layer * config.n_embd * n**2
        flops += 6 * (late + config.vocab_size * config.n_embd) * (n - prompt_length)
    return flops


def sampling_flops(model: GPT, n_tokens: int) -> float:
    """Floating-point operations of the matrix products with weights that sampling needs, prompts and attention left out."""
    return 2 * n_tokens * (sum(block_parameters(model)) + model.config.vocab_size * model.config.n_embd)


def print_pretraining(model: GPT, pad_id: int, blocks: list[list[Example]], steps: int, peak: float) -> None:
    """Pretraining on blocks of the demo's demonstrations, one block a turn; the first only warms up."""
    config = PretrainConfig(steps=steps)
    rows = {}
    for name, settings in {"": {}, "its fused GELU": {"activation_function": "gelu_pytorch_tanh"}}.items():
        theirs = transformers_model(model, **settings)
        batch = collate(blocks[0][: config.batch_size], pad_id)
        expected = transformers_loss(theirs, *batch, pad_id)
        torch.testing.assert_close(language_model_loss(model, *batch), expected)  # the same work
        copy = GPT(model.config)
        copy.load_state_dict(model.state_dict())
        rows[name] = side_by_side(
            lambda i, copy=copy: pretrain(copy, blocks[i], blocks[i][:1], pad_id, config, seed=0),  # held out: one example
            lambda i, theirs=theirs: transformers_pretrain(theirs, blocks[i], pad_id, config),
            len(blocks) - 1,
        )
    timed = rows[""]
    tokens = [sum(len(token_ids) - 1 for token_ids, _ in block) for block in blocks[1:]]
    rates = [median(n / s for n, s in zip(tokens, seconds, strict=True)) for seconds in (timed.ours, timed.theirs)]
    print_timed("pretraining", timed, "tokens/s", *rates, "target: 1.6 or more")
    flops = [training_flops(model, block) for block in blocks[1:]]
    share = [median(f / s / peak for f, s in zip(flops, seconds, strict=True)) for seconds in (timed.ours, timed.theirs)]
    print_row("  share of the matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}", note="target: 45% or more")
    faster = rows["its fused GELU"]
    print_row("  transformers with its fused GELU", ratio=f"{faster.ratio:.2f}", note="not its default for GPT-2; same results")


def write_without_end(model: GPT, head: torch.nn.Module, prompts: Tensor, selection: str = "greedy") -> None:
    """Samples `NEW_TOKENS` after each prompt, (B, PROMPT_TOKENS); no row ends early."""
    uniforms = torch.rand(len(prompts), 1, NEW_TOKENS, 2, generator=torch.Generator().manual_seed(0))
    for part, numbers in zip(prompts.split(ROWS_AT_ONCE), uniforms.split(ROWS_AT_ONCE), strict=True):
        _write(model, head, selection, -1, part, torch.zeros(len(part), dtype=torch.long), numbers)


def print_sampling(model: GPT, tokenizer: Tokenizer, run: Run, repeats: int, peak: float) -> None:
    """Sampling from the trained model against transformers' `generate`: rows of equal length, then real tasks."""
    theirs = transformers_model(model).eval()
    at_one = FixedTemperatures([1.0])
    pad_id, eos_id = tokenizer.pad_id, tokenizer.eos_id
    for n_rows in (256, 2048):
        shape = (n_rows, PROMPT_TOKENS)
        prompts = torch.randint(5, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        timed = side_by_side(
            lambda _, prompts=prompts: write_without_end(model, at_one, prompts),
            lambda _, prompts=prompts: transformers_sample(theirs, prompts.tolist(), 1, NEW_TOKENS, pad_id, None),
            repeats,
        )
        n_tokens = n_rows * NEW_TOKENS
        rates = n_tokens / median(timed.ours), n_tokens / median(timed.theirs)
        target = "target: 3 or more" if n_rows == 256 else "no target"
        print_timed(f"sampling, {n_rows:,} rows", timed, "tokens/s", *rates, target)
        share = [sampling_flops(model, n_tokens) / median(seconds) / peak for seconds in (timed.ours, timed.theirs)]
        print_row("  share of the matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}")
        if n_rows == 256:
            print_bounds(partial(write_without_end, model, at_one, prompts))

    _, prompts = mixed_prompts(run.tasks, 64, "test", python_rng(0, "benchmark"))
    encoded = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(prompts)]
    room = model.config.block_size - max(map(len, encoded))
    counts: dict[str, list[int]] = {"ours": [], "theirs": []}

    def ours(turn: int) -> None:
        rollout = generate(model, tokenizer, prompts, at_one, torch_generator(turn, "benchmark"), n_samples=16)
        counts["ours"].append(int(rollout.response_mask.sum()))

    def peers(_: int) -> None:
        starts = range(0, len(encoded), 16)
        parts = [transformers_sample(theirs, encoded[i : i + 16], 16, room, pad_id, eos_id) for i in starts]
        counts["theirs"].append(sum(int((part != pad_id).sum()) for part in parts))

    timed = side_by_side(ours, peers, repeats)
    rates = [median(n / s for n, s in zip(counts[name][1:], getattr(timed, name), strict=True)) for name in counts]
    print_timed("sampling, 16 responses a prompt", timed, "tokens/s", *rates, "target: 4 or more")


def print_bounds(work: Callable[[], object]) -> None:
    """What sampling spends its time on, by kind of operation: what no rearrangement of the rest could go below."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    kinds = {"products with weights": ("aten::addmm", "aten::mm"), "attention's products": ("aten::bmm",)}
    for kind, names in kinds.items():
        share = sum(spent[name] for name in names) / sum(spent.values())
        print_row(f"  {kind}, share of our time", f"{share:.0%}", note="what bounds it" if "weights" in kind else "")


def print_head(model: GPT, temperatures: Sequence[float], repeats: int) -> None:
    """Sampling with an untrained head that decides at every token, against the same temperatures fixed."""
    prompts = torch.randint(5, model.config.vocab_size, (256, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    head = AdaptiveDecoder(model.config.n_embd, list(temperatures), "token").requires_grad_(False)
    timed = side_by_side(
        lambda _: write_without_end(model, head, prompts, "sample"),
        lambda _: write_without_end(model, FixedTemperatures(list(temperatures)), prompts),
        repeats,
    )
    cost = [1 - ratio for ratio in timed.ratios]
    note = f"target: 15% of sampling time or less; turns {min(cost):.1%} to {max(cost):.1%}"
    print_row("token-level head", f"{median(cost):.1%}", note=note)


def print_lpo(model: GPT, tokenizer: Tokenizer, run: Run, repeats: int) -> None:
    """One epoch of LPO from what was stored, against one that runs the transformer again for each pair."""
    task_of, prompts = mixed_prompts(run.tasks, 128, "train", python_rng(0, "benchmark"))
    for level, target in {"sequence": "target: 20 or more", "token": "Eq. 11; see the README for what bounds it"}.items():
        config = LPOConfig().resolved(level)
        head = AdaptiveDecoder(model.config.n_embd, run.config.temperatures, level, generator=torch_generator(0, "head"))
        rollout, pairs, _ = collect_pairs(model, tokenizer, task_of, prompts, head, config, torch_generator(0, "benchmark"))
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)

        def epoch(again: bool, head=head, rollout=rollout, pairs=pairs, config=config, optimizer=optimizer) -> None:
            for batch in torch.arange(len(pairs.chosen)).split(config.pairs_per_batch):
                scores = []
                for rows in (pairs.chosen[batch], pairs.rejected[batch]):
                    some = rollout.rows(rows)
                    scores.append(response_scores(head, run_again(model, tokenizer, some, config) if again else some, config))
                optimizer.zero_grad()
                preference_loss(*scores, config.beta).mean().backward()
                optimizer.step()

        timed = side_by_side(lambda _, epoch=epoch: epoch(False), lambda _, epoch=epoch: epoch(True), repeats)
        n_pairs = len(pairs.chosen)
        rates = n_pairs / median(timed.ours), n_pairs / median(timed.theirs)
        print_timed(f"LPO epoch, {level} level (again)", timed, "pairs/s", *rates, target)


@torch.no_grad()
def run_again(model: GPT, tokenizer: Tokenizer, rollout: Rollout, config: LPOConfig) -> Rollout:
    """The rollout with what the head reads, and Eq. 11's constants, computed anew from the texts."""
    hidden_states = read(model, tokenizer, rollout)  # (n, C) at every token
    decided = torch.zeros_like(rollout.response_mask)
    decided[:, : rollout.decision_mask.shape[1]] = rollout.decision_mask
    fields = {**vars(rollout), "hidden_states": hidden_states[decided[rollout.response_mask]], "choice_logprobs": None}
    again = Rollout(**fields)
    return with_choice_logprobs(model, tokenizer, again) if config.loss == "eq11" else again
