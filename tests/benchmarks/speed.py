"""minilpo against transformers, and LPO with stored features against reading texts again."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2LMHeadModel

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions, unpack
from minilpo.config import LPOConfig, ModelConfig, PretrainConfig
from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.generate import _write, generate, respond
from minilpo.decoding.policies import Fixed, Policy, SampledHead
from minilpo.decoding.rollout import MarginalDecisions, Rollout, forward_rollout, marginal_decisions
from minilpo.huggingface import HuggingFaceLanguageModel
from minilpo.lm.language_model import GPTLanguageModel, LanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Corpus, Example, collate, language_model_loss, pretrain
from minilpo.lpo import lpo_loss, response_scores
from minilpo.preferences import PreferencePairs
from minilpo.run.folder import Run
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Prompt, mixed_prompts
from minilpo.training import form_pairs, join, split
from tests.benchmarks.measure import Sizes, Timed, matmul_peak, print_row, print_timed, side_by_side
from tests.benchmarks.peer import (
    transformers_loss,
    transformers_model,
    transformers_pretrain,
    transformers_sample,
)
from tests.gpt2_weights import as_transformers_tokenizer

# Computes the decisions of some responses again from their texts.
Again = Callable[[GPTLanguageModel, Rollout, Choices, LPOConfig], Decisions]

AT_ONE = Fixed(Temperatures([1.0]))
PAD_ID = 0  # random prompts need none
ROWS_AT_ONCE = 128  # rows that `generate` writes together, of 4 or more samples per prompt
PROMPT_TOKENS, NEW_TOKENS = 14, 43
FASTER_PEER = {"activation_function": "gelu_pytorch_tanh"}
FASTER = "  transformers with its fused GELU"
ITS_DEFAULT = "not its default for GPT-2; same results"


def block_weights(model: GPT) -> tuple[int, int]:
    """Counts the blocks' weights used at every token, and those used only at targets."""
    last, C = model.blocks[-1], model.config.n_embd
    layers = last.attention.out, last.up, last.down
    late = C**2 + sum(layer.weight.numel() for layer in layers)  # C**2: the queries
    return sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2) - late, late


def training_flops(model: GPT, examples: Sequence[Example]) -> float:
    """Counts the floating-point operations that a pass of training needs at least."""
    # A product of matrices costs 2 operations per weight and token forward, 4 backward. The last
    # block, but for its keys and values, and the un-embedding count only at targets. Attention has
    # two products, each with 2 C operations per pair of tokens and layer, over the n^2 / 2 pairs that
    # causality leaves. Padding, biases, norms and look-ups count nothing.
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
    """Counts the operations of products with weights in sampling, without prompts and attention."""
    un_embedding = model.config.vocab_size * model.config.n_embd
    return 2 * n_tokens * (sum(block_weights(model)) + un_embedding)


def print_pretraining(
    model: GPT, pad_id: int, blocks: list[list[Example]], steps: int, peak: float
) -> None:
    """Pretraining on blocks of the demo's corpus, one block per turn; the first only warms up."""
    config = PretrainConfig(steps=steps)
    corpora = [Corpus(block, block[:1], pad_id) for block in blocks]  # held out: one example
    turns = {}
    for name, settings in {"": {}, "its fused GELU": FASTER_PEER}.items():
        theirs = transformers_model(model, **settings)
        batch = collate(blocks[0][: config.batch_size], pad_id)
        expected = transformers_loss(theirs, *batch)
        torch.testing.assert_close(language_model_loss(model, *batch), expected)  # the same work
        copy = GPT(model.config)
        copy.load_state_dict(model.state_dict())
        turns[name] = side_by_side(
            lambda i, copy=copy: pretrain(copy, corpora[i], config, seed=0),
            lambda i, theirs=theirs: transformers_pretrain(theirs, blocks[i], pad_id, config),
            len(blocks) - 1,
        )
    timed, peak = turns[""], max(peak, matmul_peak())
    tokens = [sum(len(token_ids) - 1 for token_ids, _ in block) for block in blocks[1:]]
    print_timed("pretraining", "tokens/s", timed.per(tokens, tokens), "target: 1.6 or more")
    flops = [training_flops(model, block) for block in blocks[1:]]
    print_share_of_peak(timed.per(flops, flops), peak, note="target: 45% or more")
    print_bounds(partial(pretrain, copy, corpora[0], config, seed=0), peak)
    print_row(FASTER, ratio=f"{turns['its fused GELU'].ratio:.2f}", note=ITS_DEFAULT)


