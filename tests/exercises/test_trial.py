"""Claims about every check: it finds what is wrong, raises nothing and changes nothing."""

import functools
import random
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from minilpo.exercises.exercise import Draw, Exercise
from minilpo.exercises.trial import LONGEST_OUTPUT, copied, observe, same
from minilpo.exercises.verdict import agree, misfit, relation, shown


class Shifted(Exercise):
    name, lesson = "shifted", 1
    question = "Add a number to every value."
    hints = ("the first hint", "the second hint", "the third hint")
    explanation = "A sum is a sum."
    follow_up = "subtract it."

    @staticmethod
    def right(values, shift):
        return values + shift

    mistakes = """
    the shift is subtracted; add it
        values + shift -> values - shift
    the values are added up
        return values -> return values.sum()
    only vectors are shifted
        values + shift -> values + shift if values.ndim == 1 else values
    """

    def cases(self, draw):
        for shape in [(2,), (2, 3), (3, 1), (4, 4)]:
            yield draw.normal(*shape), 1.0 + float(draw.uniform(1))


class Halved(Shifted):
    name, mistakes = "halved", ""

    @staticmethod
    def right(number):
        return number / 2

    def cases(self, draw):
        for number in (4.0, *draw.normal(5).tolist()):
            yield (number,)


class Listed(Halved):
    name = "listed"

    @staticmethod
    def right(pairs):
        return [float(weight.sum()) for weight, _ in pairs]

    def cases(self, draw):
        for n in (1, 2, 3):
            yield ([(draw.normal(2), draw.normal(2)) for _ in range(n)],)


@pytest.fixture
def exercise():
    return Shifted()


def added(values, shift):
    return values + shift


def seen(answer, *arguments, seconds=5.0):
    return observe(answer, lambda answer, *rest: answer(*rest), arguments, seconds=seconds)


def world():
    states = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    return *states, torch.is_grad_enabled(), torch.get_default_dtype(), list(warnings.filters)


# Inputs and what belongs to everybody


