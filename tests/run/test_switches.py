"""No global switch of PyTorch changes what a run folder gives, and each stays as the user set it."""

import contextlib
from dataclasses import replace
from functools import partial

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig, ModelConfig, PretrainConfig, RunConfig
from minilpo.decoding import Fixed, GreedyHead, SampledHead, respond
from minilpo.decoding.policies import ByPlace
from minilpo.lm.pretraining import Pretraining, pretrain
from minilpo.lpo import train_lpo
from minilpo.machine.files import tensor_bytes, tensors_of
from minilpo.run.begin import corpus_of, create_run
from minilpo.run.folder import Run
from minilpo.run.steps import pretrain_step, train_step
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import mixed_prompts
from minilpo.training import TrainState
from tests.outside import files_of

CONFIG = RunConfig(
    tasks=("coin_flip", "hidden_wish"),
    temperatures=(0.0, 0.5, 1.0),
    model=ModelConfig(n_layer=1, n_head=2, n_embd=16),
    pretrain=PretrainConfig(steps=60, batch_size=16, demonstrations=500, warmup_steps=5),
    lpo=LPOConfig(rounds=2, prompts=16, samples=4, epochs=2, n_hidden=4, validation_prompts=2),
)


def switches() -> tuple:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


@contextlib.contextmanager
def set_to(switch, value, before):
    switch(value)
    try:
        yield
    finally:
        switch(before)


SWITCHES = {
    "float64": partial(set_to, torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": partial(set_to, torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": partial(set_to, torch.set_default_device, "meta", None),
    "without gradients": partial(set_to, torch.set_grad_enabled, False, True),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switches") / "run"
    run = create_run(folder, CONFIG)
    pretrain_step(run), train_step(run)
    return folder


def weights_of(module) -> dict:
    return {name: (str(w.dtype), w.tolist()) for name, w in module.state_dict().items()}


def all_of(folder) -> dict:
    """What a user may do with a finished run, as values that can be compared."""
    run = Run.open(folder)
    lm, head, constant = run.language_model(), run.head(), run.constant_head()
    seen = {f"weights {i}": weights_of(m) for i, m in enumerate((lm.model, head, constant))}
    seen["logs"] = run.log("pretrain"), run.log("train")
    prompts = mixed_prompts(run.tasks, 4, "test", python_rng(0, "switches"))
    for policy in (GreedyHead, SampledHead):
        given = lm, prompts, policy(head, run.choices), torch_generator(0, "switches")
        rollout, rewards = respond(*given, n_samples=2)
        seen[policy.__name__] = rollout.responses, rewards.tolist()
    for policy in (Fixed(run.choices), ByPlace(run.choices, [(0, 1), (2, 0)], lm.sentence_starts)):
        rollout, rewards = respond(lm, prompts, policy, torch_generator(0, "fixed"), n_samples=3)
        seen[type(policy).__name__] = rollout.responses, rewards.tolist()
    for loss in ("eq10", "eq11_marginal"):
        new, config = run.new_head(AdaptiveDecoder), replace(CONFIG.lpo, loss=loss)
        state = TrainState(new, config)
        seen[loss] = train_lpo(lm, run.tasks, new, run.choices, config, 0, state), weights_of(new)
        seen[f"{loss} state"] = tensor_bytes(state.state_dict())
    model, corpus = run.new_model(), corpus_of(run, lm.tokenizer)
    pretraining = Pretraining(model, CONFIG.pretrain)
    seen["pretraining"] = pretrain(model, corpus, CONFIG.pretrain, 0, pretraining)
    seen["pretraining state"] = tensor_bytes(pretraining.state_dict())
    pretraining.load_state_dict(tensors_of(seen["pretraining state"]))
    return seen | {"resumed": weights_of(pretraining.model)}


@pytest.fixture(scope="module")
def plain(folder):
    return all_of(folder)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_nothing_and_stays_as_it_was_set(folder, plain, name):
    with SWITCHES[name]():
        before = switches()
        seen = all_of(folder)
        assert switches() == before
    for what in plain:
        assert seen[what] == plain[what], what


@pytest.mark.parametrize("name", SWITCHES)
def test_the_steps_of_a_run_write_the_same_bytes(folder, tmp_path, name):
    with SWITCHES[name]():
        before = switches()
        run = create_run(tmp_path / "run", CONFIG)
        pretrain_step(run), train_step(run)
        assert run.is_done("train") and switches() == before
    assert files_of(tmp_path / "run") == files_of(folder)
