"""How each phase grows, one setting at a time. A rollout is sampled, scored and paired."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig, PretrainConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.policies import Fixed
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Corpus, pretrain
from minilpo.lpo import fit
from minilpo.run.folder import Run
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts
from tests.benchmarks.measure import exponent, print_row, seconds_of
from tests.benchmarks.speed import rollout_in_pairs, write_without_end

Point = Callable[[], object]  # the work at one size
PROMPTS = (32, 100, 320, 1000, 3200)  # at 4 samples
SAMPLES = (4, 12, 40, 120, 400)  # at 32 prompts
PAIRS = (64, 200, 640, 2000, 6400)
LENGTHS = (16, 32, 64, 128, 256)  # tokens of a text, or new tokens
WIDTHS = (32, 64, 128, 256)
LAYERS = (1, 2, 4, 8)


def measure_scaling(
    lm: GPTLanguageModel, run: Run, repeats: int
) -> dict[str, tuple[tuple[int, ...], list[float]]]:
    """Median seconds at each size, by "phase, setting". Each turn goes through all sizes."""
    works = sampling_works(lm, run) | lpo_works(lm, run) | shape_works(lm)
    seconds = {name: {size: [] for size in points} for name, points in works.items()}
    for turn in range(repeats + 1):
        for name, points in works.items():
            for size, work in points.items():
                took = seconds_of(work)
                if turn:  # the first warms up
                    seconds[name][size].append(took)
    return {
        name: (tuple(sizes), [median(sizes[size]) for size in sizes])
        for name, sizes in seconds.items()
    }


def sampling_works(lm: GPTLanguageModel, run: Run) -> dict[str, dict[int, Point]]:
    """A round's first half: sampling, scoring and pairing."""
    head, n_each = new_head(lm, run), max(PROMPTS) // len(run.tasks)
    prompts = mixed_prompts(run.tasks, n_each, "train", python_rng(0, "scaling"))
    # They come task by task: shuffled, any number of the first is a mixture.
    order = torch.randperm(len(prompts), generator=torch_generator(0, "scaling")).tolist()
    prompts = [prompts[i] for i in order]

    def collect(n_prompts: int, n_samples: int) -> None:
        config = LPOConfig(samples=n_samples).resolved("sequence")
        generator = torch_generator(0, "scaling")
        rollout_in_pairs(lm, prompts[:n_prompts], head, run.choices, config, generator)

    return {
        "rollout, prompts": {n: lambda n=n: collect(n, 4) for n in PROMPTS},
        "rollout, samples": {n: lambda n=n: collect(32, n) for n in SAMPLES},
    }


def lpo_works(lm: GPTLanguageModel, run: Run) -> dict[str, dict[int, Point]]:
    """An epoch on stored pairs: copies of a few, stored as often as they are used."""
    config = replace(LPOConfig().resolved("sequence"), epochs=1)
    head = new_head(lm, run)
    optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)
    prompts = mixed_prompts(run.tasks, 16, "train", python_rng(0, "scaling"))
    generator = torch_generator(0, "scaling")
    rollout, pairs = rollout_in_pairs(lm, prompts, head, run.choices, config, generator)
    stored, pairs_of = {}, {}
    for n in PAIRS:
        some = pairs.select(torch.arange(n) % len(pairs))
        stored[n] = rollout.decisions.rows(torch.cat([some.chosen, some.rejected]))
        pairs_of[n] = replace(some, chosen=torch.arange(n), rejected=torch.arange(n, 2 * n))

    def epoch(n: int) -> None:
        fit(head, stored[n], pairs_of[n], optimizer, config, torch_generator(0, "order"))

    return {"LPO epoch, pairs": {n: lambda n=n: epoch(n) for n in PAIRS}}


def new_head(lm: GPTLanguageModel, run: Run) -> AdaptiveDecoder:
    """An untrained head that chooses once per response."""
    return AdaptiveDecoder(lm.model.config.n_embd, len(run.choices))


def shape_works(lm: GPTLanguageModel) -> dict[str, dict[int, Point]]:
    """Pretraining steps and sampling with untrained models of other shapes, on random texts of one
    length.
    """
    shape, at_one = lm.model.config, Fixed(Temperatures([1.0]))

    def new(**changed: int) -> GPT:
        return GPT(replace(shape, **changed), torch_generator(0, "scaling"))

    def texts(*size: int) -> torch.Tensor:
        return torch.randint(3, shape.vocab_size, size, generator=torch_generator(0, "texts"))

    def steps(changed: GPT, length: int = 45) -> None:
        rows = texts(64, length + 1).tolist()
        corpus = Corpus([(row, length // 2) for row in rows], [(rows[0], 1)], pad_id=0)
        pretrain(changed, corpus, PretrainConfig(steps=4), seed=0)

    def sample(changed: GPT, length: int = 43) -> None:
        other = GPTLanguageModel(changed, lm.tokenizer)
        write_without_end(other, at_one, texts(128, 8), length)

    longer = [new(block_size=max(LENGTHS) + 8) for _ in range(2)]
    works: dict[str, dict[int, Point]] = {
        "pretraining, length": {n: lambda n=n: steps(longer[0], n) for n in LENGTHS},
        "rollout, length": {n: lambda n=n: sample(longer[1], n) for n in LENGTHS},
    }
    for setting, field, sizes in (("width", "n_embd", WIDTHS), ("layers", "n_layer", LAYERS)):
        for phase, work in (("pretraining", steps), ("rollout", sample)):
            models = {size: new(**{field: size}) for size in sizes}
            works[f"{phase}, {setting}"] = {
                size: lambda work=work, m=m: work(m) for size, m in models.items()
            }
    return works


def print_scaling(curves: dict[str, tuple[tuple[int, ...], list[float]]], repeats: int) -> None:
    """The exponent of each curve, with its first and last point."""
    print(f"\nhow each phase grows: medians of {repeats}; an exponent of 1 is linear\n")
    print_row("", "from", "to", "exp.")
    for name, (sizes, seconds) in curves.items():
        target = "target: 1.0 +- 0.1" if name in ("rollout, prompts", "rollout, samples") else ""
        ends = [
            f"{size:,}: {1000 * s:,.0f} ms"
            for size, s in ((sizes[0], seconds[0]), (sizes[-1], seconds[-1]))
        ]
        print_row(name, ends[0], f"{ends[1]:>18}", f"{exponent(sizes, seconds):.2f}", target)


def draw_scaling(curves: dict[str, tuple[tuple[int, ...], list[float]]], path: Path) -> None:
    """A log-log figure, one panel a setting; a grey line shows linear growth."""
    settings = dict.fromkeys(name.split(", ")[1] for name in curves)
    colours = {"pretraining": "tab:blue", "rollout": "tab:orange", "LPO epoch": "tab:green"}
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    for axes, setting in zip(figure.subplots(2, 3).flat, settings, strict=True):
        own = {name: curve for name, curve in curves.items() if name.split(", ")[1] == setting}
        for name, (sizes, seconds) in own.items():
            phase = name.split(", ")[0]
            label = f"{phase}: {exponent(sizes, seconds):.2f}"
            axes.loglog(sizes, seconds, "o-", color=colours[phase], label=label)
            linear = [seconds[-1] * size / sizes[-1] for size in sizes]
            axes.loglog(sizes, linear, color="0.75", zorder=0, linewidth=1)
        axes.set_xlabel(setting)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.legend(title="exponent", frameon=False)
    figure.supylabel("seconds")
    figure.suptitle("How each phase grows (grey: linear)")
    figure.savefig(path, dpi=120)
