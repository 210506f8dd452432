"""Our transformer under the names of another library. Apart from the tests: those limit PyTorch to
one thread.
"""

from minilpo.lm.model import GPT


def as_transformers_weights(model: GPT) -> dict:
    """Our weights under the names of transformers' GPT-2, which stores its linear layers
    transposed.
    """
    names = {
        "token_embedding": "wte",
        "position_embedding": "wpe",
        "norm": "ln_f",
        "norm_1": "ln_1",
        "norm_2": "ln_2",
    }
    names |= {
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        *path, kind = name.split(".")
        block = f"h.{path[1]}." if path[0] == "blocks" else ""
        part = ".".join(path[2:] if block else path)
        linear = part in ("attention.qkv", "attention.out", "up", "down") and kind == "weight"
        weights[f"transformer.{block}{names[part]}.{kind}"] = tensor.T if linear else tensor
    return weights | {"lm_head.weight": model.token_embedding.weight}
