"""What several tests share: a very small model, tokenizer and head."""

import os
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import ModelConfig
from minilpo.decoding.choices import Temperatures
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.tokenizer import Tokenizer
from minilpo.seeds import python_rng
from minilpo.tasks import load_tasks, mixed_demonstrations
from tests.accelerator import NAME, Accelerator

TEMPERATURES = (0.0, 0.5, 1.0)
CHOICES = Temperatures(TEMPERATURES)

# These models are too small to share among threads. The tests have to pass with more all the same.
os.environ["OMP_NUM_THREADS"] = os.environ.get(
    "MINILPO_TEST_THREADS", "1"
)  # for the processes that tests start
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if find_spec("transformers") is None:  # the examples in minilpo/huggingface make models
        for item in items:
            if "minilpo/huggingface" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason='needs pip install "minilpo[huggingface]"'))
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with pytest --slow"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head_of(level="sequence", n_embd=16, std=1.0):
    """A head that isn't uniform, for `CHOICES`."""
    head = AdaptiveDecoder(n_embd, len(CHOICES), level, n_hidden=8, generator=seeded(1))
    torch.nn.init.normal_(head.mlp[-1].weight, std=std, generator=seeded(2))
    return head.requires_grad_(False)


def ending_early(lm):
    """The same language model in double precision, whose responses end at different times."""
    end = lm.model.double().token_embedding.weight[lm.tokenizer.eos_id]
    lm.model.norm.bias += 4.5 * end / (end @ end)
    return lm


@pytest.fixture(scope="module")
def figures_undrawn():
    """Figures are quick to draw where they aren't what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilpo.show.plots.png", lambda fig: b"a figure")
        patch.setattr("minilpo.show.plots.panels", lambda fig, whole: [whole] * len(fig.axes))
        yield


@pytest.fixture(scope="session")
def tasks():
    return load_tasks(["math", "story"])


@pytest.fixture(scope="session")
def pairs(tasks):
    return mixed_demonstrations(tasks, 3000, "train", python_rng(0, "tests"))


@pytest.fixture(scope="session")
def tokenizer(pairs):
    return Tokenizer.train(text for pair in pairs for text in pair)


@pytest.fixture
def model(tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=16, block_size=110
    )
    return GPT(config, seeded(0)).requires_grad_(False)


@pytest.fixture
def lm(model, tokenizer):
    """The two as one language model; changing `model` changes it."""
    return GPTLanguageModel(model, tokenizer)


@pytest.fixture
def head():
    return head_of()


@pytest.fixture
def accelerator(monkeypatch):
    """One that isn't there: see `tests.accelerator`. It counts matrix products."""
    optimizer = import_module("torch.optim.optimizer")
    # AdamW asks which devices can update all weights at once.
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["cpu", NAME])
    with Accelerator() as accelerator:
        yield accelerator
