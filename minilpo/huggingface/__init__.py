"""A head for any causal language model of Hugging Face: `pip install "minilpo[huggingface]"`.

language_model  the model behind the same few members as ours
own_prompts     a task made of one's own prompts and reward
head_file       a head in a file, with what it chooses from
in_generate     a head inside the model's own `generate`

Generation is `generate`, training is `train_lpo`: the same as for our own language model.
"""

from minilpo.huggingface.head_file import load_head, save_head
from minilpo.huggingface.in_generate import deciding
from minilpo.huggingface.language_model import HuggingFaceLanguageModel
from minilpo.huggingface.own_prompts import OwnPrompts

__all__ = ["HuggingFaceLanguageModel", "OwnPrompts", "deciding", "load_head", "save_head"]
