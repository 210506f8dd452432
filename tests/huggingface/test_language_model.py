"""What is taken, what is refused and in which words; prompts, chats, ends and lengths."""

import functools

import pytest
import tokenizers
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    LlamaConfig,
    MambaConfig,
    OpenAIGPTConfig,
    T5Config,
)

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed
from minilpo.huggingface import HuggingFaceLanguageModel, deciding
from tests.conftest import seeded
from tests.huggingface.tiny import LLAMA, V, language_model, tiny, tokenizer

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
REFUSED = {
    "a model with another kind of cache": (
        AutoModelForCausalLM,
        MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4),
        "at once its hidden states differ|no attribute 'reorder_cache'",
    ),
    "an encoder with a decoder": (
        AutoModelForSeq2SeqLM,
        T5Config(vocab_size=V, d_model=32, d_ff=48, num_layers=1, num_heads=2),
        "exactly one of|decoder_input_ids",
    ),
    "a model without an un-embedding": (
        AutoModel,
        LlamaConfig(vocab_size=V, **LLAMA),
        "'NoneType' object has no attribute 'register_forward_pre_hook'",
    ),
    "a model that sees what comes after": (
        AutoModelForMaskedLM,
        BertConfig(vocab_size=V, **SMALL),
        "no attribute 'reorder_cache'|unexpected keyword argument 'use_cache'",
    ),
    "a model without a cache": (
        AutoModelForCausalLM,
        OpenAIGPTConfig(vocab_size=V, n_embd=32, n_layer=2, n_head=2),
        "no attribute 'reorder_cache'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_words_is(what):
    make, config, reason = REFUSED[what]
    with pytest.raises(ValueError, match=f"must be a causal language model .*({reason})"):
        HuggingFaceLanguageModel(make.from_config(config), tokenizer())


def test_a_model_that_takes_no_notice_of_padding_is_refused(monkeypatch):
    """One that works, but whose answers would depend on the other prompts of a batch."""
    model = tiny("gpt2")
    forward = model.forward

    @functools.wraps(forward)
    def deaf(input_ids, attention_mask=None, position_ids=None, **more):
        return forward(input_ids, **more)

    monkeypatch.setattr(model, "forward", deaf)
    with pytest.raises(ValueError, match="step by step and at once its hidden states differ by"):
        HuggingFaceLanguageModel(model, tokenizer())


def test_something_else_than_a_model_is_refused():
    with pytest.raises(ValueError, match="must be a causal language model .* but str, given"):
        HuggingFaceLanguageModel("gpt2", tokenizer())
    with pytest.raises(
        ValueError, match="tokenizer must be one of transformers, .* got str, .*; load"
    ):
        HuggingFaceLanguageModel(tiny(), "gpt2")


class Wrapper(torch.nn.Module):
    """Takes any argument and has all members of the model that it wraps, as those of PEFT do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        found = self._modules.get(name)
        return getattr(self._modules["inner"], name) if found is None else found

    def forward(self, *inputs, **arguments):
        return self.inner(*inputs, **arguments)

    def generate(self, *inputs, **arguments):
        self.inner.generation_config = self.generation_config
        return self.inner.generate(*inputs, **arguments)


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [Wrapper, pytest.param(compiled, marks=pytest.mark.slow)])
def test_a_wrapped_model_writes_what_the_model_itself_writes(wrap):
    """GPT-2 needs the places of tokens, which no wrapper's signature tells."""
    model = tiny("gpt2")
    own, cold = model.generation_config, Fixed(Temperatures([0.0]))
    plain, lm = language_model("gpt2"), HuggingFaceLanguageModel(wrap(model), tokenizer())
    expected, found = (
        generate(any_, ["the fox", "an owl sees a dark wood"], cold, seeded(0), max_new_tokens=3)
        for any_ in (plain, lm)
    )
    assert torch.equal(found.token_ids, expected.token_ids)
    with deciding(lm, cold, seeded(0)) as wrapped:
        assert wrapped is lm.model
        written = wrapped.generate(torch.tensor(lm.encode(["the fox"])), max_new_tokens=3)
        with pytest.raises(ValueError, match="got top_k=5"):
            wrapped.generate(torch.tensor([[3]]), top_k=5)
        with pytest.raises(ValueError, match="one head at a time"), deciding(lm, cold, seeded(0)):
            pass
    n = int(expected.response_mask[0].sum())
    assert written[0, 2 : 2 + n].tolist() == expected.token_ids[0, :n].tolist()
    assert model.generation_config is own and "generate" not in vars(model)


def test_a_wrapper_that_changes_what_is_read_is_named():
    """Such as a learned prompt in front of each text: `generate` would write without it."""

    class Prompted(Wrapper):
        def forward(self, input_ids, **arguments):
            return self.inner((input_ids + 1) % V, **arguments)

    with pytest.raises(ValueError, match="but Prompted, given .*, and pass it without Prompted"):
        HuggingFaceLanguageModel(Prompted(tiny()), tokenizer())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_weights_are_taken_with_a_word_of_warning():
    model = tiny()
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    with pytest.warns(UserWarning, match="has quantised weights: .* differ by .* of their size"):
        lm = HuggingFaceLanguageModel(quantised, tokenizer())
    warm = Fixed(Temperatures([1.0]))
    assert len(generate(lm, ["the fox"], warm, seeded(0), n_samples=4).responses) == 4


def test_a_model_is_put_in_evaluation_mode_and_otherwise_left_as_it_was():
    model = tiny("gpt2").train().requires_grad_(True)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    lm = HuggingFaceLanguageModel(model, tokenizer())
    generate(lm, ["the fox"], Fixed(Temperatures([1.0])), seeded(0), max_new_tokens=4)
    assert not model.training
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) and weight.requires_grad
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_padding_beyond_what_a_model_can_read_is_said_in_words():
    """GPT-Neo has a mask of a fixed size; for a short prompt beside a long one it is too small."""
    lm = HuggingFaceLanguageModel(tiny("gpt_neo"), tokenizer(), max_length=64)
    lm.end_ids, long = (), "the fox sees an owl " * 12
    greedy = Fixed(Temperatures([0.0]))
    with pytest.raises(
        ValueError,
        match="read 1 texts of 65 tokens with padding, .* with half the max_length or less",
    ):
        generate(lm, ["the fox", long], greedy, seeded(0))
    lm.max_length = 32
    generate(lm, ["the fox", long[:100].strip()], greedy, seeded(0))