def print_share_of_peak(per_operation: Timed, peak: float, note: str = "") -> None:
    """Prints how near both come to the machine's peak in products of matrices."""
    both = per_operation.ours, per_operation.theirs
    shares = [f"{1 / median(seconds) / peak:.1%}" for seconds in both]
    print_row("  share of the matrix-product peak", *shares, note=note)


def write_without_end(
    lm: LanguageModel, prompts: Tensor, n_tokens: int = NEW_TOKENS, policy: Policy = AT_ONE
) -> None:
    """Samples `n_tokens` tokens after each prompt, (B, T); no token ends a response."""
    uniforms = torch.rand(len(prompts), n_tokens, 2, generator=torch.Generator().manual_seed(0))
    endless = SimpleNamespace(prefill=lm.prefill, end_ids=())
    for part, numbers in zip(
        prompts.split(ROWS_AT_ONCE), uniforms.split(ROWS_AT_ONCE), strict=True
    ):
        limits = torch.full((len(part),), n_tokens)
        _write(endless, part.tolist(), 1, policy, numbers, limits)


def random_prompts(lm: GPTLanguageModel, n_rows: int) -> Tensor:
    """(n_rows, PROMPT_TOKENS) tokens, all equally likely."""
    shape, generator = (n_rows, PROMPT_TOKENS), torch.Generator().manual_seed(0)
    return torch.randint(5, lm.model.config.vocab_size, shape, generator=generator)


def print_sampling(lm: GPTLanguageModel, run: Run, sizes: Sizes, peak: float) -> None:
    """Sampling against transformers' `generate`: rows of equal length, then the demo's tasks."""
    theirs = transformers_model(lm.model).eval()
    for n_rows in sizes.rows:
        prompts, n_tokens = random_prompts(lm, n_rows), n_rows * NEW_TOKENS
        timed = endless_sampling(lm, theirs, prompts, sizes.repeats)
        target = "target: 3 or more" if n_rows == 256 else "no target"
        print_timed(f"sampling, {n_rows:,} rows", "tokens/s", timed, target, n_tokens)
        flops = [sampling_flops(lm.model, n_tokens)] * sizes.repeats
        print_share_of_peak(timed.per(flops, flops), peak)
        if n_rows == sizes.rows[0]:
            faster = transformers_model(lm.model, **FASTER_PEER).eval()
            ratio = endless_sampling(lm, faster, prompts, sizes.repeats).ratio
            print_row(FASTER, ratio=f"{ratio:.2f}", note=ITS_DEFAULT)
            # Transformers' model on both sides: our loop through the adapter, and its own.
            adapted = HuggingFaceLanguageModel(theirs, as_transformers_tokenizer(lm.tokenizer))
            timed = endless_sampling(adapted, theirs, prompts, sizes.repeats)
            what = "  our loop, transformers' model"
            print_timed(what, "tokens/s", timed, "no target", n_tokens)
            print_bounds(partial(write_without_end, lm, prompts), peak)

    drawn = mixed_prompts(run.tasks, sizes.prompts, "test", python_rng(0, "benchmark"))
    prompts = [prompt.text for prompt in drawn]
    encoded, pad_id, eos_id = lm.encode(prompts), lm.tokenizer.pad_id, lm.tokenizer.eos_id
    room = lm.max_length - max(map(len, encoded))
    # Tokens of each turn: responses differ, and so do their lengths.
    ours_written, theirs_written = [], []

    def ours(turn: int) -> None:
        rollout = generate(lm, prompts, AT_ONE, torch_generator(turn, "benchmark"), n_samples=16)
        ours_written.append(int(rollout.response_mask.sum()))

    def peers(_: int) -> None:
        starts = range(0, len(encoded), 16)
        parts = [
            transformers_sample(theirs, encoded[i : i + 16], 16, room, pad_id, eos_id)
            for i in starts
        ]
        theirs_written.append(sum(int((part != pad_id).sum()) for part in parts))

    timed = side_by_side(ours, peers, sizes.repeats).per(ours_written[1:], theirs_written[1:])
    print_timed("sampling, 16 responses per prompt", "tokens/s", timed, "target: 4 or more")


