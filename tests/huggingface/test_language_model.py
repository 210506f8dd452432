"""Which models are taken, and which refused in words; prompts, chats, ends and lengths."""

import contextlib
import copy
import functools

import pytest
import tokenizers
import torch
import transformers as hf
from transformers import AutoModelForCausalLM

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed
from minilpo.huggingface import HuggingFaceLanguageModel, deciding
from tests.conftest import seeded
from tests.huggingface.tiny import LLAMA, SMALL, V, language_model, tiny, tokenizer
from tests.standin import same

COLD = Fixed(Temperatures([0.0]))
MAMBA = dict(hidden_size=32, num_hidden_layers=2, state_size=4)
T5 = dict(d_model=32, d_ff=48, num_layers=1, num_heads=2)
REFUSED = {  # another kind of cache, a decoder with an encoder, no un-embedding, no end, no cache
    "mamba": (AutoModelForCausalLM, MAMBA, "its logits differ|reorder_cache"),
    "t5": (hf.AutoModelForSeq2SeqLM, T5, "exactly one of|decoder_input_ids"),
    "llama": (hf.AutoModel, LLAMA, "has no attribute"),
    "bert": (hf.AutoModelForMaskedLM, SMALL, "has no attribute|use_cache"),
    "openai-gpt": (AutoModelForCausalLM, dict(n_embd=32, n_layer=2, n_head=2), "_cache|past_key"),
}


def test_a_model_that_is_no_causal_language_model_with_a_cache_is_refused():
    cases = [("gpt2", tokenizer(), "no attribute"), (tiny(), "gpt2", "no attribute")]  # texts
    for name, (make, shape, reason) in REFUSED.items():
        model = make.from_config(hf.AutoConfig.for_model(name, vocab_size=V, **shape))
        cases.append((model, tokenizer(), reason))
    deaf = tiny("gpt2")  # takes no notice of padding: the other prompts of a batch would matter
    forward = deaf.forward
    deaf.forward = lambda x, attention_mask=None, position_ids=None, **more: forward(x, **more)
    for model, words, reason in (*cases, (deaf, tokenizer(), "at once its logits differ by")):
        with pytest.raises(ValueError, match=f"must be a causal .*({reason}).*; load them"):
            HuggingFaceLanguageModel(model, words)


def test_a_small_difference_is_an_error_where_weights_are_exact_and_rounding_where_they_are_not():
    refused = pytest.raises(ValueError, match="step by step and at once its logits differ by")
    for dtype, expected in ((torch.float32, refused), (torch.bfloat16, contextlib.nullcontext())):
        model = tiny("gpt2").to(dtype)
        steps_are_off = lambda _, inputs, z: z * 1.02 if z.shape[1] == 1 else z  # noqa: E731
        model.get_output_embeddings().register_forward_hook(steps_are_off)
        with expected:
            HuggingFaceLanguageModel(model, tokenizer())


class Wrapper(torch.nn.Module):
    """Takes any argument and has all members of the model that it wraps, as those of PEFT do."""

    def __init__(self, inner, shift=0):
        super().__init__()
        self.inner, self.shift = inner, shift

    def __getattr__(self, name):
        inner = self._modules["inner"]
        return inner if name == "inner" else getattr(inner, name)

    def forward(self, input_ids, **arguments):
        return self.inner((input_ids + self.shift) % V, **arguments)

    def generate(self, *inputs, **arguments):
        self.inner.generation_config = self.generation_config
        return self.inner.generate(*inputs, **arguments)


compiled = functools.partial(torch.compile, backend="eager")


@pytest.mark.parametrize("wrap", [Wrapper, pytest.param(compiled, marks=pytest.mark.slow)])
def test_a_wrapped_model_writes_what_the_model_itself_writes(wrap):
    """GPT-2 needs the places of tokens, which no wrapper's signature tells."""
    model, prompts = tiny("gpt2"), ["the fox", "an owl sees a dark wood"]
    plain, lm = language_model("gpt2"), HuggingFaceLanguageModel(wrap(model), tokenizer())
    own = model.generation_config
    expected = generate(plain, prompts, COLD, seeded(0), max_new_tokens=3).token_ids
    found = generate(lm, prompts, COLD, seeded(0), max_new_tokens=3).token_ids
    assert torch.equal(found, expected)
    with deciding(lm, COLD, seeded(0)) as wrapped:
        assert wrapped is lm.model
        written = wrapped.generate(torch.tensor(lm.encode(prompts[:1])), max_new_tokens=3)
        with pytest.raises(ValueError, match="got top_k=5"):
            wrapped.generate(torch.tensor([[3]]), top_k=5)
        with pytest.raises(ValueError, match="one head at a time"), deciding(lm, COLD, seeded(0)):
            pass
    n = written.shape[1] - 2
    assert n and written[0, 2:].tolist() == expected[0, :n].tolist()
    assert model.generation_config is own and "generate" not in vars(model)


def test_a_wrapper_that_changes_what_is_read_is_named():
    """Such as a learned prompt in front of each text: `generate` would write without it."""
    with pytest.raises(ValueError, match="got Wrapper with .* a wrapper around LlamaForCausalLM"):
        HuggingFaceLanguageModel(Wrapper(tiny(), shift=1), tokenizer())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_weights_are_taken_with_a_word_of_warning():
    quantised = torch.ao.quantization.quantize_dynamic(tiny(), {torch.nn.Linear}, torch.qint8)
    with pytest.warns(UserWarning, match="is quantised: .* differ by .* of their size"):
        lm = HuggingFaceLanguageModel(quantised, tokenizer())
    assert len(generate(lm, ["the fox"], COLD, seeded(0), n_samples=4).responses) == 4


