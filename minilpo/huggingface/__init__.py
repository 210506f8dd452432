"""A head for any causal language model of Hugging Face: `pip install "minilpo[huggingface]"`."""

from minilpo.huggingface.head_file import load_head, save_head
from minilpo.huggingface.in_generate import deciding
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.huggingface.own_prompts import OwnPrompts

__all__ = ["HuggingFaceLanguageModel", "OwnPrompts", "deciding", "load_head", "save_head"]
