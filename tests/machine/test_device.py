"""What is computed on an accelerator is what is computed on the CPU, and comes back to it."""

import json
import re

import pytest
import torch

from minilpo import AdaptiveDecoder, LPOConfig, Run, Temperatures, generate
from minilpo.cli import main
from minilpo.decoding.policies import Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.machine.device import device_of
from minilpo.rivals.by_config import training_of
from minilpo.rivals.rules import EDT, Dynatemp, Mirostat, TopNSigma
from tests.accelerator import NAME
from tests.conftest import ending_early, seeded
from tests.standin import Varied

CHOICES = Temperatures([0.0, 0.7, 1.0, 1.5], top_p=[1, 1, 0.9, 1], min_p=[0, 0, 0, 0.1])
pytestmark = pytest.mark.usefixtures("figures_undrawn")
TINY = {
    "pretrain": "--tasks coin_flip hidden_wish --n-layer 1 --n-embd 32 --n-head 2 --steps 80 "
    "--demonstrations 500 --batch-size 8 --learning-rate 0.01 --block-size 56",
    "train": "--rounds 1 --prompts 8 --samples 4 --epochs 2 --validation-prompts 2",
    "evaluate": "--test-prompts 4 --selection-prompts 4 --ood-prompts 2 --resamples 100",
}


def test_the_accelerator_of_these_tests_refuses_what_a_real_one_refuses(accelerator):
    here = torch.arange(3.0)
    there = here.to(NAME)
    assert there.device.type == NAME and (there * 2).tolist() == [0, 2, 4]
    there[0] = 7.0
    assert here[0] == 0 and there.cpu().tolist() == [7, 1, 2]
    assert (there * torch.tensor(2.0)).device.type == NAME  # a single number may be anywhere
    assert there[torch.tensor([2])].tolist() == [2]
    for wrong in (
        lambda: there + here,
        lambda: here[there.long()],
        lambda: there.index_put_((torch.tensor([0, 1]),), here[:2]),
        lambda: torch.cat([here, there]),
        lambda: torch.nn.Linear(3, 2).to(NAME)(here),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


@pytest.fixture
def lm(lm):
    return ending_early(lm)


def on(device, lm, level="token"):
    """A copy of a language model, and a head that isn't uniform, on a device."""
    model = GPT(lm.model.config).to(lm.model.token_embedding.weight).requires_grad_(False)
    model.load_state_dict(lm.model.state_dict())
    head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(1))
    # Weights so small that no choice is sure, or all gradients would be rounding.
    torch.nn.init.normal_(head.mlp[-1].weight, std=0.02, generator=seeded(2))
    return GPTLanguageModel(model.to(device), lm.tokenizer), head.to(device)


@pytest.mark.parametrize(
    "policy_of",
    [
        lambda head: GreedyHead(head, CHOICES),
        lambda head: SampledHead(head, CHOICES),
        lambda head: MixedHead(head, CHOICES),
        lambda head: Fixed(CHOICES),
        lambda head: Fixed(TopNSigma([1.0, 2.0], [0.8, 1.2])),
        lambda head: Fixed(EDT([0.8, 1.2], [0.5, 1.0])),
        lambda head: Fixed(Dynatemp([0.0, 0.5], [1.5, 2.0], [1.0, 0.5])),
        lambda head: Mirostat([1.0, 2.0], [0.1, 0.5]),
    ],
    ids=["greedy", "sampled", "mixed", "fixed", "top-n-sigma", "EDT", "dynatemp", "mirostat"],
)
def test_every_policy_writes_the_same_and_what_it_wrote_is_on_the_cpu(accelerator, lm, policy_of):
    prompts = ["Mia has 7 apples. Then Tom buys 5 more. How many apples are there?"] * 3
    written = []
    for device in ("cpu", NAME):
        there, head = on(device, lm)
        options = {"n_samples": 4, "max_new_tokens": 8}
        written.append(generate(there, prompts, policy_of(head), seeded(3), **options))
    ours, theirs = written
    assert ours.responses == theirs.responses and torch.equal(ours.token_ids, theirs.token_ids)
    assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)
    torch.testing.assert_close(ours.decisions.features, theirs.decisions.features)
    made = theirs.decisions
    for tensor in (theirs.token_ids, theirs.response_mask, made.choice_ids, made.features):
        assert tensor.device.type == "cpu"