@pytest.mark.parametrize(
    "answer",
    [
        lambda pairs: pairs[0][0].add_(1),
        lambda pairs: pairs.pop(),
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


def test_a_changed_copy_and_a_generator_that_is_drawn_from_are_no_misuse():
    assert not seen(lambda pairs: pairs[0][0].clone().add_(1), [(torch.ones(2), 1)]).problem
    assert not seen(lambda values: sorted(values)[0], [3, 1, 2]).problem
    generator = torch.Generator().manual_seed(1)
    drawn = [seen(lambda g: torch.rand(2, generator=g), generator) for _ in range(2)]
    assert not drawn[0].problem and same(drawn[0].value, drawn[1].value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("PyTorch's random numbers", torch.rand),
        ("NumPy's random numbers", np.random.rand),
        ("Python's random numbers", lambda _: random.random()),
        ("a setting of PyTorch", lambda _: torch.set_default_dtype(torch.float64) or 1.0),
        ("a setting of PyTorch", lambda _: torch.set_grad_enabled(False)),
    ],
)
@pytest.mark.parametrize("raised", [None, ValueError, SystemExit, KeyboardInterrupt])
def test_what_belongs_to_everybody_is_put_back_and_its_use_said(name, change, raised):
    def misbehaving(x):
        result = change(1)
        if raised:
            raise raised
        return result

    before = world()
    if raised is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            seen(misbehaving, 1.0)
    else:
        problem = seen(misbehaving, 1.0).problem
        assert raised or f"it changes something that belongs to everybody: {name}" in problem
    assert world() == before


def test_random_numbers_that_the_result_does_not_depend_on_do_no_harm(exercise, capsys):
    def with_a_layer(values, shift):
        layer = torch.nn.Linear(1, 1)  # draws its first weights
        layer.weight, layer.bias = torch.nn.Parameter(torch.ones(1, 1)), None
        return layer(values[..., None])[..., 0] + shift

    before = world()
    assert exercise.check(with_a_layer).passed
    assert exercise.check(lambda values, shift: values + shift + 0 * torch.rand(1)).passed
    assert not exercise.check(lambda values, shift: values + shift * torch.rand(1)).passed
    assert world() == before


@pytest.mark.parametrize(
    ("argument", "remedy"), [("uniforms", "`uniforms`, so draw none"), ("generator", "generator=")]
)
def test_the_remedy_for_drawing_names_the_argument_with_the_random_numbers(argument, remedy):
    names = {"torch": torch}
    exec(f"def drawing({argument}): return torch.rand(3)", names)
    assert remedy in seen(names["drawing"], 1.0).problem


# Output, leaving, and not leaving


def test_printing_is_caught_and_of_much_of_it_the_beginning_is_kept(exercise, capsys):
    found = seen(lambda x: print("a secret") or x, 1.0)
    assert found.printed == "a secret\n" and found.value == 1.0 and not found.problem
    talking = seen(lambda x: [print("word " * 1000) for _ in range(100)] and x, 1.0)
    assert len(talking.printed) == LONGEST_OUTPUT
    exercise.check(lambda values, shift: print("so far") or values - shift)
    assert "so far" not in capsys.readouterr().out.split("\n")


def test_system_exit_is_no_exit_and_ctrl_c_passes_through(exercise, capsys):
    assert exercise.check(lambda values, shift: sys.exit(3)).passed is False
    assert "it raised SystemExit: 3 (line" in capsys.readouterr().out

    def stopped(values, shift):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercise.check(stopped)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm")
def test_an_endless_loop_is_stopped_even_if_it_catches_every_error_and_no_alarm_is_left():
    def stubborn(x):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    before = sys.gettrace(), sys.getprofile(), signal.getsignal(signal.SIGALRM)
    problem = seen(stubborn, 1, seconds=0.05).problem
    assert problem.startswith("it was stopped after 0.05 seconds (line")
    assert before == (sys.gettrace(), sys.getprofile(), signal.getsignal(signal.SIGALRM))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_an_answer_is_judged_as_well(exercise, capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(exercise.check(added)))
    thread.start()
    thread.join()
    assert found[0].passed


# Form


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda v, s: 0.5, "must be a tensor of shape (2,), got a Python float"),
        (lambda v, s: None if s else 1, "got None; does the function end without return?"),
        (lambda v, s: (v + s)[None], "must have shape (2,), got (1, 2)"),
        (lambda v, s: (v + s)[..., None], "must have shape (2,), got (2, 1)"),
        (lambda v, s: (v + s).sum(), "must have shape (2,), got ()"),
        (lambda v, s: (v + s)[:1], "must have shape (2,), got (1,)"),
        (lambda v, s: (v + s).double(), "must have dtype torch.float32"),
        (lambda v, s: (v + s).half(), "must have dtype torch.float32"),
        (lambda v, s: (v + s).to("meta"), "must have device cpu, got meta"),
        (lambda v, s: (v + s).to_sparse(), "must have layout torch.strided"),
        (lambda v, s: (v + s).numpy(), "got a numpy ndarray"),
        (lambda v, s: v * torch.nan, "wrong for 4 of 4 inputs"),
        (lambda v, s: v + torch.inf, "wrong for 4 of 4 inputs"),
        ("a text", "it must be a function, got a Python str"),
        (None, "it must be a function, got None"),
        (lambda v, s: (yield v), "write return where there is yield"),
        # Of a large tensor the first wrong place is shown.
        (lambda v, s: v + s + torch.eye(4) if len(v) == 4 else v + s, "here at [0, 0] "),
    ],
)
def test_the_form_is_judged_first_and_nothing_is_broadcast(exercise, answer, message, capsys):
    assert message in exercise.check(answer).message
    assert message in capsys.readouterr().out


def test_a_result_with_a_graph_or_of_a_parameter_or_of_another_kind_of_number_is_right(exercise):
    assert exercise.check(lambda values, shift: torch.nn.Parameter(values + shift)).passed
    assert exercise.check(lambda values, shift: values.requires_grad_() + shift).passed
    for kind in (np.float64, np.float32, float):
        assert Halved().check(lambda number, kind=kind: kind(number / 2)).passed
    assert misfit(2.0, 2) == "" and misfit(2, 2.0) and misfit(2.0, True)


