"""A trained head in one file: weights as safetensors, everything else as text beside them."""

import json
from dataclasses import astuple
from pathlib import Path

import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.machine.files import must_hold, sha256, write_bytes
from minilpo.seeds import torch_defaults

KEY = "minilpo"


def save_head(
    path: Path | str, head: AdaptiveDecoder, choices: Temperatures, lm: HuggingFaceLanguageModel
) -> None:
    """Writes a head, its choices, and its language model's name to one file.

    Raises ValueError if the head isn't an AdaptiveDecoder in float32 for these choices and `lm`.
    """
    from safetensors.torch import save

    lm.check_width(head)
    weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    got = type(head), type(choices), {w.dtype for w in weights.values()}, head.n_choices
    if got != (AdaptiveDecoder, Temperatures, {torch.float32}, len(choices)):
        raise ValueError(
            f"a file must hold an AdaptiveDecoder in float32 for its {len(choices)} Temperatures, "
            f"got {got}; pass head.float(), and the choices that it was trained with"
        )
    settings, name = map(astuple, choices.settings), lm.core.config.name_or_path  # "" if in memory
    text = json.dumps({"level": head.level, "model": name, "choices": [*settings]})
    digest = sha256(save(weights, {KEY: text}))  # of the text, and of names, shapes and numbers
    write_bytes(Path(path), save(weights, {KEY: digest + text}))


@torch_defaults()
def load_head(
    path: Path | str, lm: HuggingFaceLanguageModel
) -> tuple[AdaptiveDecoder, Temperatures]:
    """Reads a file of `save_head`: the head, on the model's device, and its choices. Runs no code.

    Raises ValueError if the file is damaged or was changed, or the head was trained for a model of
    another width or name; OSError if there is no such file.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    what = "a head as this version's save_head wrote it"
    with must_hold(Path(path), what, "save the head again with save_head"):
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            digest, text = file.metadata()[KEY][:64], file.metadata()[KEY][64:]
        if digest != sha256(save(weights, {KEY: text})):
            raise ValueError("its content doesn't fit its checksum: damaged or changed")
        about = json.loads(text)
        temperatures, top_k, top_p, min_p = zip(*about["choices"], strict=True)
        choices = Temperatures(temperatures, top_k=top_k, top_p=top_p, min_p=min_p)
        n_hidden, n_embd = weights["mlp.0.weight"].shape
        head = AdaptiveDecoder(n_embd, len(choices), about["level"], n_hidden)
        head.load_state_dict(weights)
    if about["model"] != (name := lm.core.config.name_or_path):
        models = f"the head was trained for, {about['model']!r}, got {name!r}"
        remedy = "for the same under another name set model.config.name_or_path"
        raise ValueError(f"{path} must be loaded for the model that {models}; {remedy}")
    lm.check_width(head)
    return head.to(lm.model.device), choices
