"""Values go as JSON and come back as they were; what else comes is one ValueError."""

import io
import json
import math
import random
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilpo import exercises
from minilpo.course.wire import DTYPES, LONGEST, pack, receive, send, unpack
from minilpo.exercises.exercise import Draw
from minilpo.exercises.trial import a_kind_of, same
from minilpo.exercises.verdict import misfit


def there_and_back(value):
    return unpack(json.loads(json.dumps(pack(value), allow_nan=False)))


@pytest.mark.parametrize("name", DTYPES)
def test_a_tensor_of_any_kind_comes_back_bit_by_bit(name):
    tensor = torch.tensor([[0, 1, 3], [4, 0, 7]]).to(DTYPES[name])
    for one in (tensor, tensor.T, tensor[1, 2], tensor[:0], tensor[:, None]):
        again = there_and_back(one)
        assert again.dtype == one.dtype and again.shape == one.shape and torch.equal(again, one)


def test_numbers_that_json_cannot_hold_come_back():
    values = [math.nan, math.inf, -math.inf, -0.0, 0.1, 1e-320, 10**40, True, None, "\ud800 τ\0"]
    again = there_and_back(values)
    assert all(map(same, values, again)) and math.copysign(1, again[3]) == -1
    tensor = torch.tensor([math.nan, math.inf, -0.0])
    assert same(there_and_back(tensor), tensor)


def test_lists_and_tuples_stay_apart():
    value = [(), [], ([1], (2.0, [None])), torch.tensor(1)]
    assert there_and_back(value)[:3] == value[:3]
    assert isinstance(there_and_back((1, 2)), tuple) and isinstance(there_and_back([1]), list)


def test_a_generator_comes_back_in_its_state():
    generator, rng = torch.Generator().manual_seed(3), random.Random(4)
    torch.rand(5, generator=generator), rng.gauss(0, 1)
    twin, twin_rng = there_and_back(generator), there_and_back(rng)
    assert torch.equal(torch.rand(9, generator=twin), torch.rand(9, generator=generator))
    assert [twin_rng.gauss(0, 1) for _ in "abc"] == [rng.gauss(0, 1) for _ in "abc"]


def test_of_anything_else_only_its_kind_is_told():
    assert a_kind_of(there_and_back({1, 2})) == a_kind_of({1, 2})
    assert a_kind_of(there_and_back(np.zeros(2))) == a_kind_of(np.zeros(2))
    assert same(there_and_back(np.zeros(2)), there_and_back(np.zeros(2)))
    assert "write return where" in misfit([1], there_and_back(one for one in "abc"))

    async def waiting(): ...

    unawaited = waiting()
    assert "write def where" in misfit([1], there_and_back(unawaited))
    unawaited.close()
    assert there_and_back(np.float32(0.5)) == 0.5 and there_and_back(np.int64(3)) == 3


@pytest.mark.parametrize("exercise", exercises.ALL, ids=lambda exercise: exercise.name)
def test_the_inputs_and_results_of_every_exercise_can_be_sent(exercise):
    for case in exercise.cases(Draw(5)):
        assert same(there_and_back(case), case)
        expected = exercise.right(*case)
        assert same(there_and_back(expected), expected)


def test_what_cannot_be_sent_is_said():
    endless = []
    endless.append(endless)
    for value, message in {
        "deep": (endless, "deep in each other"),
        "sparse": (torch.eye(2).to_sparse(), "ordinary tensor"),
        "meta": (torch.zeros(2, device="meta"), "ordinary tensor"),
        "large": (torch.zeros(1500, 1500), "too large"),
    }.values():
        with pytest.raises(ValueError, match=message):
            pack(value)


BAD = [
    1.5,
    {},
    {"float": 1},
    {"float": "0x" + "f" * 400},
    {"int": 1},
    {"float": "1", "tuple": []},
    {"tuple": 1},
    {"tensor": []},
    {"tensor": ["float32", [2], "AAAA"]},
    {"tensor": ["float32", [-1, -1], "AAAA"]},
    {"tensor": ["float32", [True], "AAAAAA=="]},
    {"tensor": ["float32", [1.0], "AAAAAA=="]},
    {"tensor": ["float32", [2**40, 0], ""]},
    {"tensor": ["float32", [1], "A A A A A A = ="]},
    {"tensor": ["object", [0], ""]},
    {"tensor": [["float32"], [0], ""]},
    {"tensor": ["float32", [1] * 70, "AAAAAA=="]},
    {"generator": ["uint8", [4], "AAAAAA=="]},
    {"rng": [3, [1, 2], None]},
    {"other": ["builtins", "a\0b"]},
    {"other": "x"},
    [[[{"tuple": [1.5]}]]],
]


@pytest.mark.parametrize("form", BAD, ids=str)
def test_what_is_no_packed_value_is_refused(form):
    with pytest.raises(ValueError, match="no answer"):
        unpack(form)


def test_a_truth_value_is_0_or_1_whatever_was_sent():
    form = {"tensor": ["bool", [3], "AAL/"]}  # the bytes 0, 2, 255
    assert unpack(form).view(torch.uint8).tolist() == [0, 1, 1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tensor", "tuple", "float", "rng", "generator", "other"]),
            inner,
            max_size=2,
        )
    ),
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_a_value_or_one_error(form):
    try:
        unpack(form)
    except ValueError:
        pass


def test_messages_follow_each_other():
    file = io.BytesIO()
    send(file, {"case": 1}), send(file, {"case": 2})
    file.seek(0)
    assert [receive(file), receive(file)] == [{"case": 1}, {"case": 2}]
    with pytest.raises(EOFError):
        receive(file)


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["cut", "list", "bytes", "deep", "digits"],
)
def test_a_message_of_something_else_is_refused(data):
    with pytest.raises(ValueError):
        receive(io.BytesIO(struct.pack(">I", len(data)) + data))


def test_a_message_that_claims_to_be_long_isnt_waited_for():
    with pytest.raises(ValueError):
        receive(io.BytesIO(struct.pack(">I", LONGEST + 1)))
    with pytest.raises(ValueError, match="too large"):
        send(io.BytesIO(), {"value": "x" * LONGEST})