def test_nan_is_right_only_where_it_is_expected():
    nan = torch.tensor([torch.nan])
    assert agree(nan, nan) and not agree(torch.zeros(1), nan) and not agree(0.5, float("nan"))


# Likely mistakes


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        (lambda v, s: v - s, ["is right, got", "mistake: the shift is subtracted; add it"]),
        (lambda v, s: torch.sum(v) + s, ["got ()", "mistake: the values are added up"]),
        # Right in form at first, with the values of a mistake.
        (lambda v, s: (v - s).to(torch.float if len(v) < 4 else torch.half), ["subtracted"]),
        # The first result is that of a mistake, and a later call fails.
        (lambda v, s: v - s if v.ndim == 1 else v[9], ["it raised IndexError", "subtracted"]),
        (lambda v, s: v * 2, ["it ignores its argument `shift`"]),
        (lambda v, s: torch.zeros_like(v) + s, ["it ignores its argument `values`"]),
    ],
)
def test_a_likely_mistake_is_named_with_the_numbers_or_the_form(exercise, answer, parts, capsys):
    message = exercise.check(answer).message
    assert all(part in message for part in parts), message


def test_of_a_right_beginning_no_mistake_is_said(exercise, capsys):
    failing = lambda v, s: v + s if v.ndim == 1 else v[9]  # noqa: E731
    assert "likely mistake" not in exercise.check(failing).message


def test_two_mistakes_that_show_on_different_inputs_are_both_named(capsys):
    class Several(Shifted):
        mistakes = """
        only matrices are shifted
            values + shift -> values + shift if values.ndim == 2 else values
        only vectors are shifted
            values + shift -> values + shift if values.ndim == 1 else values
        """

        def cases(self, draw):
            for n in range(2, 10):
                yield draw.normal(*[n] * (1 + n % 2)), 1.5

    message = Several().check(lambda values, shift: values).message
    assert "only matrices are shifted; also, only vectors are shifted" in message


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ([0.5, 0.25, 0.2], [-0.5, -0.25, -0.2], "every number has the wrong sign"),
        ([0.5, 0.25, 0.2], [50.0, 25.0, 20.0], "every number is 100 times the right one"),
        ([torch.ones(3)], [torch.zeros(3)], "these are the logarithms of the right numbers"),
        ([torch.ones(3)], [torch.tensor([1.0, torch.nan, 1.0])], "some numbers are NaN"),
        ([0.5], [-float("inf")], "some numbers are infinite"),
        ([["a", "b"], []], [["b", "a"], []], "their order is another one"),
        ([["a", "b"], []], [["b", "b"], []], ""),
        ([0.5, 0.25, 0.2], [0.0, 0.0, 0.0], ""),
        (["text"], ["other"], ""),
    ],
)
def test_a_relation_of_all_wrong_numbers_to_the_right_ones_is_said(right, wrong, said):
    found = relation(right, wrong)
    assert said in found and bool(said) == bool(found)


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
        return buffer[: values.numel()].reshape(values.shape).copy_(values + shift)

    def collecting(pairs, results=[]):  # noqa: B006
        results += [float(weight.sum()) for weight, _ in pairs]
        return results

    assert "asked again; keep no state" in exercise.check(only_at_first).message
    kept = "it keeps something from one call to the next"
    for keeping in (counting, counting_matrices):
        assert kept in exercise.check(keeping).message
    assert "it changes this result when it is called again" in exercise.check(reusing).message
    for _ in range(2):  # the second check begins with what the first has left
        assert kept in Listed().check(collecting).message


# Values that can't be compared


class Raising:
    """Every look at it raises an error."""

    def refuse(self, *_):
        raise RuntimeError("no")

    __eq__ = __repr__ = __str__ = __float__ = __len__ = __iter__ = __bool__ = refuse
    __getitem__ = __hash__ = __format__ = __getattr__ = refuse


async def coroutine(*_):
    return 1


def list_in_itself():
    inner = []
    inner.append(inner)
    return inner