def test_a_model_is_put_in_evaluation_mode_and_otherwise_left_as_it_was():
    """Dropout never decides, also if the model has been trained meanwhile."""
    model = tiny("gpt2").requires_grad_(True)
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.5
    before = copy.deepcopy(model)
    lm, written = HuggingFaceLanguageModel(model, tokenizer()), []
    for _ in range(2):
        model.train()
        written.append(generate(lm, ["the fox"], COLD, seeded(0), max_new_tokens=8).responses)
        assert not model.training
    model.train()
    with deciding(lm, COLD, seeded(0)):
        assert not model.training
    assert written[0] == written[1] and same(model, before)
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_padding_beyond_what_a_model_can_read_is_said_in_words():
    """GPT-Neo has a mask of a fixed size; for a short prompt beside a long one it is too small."""
    lm, long = language_model("gpt_neo"), "the fox sees an owl " * 12
    lm.end_ids = ()
    with pytest.raises(ValueError, match=r"room for \[1, 65\] tokens, .*; lower max_length"):
        generate(lm, ["the fox", long], COLD, seeded(0))
    lm.max_length = 32
    generate(lm, ["the fox", long[:100].strip()], COLD, seeded(0))


def test_a_prompt_goes_into_the_chat_template_if_there_is_one():
    chat, fox = tokenizer(chat=True), "[user] the fox <sep> [assistant]"
    for text, options in {
        **{fox: {}, "[system] a dark wood <sep> " + fox: {"system": "a dark wood"}},
        **{"the fox": {"chat": False}, "is " + fox: {"template": {"thinks": "is"}}},
    }.items():
        lm = HuggingFaceLanguageModel(tiny(), chat, **options)
        assert chat.decode(lm.encode(["the fox"])[0]) == text
    ready = "<sep> [user] the fox [assistant] <eos>"  # it has been in a template
    assert chat.decode(lm.encode([ready])[0]) == ready


def test_a_chat_that_cannot_be_is_refused():
    strict = tokenizer(chat=True)
    strict.chat_template = "{{ raise_exception('no system please') }}"
    for words, options, reason in (
        (tokenizer(), {"chat": True}, "the chat template must take .*is not set"),
        (strict, {"system": "all"}, "must take .*no system please; change system or template"),
        (tokenizer(chat=True), {"chat": False, "system": "all"}, "come with a chat template"),
        (tokenizer(), {"template": {"thinks": 1}}, "must come with a chat template; leave"),
    ):
        with pytest.raises(ValueError, match=reason):
            HuggingFaceLanguageModel(tiny(), words, **options)


def test_a_prompt_has_one_beginning_and_no_end_whatever_a_tokenizer_adds():
    plain, ended = tokenizer(), tokenizer()
    ended.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<sep> $A <eos>", special_tokens=[("<sep>", 3), ("<eos>", 1)]
    )
    ids = plain("the fox")["input_ids"]
    assert ended("the fox")["input_ids"] == [3, *ids, 1]
    lm = HuggingFaceLanguageModel(tiny(), ended)
    assert lm.encode(["the fox", "<sep> the fox"]) == [[3, *ids]] * 2
    with pytest.raises(ValueError, match="a prompt must have at least one token, got ''"):
        language_model().encode(["the fox", ""])


def test_a_text_has_no_special_tokens_and_none_that_the_tokenizer_lacks(monkeypatch):
    lm = language_model()
    decode, size = lm.tokenizer.decode, len(lm.tokenizer)

    def strict(token_ids, **options):  # as tokenizers written in Python are
        assert max(token_ids) < size < V, "id out of range"
        return decode(token_ids, **options)

    monkeypatch.setattr(lm.tokenizer, "decode", strict)
    the, sep, fox, eos = lm.tokenizer.convert_tokens_to_ids(["the", "<sep>", "fox", "<eos>"])
    assert lm.decode([the, sep, V - 1, fox, eos]) == "the fox"


def test_a_sentence_begins_after_a_mark_and_where_an_answer_does():
    chat = tokenizer(chat=True)
    *marks, answer = chat.convert_tokens_to_ids([".", "!", "?", "[assistant]"])
    assert set(language_model().sentence_starts) == {*marks}
    assert set(HuggingFaceLanguageModel(tiny(), chat).sentence_starts) == {*marks, answer}


def test_several_tokens_or_none_may_end_a_response():
    model, words = tiny(), tokenizer()
    model.generation_config.eos_token_id = [5, 7]
    assert HuggingFaceLanguageModel(model, words).end_ids == (words.eos_token_id, 5, 7)
    model.generation_config.eos_token_id = words.eos_token = None
    assert HuggingFaceLanguageModel(model, words).end_ids == ()


def test_the_longest_text_is_the_models_but_not_endless_and_can_be_set():
    assert language_model("gpt2").max_length == 64
    assert language_model("bloom").max_length == 512  # it has no limit of its own
    assert language_model("llama", max_position_embeddings=100_000).max_length == 512
    assert HuggingFaceLanguageModel(tiny(), tokenizer(), max_length=10).max_length == 10
    for wrong in (1, 65):
        with pytest.raises(ValueError, match=f"max_length must be from 2 to .* 64, got {wrong};"):
            HuggingFaceLanguageModel(tiny(), tokenizer(), max_length=wrong)
