"""Inside `deciding`, `model.generate` draws from what the head decides, and from nothing else."""

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, pipeline

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.huggingface import HuggingFaceLanguageModel, deciding
from tests.conftest import head_of, seeded
from tests.huggingface.tiny import V, language_model, tiny, tokenizer

CHOICES = Temperatures([0.0, 0.7, 1.5], min_p=[0, 0, 0.1])
PROMPTS = ["the fox sees an owl", "dark wood"]
TEXTS = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)


@pytest.fixture
def lm():
    return language_model("gemma2", eos_token_id=None)


def inputs(lm):
    lm.tokenizer.padding_side, lm.tokenizer.pad_token = "left", "<eos>"
    return dict(lm.tokenizer(PROMPTS, return_tensors="pt", padding=True))


def fixed(lm, choices=CHOICES):
    return deciding(lm, Fixed(choices), seeded(0))


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("kind", [GreedyHead, SampledHead, MixedHead])
def test_every_token_is_drawn_from_exactly_what_the_policy_says(lm, kind, level):
    """Probabilities that `generate` draws from, against those made from each text read at once."""
    head, N, T, noise = head_of(level, 32, std=3.0), 4, 6, seeded(0)
    started, weights, told = [], [], []

    class Told(kind):
        def start(self, n_rows):
            started.append(n_rows)

        def choose(self, step):
            assert torch.equal(step.uniforms, torch.rand(2 * N, generator=noise))
            weights.append(super().choose(step))
            return weights[-1]

        def observe(self, step, token_ids):
            told.append((int(step.position), token_ids.tolist()))

    with deciding(lm, Told(head, CHOICES), seeded(0)) as model:
        options = dict(max_new_tokens=T, num_return_sequences=N, pad_token_id=1)
        out = model.generate(**inputs(lm), **options, **TEXTS)
    drawn = torch.stack(out.scores, 1).exp()  # (R, T, V)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(2 * N, T))
    written = out.sequences[:, -T:]
    assert started == [2 * N] and told == [(t, written[:, t].tolist()) for t in range(T - 1)]
    prompts = [prompt for prompt in lm.encode(PROMPTS) for _ in range(N)]
    h, logits = lm.forward_responses(prompts, written, torch.ones_like(written, dtype=torch.bool))
    h, logits = h.view(2 * N, T, -1), logits.view(2 * N, T, -1)
    assert len(weights) == (T if level == "token" else 1)
    for t in range(T):
        now = t if level == "token" else 0
        chosen, choice_probs = weights[now], head(h[:, now]).softmax(-1)
        if kind is GreedyHead:
            assert torch.equal(chosen, choice_probs.argmax(-1))
        if kind is MixedHead:
            torch.testing.assert_close(chosen, choice_probs, atol=1e-3, rtol=1e-3)
        probs = CHOICES.mixture if kind is MixedHead else CHOICES.probs
        expected = probs(logits[:, t], chosen, torch.tensor(t))
        torch.testing.assert_close(drawn[:, t], expected, atol=1e-3, rtol=1e-3)
    assert kind is MixedHead or level == "sequence" or len(torch.cat(weights).unique()) > 1


SILENTLY_WRONG = dict(temperature=0.7, top_k=50, top_p=0.9, min_p=0.1, typical_p=0.9)
SILENTLY_WRONG |= dict(do_sample=False, num_beams=2, repetition_penalty=1.1, min_new_tokens=2)
SILENTLY_WRONG |= dict(no_repeat_ngram_size=3, bad_words_ids=[[3]], guidance_scale=2.0)
SILENTLY_WRONG |= dict(prompt_lookup_num_tokens=2, penalty_alpha=0.6, assistant_model=object())
SILENTLY_WRONG |= dict(cache_implementation="static", custom_generate="someone/code")
SILENTLY_WRONG |= dict(prefix_allowed_tokens_fn=print, logits_processor=LogitsProcessorList())
SILENTLY_WRONG |= dict(inputs_embeds=torch.zeros(1, 2, 32))


