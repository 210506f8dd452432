"""minilpo against transformers, and what LPO saves by storing what the head read."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

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
from tests.benchmarks.measure import Timed, matmul_peak, print_row, print_timed, side_by_side
from tests.benchmarks.peer import (
    transformers_loss,
    transformers_model,
    transformers_pretrain,
    transformers_sample,
)
from tests.gpt2_weights import as_transformers_tokenizer

# Makes anew what `Decisions` hold of some responses.
Again = Callable[[GPTLanguageModel, Rollout, Choices, LPOConfig], Decisions]

ROWS_AT_ONCE = 128  # what `generate` writes together of 4 or more samples a prompt
PROMPT_TOKENS, NEW_TOKENS = 14, 43
FASTER_PEER = {"activation_function": "gelu_pytorch_tanh"}
FASTER, ITS_DEFAULT = (
    "  transformers with its fused GELU",
    "not its default for GPT-2; same results",
)


def block_weights(model: GPT) -> tuple[int, int]:
    """The blocks' weights needed at every token, and those where a hidden state is wanted."""
    last, C = model.blocks[-1], model.config.n_embd
    layers = last.attention.out, last.up, last.down
    late = C**2 + sum(layer.weight.numel() for layer in layers)  # C**2: the queries
    return sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2) - late, late


def training_flops(model: GPT, examples: Sequence[Example]) -> float:
    """Floating-point operations that one pass of training over the examples can't do without."""
    # A product of matrices costs 2 operations a weight and token forward and 4 backward. The last
    # block, but for its keys and values, and the un-embedding count only at targets. Attention has
    # two products, each with 2 C operations a pair of tokens and layer, over the n^2 / 2 pairs that
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
    """Operations of the products with weights in sampling, prompts and attention left out."""
    un_embedding = model.config.vocab_size * model.config.n_embd
    return 2 * n_tokens * (sum(block_weights(model)) + un_embedding)


def print_pretraining(
    model: GPT, pad_id: int, blocks: list[list[Example]], steps: int, peak: float
) -> None:
    """Pretraining on blocks of the demo's corpus, one block a turn; the first only warms up."""
    config = PretrainConfig(steps=steps)
    corpora = [Corpus(block, block[:1], pad_id) for block in blocks]  # held out: one example
    rows = {}
    for name, settings in {"": {}, "its fused GELU": FASTER_PEER}.items():
        theirs = transformers_model(model, **settings)
        batch = collate(blocks[0][: config.batch_size], pad_id)
        expected = transformers_loss(theirs, *batch)
        torch.testing.assert_close(language_model_loss(model, *batch), expected)  # the same work
        copy = GPT(model.config)
        copy.load_state_dict(model.state_dict())
        rows[name] = side_by_side(
            lambda i, copy=copy: pretrain(copy, corpora[i], config, seed=0),
            lambda i, theirs=theirs: transformers_pretrain(theirs, blocks[i], pad_id, config),
            len(blocks) - 1,
        )
    timed, peak = rows[""], max(peak, matmul_peak())
    tokens = [sum(len(token_ids) - 1 for token_ids, _ in block) for block in blocks[1:]]
    rates = [
        median(n / s for n, s in zip(tokens, seconds, strict=True))
        for seconds in (timed.ours, timed.theirs)
    ]
    print_timed("pretraining", timed, "tokens/s", *rates, "target: 1.6 or more")
    flops = [training_flops(model, block) for block in blocks[1:]]
    share = [
        median(f / s / peak for f, s in zip(flops, seconds, strict=True))
        for seconds in (timed.ours, timed.theirs)
    ]
    shares = [f"{part:.1%}" for part in share]
    print_row("  share of the matrix-product peak", *shares, note="target: 45% or more")
    print_bounds(partial(pretrain, copy, corpora[0], config, seed=0), peak)
    print_row(FASTER, ratio=f"{rows['its fused GELU'].ratio:.2f}", note=ITS_DEFAULT)


def write_without_end(
    lm: LanguageModel, policy: Policy, prompts: Tensor, n_tokens: int = NEW_TOKENS
) -> None:
    """Samples so many tokens after each prompt, (B, T); no token ends a response."""
    shape = len(prompts), n_tokens, 2
    uniforms = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    endless = SimpleNamespace(prefill=lm.prefill, end_ids=())
    parts = zip(prompts.split(ROWS_AT_ONCE), uniforms.split(ROWS_AT_ONCE), strict=True)
    for part, numbers in parts:
        limits = torch.full((len(part),), n_tokens)
        _write(endless, part.tolist(), 1, policy, numbers, limits)


