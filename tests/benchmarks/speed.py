"""minilpo against transformers, and what LPO saves by storing what the head read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from tests.benchmarks.measure import Timed, matmul_peak, print_row, print_timed, side_by_side
from tests.benchmarks.peer import transformers_loss, transformers_model, transformers_pretrain, transformers_sample

Again = Callable[[GPT, Tokenizer, list[Rollout], LPOConfig], list[Rollout]]

ROWS_AT_ONCE = 128  # what `generate` writes together of 4 or more samples a prompt
PROMPT_TOKENS, NEW_TOKENS = 14, 43
FASTER_PEER = {"activation_function": "gelu_pytorch_tanh"}


def block_weights(model: GPT) -> tuple[int, int]:
    """Weights of the blocks that are needed at every token, and those needed only where a hidden state is wanted."""
    last, C = model.blocks[-1], model.config.n_embd
    late = C**2 + sum(layer.weight.numel() for layer in (last.attention.out, last.up, last.down))  # C**2: the queries
    return sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2) - late, late


def training_flops(model: GPT, examples: Sequence[Example]) -> float:
    """Floating-point operations that one pass of training over the examples can't do without."""
    # A product of matrices costs 2 operations a weight and token forward and 4 backward. The last block, but for its keys and
    # values, and the un-embedding count only at targets. Attention has two products, each with 2 C operations a pair of tokens
    # and layer, over the n^2 / 2 pairs that causality leaves. Padding, biases, norms and look-ups count nothing.
    config: ModelConfig = model.config
    everywhere, late = block_weights(model)
    flops = 0.0
    for token_ids, prompt_length in examples:
        n = len(token_ids) - 1  # the last token is a target, but isn't read
        pairs = config.n_layer * n**2 - prompt_length**2  # the last layer's only at targets
        flops += 6 * everywhere * n + 6 * config.n_embd * pairs
        flops += 6 * (late + config.vocab_size * config.n_embd) * (n - prompt_length)
    return flops


def sampling_flops(model: GPT, n_tokens: int) -> float:
    """Floating-point operations of the matrix products with weights that sampling needs, prompts and attention left out."""
    return 2 * n_tokens * (sum(block_weights(model)) + model.config.vocab_size * model.config.n_embd)


def print_pretraining(model: GPT, pad_id: int, blocks: list[list[Example]], steps: int, peak: float) -> None:
    """Pretraining on blocks of the demo's demonstrations, one block a turn; the first only warms up."""
    config = PretrainConfig(steps=steps)
    rows = {}
    for name, settings in {"": {}, "its fused GELU": FASTER_PEER}.items():
        theirs = transformers_model(model, **settings)
        batch = collate(blocks[0][: config.batch_size], pad_id)
        expected = transformers_loss(theirs, *batch)
        torch.testing.assert_close(language_model_loss(model, *batch), expected)  # the same work
        copy = GPT(model.config)
        copy.load_state_dict(model.state_dict())
        rows[name] = side_by_side(
            lambda i, copy=copy: pretrain(copy, blocks[i], blocks[i][:1], pad_id, config, seed=0),  # held out: one example
            lambda i, theirs=theirs: transformers_pretrain(theirs, blocks[i], pad_id, config),
            len(blocks) - 1,
        )
    timed, peak = rows[""], max(peak, matmul_peak())
    tokens = [sum(len(token_ids) - 1 for token_ids, _ in block) for block in blocks[1:]]
    rates = [median(n / s for n, s in zip(tokens, seconds, strict=True)) for seconds in (timed.ours, timed.theirs)]
    print_timed("pretraining", timed, "tokens/s", *rates, "target: 1.6 or more")
    flops = [training_flops(model, block) for block in blocks[1:]]
    share = [median(f / s / peak for f, s in zip(flops, seconds, strict=True)) for seconds in (timed.ours, timed.theirs)]
    print_row("  share of the matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}", note="target: 45% or more")
    print_bounds(partial(pretrain, copy, blocks[0], blocks[0][:1], pad_id, config, seed=0), peak)
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
            # It is faster with 256 rows at a time than with 2,048.
            lambda _, prompts=prompts: [
                transformers_sample(theirs, part.tolist(), 1, NEW_TOKENS, pad_id, None) for part in prompts.split(256)
            ],
            repeats,
        )
        n_tokens = n_rows * NEW_TOKENS
        rates = n_tokens / median(timed.ours), n_tokens / median(timed.theirs)
        target = "target: 3 or more" if n_rows == 256 else "no target"
        print_timed(f"sampling, {n_rows:,} rows", timed, "tokens/s", *rates, target)
        share = [sampling_flops(model, n_tokens) / median(seconds) / peak for seconds in (timed.ours, timed.theirs)]
        print_row("  share of the matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}")
        if n_rows == 256:
            print_faster_peer(model, prompts, pad_id, repeats)
            print_bounds(partial(write_without_end, model, at_one, prompts), peak)

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
    a_token = Timed(  # seconds a token: what is drawn differs, and so does how much
        [s / n for s, n in zip(timed.ours, counts["ours"][1:], strict=True)],
        [s / n for s, n in zip(timed.theirs, counts["theirs"][1:], strict=True)],
    )
    rates = 1 / median(a_token.ours), 1 / median(a_token.theirs)
    print_timed("sampling, 16 responses a prompt", a_token, "tokens/s", *rates, "target: 4 or more")


