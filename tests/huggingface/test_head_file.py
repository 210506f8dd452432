"""A head comes back from its file as it was; a file that isn't as it was written is refused."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load, save

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.config import LPOConfig
from minilpo.decoding.choices import FirstTokens, Temperatures
from minilpo.huggingface import OwnPrompts, load_head, save_head
from minilpo.lpo import train_lpo
from tests.conftest import seeded
from tests.huggingface.tiny import WORDS, language_model

CHOICES = Temperatures([0.0, 0.6, 1.2], top_k=[0, 5, 0], top_p=[1.0, 0.9, 1.0], min_p=[0, 0, 0.1])


@pytest.fixture(scope="module")
def lm():
    return language_model()


def made(level="token", n_choices=3):
    head = AdaptiveDecoder(32, n_choices, level, n_hidden=8, generator=seeded(0))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(1))
    return head


@pytest.fixture
def path(tmp_path, lm):
    save_head(tmp_path / "head.safetensors", made(), CHOICES, lm)
    return tmp_path / "head.safetensors"


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_head_comes_back_with_its_level_and_its_choices(tmp_path, lm, level):
    head = made(level)
    save_head(tmp_path / "a", head, CHOICES, lm)
    again, choices = load_head(str(tmp_path / "a"), lm)
    assert again.level == level and choices.names == CHOICES.names
    assert torch.equal(choices.table, CHOICES.table) and torch.equal(choices.rules, CHOICES.rules)
    x = torch.randn(4, 32, generator=seeded(2))
    assert torch.equal(again(x), head(x)) and again(x).requires_grad  # it may go on learning


def test_choices_from_an_array_are_saved_as_numbers(tmp_path, lm):
    half = torch.linspace(0, 1, 3)
    for table in (half, half.numpy(), [half[0], half.numpy()[1], 1]):
        choices = Temperatures(table, top_k=torch.tensor([0, 5, 0]))
        save_head(tmp_path / "c", made(), choices, lm)
        assert load_head(tmp_path / "c", lm)[1].names == ("0", "0.5, top-k 5", "1")


def test_a_loaded_head_goes_on_learning(lm, path):
    head, choices = load_head(path, lm)
    words = [f"the {a} {b}" for a in WORDS.split() for b in WORDS.split()]
    task = OwnPrompts(words, lambda prompt, response: len(set(response.split())) / 100)
    config = LPOConfig(rounds=1, prompts=12, samples=2, epochs=1, validation_prompts=1)
    train_lpo(lm, [task], head, choices, config, seed=0)
    assert not torch.equal(head.mlp[0].weight, load_head(path, lm)[0].mlp[0].weight)


def test_the_same_head_gives_the_same_bytes(tmp_path, lm, path):
    save_head(tmp_path / "b", made(), CHOICES, lm)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_every_wrong_byte_is_noticed(lm, path):
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(
            ValueError, match="must hold a head as save_head wrote it, but .*; save the head again"
        ):
            load_head(path, lm)


def test_every_cut_is_noticed(lm, path):
    data = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(data), 211), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="must hold a head as save_head wrote it, but "):
            load_head(path, lm)
    path.write_bytes(data + b"x")
    with pytest.raises(ValueError, match="must hold a head as save_head wrote it, but "):
        load_head(path, lm)


def test_what_was_changed_by_hand_is_refused_even_with_a_right_checksum(lm, path):
    from minilpo.huggingface.head_file import _digest

    weights = load(path.read_bytes())
    header = path.read_bytes()[8:]
    about = json.loads(
        json.JSONDecoder().raw_decode(header.decode("latin1"))[0]["__metadata__"]["minilpo"]
    )
    del about["sha256"]

    def refused(words, weights=weights, **changes):
        told = {**about, **changes}
        told["sha256"] = _digest(told, weights)
        path.write_bytes(save(weights, {"minilpo": json.dumps(told)}))
        with pytest.raises(ValueError, match=words):
            load_head(path, lm)

    refused("isn't of format 2: another version", format=1)
    refused("level must be 'sequence' or 'token', got 'word'", level="word")
    refused("temperature must be 0 .*, got -1", temperatures=[-1, 0, 1])
    refused("top_k must have one value per option", top_k=[1])
    refused("got inf", temperatures=[0, 1, float("inf")])
    refused("size mismatch", weights={**weights, "mlp.4.weight": torch.zeros(2, 8)})
    refused("KeyError", weights={"mlp.4.bias": torch.zeros(3)})
    refused("must be loaded for the model .* 'other', got ''", model="other")


def test_a_file_of_something_else_is_refused_and_runs_nothing(lm, path):
    class Trap:
        def __reduce__(self):
            return print, ("run!",)

    for content in (b"", b"{}", pickle.dumps(Trap()), save({"a": torch.zeros(2)})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must hold a head as save_head wrote it, but "):
            load_head(path, lm)
    with pytest.raises(OSError):
        load_head(path.parent / "nothing", lm)


def test_a_head_for_another_model_is_refused(lm, path):
    wider = language_model(hidden_size=64)
    with pytest.raises(ValueError, match="as wide as the model's, 64, got one for 32"):
        load_head(path, wider)
    with pytest.raises(ValueError, match="as wide as the model's, 64, got one for 32"):
        save_head(path, made(), CHOICES, wider)
    named = language_model()
    named.model.config.name_or_path = "someone/another"
    with pytest.raises(ValueError, match="model.config.name_or_path = ''"):
        load_head(path, named)


def test_what_could_not_be_loaded_is_not_saved(lm, tmp_path):
    path = tmp_path / "new"
    three, one = made(), made(n_choices=1)
    unfit = [(made(n_choices=2), CHOICES), (three.double(), CHOICES)]
    unfit += [(ConstantHead(32, 3), CHOICES), (one, FirstTokens([3], ["a"]))]
    for head, choices in unfit:
        words = (
            f"for its {len(choices)} Temperatures, got .*{type(head).__name__}.*; pass head.float"
        )
        with pytest.raises(ValueError, match=words):
            save_head(path, head, choices, lm)
    assert not path.exists()
