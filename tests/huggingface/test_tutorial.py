"""The page's lines of Python, as they stand, with a tiny random model in the place of a download."""

import re
from pathlib import Path

import tokenizers
import transformers

from tests.huggingface.tiny import WORDS, tiny, tokenizer

PAGE = Path(__file__).parents[2] / "tutorials" / "huggingface.md"


def test_the_lines_on_the_page_train_save_load_and_write(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    model, numbers = tiny(max_position_embeddings=128, vocab_size=64), " ".join(map(str, range(11)))
    model.generation_config.eos_token_id = [*range(2, 40, 2)]  # short responses
    words = tokenizer(words=f"{WORDS} {numbers} owl cat dog pig hen ant bee cow elk")
    words.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made = {transformers.AutoModelForCausalLM: model, transformers.AutoTokenizer: words}
    for class_, thing in made.items():
        monkeypatch.setattr(class_, "from_pretrained", lambda name, thing=thing: thing)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    told = capsys.readouterr().out.splitlines()
    assert 0 < float(told[0].split()[0]) <= 1
    assert (tmp_path / "head.safetensors").stat().st_size > 10_000
    test = names["task"].of_split("test")
    assert len(told) == 2 + len(test) > 30
    assert all(line.split()[0] in names["choices"].names for line in told[1:-1])
