"""What a task is, how its members are called, how its prompts are split, and two helpers that tasks are written with.

A task is text in, text out. It never sees token ids, temperatures or the model. Anyone may write one, so what its code gives is
looked at each time: `ask`, `judge`, `parts_of`, `kind_of` and `weight_of` make one clear error of whatever is wrong.
"""

import hashlib
import inspect
import math
import random
import re
import signal
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from minilpo.text import one_line

CORPUS_BLOCK = 4000  # demonstrations
PATIENCE = 20_000  # draws in vain, after which a task counts as exhausted
WASTE = 100  # draws in vain for each prompt found, beyond which looking for more would take for ever
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.1  # of all prompts; the rest is for training
TRIES = 4  # demonstrations on which a task is tried
LONG = 100  # words of what a language model may write that doesn't find an end
LIMIT = 20.0  # seconds for one call of the code in a user's file: it may load a model, but a loop without end must be stopped
AGAIN = 0.2  # seconds until code is stopped once more that has swallowed the exception
FROM_FILE = "minilpo_task_"  # the names of modules that were users' files begin with this
ROUNDING = 1e-6  # by which a reward may leave [0, 1]: a sum of shares may be 1.0000000000000002
HEAVIEST = 1_000_000  # corpus_weight

TEXT, LABEL = "a str without control characters (line breaks and tabs aside)", "a str of 1 to 80 printable characters"
REQUIRED = {  # of each member of a task: what it must be or return, and what to do if it isn't so
    "name": ("a str of 1 to 40 letters (a to z), digits, _ or -, not beginning with -", "write name = 'my_task' in the class"),
    "prompt": (f"{TEXT} and with at least one word", "return a text like 'Say yes', drawn with the rng that is passed"),
    "ood_prompt": (f"{TEXT} and with at least one word", "return a text like 'Please say yes', or leave ood_prompt out"),
    "demonstration": (TEXT, "return a response to the prompt that the language model may learn from"),
    "reward": ("a number from 0 to 1", "return one for any text, however broken; divide by the highest score there can be"),
    "kind": (LABEL, "return one of a few words, or leave kind out"),
    "parts": (f"a dict with finite numbers, each under {LABEL}", "return the same names for any text, or leave parts out"),
    "constraint": ("the name of one part, and quality that of another", "name them as parts does, or leave both out"),
    "corpus_weight": (f"a number above 0 and at most {HEAVIEST:,}", "write corpus_weight = 2, or leave it out for 1"),
}


@runtime_checkable
class Task(Protocol):
    """The four members that make a class a task.

    Four more are optional: `kind(prompt) -> str` names the sort of prompt (rewards and temperatures are then reported per
    kind), `parts(prompt, response) -> dict[str, float]` splits the reward into named parts (a task with a rule to keep names
    two of them as `quality` and `constraint`, see `preferences.constrained_pairs`), `ood_prompt(rng) -> str` draws a prompt
    whose wording or subject never occurs in training, and `corpus_weight` (1 if absent) says how many demonstrations the task
    gets in the corpus, in relation to the others: more where there is more to learn.

    All randomness must come from the `rng` that is passed: the same seed then draws the same texts, and a run can be resumed.
    `REQUIRED` says for each member what it must be or return.

    >>> import random
    >>> class Echo:
    ...     name = "echo"
    ...     def prompt(self, rng: random.Random) -> str:
    ...         return "Say " + rng.choice(["yes", "no"])
    ...     def demonstration(self, prompt: str, rng: random.Random) -> str:
    ...         return prompt.split()[-1]
    ...     def reward(self, prompt: str, response: str) -> float:
    ...         return float(response == prompt.split()[-1])
    >>> isinstance(Echo(), Task), Echo().reward("Say yes", "yes")
    (True, 1.0)
    """

    name: str

    def prompt(self, rng: random.Random) -> str:
        """Draws one prompt."""

    def demonstration(self, prompt: str, rng: random.Random) -> str:
        """Draws one response that the language model learns to imitate; it may contain mistakes."""

    def reward(self, prompt: str, response: str) -> float:
        """Scores any text, however broken, in [0, 1]."""


