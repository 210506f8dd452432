"""Text to tokens and back."""

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilpo.lm.tokenizer import EOS, PAD, SEP, Tokenizer
from minilpo.rivals.controls import ALL_TASKS
from minilpo.tasks import mixed_demonstrations, mixed_prompts, offers

TASK_LIST = [task() for task in ALL_TASKS.values()]
PAIRS = mixed_demonstrations(TASK_LIST, 6000, "train", random.Random(0))
CORPUS = [text for pair in PAIRS for text in pair]
SPECIAL = (PAD, SEP, EOS)


@pytest.fixture(scope="module")
def full():
    return Tokenizer.train(CORPUS)


def test_decoding_undoes_encoding_for_every_prompt_and_demonstration(full):
    prompts = mixed_prompts(TASK_LIST, 128, "test", random.Random(1))
    with_ood = [task for task in TASK_LIST if offers(task, "ood_prompt")]
    prompts += mixed_prompts(with_ood, 128, "ood", random.Random(1))
    texts = CORPUS + [prompt.text for prompt in prompts]
    for text, token_ids in zip(texts, full.encode_batch(texts), strict=True):
        assert full.decode(token_ids) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12) | st.text("aé1 _.,\n\t", max_size=12))
def test_no_text_loses_anything_and_its_pieces_add_up_to_it(text):
    tokenizer = Tokenizer.train([text])
    token_ids = tokenizer.encode(text)
    assert tokenizer.decode(token_ids) == text
    assert "".join(tokenizer.pieces(token_ids)) == (" " + text if text else "")


def test_every_word_number_and_mark_is_one_token_wherever_it_stands(full):
    special = {full.pad_id, full.sep_id, full.eos_id}
    for text in CORPUS[:2000]:
        token_ids = full.encode(text)
        pieces = [piece.strip() for piece in full.pieces(token_ids)]
        assert pieces == re.findall(r"\w+|[^\w\s]+", text) and not special & set(token_ids)
    ids = [full.encode(word)[0] for word in ("Tell", "fox", "forest", "story")]
    assert full.encode("Tell fox forest story") == ids
    assert full.encode("story forest fox Tell") == ids[::-1]


def test_ids_run_from_zero_to_the_size_of_the_vocabulary_and_the_special_ones_differ(full):
    texts = {full.decode([token_id]) for token_id in range(full.vocab_size)}
    pieces = {piece for t in CORPUS for piece in re.findall(r" ?\w+| ?[^\w\s]+", " " + t)}
    assert len(texts) == full.vocab_size == len(pieces) + 3
    assert full.decode([full.pad_id, full.sep_id, full.eos_id]) == PAD + SEP + EOS


def test_the_same_texts_give_the_same_ids_in_any_order(full):
    assert Tokenizer.train(reversed(CORPUS)).to_bytes() == full.to_bytes()


UNKNOWN = {"Tell me a story about a zebra.": "zebra", "A zebra and a gnu": "zebra"}
UNKNOWN |= {"The fox; the bear.": ";", "fox 777": "777", "FOX": "FOX"}


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_word_is_an_error_that_names_it(full, text):
    words = rf"^every word must be one the model .*, got '{re.escape(UNKNOWN[text])}'; (near|use)"
    for encode in (full.encode, lambda text: full.encode_batch(["The fox.", text, "a wolf"])):
        with pytest.raises(ValueError, match=words):
            encode(text)


@pytest.mark.parametrize(
    "known", ["fox", "fox fox< < > >fox > pad sep eos fox<pad>fox<sep>fox<eos>fox"]
)
def test_a_special_token_cannot_be_typed_its_name_is_unknown_or_plain_text(known):
    tokenizer = Tokenizer.train([known])
    special = {tokenizer.pad_id, tokenizer.sep_id, tokenizer.eos_id}
    for name, around in itertools.product(SPECIAL, ("{}", "fox {}", "{} fox", "fox{}fox")):
        text = around.format(name)
        try:
            token_ids = tokenizer.encode(text)
        except ValueError:
            assert known == "fox"
        else:
            assert not special & set(token_ids) and tokenizer.decode(token_ids) == text


def test_a_tokenizer_comes_back_whole_from_its_bytes(full):
    again = Tokenizer.of_bytes(full.to_bytes())
    assert again.encode_batch(CORPUS[:500]) == full.encode_batch(CORPUS[:500])
    for member in ("vocab_size", "pad_id", "sep_id", "eos_id"):
        assert getattr(again, member) == getattr(full, member)
    assert again.decode(full.encode(CORPUS[0])) == CORPUS[0]
    with pytest.raises(ValueError, match="'zebra'"):
        again.encode("zebra")


def test_an_unknown_word_is_told_with_the_nearest_known_ones(full):
    with pytest.raises(ValueError, match="got 'stroy'; near it are .*'story'.*; use words"):
        full.encode("Tell me a stroy.")
    with pytest.raises(ValueError, match="got 'qqqq'; use words"):
        full.encode("Tell me a qqqq.")