def test_gradients_go_through_what_is_read_again():
    model = tiny().requires_grad_(True)
    lm, mask = HuggingFaceLanguageModel(model, tokenizer()), torch.ones(1, 2, dtype=torch.bool)
    hidden_states, logits = lm.forward_responses([[3, 4]], torch.tensor([[5, 6]]), mask)
    (hidden_states.sum() + logits.sum()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_prompt_goes_into_the_chat_template_if_there_is_one():
    chat = tokenizer(chat=True)
    lm = HuggingFaceLanguageModel(tiny(), chat)
    assert chat.decode(lm.encode(["the fox"])[0]) == "[user] the fox <sep> [assistant]"
    lm = HuggingFaceLanguageModel(tiny(), chat, system="all is well .")
    texts = [chat.decode(token_ids) for token_ids in lm.encode(["the fox", "an owl sees"])]
    assert texts[0] == "[system] all is well . <sep> [user] the fox <sep> [assistant]"
    assert texts[1] == "[system] all is well . <sep> [user] an owl sees <sep> [assistant]"
    for plain in (HuggingFaceLanguageModel(tiny(), chat, chat=False), language_model()):
        assert plain.tokenizer.decode(plain.encode(["the fox"])[0]) == "the fox"


def test_a_template_gets_its_arguments_and_a_ready_made_prompt_is_left_as_it_is():
    chat = tokenizer(chat=True)
    chat.chat_template = "{{ '[system] ' if thinks }}[user] {{ messages[0].content }} [assistant]"
    for thinks, text in ((True, "[system] [user] the fox"), (False, "[user] the fox")):
        lm = HuggingFaceLanguageModel(tiny(), chat, template={"thinks": thinks})
        assert chat.decode(lm.encode(["the fox"])[0]) == text + " [assistant]"
    ready = "<sep> [user] the fox [assistant] <eos>"
    assert chat.decode(lm.encode([ready])[0]) == ready
    with pytest.raises(ValueError, match="the chat template must take .*leave system or template"):
        HuggingFaceLanguageModel(tiny(), chat, template={"messages": []})


def test_a_prompt_has_one_beginning_and_no_end_whatever_a_tokenizer_adds():
    plain, ended = tokenizer(), tokenizer()
    ended.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<sep> $A <eos>", special_tokens=[("<sep>", 3), ("<eos>", 1)]
    )
    ids = plain("the fox")["input_ids"]
    assert ended("the fox")["input_ids"] == [3, *ids, 1]
    lm = HuggingFaceLanguageModel(tiny(), ended)
    assert lm.encode(["the fox", "<sep> the fox"]) == [[3, *ids]] * 2


