"""Claims about the framework of the exercises: what it finds, and what no answer can do to it."""

import functools
import gc
import random
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from minilpo.exercises.exercise import Draw, Exercise, mistake
from minilpo.exercises.trial import LONGEST_OUTPUT, a_kind_of, copied, observe, same
from minilpo.exercises.verdict import agree, misfit, shown

HAS_ALARM = hasattr(signal, "setitimer")
needs_alarm = pytest.mark.skipif(not HAS_ALARM, reason="the system has no alarm")


class Shifted(Exercise):
    """Add a number to every value. `values` has shape (...), `shift` is a float; the result has the shape of the values."""

    name = "shifted"
    lesson = 1
    hints = ("the first hint", "the second hint", "the third hint")
    explanation = "A sum is a sum."
    follow_up = "subtract it."

    @staticmethod
    def right(values, shift):
        return values + shift

    @mistake("the shift is subtracted; add it")
    def subtracted(values, shift):
        return values - shift

    @mistake("the values are added up")
    def added_up(values, shift):
        return values.sum() + shift

    @mistake("only vectors are shifted")
    def only_vectors(values, shift):
        return values + shift if values.ndim == 1 else values

    def cases(self, draw):
        """A vector and matrices, one of them a column."""
        for shape in [(2,), (2, 3), (3, 1), (4, 4)]:
            yield draw.normal(*shape), 1.0 + float(draw.uniform(1))


class Halved(Exercise):
    """Halve a number. `number` is a float, the result is one too; nothing else has to be looked at here."""

    name = "halved"
    lesson = 1
    hints = ("a", "b", "c")
    explanation = "Half of it."
    follow_up = "a third."

    @staticmethod
    def right(number):
        return number / 2

    def cases(self, draw):
        """Of both signs."""
        yield (4.0,)
        for _ in range(5):
            yield (float(draw.normal(1)),)


class Listed(Halved):
    """The number and its half as a tuple, of a nested input: a dict is no input, but lists of tuples are, as layers."""

    name = "listed"

    @staticmethod
    def right(pairs):
        return [float(weight.sum()) for weight, _ in pairs]

    def cases(self, draw):
        """Pairs of tensors."""
        for n in (1, 2, 3):
            yield ([(draw.normal(2), draw.normal(2)) for _ in range(n)],)


@pytest.fixture
def exercise():
    return Shifted()


def call(answer, *arguments):
    return answer(*arguments)


def seen(answer, *arguments, seconds=5.0):
    return observe(answer, call, arguments, seconds=seconds)


# In place


@pytest.mark.parametrize(
    "answer",
    [
        lambda pairs: pairs[0][0].add_(1),
        lambda pairs: pairs[1][1].zero_(),
        lambda pairs: pairs.pop(),
        lambda pairs: pairs.append(1),
        lambda pairs: pairs.reverse(),
        lambda pairs: pairs[0][0].resize_(3),
        lambda pairs: pairs.__setitem__(0, object()),
        lambda pairs: pairs[0][0].data.mul_(2),
    ],
)
def test_a_change_in_place_is_found_however_deep_and_does_not_last(answer):
    pairs = [(torch.ones(2), torch.ones(1)), (torch.zeros(2), torch.ones(1))]
    before = copied(pairs)
    assert "it changes its input in place" in seen(answer, pairs).problem
    assert same(pairs, before)


def test_what_looks_like_a_change_and_is_none_is_no_misconduct():
    pairs = [(torch.ones(2), torch.ones(1))]
    assert seen(lambda pairs: pairs[0][0].clone().add_(1), pairs).problem == ""
    assert seen(lambda values: sorted(values)[0], [3, 1, 2]).problem == ""


def test_to_draw_from_a_generator_that_is_passed_is_no_misconduct():
    generator = torch.Generator().manual_seed(1)
    drawn = [seen(lambda g: torch.rand(2, generator=g), generator) for _ in range(2)]
    assert drawn[0].problem == "" and same(drawn[0].value, drawn[1].value)
    rng = random.Random(1)
    drawn = [seen(lambda rng: rng.random(), rng) for _ in range(2)]
    assert drawn[0].problem == "" and drawn[0].value == drawn[1].value


