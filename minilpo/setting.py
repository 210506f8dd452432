"""One choice of the head: a temperature, alone or with rules that leave unlikely tokens out."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RULES = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}  # and their values that keep every token
EXAMPLES = "0 0.6 1.2,min_p=0.1"
MOST_CHOICES = 100
CLOSEST = 0.001  # closer temperatures can't be told apart in tables and figures
HOTTEST = 100.0  # every word is as likely as every other long before that
COLDEST = 1e-6  # but for 0: a division by less may leave the finite numbers
MOST_TOKENS = 1_000_000  # no vocabulary is larger


@dataclass(frozen=True)
class DecodingSetting:
    """A temperature with rules, which `decoding.choices.Temperatures` applies.

    Raises ValueError if a value is out of its range.

    >>> setting = DecodingSetting(1.2, min_p=0.1)
    >>> str(setting), setting.name
    ('1.2,min_p=0.1', '1.2, min-p 0.1')
    """

    temperature: float  # 0 (greedy) or above
    top_k: int = 0  # how many tokens are kept, 0 for all
    top_p: float = 1.0  # the share that the kept tokens must reach, 1 for all
    min_p: float = 0.0  # how likely a kept token must be, as a share of the likeliest; 0 for all

    def __post_init__(self) -> None:
        t, top_k = self.temperature, self.top_k
        is_temperature = t == 0 or COLDEST <= t <= HOTTEST
        is_count = isinstance(top_k, int) and 0 <= top_k <= MOST_TOKENS
        for name, is_right, wanted in (
            ("temperature", is_temperature, f"0 (greedy) or from {COLDEST} to {HOTTEST:g}"),
            ("top_k", is_count, f"a whole number from 0 (all tokens) to {MOST_TOKENS:,}"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
        ):
            if not is_right:
                raise ValueError(f"{name} must be {wanted}, got {getattr(self, name)}")

    @classmethod
    def parse(cls, text: str) -> "DecodingSetting":
        """Reads a setting as it is typed: a temperature, then rules in any order.

        Numbers are read to six digits, as many as names show. Raises ValueError with the wrong
        word, also for a rule at temperature 0, which would change nothing.

        >>> DecodingSetting.parse("1,top_p=0.9,top_k=40")
        DecodingSetting(temperature=1.0, top_k=40, top_p=0.9, min_p=0.0)
        """
        temperature, *rules = text.split(",")
        words = {"temperature": temperature}
        for rule in rules:
            name, _, word = rule.partition("=")
            name = name.strip()
            if name not in RULES or name in words:
                known = ", ".join(RULES)
                raise ValueError(f"rules must be of {known}, each once, got {rule!r} in {text!r}")
            words[name] = word
        setting = cls(**{name: _number(name, word, text) for name, word in words.items()})
        if setting.temperature == 0 and setting.rules:
            raise ValueError(f"temperature 0 takes one token, so leave its rules out, got {text!r}")
        return setting

    @property
    def rules(self) -> dict[str, float]:
        """The rules that leave tokens out, by name."""
        values = {name: getattr(self, name) for name in RULES}
        return {name: value for name, value in values.items() if value != RULES[name]}

    def __str__(self) -> str:
        """Returns the setting as it is typed; `parse` reads it back."""
        # Without zeros that a number doesn't need: 1 for 1.0. A count keeps all its digits.
        rules = [f"{n}={v if isinstance(v, int) else f'{v:g}'}" for n, v in self.rules.items()]
        return ",".join([f"{self.temperature:g}", *rules])

    @property
    def name(self) -> str:
        """The setting's name in tables and figures."""
        return str(self).replace(",", ", ").replace("_", "-").replace("=", " ")


def have_rules(names: Sequence[str]) -> bool:
    """Tells if some choices are more than temperatures, by their names, as in "1, min-p 0.1"."""
    return any(", " in name for name in names)


def read_choices(texts: Sequence[str], temperatures: Sequence[float]) -> list[DecodingSetting]:
    """Reads --choices, sorted from cold to warm, or if there are none --temperatures.

    Raises ValueError if one is wrong, there are too few or too many, choices are the same, or
    temperatures don't rise.
    """
    flag, example = ("--choices", EXAMPLES) if texts else ("--temperatures", "0 0.5 1")
    try:
        settings = [DecodingSetting(temperature) for temperature in temperatures]
        if texts:
            # From cold to warm; at one temperature, by how many tokens are kept.
            settings = [DecodingSetting.parse(text) for text in texts]
            settings.sort(key=lambda s: (s.temperature, s.top_k or MOST_TOKENS, s.top_p, -s.min_p))
        if not 2 <= (n := len(settings)) <= MOST_CHOICES:
            raise ValueError(f"there must be from 2 to {MOST_CHOICES} to choose from, got {n}")
        for one, next_one in itertools.pairwise(settings):
            if texts and one == next_one:
                raise ValueError(f"they must be different, got {one} twice")
            if not texts and next_one.temperature - one.temperature < CLOSEST:
                got = f"got {one} before {next_one}"
                raise ValueError(f"they must rise by {CLOSEST} or more, {got}")
    except ValueError as error:
        raise ValueError(f"{flag}: {error}; write them as in {example}") from None
    return settings


def _number(name: str, word: str, text: str) -> Any:
    """Reads the value of a part of a setting's text."""
    try:
        return (int(word) if name == "top_k" else float(f"{float(word):g}")) + 0  # -0 becomes 0
    except ValueError:
        kind = "a whole number" if name == "top_k" else "a number"
        raise ValueError(f"{name} must be {kind}, got {word!r} in {text!r}") from None