def ask(task: Task, member: str, *arguments: Any) -> str:
    """Calls a member of a task that returns a text.

    Args:
        task: anyone's.
        member: "prompt", "ood_prompt" or "demonstration".
        arguments: those of the member.

    Returns:
        The text.

    Raises:
        ValueError: if it returns anything else, raises anything or doesn't end; names task and member, says what to do.

    >>> from minilpo.tasks import load_tasks
    >>> ask(load_tasks(["coin_flip"])[0], "prompt", random.Random(1))
    'In summer Nora flips a coin in the valley. Heads or tails?'
    """
    text = _call(task, member, *arguments)
    if not _is_text(text) or not (text.strip() or member == "demonstration"):
        raise _refusal(task, member, arguments, text)
    return text


def judge(task: Task, prompt: str, response: str) -> float:
    """The reward of a response, whatever kind of number the task returns: a bool, an int, a Fraction, a tensor.

    Args:
        task: anyone's.
        prompt: one of its prompts.
        response: any text.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if the task returns anything else, raises anything or doesn't end; names task, prompt, response and value.

    >>> class Brief:
    ...     name = "brief"
    ...     def reward(self, prompt, response):
    ...         return 2 / len(response)
    >>> judge(Brief(), "Say no", "no, no")
    0.3333333333333333
    >>> judge(Brief(), "Say no", "n")
    Traceback (most recent call last):
    ValueError: task 'brief': reward('Say no', 'n') must be a number from 0 to 1, got 2.0; return one for any text, ...
    """
    reward = _call(task, "reward", prompt, response)
    number = _number(reward)
    if not -ROUNDING <= number <= 1 + ROUNDING:  # NaN isn't either
        raise _refusal(task, "reward", (prompt, response), reward)
    return min(max(number, 0.0), 1.0)


def parts_of(task: Any, prompt: str, response: str, names: Sequence[str] | None = None) -> dict[str, float]:
    """The parts of a response's reward.

    Args:
        task: one with `parts`.
        prompt: one of its prompts.
        response: any text.
        names: the parts that there must be: those of another response.

    Returns:
        A finite float for each part. If the task has a `constraint`, it is one of them, and so is its `quality`.

    Raises:
        ValueError: if the task returns anything else, raises anything or doesn't end; names task, prompt, response and value.
    """
    parts = _call(task, "parts", prompt, response)
    numbers: dict[Any, float] = {None: math.nan}  # refused like any other that isn't right
    if isinstance(parts, dict):
        numbers = {name: _number(part) for name, part in parts.items()}
    is_whole = names is None or numbers.keys() == set(names)
    if not is_whole or not all(_is_label(name) and math.isfinite(number) for name, number in numbers.items()):
        raise _refusal(task, "parts", (prompt, response), parts)
    if hasattr(task, "constraint"):
        named = [getattr(task, member, None) for member in ("quality", "constraint")]
        if not all(isinstance(name, str) and name in numbers for name in named):
            raise _refusal(task, "constraint", (), {"quality": named[0], "constraint": named[1], "parts": [*numbers]})
    return numbers


def kind_of(task: Task, prompt: str) -> str:
    """The kind of a prompt: `task.kind(prompt)` where the task has kinds, else the task's name."""
    if not hasattr(task, "kind"):
        return task.name
    kind = _call(task, "kind", prompt)
    if not _is_label(kind):
        raise _refusal(task, "kind", (prompt,), kind)
    return kind


def weight_of(task: Any) -> float:
    """The task's `corpus_weight`, 1 if it has none; an int stays one."""
    weight = _read(task, "corpus_weight", 1)
    number = weight if isinstance(weight, int) else _number(weight)
    if not 0 < number <= HEAVIEST:
        raise _refusal(task, "corpus_weight", (), weight)
    return number


