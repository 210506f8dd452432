"""The growth of each phase, one setting at a time. A rollout is sampled, scored and paired."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig, PretrainConfig
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.pretraining import Corpus, pretrain
from minilpo.lpo import fit
from minilpo.run.folder import Run
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts
from tests.benchmarks.measure import Sizes, exponent, print_row, seconds_of
from tests.benchmarks.speed import rollout_in_pairs, write_without_end

Works = dict[str, dict[int, Callable[[], object]]]  # by "phase, setting" and size
Curves = dict[str, dict[int, float]]  # seconds, by the same
PROMPTS = (32, 100, 320, 1000, 3200)  # at 4 samples
SAMPLES = (4, 12, 36, 100, 256)  # at 32 prompts; 256 are the most that the settings allow
PAIRS = (64, 200, 640, 2000, 6400)
LENGTHS = (16, 32, 64, 128, 256)  # tokens of a text, or new tokens
SHAPES = {"width": ("n_embd", (32, 64, 128, 256)), "layers": ("n_layer", (1, 2, 4, 8))}


def measure_scaling(lm: GPTLanguageModel, run: Run, sizes: Sizes) -> Curves:
    """Median seconds at each size. Each turn goes through all sizes; the first warms up."""
    works = sampling_works(lm, run) | lpo_works(lm, run) | shape_works(lm)
    works = {name: dict([*points.items()][: sizes.points]) for name, points in works.items()}
    turns = range(sizes.repeats_of_point + 1)
    seconds = [
        {
            name: {n: seconds_of(work) for n, work in points.items()}
            for name, points in works.items()
        }
        for _ in turns
    ]
    return {
        name: {n: median(turn[name][n] for turn in seconds[1:]) for n in points}
        for name, points in works.items()
    }


def sampling_works(lm: GPTLanguageModel, run: Run) -> Works:
    """The first half of a round: sampling, scoring and pairing."""
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


def lpo_works(lm: GPTLanguageModel, run: Run) -> Works:
    """An epoch on stored pairs: copies of a few, stored as often as they are used."""
    config = replace(LPOConfig().resolved("sequence"), epochs=1)
    head, generator = new_head(lm, run), torch_generator(0, "scaling")
    optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)
    prompts = mixed_prompts(run.tasks, 16, "train", python_rng(0, "scaling"))
    rollout, pairs = rollout_in_pairs(lm, prompts, head, run.choices, config, generator)
    stored = {}
    for n in PAIRS:
        some = pairs.select(torch.arange(n) % len(pairs))
        decisions = rollout.decisions.rows(torch.cat([some.chosen, some.rejected]))
        rows = {"chosen": torch.arange(n), "rejected": torch.arange(n, 2 * n)}
        stored[n] = decisions, replace(some, **rows)

    def epoch(n: int) -> None:
        fit(head, *stored[n], optimizer, config, torch_generator(0, "order"))

    return {"LPO epoch, pairs": {n: lambda n=n: epoch(n) for n in PAIRS}}


def new_head(lm: GPTLanguageModel, run: Run) -> AdaptiveDecoder:
    """An untrained head that chooses once per response."""
    return AdaptiveDecoder(lm.model.config.n_embd, len(run.choices))


def shape_works(lm: GPTLanguageModel) -> Works:
    """Pretraining and sampling by untrained models of other shapes, on texts of one length."""
    shape = lm.model.config

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
        write_without_end(other, texts(128, 8), length)

    works: Works = {}
    for phase, work in (("pretraining", steps), ("rollout", sample)):
        longer = new(block_size=max(LENGTHS) + 8)
        works[f"{phase}, length"] = {n: lambda w=work, m=longer, n=n: w(m, n) for n in LENGTHS}
        for setting, (field, sizes) in SHAPES.items():
            models = {n: new(**{field: n}) for n in sizes}
            points = {n: lambda w=work, m=m: w(m) for n, m in models.items()}
            works[f"{phase}, {setting}"] = points
    return works


def print_scaling(curves: Curves) -> None:
    """Prints the exponent of each curve, with its first and last point."""
    print("\nhow each phase grows, in medians; an exponent of 1 is linear\n")
    print_row("", "from", "to", "exp.")
    for name, points in curves.items():
        target = "target: 1.0 +- 0.1" if name in ("rollout, prompts", "rollout, samples") else ""
        first, *_, last = (f"{n:,}: {1000 * s:,.0f} ms" for n, s in points.items())
        slope = exponent([*points], [*points.values()])
        print_row(name, first, f"{last:>18}", f"{slope:.2f}", target)


def draw_scaling(curves: Curves, path: Path) -> None:
    """Draws the curves on logarithmic axes, one panel per setting; grey lines are linear growth."""
    settings = dict.fromkeys(name.split(", ")[1] for name in curves)
    colours = {"pretraining": "tab:blue", "rollout": "tab:orange", "LPO epoch": "tab:green"}
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    for axes, setting in zip(figure.subplots(2, 3).flat, settings, strict=True):
        for name, points in curves.items():
            phase, of_curve = name.split(", ")
            if of_curve == setting:
                sizes, seconds = [*points], [*points.values()]
                label = f"{phase}: {exponent(sizes, seconds):.2f}"
                axes.loglog(sizes, seconds, "o-", color=colours[phase], label=label)
                linear = [seconds[-1] * size / sizes[-1] for size in sizes]
                axes.loglog(sizes, linear, color="0.75", zorder=0, linewidth=1)
                axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel(setting)
        axes.minorticks_off()
        axes.legend(title="exponent", frameon=False)
    figure.supylabel("seconds")
    figure.suptitle("How each phase grows (grey: linear)")
    figure.savefig(path, dpi=120)