def random_prompts(lm: GPTLanguageModel, n_rows: int) -> Tensor:
    """(n_rows, PROMPT_TOKENS) tokens, all equally likely."""
    shape, generator = (n_rows, PROMPT_TOKENS), torch.Generator().manual_seed(0)
    return torch.randint(5, lm.model.config.vocab_size, shape, generator=generator)


def print_sampling(lm: GPTLanguageModel, run: Run, repeats: int, peak: float) -> None:
    """Sampling from the trained model against transformers' `generate`.

    First rows of equal length, then real tasks.
    """
    theirs, at_one = transformers_model(lm.model).eval(), Fixed(Temperatures([1.0]))
    pad_id, eos_id = lm.tokenizer.pad_id, lm.tokenizer.eos_id
    for n_rows in (256, 2048):
        prompts = random_prompts(lm, n_rows)
        timed = side_by_side(
            lambda _, prompts=prompts: write_without_end(lm, at_one, prompts),
            # It is faster with 256 rows at a time than with 2,048.
            lambda _, prompts=prompts: [
                transformers_sample(theirs, part.tolist(), 1, NEW_TOKENS, pad_id, None)
                for part in prompts.split(256)
            ],
            repeats,
        )
        n_tokens = n_rows * NEW_TOKENS
        rates = n_tokens / median(timed.ours), n_tokens / median(timed.theirs)
        target = "target: 3 or more" if n_rows == 256 else "no target"
        print_timed(f"sampling, {n_rows:,} rows", timed, "tokens/s", *rates, target)
        share = [
            sampling_flops(lm.model, n_tokens) / median(seconds) / peak
            for seconds in (timed.ours, timed.theirs)
        ]
        print_row("  share of the matrix-product peak", f"{share[0]:.1%}", f"{share[1]:.1%}")
        if n_rows == 256:
            print_faster_peer(lm, prompts, repeats)
            print_adapter(lm, prompts, repeats)
            print_bounds(partial(write_without_end, lm, at_one, prompts), peak)

    drawn = mixed_prompts(run.tasks, 64, "test", python_rng(0, "benchmark"))
    prompts = [prompt.text for prompt in drawn]
    encoded = lm.encode(prompts)
    room = lm.max_length - max(map(len, encoded))
    counts: dict[str, list[int]] = {"ours": [], "theirs": []}

    def ours(turn: int) -> None:
        rollout = generate(lm, prompts, at_one, torch_generator(turn, "benchmark"), n_samples=16)
        counts["ours"].append(int(rollout.response_mask.sum()))

    def peers(_: int) -> None:
        starts = range(0, len(encoded), 16)
        parts = [
            transformers_sample(theirs, encoded[i : i + 16], 16, room, pad_id, eos_id)
            for i in starts
        ]
        counts["theirs"].append(sum(int((part != pad_id).sum()) for part in parts))

    timed = side_by_side(ours, peers, repeats)
    a_token = Timed(  # seconds a token: what is drawn differs, and so does how much
        [s / n for s, n in zip(timed.ours, counts["ours"][1:], strict=True)],
        [s / n for s, n in zip(timed.theirs, counts["theirs"][1:], strict=True)],
    )
    rates = 1 / median(a_token.ours), 1 / median(a_token.theirs)
    print_timed("sampling, 16 responses a prompt", a_token, "tokens/s", *rates, "target: 4 or more")


def print_faster_peer(lm: GPTLanguageModel, prompts: Tensor, repeats: int) -> None:
    """The same against transformers with the GELU that isn't its default for GPT-2."""
    theirs, policy = transformers_model(lm.model, **FASTER_PEER).eval(), Fixed(Temperatures([1.0]))
    rows, pad_id = prompts.tolist(), lm.tokenizer.pad_id
    timed = side_by_side(
        lambda _: write_without_end(lm, policy, prompts),
        lambda _: transformers_sample(theirs, rows, 1, NEW_TOKENS, pad_id, None),
        repeats,
    )
    print_row(FASTER, ratio=f"{timed.ratio:.2f}", note=ITS_DEFAULT)


