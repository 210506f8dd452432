"""Our transformer and tokenizer under the names of another library. Apart from the tests: those limit PyTorch to
one thread.
"""

import json

import tokenizers

from minilpo.lm.model import GPT
from minilpo.lm.tokenizer import Tokenizer


def as_transformers_weights(model: GPT) -> dict:
    """Our weights under the names of transformers' GPT-2, which stores its linear layers
    transposed.
    """
    names = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
    names |= {"norm_1": "ln_1", "norm_2": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    names |= {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
    weights = {}
    for name, tensor in model.state_dict().items():
        *path, kind = name.split(".")
        block = f"h.{path[1]}." if path[0] == "blocks" else ""
        part = ".".join(path[2:] if block else path)
        linear = part in ("attention.qkv", "attention.out", "up", "down") and kind == "weight"
        weights[f"transformer.{block}{names[part]}.{kind}"] = tensor.T if linear else tensor
    return weights | {"lm_head.weight": model.token_embedding.weight}


def as_transformers_tokenizer(ours: Tokenizer):
    """Our tokenizer as transformers': every prompt gets its end mark, and "<pad>" is text."""
    from transformers import PreTrainedTokenizerFast

    content = json.loads(ours.to_bytes())
    for token in content["added_tokens"]:
        token["special"] = token["content"] == "<eos>"
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <sep>", special_tokens=[("<sep>", ours.sep_id)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
