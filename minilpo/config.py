"""Every setting of a run, with its default, its meaning and its limits. The command line is made from these classes."""

import dataclasses
from dataclasses import dataclass
from typing import Any

LOSSES = ("eq9", "eq10", "eq11", "eq11_marginal", "nll")
FORMAT = 2  # of the run folder; raised when an older folder can no longer be read


def option(default: Any, help: str, *, minimum: float | None = None, above: float | None = None, choices: tuple = ()) -> Any:
    """A field with a help text and limits, which `_check` enforces."""
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum, "above": above, "choices": choices})


def _check(config: Any) -> None:
    """Raises a ValueError that names the flag of the first field that breaks its limits."""
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        flag = "--" + field.name.replace("_", "-")
        if limits.get("minimum") is not None and not value >= limits["minimum"]:
            raise ValueError(f"{flag} must be at least {limits['minimum']}, got {value}")
        if limits.get("above") is not None and not value > limits["above"]:
            raise ValueError(f"{flag} must be above {limits['above']}, got {value}")
        if limits.get("choices") and value not in limits["choices"]:
            raise ValueError(f"{flag} must be one of {', '.join(limits['choices'])}, got {value!r}")


@dataclass(frozen=True)
class ModelConfig:
    """The transformer's shape.

    >>> ModelConfig(vocab_size=300).n_embd
    128
    >>> ModelConfig(n_embd=100, n_head=3)
    Traceback (most recent call last):
    ValueError: --n-embd must be a multiple of --n-head, got 100 and 3; try 99
    """

    vocab_size: int = 0  # known once the tokenizer is trained
    n_layer: int = option(2, "transformer blocks", minimum=1)
    n_head: int = option(4, "attention heads a block", minimum=1)
    n_embd: int = option(128, "width of the hidden states", minimum=1)
    block_size: int = option(112, "longest text in tokens, prompt and response together", minimum=8)

    def __post_init__(self) -> None:
        _check(self)
        if self.n_embd % self.n_head:
            remedy = self.n_embd // self.n_head * self.n_head or self.n_head
            raise ValueError(f"--n-embd must be a multiple of --n-head, got {self.n_embd} and {self.n_head}; try {remedy}")