# What belongs to everybody

GLOBAL = {
    "PyTorch's random numbers": lambda: torch.manual_seed(5),
    "NumPy's random numbers": lambda: np.random.seed(5),
    "Python's random numbers": lambda: random.seed(5),
    "a setting of PyTorch": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
}


def world():
    return [
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        list(warnings.filters),
    ]


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("raised", [None, ValueError, SystemExit, KeyboardInterrupt])
def test_what_belongs_to_everybody_is_put_back_and_said(name, raised):
    def misbehaving(x):
        GLOBAL[name]()
        if raised:
            raise raised
        return x

    before = world()
    try:
        problem = seen(misbehaving, 1.0).problem
    except KeyboardInterrupt:
        problem = ""
    assert world() == before
    assert raised or f"it changes something that belongs to everybody: {name}" in problem


def test_drawing_global_random_numbers_is_found_for_each_library():
    for draw in (lambda: torch.rand(1), lambda: np.random.rand(), lambda: random.random()):
        assert "belongs to everybody" in seen(lambda x, draw=draw: (draw(), x)[1], 1.0).problem


def test_a_default_dtype_and_a_filter_of_warnings_do_not_last():
    def misbehaving(x):
        torch.set_default_dtype(torch.float64)
        warnings.simplefilter("error")
        return x

    before = world()
    assert "a setting of PyTorch" in seen(misbehaving, 1.0).problem
    assert world() == before


def test_a_check_draws_no_random_numbers_of_everybody(exercise, capsys):
    before = world()
    exercise.check(lambda values, shift: values + shift)
    exercise.check(lambda values, shift: values - shift)
    assert world() == before


# What it prints


def test_printing_is_caught(exercise, capsys):
    found = seen(lambda x: print("a secret") or x, 1.0)
    assert found.printed == "a secret\n" and found.value == 1.0 and not found.problem
    assert capsys.readouterr().out == ""
    exercise.check(lambda values, shift: print("so far") or values - shift)
    assert "so far" not in capsys.readouterr().out.split("\n")


def test_of_what_is_printed_only_the_beginning_is_kept():
    def talking(x):
        for _ in range(100):
            print("word " * 1000)
        return x

    assert len(seen(talking, 1.0).printed) == LONGEST_OUTPUT


def test_nobody_can_close_the_output(capsys):
    def closing(x):
        print("before")
        sys.stdout.close()
        return x

    assert seen(closing, 1.0).printed == "before\n"
    print("still open")
    assert capsys.readouterr().out == "still open\n"


# Leaving, and not leaving


def test_system_exit_is_no_exit(exercise, capsys):
    def leaving(values, shift):
        raise SystemExit(3)

    assert exercise.check(leaving).passed is False
    assert "it raised SystemExit: 3 (line" in capsys.readouterr().out


def test_ctrl_c_passes_through(exercise):
    def interrupted(values, shift):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercise.check(interrupted)


@needs_alarm
def test_a_loop_that_swallows_every_exception_is_still_stopped():
    def stubborn(x):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    def doubly_stubborn(x):
        while True:
            try:
                try:
                    time.sleep(60)
                except BaseException:
                    print("not")
            except BaseException:
                print("me")

    def helped(x):
        while True:
            try:
                stubborn(x)
            except BaseException:
                pass

    for endless in (stubborn, doubly_stubborn, helped):
        assert "it was stopped after 0.05 seconds" in seen(endless, 1, seconds=0.05).problem


@needs_alarm
def test_after_a_stop_no_alarm_and_no_trace_is_left():
    def stubborn(x):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    before = sys.gettrace(), sys.getprofile(), signal.getsignal(signal.SIGALRM)
    seen(stubborn, 1, seconds=0.05)
    assert before == (sys.gettrace(), sys.getprofile(), signal.getsignal(signal.SIGALRM))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_an_answer_is_judged_as_well(exercise, capsys):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(exercise.check(lambda values, shift: values + shift))
    )
    thread.start()
    thread.join()
    assert found[0].passed


