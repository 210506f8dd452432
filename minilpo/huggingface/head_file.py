"""A trained head in one file: weights as safetensors, everything else as text beside them."""

import json
from dataclasses import astuple
from pathlib import Path

import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.machine.files import must_hold, read_bytes, sha256, write_bytes
from minilpo.seeds import torch_defaults

KEY = "minilpo"


@torch_defaults()
def save_head(
    path: Path | str, head: AdaptiveDecoder, choices: Temperatures, lm: HuggingFaceLanguageModel
) -> None:
    """Writes a head with its choices, its level and the name of its language model to one file.

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
    # The model's name is the one that it was loaded by; empty if it was made in memory.
    about = {"level": head.level, "model": lm.core.config.name_or_path}
    about["choices"] = [astuple(setting) for setting in choices.settings]
    text = json.dumps(about)
    digest = sha256(save(weights, {KEY: text}))  # of the text, and of names, shapes and numbers
    write_bytes(Path(path), save(weights, {KEY: digest + text}))


@torch_defaults()
def load_head(
    path: Path | str, lm: HuggingFaceLanguageModel
) -> tuple[AdaptiveDecoder, Temperatures]:
    """Reads a file of `save_head`: the head, on the model's device, and its choices.

    No file runs code. Raises ValueError if the file is damaged or was changed, or the head was
    trained for a model of another width or name; OSError if there is no such file.
    """
    from safetensors.torch import load, save

    path, what = Path(path), "a head as this version's save_head wrote it"
    with must_hold(path, what, "save the head again with save_head"):
        data = read_bytes(path)
        # The file begins with the length of a header in JSON, and with that header.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text, weights = header["__metadata__"][KEY], load(data)
        digest, about = text[:64], json.loads(text[64:])
        if digest != sha256(save(weights, {KEY: text[64:]})):
            raise ValueError("its content doesn't fit its checksum: damaged or changed")
        temperatures, top_k, top_p, min_p = zip(*about["choices"], strict=True)
        choices = Temperatures(temperatures, top_k=top_k, top_p=top_p, min_p=min_p)
        n_hidden, n_embd = weights["mlp.0.weight"].shape
        head = AdaptiveDecoder(n_embd, len(choices), about["level"], n_hidden)
        head.load_state_dict(weights)
    if about["model"] != (name := lm.core.config.name_or_path):
        raise ValueError(
            f"{path} must be loaded for the model that the head was trained for, "
            f"{about['model']!r}, got {name!r}; for the same under another name set "
            "model.config.name_or_path"
        )
    lm.check_width(head)
    return head.to(lm.model.device), choices