def print_adapter(lm: GPTLanguageModel, prompts: Tensor, repeats: int) -> None:
    """Transformers' model on both sides: our loop through the adapter, and its own `generate`."""
    theirs, policy = transformers_model(lm.model).eval(), Fixed(Temperatures([1.0]))
    adapted = HuggingFaceLanguageModel(theirs, as_transformers_tokenizer(lm.tokenizer))
    rows, pad_id = prompts.tolist(), lm.tokenizer.pad_id
    timed = side_by_side(
        lambda _: write_without_end(adapted, policy, prompts),
        lambda _: transformers_sample(theirs, rows, 1, NEW_TOKENS, pad_id, None),
        repeats,
    )
    n_tokens = len(rows) * NEW_TOKENS
    rates = n_tokens / median(timed.ours), n_tokens / median(timed.theirs)
    print_timed("  our loop, transformers' model", timed, "tokens/s", *rates, "no target")


def print_bounds(work: Callable[[], object], peak: float) -> None:
    """What our time goes to, and how near to the peak products with weights are."""
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        work()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)  # microseconds

    def share(*names: str) -> float:
        return (
            sum(
                event.self_cpu_time_total
                for event in events
                if any(name in event.key for name in names)
            )
            / total
        )

    products = share("aten::addmm", "aten::mm")
    flops = sum(event.flops for event in events if event.key in ("aten::addmm", "aten::mm"))
    rate = flops / (products * total / 1e6) / peak
    print_row(
        "  of our time: products with weights", f"{products:.0%}", note=f"at {rate:.0%} of the peak"
    )
    print_row("  attention", f"{share('aten::bmm', 'attention'):.0%}")
    print_row("  GELU", f"{share('aten::gelu'):.0%}")


def print_head(lm: GPTLanguageModel, choices: Choices, repeats: int) -> None:
    """An untrained head that decides at every token, against the same temperatures fixed."""
    prompts = random_prompts(lm, 256)
    head = AdaptiveDecoder(lm.model.config.n_embd, len(choices), "token").requires_grad_(False)
    timed = side_by_side(
        lambda _: write_without_end(lm, SampledHead(head, choices), prompts),
        lambda _: write_without_end(lm, Fixed(choices), prompts),
        repeats,
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
    """A round's first half, as in `train_lpo`: the responses that are in a pair, and the pairs."""
    chunks, policy = [], SampledHead(head, choices)
    for part in split(prompts):
        rollout, rewards = respond(lm, part, policy, generator, n_samples=config.samples)
        rows, pairs = form_pairs(rollout, rewards, part, config, generator).compact()
        chunks.append((rewards, rollout.rows(rows), pairs))
    return join(chunks, may_be_empty=False)[1:]


def print_lpo(lm: GPTLanguageModel, run: Run, repeats: int) -> None:
    """One epoch of LPO from what was stored, against epochs that run the transformer again."""
    prompts = mixed_prompts(run.tasks, 128, "train", python_rng(0, "benchmark"))
    choices = run.choices
    for level in ("sequence", "token"):
        config, init = LPOConfig().resolved(level), torch_generator(0, "head")
        head = AdaptiveDecoder(lm.model.config.n_embd, len(choices), level, generator=init)
        draws = torch_generator(0, "benchmark")
        rollout, pairs = rollout_in_pairs(lm, prompts, head, choices, config, draws)
        is_marginal = config.loss == "eq11"
        stored = marginal_decisions(lm, rollout, choices) if is_marginal else rollout.decisions
        optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)

        def epoch(
            again: Again | None,
            rollout=rollout,
            pairs=pairs,
            config=config,
            head=head,
            stored=stored,
            optimizer=optimizer,
        ) -> None:
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

        target = "target: 20 or more" if level == "sequence" else "no target"
        ways = {"texts": (run_texts_again, target)}
        if level == "sequence":
            ways["prompts"] = (run_prompts_again, "no target; all that Eq. 10 needs at this level")
        for what, (way, target) in ways.items():
            timed = side_by_side(
                lambda _, epoch=epoch: epoch(None),
                lambda _, epoch=epoch, way=way: epoch(way),
                repeats,
            )
            rates = len(pairs) / median(timed.ours), len(pairs) / median(timed.theirs)
            print_timed(f"LPO epoch, {level}; {what} again", timed, "pairs/s", *rates, target)


@torch.no_grad()
def run_texts_again(
    lm: GPTLanguageModel, rollout: Rollout, choices: Choices, config: LPOConfig
) -> Decisions:
    """What the head reads, and Eq. 11's constants, computed anew from the texts, as DPO does."""
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
    """What the head reads at sequence level, computed anew from the prompts: once for each."""
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