def endless_sampling(
    lm: LanguageModel, theirs: GPT2LMHeadModel, prompts: Tensor, repeats: int
) -> Timed:
    """Times `NEW_TOKENS` tokens after each prompt, by ours and by transformers' `generate`."""
    return side_by_side(
        lambda _: write_without_end(lm, prompts),
        # transformers is faster with 256 rows at a time than with 2,048.
        lambda _: [
            transformers_sample(theirs, part.tolist(), 1, NEW_TOKENS, PAD_ID, None)
            for part in prompts.split(256)
        ],
        repeats,
    )


def print_bounds(work: Callable[[], object], peak: float) -> None:
    """Prints the shares of our time, and how near to the peak products with weights are."""
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        work()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)  # microseconds

    def share(*names: str) -> float:
        own = [event for event in events if any(name in event.key for name in names)]
        return sum(event.self_cpu_time_total for event in own) / total

    products = share("aten::addmm", "aten::mm")
    flops = sum(event.flops for event in events if event.key in ("aten::addmm", "aten::mm"))
    rate = flops / (products * total / 1e6) / peak
    what = "  of our time: products with weights"
    print_row(what, f"{products:.0%}", note=f"at {rate:.0%} of the peak")
    print_row("  attention", f"{share('aten::bmm', 'attention'):.0%}")
    print_row("  GELU", f"{share('aten::gelu'):.0%}")


def print_head(lm: GPTLanguageModel, choices: Choices, sizes: Sizes) -> None:
    """An untrained head that decides at every token, against the same temperatures fixed."""
    prompts = random_prompts(lm, sizes.rows[0])
    head = AdaptiveDecoder(lm.model.config.n_embd, len(choices), "token").requires_grad_(False)
    timed = side_by_side(
        lambda _: write_without_end(lm, prompts, policy=SampledHead(head, choices)),
        lambda _: write_without_end(lm, prompts, policy=Fixed(choices)),
        sizes.repeats,
    )
    cost = [1 - ratio for ratio in timed.ratios]
    note = f"target: 15% of sampling time or less; turns {min(cost):.1%} to {max(cost):.1%}"
    print_row("token-level head", f"{median(cost):.1%}", note=note)


def rollout_in_pairs(
    lm: GPTLanguageModel,
    prompts: Sequence[Prompt],
    head: AdaptiveDecoder,
    choices: Choices,
    config: LPOConfig,
    generator: torch.Generator,
) -> tuple[Rollout, PreferencePairs]:
    """Does the first half of a round of `train_lpo`: the responses in pairs, and the pairs."""
    chunks, policy = [], SampledHead(head, choices)
    for part in split(prompts):
        rollout, rewards = respond(lm, part, policy, generator, n_samples=config.samples)
        rows, pairs = form_pairs(rollout, rewards, part, config, generator).compact()
        chunks.append((rewards, rollout.rows(rows), pairs))
    return join(chunks, may_be_empty=True)[1:]  # few responses may be in no pair