def try_out(task: Any) -> None:
    """Calls every member of a task a few times, so that what is wrong with it shows before anything is trained.

    Rewards and parts are asked for the demonstrations and for such texts as a language model writes that hasn't learned much.
    The rng is its own: nothing else that is drawn depends on it.

    Raises:
        ValueError: if a member isn't as `REQUIRED` says, or the same rng gives other texts the second time.
    """
    name = _read(task, "name", None)
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{0,39}", name):
        raise _refusal(task, "name", (), name)
    weight_of(task)
    absent = object()
    has = [member for member in ("ood_prompt", "parts", "constraint") if _read(task, member, absent) is not absent]

    def draw() -> list[tuple[str, str]]:
        rng = random.Random(0)
        pairs = draw_demonstrations(task, TRIES, "train", rng)
        return pairs + [(ask(task, "ood_prompt", rng), "") for _ in range(TRIES) if "ood_prompt" in has]

    names = None
    for pair, same in zip(draw(), draw(), strict=True):
        if pair != same:
            raise ValueError(
                f"task {name!r}: prompt and demonstration must return the same texts for the same rng, got {shown(pair)} "
                f"and then {shown(same)}; draw with the rng that is passed, and keep no count of the calls"
            )
        prompt, demonstration = pair
        kind_of(task, prompt)
        words = demonstration.split() or prompt.split()
        backwards, endless = " ".join(words[::-1]), " ".join((words * LONG)[:LONG])
        for response in (demonstration, "", words[0], backwards, endless, "<eos> ? 0 -1.5 ####"):
            judge(task, prompt, response)
            if "parts" in has or "constraint" in has:
                names = [*parts_of(task, prompt, response, names)]


class TimeIsUp(BaseException):
    """A user's code took longer than `LIMIT`. Not an Exception, because that code may catch those."""


def limited(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function; from `LIMIT` seconds on, `TimeIsUp` is raised within it.

    Without a limit where the system has no alarm, and outside of the main thread, the only one that an alarm can interrupt.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return function(*arguments)
    running = True

    def ring(*_: Any) -> None:
        if running:
            raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, LIMIT, AGAIN)
    try:
        return function(*arguments)
    finally:
        running = False  # first: the alarm may ring until it is off
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if timer[0]:  # somebody else's alarm
            signal.setitimer(signal.ITIMER_REAL, *timer)