@dataclass(frozen=True)
class PretrainConfig:
    """How the language model learns from demonstrations."""

    steps: int = option(3000, "pretraining steps", minimum=1)
    batch_size: int = option(32, "demonstrations a step", minimum=1)
    demonstrations: int = option(
        48_000, "demonstrations in the corpus; more steps than they last for read them again", minimum=1
    )
    learning_rate: float = option(3e-3, "peak learning rate of the language model", above=0)
    warmup_steps: int = option(100, "steps until the peak learning rate", minimum=0)
    weight_decay: float = option(0.01, "AdamW's weight decay", minimum=0)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class LPOConfig:
    """How the head learns from preferences. None of these values is given in the paper, except the 16 samples."""

    rounds: int = option(3, "rounds of sampling and training", minimum=1)
    prompts: int = option(1024, "training prompts a round, over all tasks", minimum=1)
    samples: int = option(16, "responses a prompt", minimum=2)
    epochs: int = option(8, "passes over the pairs of a round", minimum=1)
    loss: str = option(
        "default",
        "eq9, eq10, eq11 (see losses.py), eq11_marginal (one temperature a response) or nll; default is what measured best "
        "here: eq10 at sequence level, eq11 at token level",
        choices=("default", *LOSSES),
    )
    reduce: str = option("sum", "scores are added up over the steps of a response, or averaged", choices=("sum", "mean"))
    reference: str = option("uniform", "what the head is compared with: a uniform one or none", choices=("uniform", "none"))
    pairs: str = option(
        "best_worst",
        "which responses are paired (see preferences.py)",
        choices=("best_worst", "top_bottom", "all", "constrained"),
    )
    pairs_per_prompt: int = option(4, "pairs a prompt of --pairs top_bottom", minimum=1)
    pairs_per_batch: int = option(64, "preference pairs a gradient step", minimum=1)
    train_lm: bool = option(False, "train the language model too, by the same loss (eq9 only)")
    lm_learning_rate: float = option(1e-4, "learning rate of the language model with --train-lm", above=0)
    beta: float = option(1.0, "strength of the preference in the loss", above=0)
    head_learning_rate: float = option(1e-3, "learning rate of the head", above=0)
    n_hidden: int = option(128, "width of the head's two hidden layers", minimum=1)
    validation_prompts: int = option(128, "held-out prompts a task on which the best head is chosen", minimum=1)

    def __post_init__(self) -> None:
        _check(self)
        if self.train_lm and self.loss != "eq9":
            raise ValueError(f"--train-lm must come with --loss eq9, whose score contains the words, got --loss {self.loss}")

    def resolved(self, level: str) -> "LPOConfig":
        """The same settings with the loss that is the default at this level, if none was asked for.

        >>> LPOConfig().resolved("token").loss
        'eq11'
        """
        loss = {"sequence": "eq10", "token": "eq11"}[level] if self.loss == "default" else self.loss
        if loss == "eq11_marginal" and level == "token":
            raise ValueError("--loss eq11_marginal must come with --level sequence, got --level token; there eq11 is exact")
        return dataclasses.replace(self, loss=loss)


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured."""

    test_prompts: int = option(512, "test prompts a task", minimum=2)
    selection_prompts: int = option(
        256, "training prompts a task on which the best constant temperatures are chosen", minimum=1
    )
    ood_prompts: int = option(128, "out-of-distribution prompts a task", minimum=1)
    resamples: int = option(2000, "bootstrap resamples behind an interval", minimum=100)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class RunConfig:
    """A whole run: what `config.json` in a run folder holds.

    >>> RunConfig(temperatures=(0.5, 0.2))
    Traceback (most recent call last):
    ValueError: --temperatures must be different and in rising order, got 0.5 0.2; try 0.2 0.5
    """

    seed: int = option(0, "where all randomness starts", minimum=0)
    level: str = option("sequence", "one temperature a response or one a token", choices=("sequence", "token"))
    tasks: tuple[str, ...] = option(
        ("math", "instruct", "story", "constrained_story"), "names of tasks, or .py files that define one"
    )
    temperatures: tuple[float, ...] = option((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "the temperatures to choose from, in rising order")
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    lpo: LPOConfig = LPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "lpo", self.lpo.resolved(self.level))
        got = " ".join(map(str, self.temperatures))
        if len(self.temperatures) < 2:
            raise ValueError(f"--temperatures must be at least two to choose from, got {got or 'none'}; try 0 1")
        if any(not 0 <= temperature < float("inf") for temperature in self.temperatures):
            raise ValueError(f"--temperatures must be 0 or above and finite, got {got}; 0 means greedy")
        if any(low >= high for low, high in zip(self.temperatures, self.temperatures[1:], strict=False)):
            remedy = " ".join(map(str, sorted(set(self.temperatures))))
            raise ValueError(f"--temperatures must be different and in rising order, got {got}; try {remedy}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunConfig":
        """Reads `to_dict` back; raises ValueError for settings of another version."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            got = content.get("format", "none") if isinstance(content, dict) else "none"
            raise ValueError(
                f"config.json must have format {FORMAT}, got {got}: another version of minilpo wrote it; make a new run folder"
            )
        sections = {"model": ModelConfig, "pretrain": PretrainConfig, "lpo": LPOConfig, "evaluation": EvaluationConfig}
        try:
            values = {name: value for name, value in content.items() if name != "format"}
            values |= {name: section(**values[name]) for name, section in sections.items()}
            return cls(**values | {"tasks": tuple(values["tasks"]), "temperatures": tuple(values["temperatures"])})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"config.json must hold the settings of this version, but {error}; make a new run folder"
            ) from None
