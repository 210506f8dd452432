"""Tiny random models of many architectures, and a tokenizer of a few words."""

import tokenizers
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from minilpo.huggingface import HuggingFaceLanguageModel
from minilpo.lm.language_model import GPTLanguageModel
from tests.conftest import seeded
from tests.gpt2_weights import as_transformers_tokenizer, as_transformers_weights

V, ROOM = 48, 64
WORDS = "the fox sees an owl in a dark wood and says that all is well . ! ? one two three four"
PROMPTS = [f"{a} {b} {c}" for a in ("the", "an", "a") for b in WORDS.split() for c in ("!", "?")]
TEMPLATE = (
    "{{ thinks ~ ' ' if thinks }}{% for message in messages %}[{{ message.role }}] "
    "{{ message.content }} <sep> {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

# Sizes, in the words of the families of configurations.
SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
LLAMA = SMALL | dict(num_key_value_heads=2, max_position_embeddings=ROOM)
ONE_KEY_EACH = LLAMA | dict(num_key_value_heads=4)
GPT = dict(n_embd=32, n_layer=2, n_head=4, n_positions=ROOM)
WINDOW = dict(sliding_window=4)
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=16)
TYPES = dict(layer_types=["sliding_attention", "full_attention"])
NARROW = LLAMA | dict(head_dim=8)
CAPPED = dict(final_logit_softcapping=2.0, attn_logit_softcapping=1.0)
NEO = dict(attention_types=[[["global", "local"], 1]], window_size=4, num_layers=2, num_heads=4)
XGLM = dict(d_model=32, ffn_dim=48, num_layers=2, attention_heads=4)
ARCHITECTURES = {
    "gpt2": GPT,
    "gpt_bigcode": GPT | dict(n_inner=48),
    "gpt_neo": NEO | dict(hidden_size=32, max_position_embeddings=ROOM),
    "opt": LLAMA | dict(ffn_dim=48, word_embed_proj_dim=32),
    "xglm": XGLM | dict(max_position_embeddings=ROOM),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "mpt": dict(d_model=32, n_layers=2, n_heads=4, max_seq_len=ROOM),
    "falcon": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
    "mixtral": LLAMA | WINDOW | dict(num_local_experts=4),
    "qwen2": LLAMA | WINDOW | dict(use_sliding_window=True, max_window_layers=1),
    "qwen2_moe": LLAMA | EXPERTS | dict(num_experts=4, shared_expert_intermediate_size=16),
    "qwen3_moe": NARROW | EXPERTS | dict(num_experts=4),
    "gemma2": NARROW | WINDOW | TYPES | CAPPED | dict(query_pre_attn_scalar=8),
    "gemma3_text": NARROW | WINDOW | TYPES | dict(query_pre_attn_scalar=8),
    "phi3": LLAMA | WINDOW | dict(pad_token_id=0),
    "cohere2": LLAMA | WINDOW | TYPES,
    "granite": LLAMA | dict(logits_scaling=3.0),
    "smollm3": LLAMA | dict(pad_token_id=0),
    "glm": NARROW | dict(pad_token_id=0),
    "gpt_oss": NARROW | WINDOW | TYPES | dict(num_local_experts=4),
    **dict.fromkeys(("gptj", "codegen"), GPT | dict(rotary_dim=4)),
    **dict.fromkeys(("llama", "gpt_neox", "stablelm", "cohere", "olmo", "olmo2"), LLAMA),
    **dict.fromkeys(("mistral", "starcoder2"), LLAMA | WINDOW),
    **dict.fromkeys(("biogpt", "phi"), ONE_KEY_EACH),
    **dict.fromkeys(("qwen3", "gemma", "helium", "ernie4_5"), NARROW),
}


def tiny(name="llama", **settings):
    """A model whose weights are large enough for every token to change what comes after it."""
    words = dict(vocab_size=V, bos_token_id=1, eos_token_id=2)
    config = AutoConfig.for_model(name, **(words | ARCHITECTURES[name] | settings))
    capped = {"attn_implementation": "eager"} if name == "gemma2" else {}  # others leave it out
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, **capped)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5, generator=seeded(3))
    return model.requires_grad_(False)


def tokenizer(chat=False, words=WORDS):
    """One token per word, with an end of its own; a chat template if asked for."""
    words = f"<unk> <eos> <end> <sep> [user] [system] [assistant] {words}".split()
    ids = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = dict(unk_token="<unk>", eos_token="<eos>", sep_token="<sep>")
    made = FastTokenizer(tokenizer_object=backend, **special)
    made.model_input_names = ["input_ids", "attention_mask"]  # older versions give more
    made.chat_template = TEMPLATE if chat else None
    return made


def language_model(name="llama", **settings):
    return HuggingFaceLanguageModel(tiny(name, **settings), tokenizer())


def exported(lm: GPTLanguageModel) -> HuggingFaceLanguageModel:
    """Our transformer and tokenizer as transformers' GPT-2, behind the adapter."""
    ours = lm.model.config
    shape = dict(n_embd=ours.n_embd, n_layer=ours.n_layer, n_head=ours.n_head)
    shape |= dict(n_positions=ours.block_size, vocab_size=ours.vocab_size, bos_token_id=None)
    config = GPT2Config(**shape, eos_token_id=lm.tokenizer.eos_id)
    gpt2 = GPT2LMHeadModel(config).to(lm.model.token_embedding.weight.dtype).requires_grad_(False)
    gpt2.load_state_dict(as_transformers_weights(lm.model))
    return HuggingFaceLanguageModel(gpt2, as_transformers_tokenizer(lm.tokenizer))