def what_happened(error: BaseException) -> str:
    """What came of calling a user's code, in a few words and with the line."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [frame for frame in frames if frame[0].parent != Path(__file__).parent]
    lines = [line for path, line in theirs if path == theirs[0][0]]  # what the file has called isn't the reader's
    where = f" (line {lines[-1]} of {one_line(theirs[0][0].name, 60)})" if lines else ""
    if isinstance(error, TimeIsUp):
        return f"took longer than {LIMIT:g} seconds{where}"
    try:
        said = one_line(str(error), 160)
    except Exception:  # its own __str__ may be broken too
        said = ""
    return f"raised {type(error).__name__}{': ' if said else ''}{said}{where}"


def shown(value: Any, longest: int = 60) -> str:
    """A value as `repr` writes it, but always on one line that isn't too long and is harmless in a terminal.

    >>> shown(float("nan")), shown("so " * 100, 20)
    ('nan', "'so so ... so so '")
    """
    try:
        return one_line(repr(value), longest)
    except Exception:  # a user's own class may do anything
        return f"<{type(value).__name__}>"


def _call(task: Any, member: str, *arguments: Any) -> Any:
    try:
        method = getattr(task, member)
        # An alarm costs some microseconds, and only a user's file is in need of one.
        return limited(method, *arguments) if type(task).__module__.startswith(FROM_FILE) else method(*arguments)
    except KeyboardInterrupt:  # not the task's doing
        raise
    except BaseException as error:  # SystemExit too
        raise _refusal(task, member, arguments, error) from error


def _read(task: Any, member: str, default: Any) -> Any:
    try:
        return getattr(task, member, default)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a property may do anything
        raise _refusal(task, member, (), error) from error


def _refusal(task: Any, member: str, arguments: Sequence[Any], got: Any) -> ValueError:
    """The error that says what a member of a task gave or raised, and what is asked of it."""
    name = inspect.getattr_static(task, "name", None)
    whose = f"task {shown(name)}" if isinstance(name, str) else f"the task of class {one_line(type(task).__name__, 60)}"
    call = f"({', '.join('rng' if isinstance(value, random.Random) else shown(value) for value in arguments)})"
    must, remedy = REQUIRED[member]
    if inspect.iscoroutine(got):
        got.close()  # else Python adds a complaint of its own
    outcome = f"but it {what_happened(got)}" if isinstance(got, BaseException) else f"got {shown(got, 100)}"
    return ValueError(f"{whose}: {member}{call if arguments else ''} must be {must}, {outcome}; {remedy}")


def _number(value: Any) -> float:
    """The value as a float; NaN if it isn't a number."""
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes, bytearray)):  # float would read them
        return math.nan
    try:
        return float(value)
    except Exception:  # whatever the value's class does
        return math.nan


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be encoded, printed and read."""
    return isinstance(value, str) and (
        value.isprintable() or all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in value)
    )


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= len(value) <= 80


def split_of(prompt: str) -> str:
    """Says whether a prompt belongs to the "train", the "validation" or the "test" split.

    The text alone decides (by its hash), so two splits never share a prompt, whichever seed drew it.

    >>> split_of("Sort these numbers: 9 3 14."), split_of("Sort these numbers: 3 9 14.")
    ('train', 'test')
    """
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") / 2**32  # uniform in [0, 1)
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def draw_prompts(task: Task, n: int, split: str, rng: random.Random) -> list[str]:
    """Draws `n` different prompts of one split.

    Args:
        task: whose prompts to draw.
        n: how many, at least 1.
        split: "train", "validation", "test" or "ood" (out of distribution: a wording or a subject that training never shows).
        rng: the only source of randomness.

    Returns:
        A list of `n` strings without repeats.

    Raises:
        ValueError: if the task can't give that many different prompts.

    >>> from minilpo.tasks import load_tasks
    >>> [task] = load_tasks(["math"])
    >>> prompts = draw_prompts(task, 5, "test", random.Random(0))
    >>> len(set(prompts)), {split_of(prompt) for prompt in prompts}
    (5, {'test'})
    """
    member = "ood_prompt" if split == "ood" else "prompt"
    prompts: dict[str, None] = {}  # an ordered set
    in_vain = 0
    while len(prompts) < n and in_vain < PATIENCE:
        prompt = ask(task, member, rng)
        new = prompt not in prompts and (split == "ood" or split_of(prompt) == split)
        in_vain = 0 if new else in_vain + 1
        if new:
            prompts[prompt] = None
    if len(prompts) < n:
        raise ValueError(
            f"task {task.name!r} must offer {n} different {split} prompts, got {len(prompts)}; "
            f"ask for fewer (--test-prompts, --prompts and the like) or give the task more variety"
        )
    return list(prompts)


def draw_demonstrations(task: Task, n: int, split: str, rng: random.Random) -> list[tuple[str, str]]:
    """Draws `n` (prompt, demonstration) pairs of one split; prompts may repeat, as in any corpus.

    Raises:
        ValueError: if the task has no prompts of that split, or next to none.
    """
    pairs: list[tuple[str, str]] = []
    in_vain = 0
    while len(pairs) < n:
        prompt = ask(task, "prompt", rng)
        if split_of(prompt) == split:
            pairs.append((prompt, ask(task, "demonstration", prompt, rng)))
            continue
        in_vain += 1
        if in_vain >= PATIENCE + WASTE * len(pairs):
            raise ValueError(
                f"task {task.name!r} must have prompts of the {split} split, but only {len(pairs)} of {in_vain + len(pairs)} "
                "were in it; give the task more variety"
            )
    return pairs


def mixed_prompts(tasks: Sequence[Task], n_per_task: int, split: str, rng: random.Random) -> tuple[list[Task], list[str]]:
    """As many prompts of every task, in two lists: the task of each prompt, and the prompt."""
    pairs = [(task, prompt) for task in tasks for prompt in draw_prompts(task, n_per_task, split, rng)]
    return [task for task, _ in pairs], [prompt for _, prompt in pairs]


def corpus(tasks: Sequence[Task], n: int, split: str, rng: random.Random) -> Iterator[list[tuple[str, str]]]:
    """`n` pairs of `mixed_demonstrations`, block by block, so that memory never holds them all as text."""
    for start in range(0, n, CORPUS_BLOCK):
        yield mixed_demonstrations(tasks, min(CORPUS_BLOCK, n - start), split, rng)


def mixed_demonstrations(tasks: Sequence[Task], n: int, split: str, rng: random.Random) -> list[tuple[str, str]]:
    """`n` (prompt, demonstration) pairs in random order; every task has its `corpus_weight`."""
    weights = [weight_of(task) for task in tasks]
    pairs = []
    for task, weight in zip(tasks, weights, strict=True):
        pairs += draw_demonstrations(task, int(-(-n * weight // sum(weights))), split, rng)  # rounded up
    rng.shuffle(pairs)
    return pairs[:n]


@cache
def _cumulative_weights(n: int, exponent: float) -> list[float]:
    total, weights = 0.0, []
    for rank in range(1, n + 1):
        total += rank**-exponent
        weights.append(total)
    return weights


def zipf_choice(rng: random.Random, words: Sequence[str], exponent: float = 1.0) -> str:
    """Draws a word with probability proportional to 1 / rank^exponent: favourites come first, as in human language.

    The skew is what makes temperature matter: a greedy writer repeats the first word of the list for ever.

    >>> zipf_choice(random.Random(1), ["often", "sometimes", "rarely"])
    'often'
    """
    return rng.choices(words, cum_weights=_cumulative_weights(len(words), exponent))[0]


class Pattern:
    """A sentence with slots, each slot with the words that may fill it: it both writes and recognises text.

    Args:
        template: text with `{slots}`. A trailing digit makes a second slot with the same words (`{thing}`, `{thing2}`).
        exponent: how strongly favourites are preferred, see `zipf_choice`.
        slots: the words of each slot; a slot named "number" may be left out and takes any whole number.

    >>> pattern = Pattern("The {animal} sees {number} stars.", animal=["fox", "owl"])
    >>> pattern.write(random.Random(1), number="7")
    'The fox sees 7 stars.'
    >>> pattern.read("The owl sees 12 stars.")
    {'animal': 'owl', 'number': '12'}
    >>> pattern.read("The pig sees 12 stars.") is None
    True
    """

    def __init__(self, template: str, *, exponent: float = 1.0, **slots: Sequence[str]):
        self.template, self.exponent = template, exponent
        self.slots = {slot: slots.get(slot.rstrip("0123456789")) for slot in re.findall(r"\{(\w+)\}", template)}
        regex = re.escape(template)
        for slot, words in self.slots.items():
            allowed = "|".join(map(re.escape, words)) if words is not None else r"\d+"
            regex = regex.replace(re.escape("{" + slot + "}"), f"(?P<{slot}>{allowed})")
        self._fullmatch = re.compile(regex).fullmatch

    def write(self, rng: random.Random, **given: str) -> str:
        """Fills the given slots as told and draws the others by `zipf_choice`."""
        drawn = {
            slot: given[slot] if slot in given else zipf_choice(rng, words, self.exponent) for slot, words in self.slots.items()
        }
        return self.template.format(**drawn)

    def read(self, text: str) -> dict[str, str] | None:
        """The words in the slots, or None if the text doesn't fit the pattern."""
        match = self._fullmatch(text)
        return match.groupdict() if match else None


def read_any(patterns: Sequence[Pattern], text: str) -> dict[str, str] | None:
    """The slots of the first pattern that fits the text, or None if none does."""
    return next((slots for pattern in patterns if (slots := pattern.read(text)) is not None), None)


def sentences_of(text: str) -> list[str]:
    """Cuts a text after each full stop.

    >>> sentences_of("One. Two. Three")
    ['One.', 'Two.', 'Three']
    """
    return [sentence for sentence in re.split(r"(?<=\.)\s+", text.strip()) if sentence]
