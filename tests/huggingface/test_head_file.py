"""A head comes back from its file as it was; a file that isn't as it was written is refused."""

import pickle

import pytest
import torch
from safetensors.torch import save

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead
from minilpo.decoding.choices import FirstTokens, Temperatures
from minilpo.huggingface import load_head, save_head
from tests.conftest import seeded
from tests.huggingface.tiny import language_model

CHOICES = Temperatures([0.0, 0.6, 1.2], top_k=[0, 5, 0], top_p=[1.0, 0.9, 1.0], min_p=[0, 0, 0.1])
NOT_OURS = "must hold a head as .* save_head wrote it, but .*; save the head again with save_head"


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
def test_a_head_comes_back_with_its_level_and_its_choices(path, lm, level):
    head, first = made(level), path.read_bytes()
    save_head(path, head, CHOICES, lm)
    assert (path.read_bytes() == first) == (level == "token")  # the same head, the same bytes
    again, choices = load_head(str(path), lm)
    assert again.level == level and choices.settings == CHOICES.settings
    x = torch.randn(4, 32, generator=seeded(2))
    assert torch.equal(again(x), head(x))
    table = torch.linspace(0, 1, 3).numpy()  # saved as plain numbers
    save_head(path, head, Temperatures(table, top_k=torch.tensor([0, 5, 0])), lm)
    assert load_head(path, lm)[1].names == ("0", "0.5, top-k 5", "1")
    assert all(weight.requires_grad for weight in again.parameters())  # it can go on learning


class Trap:
    def __reduce__(self):
        return print, ("run!",)


def test_every_wrong_byte_every_cut_and_every_other_file_is_noticed_and_runs_nothing(
    lm, path, capsys
):
    data = path.read_bytes()
    wrong = [data + b"x", b"{}", pickle.dumps(Trap()), save({"a": torch.zeros(2)})]
    for place in range(0, len(data), 37):
        wrong.append(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    wrong += [data[:n] for n in [*range(0, 40), *range(40, len(data), 211), len(data) - 1]]
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=NOT_OURS):
            load_head(path, lm)
    with pytest.raises(OSError):
        load_head(path.parent / "nothing", lm)
    assert not capsys.readouterr().out


def test_a_head_for_another_model_is_refused(path):
    wider, named = language_model(hidden_size=64), language_model()
    with pytest.raises(ValueError, match="as wide as .*, 64, got one for 32"):
        load_head(path, wider)
    with pytest.raises(ValueError, match="as wide as .*, 64, got one for 32"):
        save_head(path, made(), CHOICES, wider)
    named.model.config.name_or_path = "someone/another"
    with pytest.raises(ValueError, match="for, '', got 'someone/another'; .*config.name_or_path"):
        load_head(path, named)


def test_a_head_that_could_not_be_loaded_is_not_saved(lm, tmp_path):
    unlike = [(head, CHOICES) for head in (made(n_choices=2), made().double(), ConstantHead(32, 3))]
    for head, choices in (*unlike, (made(n_choices=1), FirstTokens([3], ["a"]))):
        words = f"its {len(choices)} Temperatures, got .*{type(head).__name__}.*; pass head.float"
        with pytest.raises(ValueError, match=words):
            save_head(tmp_path / "new", head, choices, lm)
    assert not (tmp_path / "new").exists()