def test_each_argument_that_would_be_silently_wrong_is_refused(lm):
    with fixed(lm) as model:
        for name, value in SILENTLY_WRONG.items():
            with pytest.raises(ValueError, match=f"leave the probabilities .*got {name}="):
                model.generate(**inputs(lm), max_new_tokens=2, **{name: value})
            if name in ("temperature", "top_p", "num_beams", "repetition_penalty"):
                config = GenerationConfig(**{"do_sample": True, name: value})
                with pytest.raises(ValueError, match=f"got {name}="):
                    model.generate(**inputs(lm), generation_config=config)


def test_an_argument_that_changes_nothing_may_be_given(lm):
    said = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_beams=1)
    config = GenerationConfig(max_new_tokens=2, pad_token_id=1)
    with fixed(lm) as model:
        for given in (said, {"temperature": None}, {"no_repeat_ngram_size": 0}):
            out = model.generate(**inputs(lm), generation_config=config, **given)
            assert out.shape == (2, 7)
        assert model.generate(inputs(lm)["input_ids"], config).shape == (2, 7)


def test_the_models_own_sampling_settings_are_put_aside_and_come_back():
    own = GenerationConfig(do_sample=True, temperature=0.1, top_k=3, repetition_penalty=5.0)
    own.eos_token_id, own.pad_token_id, own.max_new_tokens = [7, 9], 1, 5
    model = tiny("gemma2")
    model.generation_config = own
    lm = HuggingFaceLanguageModel(model, tokenizer())
    with fixed(lm, Temperatures([100.0])):
        assert model.generation_config.eos_token_id == [1, 7, 9]  # and the tokenizer's
        out = model.generate(**inputs(lm), **TEXTS)
    assert out.sequences.shape[1] <= 5 + 5
    for scores in out.scores:
        torch.testing.assert_close(scores.exp(), torch.full((2, V), 1 / V), atol=1e-3, rtol=1e-3)
    assert model.generation_config is own and "generate" not in vars(model)
    assert not lm.un_embedding._forward_pre_hooks
    hot = model.generate(**inputs(lm), **TEXTS).scores[0]
    assert (hot > -1e9).sum(-1).tolist() == [3, 3]  # its top_k again


def test_a_pipeline_writes_by_the_head_or_hears_how_it_could(lm):
    write = pipeline("text-generation", model=lm.model, tokenizer=lm.tokenizer)
    cold = Temperatures([0.0])
    [expected] = generate(lm, PROMPTS[:1], Fixed(cold), seeded(0), max_new_tokens=4).responses
    options = dict(max_new_tokens=4, return_full_text=False)
    with fixed(lm, cold):
        [written] = write(PROMPTS[0], temperature=1.0, **options)
        with pytest.raises(ValueError, match="got temperature=0.7; .*a pipeline.* temperature=1.0"):
            write(PROMPTS[0], temperature=0.7, **options)
    assert written["generated_text"].split() == expected.split()


def test_logits_that_are_no_numbers_end_in_the_words_of_our_own_loop(lm):
    lm.model.get_input_embeddings().weight[5] = torch.nan
    message = "the language model's logits must be finite, got NaN"
    with fixed(lm) as model, pytest.raises(ValueError, match=message):
        model.generate(torch.tensor([[3, 5]]), max_new_tokens=4)


def test_the_head_must_fit_and_everything_is_as_before_after_an_error_too(lm):
    before = lm.model.generation_config
    narrow = deciding(lm, GreedyHead(AdaptiveDecoder(16, len(CHOICES)), CHOICES), seeded(0))
    with pytest.raises(ValueError, match="as wide as .*, 32, got one for 16"), narrow:
        pass
    with pytest.raises(RuntimeError), fixed(lm):
        raise RuntimeError
    assert lm.model.generation_config is before and "generate" not in vars(lm.model)