# Form


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda values, shift: 0.5, "must be a tensor of shape (2,), got a Python float"),
        (
            lambda values, shift: None if shift else 1,
            "got None; does the function end without return?",
        ),
        (lambda values, shift: (values + shift)[None], "must have shape (2,), got (1, 2)"),
        (lambda values, shift: (values + shift)[..., None], "must have shape (2,), got (2, 1)"),
        (lambda values, shift: (values + shift).sum(), "must have shape (2,), got ()"),
        (lambda values, shift: (values + shift)[:1], "must have shape (2,), got (1,)"),
        (lambda values, shift: (values + shift).double(), "must have dtype torch.float32"),
        (lambda values, shift: (values + shift).half(), "must have dtype torch.float32"),
        (lambda values, shift: (values + shift).to("meta"), "must have device cpu, got meta"),
        (lambda values, shift: (values + shift).to_sparse(), "must have layout torch.strided"),
        (lambda values, shift: (values + shift).numpy(), "got a numpy ndarray"),
        (lambda values, shift: values * torch.nan, "wrong for 4 of 4 inputs"),
        (lambda values, shift: values + torch.inf, "wrong for 4 of 4 inputs"),
        ("a text", "it must be a function, got a Python str"),
        (None, "it must be a function, got None"),
    ],
)
def test_the_form_is_judged_first_and_nothing_is_broadcast(exercise, answer, message, capsys):
    assert message in exercise.check(answer).message
    assert message in capsys.readouterr().out


def test_a_result_with_a_graph_or_of_a_parameter_is_right(exercise):
    assert exercise.check(lambda values, shift: torch.nn.Parameter(values + shift)).passed
    assert exercise.check(lambda values, shift: values.requires_grad_() + shift).passed


def test_numpys_numbers_and_whole_ones_are_numbers():
    halved = Halved()
    for kind in (np.float64, np.float32, float):
        assert halved.check(lambda number, kind=kind: kind(number / 2)).passed
    assert misfit(2.0, 2) == "" and misfit(2, 2.0) and misfit(2.0, True)


def test_nan_is_right_only_where_it_is_expected():
    nan = torch.tensor([torch.nan])
    assert agree(nan, nan) and not agree(torch.zeros(1), nan) and not agree(0.5, float("nan"))


# Likely mistakes


def test_a_mistake_that_is_known_is_said_with_the_numbers(exercise, capsys):
    verdict = exercise.check(lambda values, shift: values - shift)
    assert verdict.message.endswith("likely mistake: the shift is subtracted; add it")
    assert "is right, got" in capsys.readouterr().out


def test_a_mistake_that_is_known_is_said_even_if_it_shows_in_the_form(exercise, capsys):
    message = exercise.check(lambda values, shift: torch.sum(values) + shift).message
    assert "must have shape (2,), got ()" in message
    assert message.endswith("likely mistake: the values are added up")


def test_a_mistake_is_said_if_the_first_results_have_it_and_a_later_call_fails(exercise, capsys):
    def failing(values, shift):
        if values.ndim > 1:
            raise IndexError("too many dimensions")
        return values - shift

    message = exercise.check(failing).message
    assert "it raised IndexError" in message and "the shift is subtracted" in message


def test_of_a_right_beginning_no_mistake_is_said(exercise, capsys):
    def failing(values, shift):
        if values.ndim > 1:
            raise IndexError("too many dimensions")
        return values + shift

    assert "likely mistake" not in exercise.check(failing).message


def test_an_ignored_argument_is_found_although_no_two_inputs_have_the_same_shape(exercise):
    assert "it ignores its argument `shift`" in exercise.check(lambda v, s: v * 2).message
    zeros = lambda values, shift: torch.zeros_like(values) + shift  # noqa: E731
    assert "it ignores its argument `values`" in exercise.check(zeros).message


def test_every_sign_turned_is_found():
    assert "every number has the wrong sign" in Halved().check(lambda number: -number / 2).message


# State