def test_a_token_that_the_tokenizer_lacks_is_left_out_of_the_text():
    class Strict:
        """As tokenizers written in Python are."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __call__(self, *inputs, **arguments):
            return self.inner(*inputs, **arguments)

        def decode(self, token_ids, **options):
            assert max(token_ids) < len(self.inner), "id out of range"
            return self.inner.decode(token_ids, **options)

    lm = HuggingFaceLanguageModel(tiny(), Strict(tokenizer()))
    fox = lm.encode(["fox"])[0]
    assert len(lm.tokenizer.inner) < V and lm.decode([*fox, V - 1, *fox]) == "fox fox"


def test_a_sentence_begins_after_a_mark_and_where_an_answer_does():
    chat = tokenizer(chat=True)
    ids = {piece: i for piece, i in chat.get_vocab().items()}
    marks = {ids["."], ids["!"], ids["?"]}
    assert set(language_model().sentence_starts) == marks
    assert set(HuggingFaceLanguageModel(tiny(), chat).sentence_starts) == marks | {
        ids["[assistant]"]
    }


def test_a_chat_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="with a chat template for chat=True, .* chat=True;"):
        HuggingFaceLanguageModel(tiny(), tokenizer(), chat=True)
    with pytest.raises(ValueError, match="with a chat template for .* chat=False;"):
        HuggingFaceLanguageModel(tiny(), tokenizer(chat=True), chat=False, system="all is well")
    strict = tokenizer(chat=True)
    strict.chat_template = "{{ raise_exception('no system please') }}"
    with pytest.raises(ValueError, match="the chat template must take .*no system please"):
        HuggingFaceLanguageModel(tiny(), strict, system="all is well")


def test_a_prompt_without_a_token_is_refused():
    with pytest.raises(ValueError, match="a prompt must have at least one token, got ''"):
        language_model().encode(["the fox", ""])


def test_several_tokens_may_end_a_response():
    model, words = tiny(), tokenizer()
    model.generation_config.eos_token_id = [5, 7]
    lm = HuggingFaceLanguageModel(model, words)
    assert lm.end_ids == (words.eos_token_id, 5, 7)
    rollout = generate(
        lm, ["the fox", "an owl"], Fixed(Temperatures([3.0])), seeded(0), n_samples=20
    )
    lengths = rollout.response_mask.sum(1)
    last = rollout.token_ids[torch.arange(40), lengths - 1]
    assert {5, 7} <= set(last.tolist()) and lengths.max() > 10
    before = rollout.response_mask & (torch.arange(lengths.max()) < lengths[:, None] - 1)
    assert not torch.isin(rollout.token_ids[before], torch.tensor(lm.end_ids)).any()


def test_no_token_at_all_may_end_a_response():
    model, words = tiny(), tokenizer()
    model.generation_config.eos_token_id = words.eos_token = None
    assert HuggingFaceLanguageModel(model, words).end_ids == ()


def test_the_longest_text_is_the_models_but_not_endless_and_can_be_set():
    assert language_model("gpt2").max_length == 64
    assert language_model("bloom").max_length == 512  # it has no limit of its own
    assert language_model("llama", max_position_embeddings=100_000).max_length == 512
    assert HuggingFaceLanguageModel(tiny(), tokenizer(), max_length=10).max_length == 10
    with pytest.raises(ValueError, match="max_length must be from 2 to .* 64, got 65"):
        HuggingFaceLanguageModel(tiny(), tokenizer(), max_length=65)
    with pytest.raises(ValueError, match="max_length must be from 2 to .* 64, got 1;"):
        HuggingFaceLanguageModel(tiny(), tokenizer(), max_length=1)


def test_special_tokens_are_no_part_of_a_response():
    lm = language_model()
    ids = lm.tokenizer.convert_tokens_to_ids
    assert lm.decode([ids("the"), ids("<sep>"), ids("fox"), ids("<eos>")]) == "the fox"
