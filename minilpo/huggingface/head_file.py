"""A trained head in a file of its own: its weights as safetensors, all else as text beside them.

Loading reads numbers and text and runs nothing. Whatever isn't as `save_head` wrote it is refused.
"""

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

FORMAT, KEY = 1, "minilpo"
REMEDY = "save the head again with save_head"


@torch_defaults()
def save_head(
    path: Path | str, head: AdaptiveDecoder, choices: Temperatures, lm: HuggingFaceLanguageModel
) -> None:
    """Writes a head with its choices, its level and the name of the model that it was trained for.

    Args:
        path: the file; its name should end in ".safetensors".
        head: the head, in float32.
        choices: what it chooses among.
        lm: the model that it reads.

    Raises:
        ValueError: if head, choices and model don't belong together.
    """
    from safetensors.torch import save

    lm.check_width(head)
    if type(head) is not AdaptiveDecoder or not isinstance(choices, Temperatures):
        raise ValueError(
            "what is saved must be an AdaptiveDecoder and its Temperatures, got "
            f"{type(head).__name__} and {type(choices).__name__}"
        )
    about: dict[str, Any] = {
        "format": FORMAT,
        "level": head.level,
        "temperatures": list(choices.temperatures),
        "top_k": [setting.top_k for setting in choices.settings],
        "top_p": [setting.top_p for setting in choices.settings],
        "min_p": [setting.min_p for setting in choices.settings],
        "model": lm.name,
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    dtypes = {weight.dtype for weight in weights.values()}
    if head.n_choices != len(choices) or dtypes != {torch.float32}:
        raise ValueError(
            f"the head must be in float32 and have {len(choices)} choices, got {dtypes} and "
            f"{head.n_choices}; pass head.float(), and the choices that it was trained with"
        )
    sealed = json.dumps({**about, "sha256": _digest(about, weights)})
    write_bytes(Path(path), save(weights, {KEY: sealed}))


@torch_defaults()
def load_head(
    path: Path | str, lm: HuggingFaceLanguageModel
) -> tuple[AdaptiveDecoder, Temperatures]:
    """Reads what `save_head` wrote: the head, on the model's device, and its choices.

    Args:
        path: the file.
        lm: the model that the head is going to read.

    Raises:
        ValueError: if the file is damaged or was changed, or the head was trained for a model of
            another width or name.
        OSError: if there is no such file.
    """
    path = Path(path)
    with must_hold(path, "a head as save_head wrote it", REMEDY):
        about, weights = _read(path)
        model, level = about["model"], about["level"]
        rules = {name: about[name] for name in ("top_k", "top_p", "min_p")}
        choices = Temperatures(about["temperatures"], **rules)
        n_hidden, n_embd = weights["mlp.0.weight"].shape
        head = AdaptiveDecoder(n_embd, len(choices), level, n_hidden)
        head.load_state_dict(weights)
    if model != lm.name:
        raise ValueError(
            f"{path} must be loaded for the model that the head was trained for, {model!r}, "
            f"got {lm.name!r}; if it is the same under another name, set "
            f"model.config.name_or_path = {model!r}"
        )
    lm.check_width(head)
    return head.to(lm.model.device), choices


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is said about the head, and its weights, if the checksum fits both."""
    from safetensors.torch import load

    data = read_bytes(path)
    weights = load(data)
    # The file begins with the length of a header in JSON, and with that header.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
    if about.pop("sha256", None) != _digest(about, weights):
        raise ValueError("its content doesn't fit its checksum: damaged, changed or not ours")
    if about["format"] != FORMAT:
        raise ValueError(f"it has format {about['format']}: made by another version of minilpo")
    return about, weights


def _digest(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """The SHA-256 of what is said and of every weight with its name and shape."""
    sum_ = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(weights.items()):
        sum_.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sum_.update(tensor.double().numpy().tobytes())
    return sum_.hexdigest()
