"""A model on an accelerator writes and teaches what it writes and teaches on the CPU."""

import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.policies import SampledHead
from minilpo.huggingface import HuggingFaceLanguageModel, OwnPrompts, deciding, load_head, save_head
from minilpo.lpo import train_lpo
from tests.accelerator import NAME
from tests.conftest import seeded
from tests.huggingface.tiny import PROMPTS, tiny, tokenizer

CHOICES = Temperatures([0.0, 1.0, 1.5], top_p=[1.0, 1.0, 0.9])
TASK = OwnPrompts(PROMPTS, lambda prompt, response: len(set(response.split())) / 100)


def test_a_head_learns_on_an_accelerator_what_it_learns_on_the_cpu(accelerator, tmp_path):
    config = LPOConfig(rounds=1, prompts=8, samples=3, epochs=1, validation_prompts=1)
    heads, texts = {}, {}
    for device in ("cpu", NAME):
        before = dict(accelerator.n_products)
        # (Others hold buffers, and older versions index them in a way that this accelerator can't.)
        lm = HuggingFaceLanguageModel(tiny("gpt2").to(device), tokenizer(), max_length=12)
        head = AdaptiveDecoder(lm.n_embd, 3, "token", n_hidden=8, generator=seeded(0)).to(device)
        [entry] = train_lpo(lm, [TASK], head, CHOICES, config, seed=0)
        assert entry["pairs"] > 3
        heads[device] = [weight.detach().cpu() for weight in head.parameters()]
        save_head(tmp_path / f"{device}.safetensors", head, CHOICES, lm)
        head, choices = load_head(tmp_path / f"{device}.safetensors", lm)
        inputs = lm.tokenizer("the fox sees", return_tensors="pt")
        inputs = {name: value.to(device) for name, value in inputs.items()}
        torch.manual_seed(2)  # transformers draws tokens by the global numbers
        with deciding(lm, SampledHead(head, choices), seeded(1)) as model:
            texts[device] = model.generate(**inputs, max_new_tokens=4, pad_token_id=1).tolist()
        done = {there: n - before[there] for there, n in accelerator.n_products.items()}
        assert done[device == NAME] > 50 and not done[device != NAME]
    for ours, theirs in zip(*heads.values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert texts["cpu"] == texts[NAME]
