"""minilpo: a tiny language model learns which temperature to use, and when.

The method is read first, in this order:

    adaptive_decoder   the head, and what it decided
    losses             the scores of responses, and the losses on pairs of them
    preferences        rewards to pairs
    lpo                the training, on one page

and around it:

    training           around that page: prompts, pairs, the log, the state that is saved
    constant_control   a head that sees nothing, for comparison
    tasks/             prompts, demonstrations and rewards
    lm/                the language model
    decoding/          from prompts to responses and their rewards
    evaluation/        what a head is worth
    rivals/            what LPO is compared with: learning without pairs, Eq. 9, rules, theory
    huggingface/       the same for any causal language model of Hugging Face
    show/              tables, figures, coloured text
    run/               the run folder, the steps that fill it, several processes
    experiments/       the paper's tables and figures in miniature
    exercises/         what learners write, and how it is checked
    course/            the lessons: copying them, their language model, grading
    play/              a page to play with a run
    doctor             checks an installation and times the machine
    machine/           files, threads, progress bars, signals, devices
    setting            one choice as it is typed: a temperature, perhaps with rules
    config, seeds      settings; where randomness comes from
    flags, cli         the command line

The names below can be had from `minilpo` itself: `from minilpo import AdaptiveDecoder, train_lpo`.
PyTorch isn't imported before one of them is used.

Source of the method: Dhuliawala et al., "Adaptive Decoding via Latent Preference Optimization",
arXiv 2411.09661.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # the same for type checkers and editors
    from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions  # noqa: F401
    from minilpo.config import EvaluationConfig, LPOConfig, ModelConfig, PretrainConfig, RunConfig  # noqa: F401
    from minilpo.decoding.choices import Choices, FirstTokens, Temperatures  # noqa: F401
    from minilpo.decoding.generate import generate  # noqa: F401
    from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, MixedHead, Policy, SampledHead  # noqa: F401
    from minilpo.decoding.rollout import Rollout, score  # noqa: F401
    from minilpo.evaluation.evaluate import evaluate  # noqa: F401
    from minilpo.lm.language_model import GPTLanguageModel, LanguageModel  # noqa: F401
    from minilpo.lm.model import GPT  # noqa: F401
    from minilpo.lm.pretraining import pretrain  # noqa: F401
    from minilpo.lm.tokenizer import Tokenizer  # noqa: F401
    from minilpo.lpo import fit, train_lpo  # noqa: F401
    from minilpo.run.folder import Run  # noqa: F401
    from minilpo.seeds import python_rng, torch_generator  # noqa: F401
    from minilpo.tasks import Task, load_tasks  # noqa: F401

_MODULE_OF = {
    "adaptive_decoder": ("AdaptiveDecoder", "ConstantHead", "Decisions"),
    "config": ("EvaluationConfig", "LPOConfig", "ModelConfig", "PretrainConfig", "RunConfig"),
    "decoding.choices": ("Choices", "FirstTokens", "Temperatures"),
    "decoding.generate": ("generate",),
    "decoding.policies": ("ByPlace", "Fixed", "GreedyHead", "MixedHead", "Policy", "SampledHead"),
    "decoding.rollout": ("Rollout", "score"),
    "evaluation.evaluate": ("evaluate",),
    "lm.language_model": ("GPTLanguageModel", "LanguageModel"),
    "lm.model": ("GPT",),
    "lm.pretraining": ("pretrain",),
    "lm.tokenizer": ("Tokenizer",),
    "lpo": ("fit", "train_lpo"),
    "run.folder": ("Run",),
    "seeds": ("python_rng", "torch_generator"),
    "tasks": ("Task", "load_tasks"),
}
_HOME = {name: module for module, names in _MODULE_OF.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minilpo' has no attribute {name!r}")
    return getattr(import_module(f"minilpo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