ODD = {
    "raises at every look": Raising,
    "a huge tensor": lambda: torch.zeros(1).expand(10**12),
    "a huge number": lambda: 10**5000,
    "a huge text": lambda: "x" * 10**7,
    "a generator": lambda: (i for i in range(3)),
    "a coroutine": coroutine,
    "a list in itself": list_in_itself,
    "a tuple that raises": lambda: (Raising(),),
    "a class": lambda: Raising,
    "control characters": lambda: "\x1b[2J",
    "an exception": lambda: ValueError("no"),
    "a complex number": lambda: 1j,
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.quint8),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", [Shifted, Halved, Listed])
def test_a_check_never_raises_whatever_is_returned(name, kind, capsys):
    for answer in (lambda *_: ODD[name](), lambda *_: [ODD[name](), 1]):
        verdict = kind().check(answer)
        assert verdict.passed is False and verdict.message
        out = capsys.readouterr().out
        assert "not yet" in out and "\x1b" not in out and len(out) < 3000


def test_a_check_never_raises_whatever_is_called(exercise, capsys):
    looped = lambda values, shift: 1  # noqa: E731
    looped.__wrapped__ = looped
    for answer in (looped, int, print, torch.nn.Linear, functools.partial(torch.add, 1)):
        assert exercise.check(answer).passed is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's own complaint about a coroutine
        assert "write def where there is async def" in exercise.check(coroutine).message


def test_values_are_shown_on_one_line_that_is_not_too_long():
    for value in (torch.zeros(3, 2), ["a\n" * 1000], Raising(), [torch.ones(1)]):
        assert "\n" not in shown(value) and len(shown(value)) <= 110
    assert shown([(torch.ones(1), 2)]) == "[([1], 2)]"


# Hints, stubs, verdicts


def test_hints_come_in_steps(exercise, capsys):
    for _ in range(4):
        exercise.hint()
    assert capsys.readouterr().out.splitlines() == [
        "Hint 1 of 3: the first hint",
        "Hint 2 of 3: the second hint",
        "Hint 3 of 3: the third hint",
        "These were all hints. exercises.shifted.solution() shows a right answer.",
    ]
    exercise.hint(2)
    assert capsys.readouterr().out == "Hint 2 of 3: the second hint\n"
    for step in (0, 4, "two"):
        exercise.hint(step)
        assert "There are hints 1 to 3" in capsys.readouterr().out


def test_what_is_not_written_yet_has_neither_passed_nor_failed(exercise, capsys):
    def stub(values, shift):
        """To be written."""

    def raising(values, shift):
        """To be written."""
        raise NotImplementedError

    for answer in (stub, raising, lambda values, shift: ...):
        verdict = exercise.check(answer)
        assert verdict.passed is None and repr(verdict) == "<shifted: not written yet>"
        assert "isn't written yet" in capsys.readouterr().out


def test_a_line_that_raises_not_implemented_and_is_reached_is_named(exercise, capsys):
    def unfinished(values, shift):
        if values.ndim == 1:
            return values + shift
        raise NotImplementedError

    verdict = exercise.check(unfinished)
    assert verdict.passed is False and "On input 2 of 4" in verdict.text
    assert "the line `raise NotImplementedError` (line" in verdict.message


def test_a_checking_cell_may_be_run_again_after_a_hint(exercise, capsys):
    function = exercise.check(lambda values, shift: values).function
    assert torch.equal(function(torch.ones(2), 1.0), torch.full((2,), 2.0))
    exercise.hint()
    again = exercise.check(function)
    assert again.passed is None and again.function is function
    out = capsys.readouterr().out
    assert "shifted is the library's function here" in out and "minilpo's own" not in out
    assert exercise.check(added).function is added


def test_a_check_says_what_it_looked_at(exercise, capsys):
    verdict = exercise.check(added)
    out = " ".join(capsys.readouterr().out.split())
    assert "shifted: right." in out and out == " ".join(verdict.text.split())
    assert "4 random inputs (values of shape (2,), (2, 3), (3, 1), (4, 4); shift from 1." in out
    for looked_at in ("each twice", "type, shape, dtype, device and values", "random numbers"):
        assert looked_at in out
    assert "Harder: subtract it." in out
    exercise.cases = lambda draw: ((draw.normal(n), 1.0) for n in range(1, 7))
    assert "(4,), ...;" in " ".join(exercise.check(added).text.split())  # not all are listed


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
