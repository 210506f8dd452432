"""A trained head in one file: weights as safetensors, everything else as text beside them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.machine.files import must_hold, read_bytes, write_bytes
from minilpo.seeds import torch_defaults

FORMAT, KEY = 2, "minilpo"
RULES = ("top_k", "top_p", "min_p")


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
    dtypes = {weight.dtype for weight in weights.values()}
    got = (type(head), type(choices), dtypes, head.n_choices)
    if got != (AdaptiveDecoder, Temperatures, {torch.float32}, len(choices)):
        raise ValueError(
            f"a file must hold an AdaptiveDecoder in float32 for its {len(choices)} Temperatures, "
            f"got {got}; pass head.float(), and the choices that it was trained with"
        )
    about: dict[str, Any] = {"format": FORMAT, "level": head.level, "model": _name(lm)}
    about["temperatures"] = list(choices.temperatures)
    about |= {rule: [getattr(one, rule) for one in choices.settings] for rule in RULES}
    about["sha256"] = _digest(about, weights)
    write_bytes(Path(path), save(weights, {KEY: json.dumps(about)}))


@torch_defaults()
def load_head(
    path: Path | str, lm: HuggingFaceLanguageModel
) -> tuple[AdaptiveDecoder, Temperatures]:
    """Reads a file of `save_head`: the head, on the model's device, and its choices.

    No file runs code. Raises ValueError if the file is damaged or was changed, or the head was
    trained for a model of another width or name; OSError if there is no such file.
    """
    from safetensors.torch import load

    path = Path(path)
    with must_hold(path, "a head as save_head wrote it", "save the head again with save_head"):
        data = read_bytes(path)
        weights = load(data)
        # The file begins with the length of a header in JSON, and with that header.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
        if about.get("format") != FORMAT:
            raise ValueError(f"it isn't of format {FORMAT}: another version or program wrote it")
        if about.pop("sha256", None) != _digest(about, weights):
            raise ValueError("its content doesn't fit its checksum: damaged or changed")
        choices = Temperatures(about["temperatures"], **{rule: about[rule] for rule in RULES})
        n_hidden, n_embd = weights["mlp.0.weight"].shape
        head = AdaptiveDecoder(n_embd, len(choices), about["level"], n_hidden)
        head.load_state_dict(weights)
        name = about["model"]
    if name != _name(lm):
        raise ValueError(
            f"{path} must be loaded for the model that the head was trained for, {name!r}, got "
            f"{_name(lm)!r}; for the same under another name set model.config.name_or_path"
        )
    lm.check_width(head)
    return head.to(lm.model.device), choices


def _name(lm: HuggingFaceLanguageModel) -> str:
    """Returns the name that a model was loaded by; empty if it was made in memory."""
    return lm.core.config.name_or_path


def _digest(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """Computes the SHA-256 of the text and of all weights with their names and shapes."""
    from safetensors.torch import save

    return hashlib.sha256(json.dumps(about).encode() + save(weights)).hexdigest()
