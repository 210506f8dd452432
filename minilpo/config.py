"""Every setting of a run: default, meaning and limits. `flags` makes the command line of these."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from minilpo.setting import read_choices

LOSSES = ("eq9", "eq10", "eq11", "eq11_marginal")
MARGINAL = "--loss eq11_marginal must come with --level sequence, got --level token"
DEFAULT_LOSS = {"sequence": "eq10", "token": "eq11"}  # by level: each measured best here
RULES = ("lpo", "reinforce", "grpo", "regression")
PAIRS_OR_NLL = ("best_worst", "top_bottom", "all", "gap", "constrained", "nll")
FORMAT = 7  # of the run folder; raised when an older folder can no longer be read
LARGEST_MODEL = 100_000_000  # parameters: 1.5 GB with the optimizer's numbers, days on a laptop
NOT_BOTH = "--temperatures and --choices must not be given together, got both; leave one out"
MAX_THREADS = 64  # with thousands, the operating system ends the process
MOST_PAIRS = 65_536  # in a gradient step
LARGEST_SEED = 2**63 - 1  # PyTorch's generators take no larger one
SMALL = 1e-9  # the lowest value of a setting that must be above 0


def option(default: Any, meaning: str, *limits: Any) -> Any:
    """Makes a field with a help text and its limits: lowest and highest number, or all words."""
    return dataclasses.field(default=default, metadata={"help": meaning, "limits": limits})


class Settings:
    """Base of all settings: frozen dataclasses that check the limits of their fields."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, limits = getattr(self, field.name), field.metadata.get("limits", ())
            flag = "--" + field.name.replace("_", "-")
            if isinstance(value, str) and value not in limits:
                raise ValueError(f"{flag} must be one of {', '.join(limits)}, got {value!r}")
            if limits and not isinstance(value, str) and not limits[0] <= value <= limits[1]:
                low, high = limits
                raise ValueError(f"{flag} must be from {low:,} to {high:,}, got {value}")


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The transformer's shape.

    >>> ModelConfig(n_embd=100, n_head=3)
    Traceback (most recent call last):
    ValueError: --n-embd must be a multiple of --n-head, got 100 and 3; try 99
    """

    vocab_size: int = 0  # known once the tokenizer is trained
    n_layer: int = option(2, "transformer blocks", 1, 48)
    n_head: int = option(4, "attention heads per block", 1, 64)
    n_embd: int = option(128, "width of the hidden states", 1, 4096)
    block_size: int = option(112, "longest text in tokens, prompt and response together", 8, 1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        width, heads = self.n_embd, self.n_head
        if width % heads:
            got = f"got {width} and {heads}; try {width // heads * heads or heads}"
            raise ValueError(f"--n-embd must be a multiple of --n-head, {got}")
        if self.n_parameters > LARGEST_MODEL:
            limit = f"at most {LARGEST_MODEL:,} parameters, got {self.n_parameters:,}"
            raise ValueError(f"--n-layer and --n-embd must make {limit}; lower one of them")

    @property
    def n_parameters(self) -> int:
        """Number of weights in the transformer's matrices.

        >>> ModelConfig(vocab_size=300).n_parameters
        445952
        """
        embeddings = (self.vocab_size + self.block_size) * self.n_embd
        return 12 * self.n_layer * self.n_embd**2 + embeddings


@dataclass(frozen=True)
class PretrainConfig(Settings):
    """Pretraining: the language model learns from demonstrations."""

    steps: int = option(3000, "pretraining steps", 1, 10_000_000)
    batch_size: int = option(32, "demonstrations per step", 1, 4096)
    demonstrations: int = option(48_000, "demonstrations in the corpus", 1, 2_000_000)
    learning_rate: float = option(3e-3, "peak learning rate of the language model", SMALL, 1)
    warmup_steps: int = option(100, "steps until the peak learning rate", 0, 10_000_000)
    weight_decay: float = option(0.01, "AdamW's weight decay", 0, 10)


@dataclass(frozen=True)
class LPOConfig(Settings):
    """LPO: the head learns from preferences. Of these values the paper gives only 16 samples."""

    rounds: int = option(3, "rounds of sampling and training", 1, 1000)
    prompts: int = option(1024, "training prompts per round, over all tasks", 1, 1_000_000)
    samples: int = option(16, "responses per prompt", 2, 256)
    epochs: int = option(8, "passes over the pairs of a round", 1, 10_000)
    rule: str = option(
        "lpo",
        "how the head learns: lpo from pairs of responses; reinforce, grpo or regression from all "
        "responses and their rewards (see rivals/reward_rules.py)",
        *RULES,
    )
    loss: str = option(
        "default",
        "the score that is compared: eq9, eq10, eq11 or eq11_marginal (see losses.py); default "
        "takes the best one measured here: eq10 at sequence level, eq11 at token level; "
        "with another rule than lpo, eq10",
        *("default", *LOSSES),
    )
    reduce: str = option("sum", "scores of steps: added or averaged", "sum", "mean")
    reference: str = option("uniform", "the head that the loss compares with", "uniform", "none")
    pairs: str = option(
        "best_worst",
        "which responses are compared, and how (see preferences.py); "
        "nll, the paper's baseline, imitates the best and compares nothing",
        *PAIRS_OR_NLL,
    )
    pairs_per_prompt: int = option(4, "pairs per prompt of --pairs top_bottom", 1, 128)
    pairs_per_batch: int = option(
        64, "pairs per gradient step; without pairs, prompts with all responses", 1, MOST_PAIRS
    )
    train_lm: bool = option(False, "train the language model too, by the same loss (eq9 only)")
    lm_learning_rate: float = option(1e-4, "learning rate of --train-lm", SMALL, 1)
    beta: float = option(1.0, "strength of the preference in the loss", SMALL, 1000)
    clip: float = option(
        0.2, "how far --rule grpo moves a probability at most, as a share of it", SMALL, 1000
    )
    head_learning_rate: float = option(1e-3, "learning rate of the head", SMALL, 10)
    n_hidden: int = option(128, "width of the head's two hidden layers", 1, 8192)
    validation_prompts: int = option(128, "prompts per task that choose the best head", 1, 100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        rule, loss, got = self.rule, self.loss, f"got --rule {self.rule}"
        if self.train_lm and loss != "eq9":  # the only score that contains the words
            raise ValueError(f"--train-lm must come with --loss eq9, got --loss {loss}")
        if rule == "lpo":
            return
        if self.train_lm:
            raise ValueError(f"--train-lm must come with --rule lpo, {got}; take --no-train-lm")
        if self.pairs != "best_worst":  # the other rules learn from all responses
            wrong = f"{got} with --pairs {self.pairs}; leave --pairs at best_worst"
            raise ValueError(f"--pairs must come with --rule lpo, {wrong}")
        if rule != "reinforce" and loss in ("eq11", "eq11_marginal"):  # they score drawn choices
            wrong = f"{got}; take --loss eq10"
            raise ValueError(f"--loss {loss} must come with --rule lpo or reinforce, {wrong}")

    def resolved(self, level: str) -> "LPOConfig":
        """Replaces the loss "default" by the default of this level.

        >>> LPOConfig().resolved("token").loss
        'eq11'
        """
        by_default = DEFAULT_LOSS[level] if self.rule == "lpo" else "eq10"
        loss = by_default if self.loss == "default" else self.loss
        if loss == "eq11_marginal" and level == "token":
            raise ValueError(MARGINAL)
        return dataclasses.replace(self, loss=loss)


@dataclass(frozen=True)
class EvaluationConfig(Settings):
    """Evaluation: how many prompts and responses are measured."""

    test_prompts: int = option(512, "test prompts per task", 2, 100_000)
    # With 1, 2 and 4 the 95% interval of the demo's gain was ± 0.013, 0.009 and 0.007 (seed 0).
    samples_per_prompt: int = option(
        2, "responses per test prompt, at every temperature above 0 and with the head", 1, 256
    )
    selection_prompts: int = option(
        256, "training prompts per task that choose the best constants", 1, 100_000
    )
    ood_prompts: int = option(96, "out-of-distribution prompts per task", 1, 100_000)
    resamples: int = option(2000, "bootstrap resamples behind an interval", 100, 100_000)


@dataclass(frozen=True)
class RunConfig(Settings):
    """A whole run, as `config.json` in a run folder holds it.

    >>> config = RunConfig(choices=("1.2,min_p=0.1", "0", "1"))
    >>> config.choices, config.temperatures
    (('0', '1', '1.2,min_p=0.1'), (0.0, 1.0, 1.2))
    """

    seed: int = option(0, "where all randomness starts", 0, LARGEST_SEED)
    level: str = option("sequence", "one temperature per response or one per token", *DEFAULT_LOSS)
    tasks: tuple[str, ...] = option(
        ("math", "instruct", "story", "constrained_story"),
        "names of tasks, or .py files that define one",
    )
    temperatures: tuple[float, ...] = option(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "the temperatures to choose from, in rising order"
    )
    choices: tuple[str, ...] = option(
        (),
        "replaces --temperatures: in any order, temperatures with or without rules that leave "
        "unlikely words out, as in 0 0.6 1.2,min_p=0.1 (top_k keeps so many of the likeliest "
        "words, top_p the likeliest that together reach this share, min_p those at least so "
        "likely as this share of the likeliest)",
    )
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    lpo: LPOConfig = LPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    threads: int = 0  # the last digits of all results depend on it; 0 until it was measured
    digests: dict[str, str] = dataclasses.field(default_factory=dict)  # SHA-256 of task files

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lpo", self.lpo.resolved(self.level))
        settings = read_choices(self.choices, self.temperatures)
        temperatures = tuple(setting.temperature for setting in settings)
        if self.temperatures not in (temperatures, type(self).temperatures):  # the default
            raise ValueError(NOT_BOTH)
        if self.choices:
            object.__setattr__(self, "choices", tuple(map(str, settings)))
            object.__setattr__(self, "temperatures", temperatures)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON holds them: lists for tuples, dictionaries for sections."""
        return {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunConfig":
        """Reads the output of `to_dict`.

        Raises ValueError or TypeError if it is of another version, or a setting is wrong.
        """
        if (got := content.get("format")) != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {got!r}: another version of minilpo")
        values: dict[str, Any]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        del values["format"]
        config = cls(**values | {name: kind(**values[name]) for name, kind in SECTIONS.items()})
        if config.to_dict() != content:
            raise ValueError("no setting may be missing: another version of minilpo")
        return config


SECTIONS: dict[str, Any] = {
    name: type(section)
    for name, section in vars(RunConfig()).items()
    if isinstance(section, Settings)
}