def test_state_that_is_kept_between_calls_is_found(exercise, capsys):
    calls, buffers = [], {}

    def only_at_first(values, shift):
        calls.append(1)
        return values + shift * (len(calls) <= 4)

    def counting(values, shift):
        calls.append(1)
        return values + shift + len(calls)

    def counting_matrices(values, shift):
        calls.extend([1] * (values.ndim > 1))
        return values + shift + len(calls) * (values.ndim > 1)

    def reusing(values, shift):
        buffer = buffers.setdefault("buffer", torch.zeros(100))
        result = buffer[: values.numel()].reshape(values.shape)
        return result.copy_(values + shift)

    assert "asked again; keep no state" in exercise.check(only_at_first).message
    for keeping in (counting, counting_matrices):
        assert "it keeps something from one call to the next" in exercise.check(keeping).message
    assert "it changes this result when it is called again" in exercise.check(reusing).message


def test_a_default_argument_that_collects_results_is_found():
    def collecting(pairs, results=[]):  # noqa: B006
        results += [float(weight.sum()) for weight, _ in pairs]
        return results

    listed = Listed()
    for _ in range(2):  # the second check begins with what the first has left
        message = listed.check(collecting).message
        assert "it keeps something from one call to the next" in message


# Hostile values


class Raising:
    """Every look at it raises."""

    def refuse(self, *_):
        raise RuntimeError("no")

    __eq__ = __ne__ = __repr__ = __str__ = __float__ = __int__ = __len__ = __iter__ = refuse
    __bool__ = __getitem__ = __hash__ = __format__ = __getattr__ = refuse


class Masked:
    """Says of its class that it won't say."""

    @property
    def __class__(self):
        raise RuntimeError("no")


class RaisingFloat(float):
    __eq__ = __repr__ = __float__ = __format__ = __neg__ = Raising.refuse
    __hash__ = None


class RaisingList(list):
    __len__ = __iter__ = __getitem__ = __eq__ = __repr__ = Raising.refuse
    __hash__ = None


class RaisingText(str):
    __eq__ = __repr__ = __len__ = Raising.refuse
    __hash__ = None


class Subclass(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("no")


async def coroutine():
    return 1


def endless_list():
    inner = []
    inner.append(inner)
    return inner


HOSTILE = {
    "raises at every look": Raising,
    "a class that hides": Masked,
    "a float that raises": lambda: RaisingFloat(1.0),
    "a list that raises": lambda: RaisingList([1.0]),
    "a text that raises": lambda: RaisingText("x"),
    "a tensor subclass": lambda: torch.zeros(2).as_subclass(Subclass),
    "a huge tensor": lambda: torch.zeros(1).expand(10**12),
    "a huge number": lambda: 10**5000,
    "a huge text": lambda: "x" * 10**7,
    "a generator": lambda: (i for i in range(3)),
    "a coroutine": coroutine,
    "a list in itself": endless_list,
    "a list of everything": lambda: [Raising(), Masked(), None],
    "a tuple that raises": lambda: (Raising(),),
    "a class": lambda: Raising,
    "a module": lambda: torch,
    "a function": lambda: print,
    "control characters": lambda: "\x1b[2J",
    "NotImplemented": lambda: NotImplemented,
    "an exception": lambda: ValueError("no"),
    "a complex number": lambda: 1j,
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.quint8),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)]),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", [Shifted, Halved, Listed])
def test_a_check_never_raises_whatever_is_returned(name, kind, capsys):
    verdict = kind().check(lambda *arguments: HOSTILE[name]())
    assert verdict.passed is False and verdict.message
    out = capsys.readouterr().out
    assert "not yet" in out and "\x1b" not in out and len(out) < 3000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_check_never_raises_whatever_stands_in_a_list(name, capsys):
    answer = lambda pairs: [HOSTILE[name]() for _ in pairs]  # noqa: E731
    assert Listed().check(answer).passed is False


def test_a_check_never_raises_whatever_is_called(exercise, capsys):
    class Callable(Raising):
        def __call__(self, *arguments):
            return 1

    looped = lambda values, shift: 1  # noqa: E731
    looped.__wrapped__ = looped
    for answer in (
        Callable(),
        looped,
        int,
        print,
        torch.nn.Linear,
        functools.partial(torch.add, 1),
    ):
        assert exercise.check(answer).passed is False


def test_an_exception_that_cannot_be_printed_is_named(exercise, capsys):
    class UnprintableError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def raising(values, shift):
        raise UnprintableError

    assert "it raised UnprintableError (line" in exercise.check(raising).message