@pytest.mark.parametrize(
    "level, settings",
    [
        ("sequence", {}),
        ("token", {}),
        ("sequence", {"loss": "eq11_marginal", "pairs": "gap"}),
        ("token", {"rule": "reinforce", "loss": "eq11"}),
        ("token", {"rule": "grpo"}),
        ("sequence", {"rule": "regression"}),
        ("token", {"loss": "eq9", "train_lm": True}),
    ],
    ids=["Eq. 10", "Eq. 11", "marginal", "REINFORCE", "GRPO", "regression", "Eq. 9"],
)
def test_a_head_learns_on_an_accelerator_what_it_learns_on_the_cpu(
    accelerator, lm, tasks, level, settings
):
    task = Varied(tasks[0], most=60)
    few = {"rounds": 1, "prompts": 6, "samples": 4, "epochs": 2, "validation_prompts": 1}
    config = LPOConfig(**few, **settings)
    weights, entries = [], []
    for device in ("cpu", NAME):
        before = dict(accelerator.n_products)
        there, head = on(device, lm, level)
        train, _, state = training_of(there, head, config)
        log = train(there, [task], head, CHOICES, config, 0, state)
        done = {place: n - before[place] for place, n in accelerator.n_products.items()}
        assert done[device == NAME] > 100 and not done[device != NAME]
        assert {weight.device.type for weight in head.parameters()} == {device}
        assert head.mlp[-1].bias.abs().max() > 1e-3  # it was 0
        # (The bias of the keys has no gradient but rounding, which Adam makes as large as others.)
        named = [*head.named_parameters(), *there.model.named_parameters()]
        weights.append(
            [w.detach().cpu() for name, w in named if "attention" not in name or w.ndim > 1]
        )
        entries.append([[entry["pairs"], entry["sampled_reward"]] for entry in log])
    assert entries[0] == entries[1] and entries[0][0][0] > 3
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_run_goes_on_where_it_is_asked_to_and_can_be_read_anywhere(tmp_path, accelerator):
    """All of one run on the CPU; of the other, pretraining and evaluation on the accelerator."""
    metrics = []
    for devices in (("cpu", "cpu", "cpu"), (NAME, "cpu", NAME)):
        path = tmp_path / devices[0]
        for (name, flags), device in zip(TINY.items(), devices, strict=True):
            before = dict(accelerator.n_products)
            words = [*flags.split(), *(["--level", "token"] if name == "pretrain" else [])]
            common = ["--run", str(path), "--threads", "1", "--device", device]
            assert main([name, *words, *common]) == 0
            done = {place: n - before[place] for place, n in accelerator.n_products.items()}
            assert done[device == NAME] > 50 and not done[device != NAME]
        written = json.loads((path / "metrics.json").read_text()) | {"seconds": 0}
        metrics.append(re.findall(r"[^\s,:{}[\]]+", json.dumps(written)))
        assert Run.open(path).head().mlp[0].weight.device.type == "cpu"
    for ours, theirs in zip(*metrics, strict=True):
        assert ours == theirs or float(ours) == pytest.approx(float(theirs), abs=1e-4)
    ours, theirs = (torch.load(tmp_path / device / "model.pt") for device in ("cpu", NAME))
    for name, weight in ours.items():
        if not name.endswith("bias"):  # that of the keys is only rounding
            torch.testing.assert_close(weight, theirs[name], atol=1e-3, rtol=1e-3)


def test_a_whole_demo_leaves_nothing_on_the_cpu_to_compute(tmp_path, accelerator):
    flags = " ".join(TINY.values()).split()
    assert main(["demo", *flags, "--device", NAME, "--out", str(tmp_path / "run")]) == 0
    assert accelerator.n_products[True] > 500 and not accelerator.n_products[False]
    assert main(["demo", *flags, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0


def test_each_of_several_processes_takes_a_card_of_its_own(monkeypatch, accelerator):
    assert device_of(NAME).index == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of(NAME).index == 3 and device_of(f"{NAME}:1").index == 1
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:1", NAME, "meta"])
def test_a_device_that_cannot_compute_is_refused_in_one_line(tmp_path, capsys, name):
    flags = " ".join(TINY.values()).split()
    status = main(["demo", *flags, "--device", name, "--out", str(tmp_path / "run")])
    [line] = capsys.readouterr().err.splitlines()
    assert status == 2 and f"got {name!r}" in line and "leave it out" in line
    assert not (tmp_path / "run").exists()