def print_lpo(lm: GPTLanguageModel, run: Run, sizes: Sizes) -> None:
    """An epoch of LPO on what the rollout stored, against epochs that run the transformer again."""
    prompts = mixed_prompts(run.tasks, 2 * sizes.prompts, "train", python_rng(0, "benchmark"))
    choices = run.choices
    for level in ("sequence", "token"):
        config, init = LPOConfig().resolved(level), torch_generator(0, "head")
        head = AdaptiveDecoder(lm.model.config.n_embd, len(choices), level, generator=init)
        draws = torch_generator(0, "benchmark")
        rollout, pairs = rollout_in_pairs(lm, prompts, head, choices, config, draws)
        is_marginal = config.loss == "eq11"
        stored = marginal_decisions(lm, rollout, choices) if is_marginal else rollout.decisions
        optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)
        fixed = rollout, pairs, config, head, stored, optimizer

        def epoch(again: Again | None, fixed=fixed) -> None:
            rollout, pairs, config, head, stored, optimizer = fixed
            for batch in torch.arange(len(pairs)).split(config.pairs_per_batch):
                rows, batch_pairs = pairs.select(batch).compact()
                if again:
                    decisions = again(lm, rollout.rows(rows), choices, config)
                else:
                    decisions = stored.rows(rows)
                scores, _ = response_scores(head, decisions, config)
                optimizer.zero_grad()
                lpo_loss(scores, batch_pairs, config).mean().backward()
                optimizer.step()

        ways = {"texts": (run_texts_again, "no target")}
        if level == "sequence":
            ways = {
                "texts": (run_texts_again, "target: 20 or more"),
                "prompts": (run_prompts_again, "no target; all that Eq. 10 needs at this level"),
            }
        for what, (way, target) in ways.items():
            timed = side_by_side(
                lambda _, epoch=epoch: epoch(None),
                lambda _, epoch=epoch, way=way: epoch(way),
                sizes.repeats,
            )
            name = f"LPO epoch, {level}; {what} again"
            print_timed(name, "pairs/s", timed, target, len(pairs))


@torch.no_grad()
def run_texts_again(
    lm: GPTLanguageModel, rollout: Rollout, choices: Choices, config: LPOConfig
) -> Decisions:
    """Computes the head's features, and Eq. 11's constants, from the texts again, as DPO does."""
    made, mask = rollout.decisions, rollout.response_mask
    hidden_states, logits = forward_rollout(lm, rollout)
    decided = torch.zeros_like(mask)
    decided[:, : made.mask.shape[1]] = made.mask
    decisions = hidden_states[decided[mask]], made.choice_ids, made.mask
    if config.loss != "eq11":
        return Decisions(*decisions)
    token_ids, positions = rollout.token_ids[mask].long(), mask.nonzero()[:, 1]
    logprobs = unpack(choices.logprobs(logits, token_ids, positions), mask)
    return MarginalDecisions(*decisions, logprobs, mask)


@torch.no_grad()
def run_prompts_again(
    lm: GPTLanguageModel, rollout: Rollout, choices: Choices, config: LPOConfig
) -> Decisions:
    """Computes the head's features at sequence level from the prompts again, each once."""
    texts = list(dict.fromkeys(rollout.prompts))
    prompts = lm.encode(texts)
    ends = torch.tensor([len(prompt) for prompt in prompts])
    T, pad_id = int(ends.max()), lm.tokenizer.pad_id
    token_ids = torch.tensor([prompt + [pad_id] * (T - len(prompt)) for prompt in prompts])
    hidden_states = lm.model.forward_at(token_ids, torch.arange(T) == ends[:, None] - 1)
    number_of = {text: number for number, text in enumerate(texts)}
    rows = torch.tensor([number_of[prompt] for prompt in rollout.prompts])
    made = rollout.decisions
    return Decisions(hidden_states[rows], made.choice_ids, made.mask)