def test_what_a_generator_and_a_coroutine_lack_is_said():
    def yielding(values, shift):
        yield values

    async def waiting(values, shift):
        return values

    assert "write return where there is yield" in Shifted().check(yielding).message
    assert "write def where there is async def" in Shifted().check(waiting).message


def test_a_coroutine_that_nobody_awaits_is_no_reason_for_a_second_complaint(exercise):
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        exercise.check(lambda values, shift: coroutine())
        gc.collect()
    assert not complaints


def test_values_are_shown_on_one_line_that_is_not_too_long():
    for value in (torch.zeros(3, 2), ["a\n" * 1000], Raising(), RaisingFloat(1.0), [torch.ones(1)]):
        assert "\n" not in shown(value) and len(shown(value)) <= 110
    assert shown([(torch.ones(1), 2)]) == "[([1], 2)]"
    assert a_kind_of(Raising()) == "a tests Raising"


# Hints, solutions, verdicts


def test_hints_come_in_steps(exercise, capsys):
    for _ in range(4):
        exercise.hint()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "Hint 1 of 3: the first hint",
        "Hint 2 of 3: the second hint",
        "Hint 3 of 3: the third hint",
        "These were all hints. exercises.shifted.solution() shows a right answer.",
    ]
    exercise.hint(2)
    assert capsys.readouterr().out == "Hint 2 of 3: the second hint\n"
    for step in (0, 4, "two", None.__class__):
        exercise.hint(step)
        assert "There are hints 1 to 3" in capsys.readouterr().out


def test_the_verdicts_function_is_the_learners_if_it_is_right_and_the_solution_if_not(exercise):
    def mine(values, shift):
        return shift + values

    def wrong(values, shift):
        return values

    def unwritten(values, shift): ...

    assert exercise.check(mine).function is mine
    for answer in (wrong, unwritten, None):
        function = exercise.check(answer).function
        assert torch.equal(function(torch.ones(2), 1.0), torch.full((2,), 2.0))


def test_what_is_not_written_yet_has_neither_passed_nor_failed(exercise, capsys):
    def stub(values, shift):
        """To be written."""

    def raising(values, shift):
        raise NotImplementedError

    for answer in (stub, raising, lambda values, shift: ...):
        verdict = exercise.check(answer)
        assert verdict.passed is None and repr(verdict) == "<shifted: not written yet>"
        assert "isn't written yet" in capsys.readouterr().out


def test_a_check_says_what_it_looked_at(exercise, capsys):
    verdict = exercise.check(lambda values, shift: values + shift)
    out = " ".join(capsys.readouterr().out.split())
    assert "shifted: right." in out and out == " ".join(verdict.text.split())
    assert "4 random inputs (values of shape (2,), (2, 3), (3, 1), (4, 4); shift from 1." in out
    for looked_at in ("each twice", "type, shape, dtype, device and values", "random numbers"):
        assert looked_at in out
    assert "Harder: subtract it." in out


def test_where_there_are_more_shapes_than_are_listed_that_is_said():
    class Many(Shifted):
        def cases(self, draw):
            for n in range(1, 7):
                yield draw.normal(n), 1.0

    text = Many().check(lambda values, shift: values + shift).text
    assert "(4,), ...;" in " ".join(text.split())


def test_a_failed_check_says_on_which_input_and_what_would_be_right(exercise, capsys):
    exercise.check(lambda values, shift: values * shift)
    out = capsys.readouterr().out
    assert "shifted: not yet." in out and "On input 1 of 4, values = [" in out
    assert "is right, got [" in out and "exercises.shifted.hint()" in out


def test_the_same_seed_gives_the_same_inputs_and_another_seed_others(exercise):
    first, again, other = (list(exercise.cases(Draw(seed))) for seed in (1, 1, 2))
    assert same(first, again) and not same(first, other)


def test_sixty_fourths_are_distributions_without_rounding():
    probs = Draw(0).grid_probs(50, 6)
    assert torch.equal(probs * 64, (probs * 64).round()) and (probs >= 0).all()
    assert (probs.cumsum(-1)[:, -1] == 1).all() and (probs == 0).any()
    assert Draw(0).grid_probs(2, 1).tolist() == [[1.0], [1.0]]
