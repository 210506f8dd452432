"""One thing to choose, as it is typed: a temperature, perhaps with rules that leave tokens out."""

import math
from dataclasses import dataclass
from typing import Any

EXAMPLE = "1.2,min_p=0.1"
RULES = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}  # and their values that keep every token
HOTTEST_TEMPERATURE = 100.0  # every word is as likely as every other long before that
COLDEST_TEMPERATURE = 1e-6  # but for 0: what is divided by less may leave the finite numbers
TEMPERATURE = (
    "temperature must be 0 or above (0 is greedy), "
    f"if not 0 at least {COLDEST_TEMPERATURE:g}, and at most {HOTTEST_TEMPERATURE:g}"
)
MOST_TOKENS = 1_000_000  # no vocabulary is larger


def is_temperature(value: float) -> bool:
    """Whether a number may be a temperature: 0 (greedy), or finite and not next to nothing."""
    return value == 0 or COLDEST_TEMPERATURE <= value < math.inf


def may_be_temperature(value: float) -> bool:
    """Whether a command takes a number for a temperature.

    >>> [may_be_temperature(value) for value in (0.0, 0.5, -0.5, 1e-38, 1000.0)]
    [True, True, False, False, False]
    """
    return is_temperature(value) and value <= HOTTEST_TEMPERATURE


@dataclass(frozen=True)
class DecodingSetting:
    """A temperature with rules; `decoding.choices.Temperatures` says what they do.

    Args:
        temperature: 0 (greedy) or above.
        top_k: how many tokens are kept, 0 for all.
        top_p: the share that the kept tokens must reach, 1 for all.
        min_p: how likely a kept token must be, as a share of the likeliest; 0 for all.

    Raises:
        ValueError: if a value is out of its range, or a rule comes with temperature 0: there it
            would change nothing.

    >>> str(DecodingSetting(1.2, min_p=0.1))
    '1.2,min_p=0.1'
    """

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not may_be_temperature(self.temperature):
            raise ValueError(f"a {TEMPERATURE}, got {self.temperature:g}; try {EXAMPLE}")
        if not 0 <= self.top_k <= MOST_TOKENS:
            raise ValueError(
                f"top_k must be from 0 (all tokens) to {MOST_TOKENS:,}, got {self.top_k}; "
                "try 1,top_k=40"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p must be above 0 and at most 1, got {self.top_p:g}; try 1,top_p=0.9"
            )
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {self.min_p:g}; try {EXAMPLE}")
        if self.temperature == 0 and self.rules:
            raise ValueError(
                "temperature 0 must come without rules, because it always takes the likeliest "
                f"token, got {self}; leave {' and '.join(self.rules)} out, or write {EXAMPLE}"
            )

    @classmethod
    def parse(cls, text: str) -> "DecodingSetting":
        """Reads a setting as it is typed: a temperature, then rules in any order.

        Numbers are read to six digits, as many as names show.

        Raises:
            ValueError: if it isn't one; the message has the word that is wrong and an example.

        >>> DecodingSetting.parse("1,top_p=0.9,top_k=40")
        DecodingSetting(temperature=1.0, top_k=40, top_p=0.9, min_p=0.0)
        """
        temperature, *rules = text.split(",")
        values: dict[str, Any] = {}
        for rule in rules:
            name, _, value = rule.partition("=")
            name = name.strip()
            if name not in RULES:
                raise ValueError(
                    f"a rule must be one of {', '.join(RULES)}, got {rule!r} in {text!r}; "
                    f"write it as in {EXAMPLE}"
                )
            if name in values:
                raise ValueError(f"{name} must be given once, got {text!r}; try {EXAMPLE}")
            values[name] = _number(value, name, text)
        return cls(_number(temperature, "a temperature", text), **values)

    @property
    def rules(self) -> dict[str, float]:
        """The rules that leave tokens out, by name."""
        values = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {name: value for name, value in values.items() if value != RULES[name]}

    def __str__(self) -> str:
        """As it is typed; there is one way for each setting, which `parse` reads back."""
        rules = [f"{name}={_shortest(value)}" for name, value in self.rules.items()]
        return ",".join([_shortest(self.temperature), *rules])

    @property
    def boldness(self) -> tuple[float, ...]:
        """What settings are sorted by, from cold to warm: at one temperature, what keeps more."""
        return self.temperature, self.top_k or MOST_TOKENS, self.top_p, -self.min_p


def _number(word: str, name: str, text: str) -> float:
    """The value of a part of a setting's text."""
    try:
        value = int(word) if name == "top_k" else float(f"{float(word):g}")
    except ValueError:
        wanted = "a whole number" if name == "top_k" else "a number"
        raise ValueError(
            f"{name} must be {wanted}, got {word!r} in {text!r}; try {EXAMPLE}"
        ) from None
    return value + 0  # -0 becomes 0


def _shortest(value: float) -> str:
    """A number without zeros that it doesn't need: 1 for 1.0."""
    return str(value) if isinstance(value, int) else f"{value:g}"