def print_faster_peer(model: GPT, prompts: Tensor, pad_id: int, repeats: int) -> None:
    """The same against transformers with the GELU that isn't its default for GPT-2."""
    theirs = transformers_model(model, **FASTER_PEER).eval()
    timed = side_by_side(
        lambda _: write_without_end(model, FixedTemperatures([1.0]), prompts),
        lambda _: transformers_sample(theirs, prompts.tolist(), 1, NEW_TOKENS, pad_id, None),
        repeats,
    )
    print_row("  transformers with its fused GELU", ratio=f"{timed.ratio:.2f}", note="not its default for GPT-2; same results")


def print_bounds(work: Callable[[], object], peak: float) -> None:
    """What our time goes to, by kind of operation, and how near to the peak the products with weights are."""
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        work()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)  # microseconds

    def share(*names: str) -> float:
        return sum(event.self_cpu_time_total for event in events if any(name in event.key for name in names)) / total

    products = share("aten::addmm", "aten::mm")
    flops = sum(event.flops for event in events if event.key in ("aten::addmm", "aten::mm"))
    rate = flops / (products * total / 1e6) / peak
    print_row("  of our time: products with weights", f"{products:.0%}", note=f"at {rate:.0%} of the peak")
    print_row("  attention", f"{share('aten::bmm', 'attention'):.0%}")
    print_row("  GELU", f"{share('aten::gelu'):.0%}")


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
    """One epoch of LPO from what was stored, against epochs that run the transformer again for each pair."""
    task_of, prompts = mixed_prompts(run.tasks, 128, "train", python_rng(0, "benchmark"))
    for level in ("sequence", "token"):
        config = LPOConfig().resolved(level)
        head = AdaptiveDecoder(model.config.n_embd, run.config.temperatures, level, generator=torch_generator(0, "head"))
        rollout, pairs, _ = collect_pairs(model, tokenizer, task_of, prompts, head, config, torch_generator(0, "benchmark"))
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)

        def epoch(again: Again | None, head=head, rollout=rollout, pairs=pairs, config=config, optimizer=optimizer) -> None:
            for batch in torch.arange(len(pairs.chosen)).split(config.pairs_per_batch):
                sides = [rollout.rows(pairs.chosen[batch]), rollout.rows(pairs.rejected[batch])]
                sides = again(model, tokenizer, sides, config) if again else sides
                scores = [response_scores(head, side, config) for side in sides]
                optimizer.zero_grad()
                preference_loss(*scores, config.beta).mean().backward()
                optimizer.step()

        ways = {"texts": (run_texts_again, "target: 20 or more" if level == "sequence" else "no target")}
        if level == "sequence":
            ways["prompts"] = (run_prompts_again, "no target; all that Eq. 10 needs at this level")
        for what, (way, target) in ways.items():
            timed = side_by_side(lambda _, epoch=epoch: epoch(None), lambda _, epoch=epoch, way=way: epoch(way), repeats)
            rates = len(pairs.chosen) / median(timed.ours), len(pairs.chosen) / median(timed.theirs)
            print_timed(f"LPO epoch, {level}; {what} again", timed, "pairs/s", *rates, target)


@torch.no_grad()
def run_texts_again(model: GPT, tokenizer: Tokenizer, sides: list[Rollout], config: LPOConfig) -> list[Rollout]:
    """What the head reads, and Eq. 11's constants, computed anew from prompts and responses, as DPO does."""
    computed = []
    for side in sides:
        hidden_states = read(model, tokenizer, side)[side.decided_tokens[side.response_mask]]
        side = replace(side, hidden_states=hidden_states, choice_logprobs=None)
        computed.append(with_choice_logprobs(model, tokenizer, side) if config.loss == "eq11" else side)
    return computed


@torch.no_grad()
def run_prompts_again(model: GPT, tokenizer: Tokenizer, sides: list[Rollout], config: LPOConfig) -> list[Rollout]:
    """What the head reads at sequence level, computed anew from the prompts alone, once for both sides of a pair."""
    prompts = [[*token_ids, tokenizer.sep_id] for token_ids in tokenizer.encode_batch(sides[0].prompts)]
    T = max(map(len, prompts))
    token_ids = torch.tensor([prompt + [tokenizer.pad_id] * (T - len(prompt)) for prompt in prompts])
    ends = torch.tensor([len(prompt) for prompt in prompts])
    hidden_states = model(token_ids, only=torch.arange(T) == ends[:, None] - 1)
    return [replace(side, hidden_states=hidden_states) for side in sides]
