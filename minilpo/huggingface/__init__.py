"""A head for any causal language model of Hugging Face: `pip install "minilpo[huggingface]"`.

language_model  the model behind the members of our own: for `generate` and `train_lpo`
own_prompts     a task made of one's own prompts and reward
head_file       a head in a file, with its choices
in_generate     a head inside the model's own `generate`
"""

from minilpo.huggingface.head_file import load_head, save_head
from minilpo.huggingface.in_generate import deciding
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.huggingface.own_prompts import OwnPrompts

__all__ = ["HuggingFaceLanguageModel", "OwnPrompts", "deciding", "load_head", "save_head"]
