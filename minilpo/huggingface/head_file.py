"""A trained head in a file of its own: its weights as safetensors, all else as text beside them.

Loading reads numbers and text and runs nothing. Whatever isn't as `save_head` wrote it is refused.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.machine.files import misfit, read_bytes, write_bytes
from minilpo.machine.text import named

FORMAT, KEY = 1, "minilpo"
LARGEST = 2**16  # of the head's three sizes
FORM = {  # of what is said about a head: see `misfit`
    **{"format": int, "level": str, "n_embd": int, "n_hidden": int, "model": str},
    **{"temperatures": [float], "top_k": [int], "top_p": [float], "min_p": [float]},
}
REMEDY = "save the head again with save_head"


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
        "n_embd": head.n_embd,
        "n_hidden": head.mlp[0].out_features,
        "temperatures": list(choices.temperatures),
        "top_k": [setting.top_k for setting in choices.settings],
        "top_p": [setting.top_p for setting in choices.settings],
        "min_p": [setting.min_p for setting in choices.settings],
        "model": lm.name,
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    form = AdaptiveDecoder(head.n_embd, len(choices), head.level, about["n_hidden"]).state_dict()
    if wrong := misfit(weights, form, "the head's weights"):
        raise ValueError(f"{wrong}; pass the choices that it was trained with, and head.float()")
    sealed = json.dumps({**about, "sha256": _digest(about, weights)})
    write_bytes(Path(path), save(weights, {KEY: sealed}))


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
    try:
        about, weights = _read(path)
        table = {name: about[name] for name in ("temperatures", "top_k", "top_p", "min_p")}
        choices = Temperatures(table.pop("temperatures"), **table)
        head = AdaptiveDecoder(about["n_embd"], len(choices), about["level"], about["n_hidden"])
        if wrong := misfit(weights, head.state_dict(), "its weights"):
            raise ValueError(wrong)
    except OSError:
        raise
    except Exception as error:  # a strange file raises whatever its reader stumbles on
        raise ValueError(f"{path} must be a head's file, but {named(error)}; {REMEDY}") from None
    if about["model"] != lm.name:
        raise ValueError(
            f"{path} must be loaded for the model that the head was trained for, {about['model']!r}"
            f", got {lm.name!r}; if it is the same under another name, set "
            f"model.config.name_or_path = {about['model']!r}"
        )
    lm.check_width(head)
    head.load_state_dict(weights)
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
    if wrong := misfit(about, FORM, "what it says"):
        raise ValueError(wrong)
    sizes = about["n_embd"], about["n_hidden"], len(about["temperatures"])
    if about["format"] != FORMAT or not all(0 < size <= LARGEST for size in sizes):
        raise ValueError(f"it has format {about['format']} and sizes {sizes}")
    return about, weights


def _digest(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """The SHA-256 of what is said and of every weight with its name and shape."""
    sum_ = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(weights.items()):
        sum_.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sum_.update(tensor.double().numpy().tobytes())
    return sum_.hexdigest()
