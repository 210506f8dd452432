"""LPO: `train_lpo` teaches the head which temperature to choose. The method is its loop, `collect_pairs` and `fit`."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.losses import choice_scores, latent_scores, marginal_scores, nll_loss, preference_loss
from minilpo.model import GPT
from minilpo.preferences import PreferencePairs, all_pairs, best_worst_pairs, constrained_pairs, top_bottom_pairs
from minilpo.rollout import Rollout, concatenate, generate, score, unpack, with_choice_logprobs
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Task, mixed_prompts, parts_of
from minilpo.tokenizer import Tokenizer
from minilpo.word_scores import WordScores

VALIDATION_SAMPLES = 4  # responses to a held-out prompt, after every round
PROMPTS_AT_ONCE = 128  # whose responses are sampled and scored before only those in pairs are kept
NEEDS_CHOICE_LOGPROBS = ("eq11", "eq11_marginal")


def train_lpo(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    config: LPOConfig,
    seed: int,
    *,
    constant_head: AdaptiveDecoder | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any], dict[str, float]], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains the head by Latent Preference Optimization, in place.

    A round samples responses with temperatures drawn from the head, prefers the better to the worse, and fits the head to
    these preferences. Of the heads after each round, the one that does best on held-out prompts is kept. The language model
    stays as it is, unless `config.train_lm` asks for the joint training of Eq. 9.

    Args:
        model: frozen, and only run to sample; with `train_lm`, changed in place too.
        tokenizer: the model's.
        tasks: drawn from equally often, on prompts of the train split.
        head: changed in place.
        config: rounds, samples, loss, pairs and the rest.
        seed: of the prompts, the sampling and the order of the pairs.
        constant_head: a control, changed in place: it is fitted to the pairs of the first round only, when both heads are
            uniform and would have drawn the same responses.
        state: what `save` was given by an interrupted training, to go on from there; the result is the same to the bit.
        save: called after every round with all that is needed to go on, and the seconds spent on rollouts and on the loss.
        progress: called with the number of responses written, batch by batch.

    Returns:
        A log with an entry for every round: rewards, how many pairs were formed and how many prompts were dropped, which
        temperatures were chosen and rejected, and for each epoch the loss, the margin, the share of pairs with a positive
        margin and the entropy of the head in nats.

    Raises:
        ValueError: if no prompt of a round gives a pair, or the training diverges (see `fit`).
    """
    words = WordScores(model, tokenizer, config.reduce) if config.train_lm else None
    trained = {"head": head, **({"model": model.requires_grad_(True)} if config.train_lm else {})}
    optimizer = _optimizer(trained, config)
    log: list[dict[str, Any]] = []
    best: dict[str, Any] = {"validation_reward": -math.inf}
    if state is not None:
        for name, module in trained.items():
            module.load_state_dict(state[name])
        if constant_head is not None:
            constant_head.load_state_dict(state["constant_head"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]})
        log, best = state["log"], state["best"]
    validation = mixed_prompts(tasks, config.validation_prompts, "validation", python_rng(seed, "validation prompts"))

    for round in range(len(log), config.rounds):
        generator = torch_generator(seed, f"LPO round {round}")
        prompts = mixed_prompts(tasks, -(-config.prompts // len(tasks)), "train", python_rng(seed, f"LPO prompts {round}"))
        started = time.perf_counter()
        rollout, pairs, entry = collect_pairs(model, tokenizer, *prompts, head, config, generator, progress)
        sampled = time.perf_counter()
        epochs = fit(head, optimizer, rollout, pairs, config, generator, words)
        if constant_head is not None and round == 0:
            fit(constant_head, _optimizer({"head": constant_head}, config), rollout, pairs, config, generator)
        fitted = time.perf_counter()
        reward = validation_reward(model, tokenizer, head, *validation, torch_generator(seed, "validation"), progress)
        log.append({"round": round + 1, **entry, "validation_reward": reward, "epochs": epochs})
        state = {name: copy.deepcopy(module.state_dict()) for name, module in trained.items()}
        if reward > best["validation_reward"]:
            best = {"validation_reward": reward, "round": round + 1, **state}
        if save:
            state |= {"optimizer": optimizer.state_dict()["state"], "log": log, "best": best}
            state |= {"constant_head": constant_head.state_dict()} if constant_head is not None else {}
            save(state, {"lpo": fitted - sampled, "rollout": sampled - started + time.perf_counter() - fitted})
    for name, module in trained.items():
        module.load_state_dict(best[name])
    return log


def collect_pairs(
    model: GPT,
    tokenizer: Tokenizer,
    task_of: Sequence[Task],
    prompts: Sequence[str],
    head: AdaptiveDecoder,
    config: LPOConfig,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> tuple[Rollout, PreferencePairs, dict[str, Any]]:
    """Samples responses with the head, scores them and forms pairs. Only what is in a pair is kept, so memory stays small.

    Returns:
        The responses that are in a pair, the pairs as rows of these, and what is logged of them.

    Raises:
        ValueError: if no prompt gives a pair.
    """
    kept, chosen, rejected, rewards = [], [], [], []
    n_kept = n_dropped = 0
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = slice(start, start + PROMPTS_AT_ONCE)
        rollout = generate(
            model,
            tokenizer,
            prompts[part],
            head,
            generator,
            n_samples=config.samples,
            selection="sample",
            progress=progress,
        )
        rewards.append(score(rollout, task_of[part]))
        pairs = form_pairs(rollout, rewards[-1], task_of[part], config, generator)
        used, row = torch.cat([pairs.chosen, pairs.rejected]).unique(return_inverse=True)
        if len(used):
            kept.append(rollout.rows(used))
            chosen.append(n_kept + row[: len(pairs.chosen)])
            rejected.append(n_kept + row[len(pairs.chosen) :])
        n_kept, n_dropped = n_kept + len(used), n_dropped + pairs.n_dropped
    if not kept:
        _check_language_model(rollout.hidden_states, *model.parameters())  # a broken one writes the same to everybody
        raise ValueError(
            f"at least one of {len(prompts)} prompts must have responses of different reward, got none; "
            "draw more --samples or --prompts, allow --temperatures further apart, or check that the task's reward can vary"
        )
    pairs = PreferencePairs(torch.cat(chosen), torch.cat(rejected), n_dropped)
    rollout = concatenate(kept)
    if config.loss in NEEDS_CHOICE_LOGPROBS:
        rollout = with_choice_logprobs(model, tokenizer, rollout)
    name_of = {prompt: task.name for task, prompt in zip(task_of, prompts, strict=True)}
    shares = {name: dict.fromkeys(name_of.values()) for name in ("chosen_share", "rejected_share")}
    for kind, rows in (("chosen_share", pairs.chosen), ("rejected_share", pairs.rejected)):
        of_row = [name_of[rollout.prompts[row]] for row in rows.tolist()]
        for task in shares[kind]:
            own = torch.tensor([name == task for name in of_row], dtype=torch.bool)
            shares[kind][task] = share_of_choices(rollout, rows[own])
    entry = {
        "sampled_reward": torch.cat(rewards).mean().item(),
        "pairs": len(pairs.chosen),
        "dropped_prompts": n_dropped,
        **shares,
    }
    return rollout, pairs, entry


def form_pairs(
    rollout: Rollout, rewards: Tensor, task_of: Sequence[Task], config: LPOConfig, generator: torch.Generator
) -> PreferencePairs:
    """Pairs by the rule that `config.pairs` names; a task without a constraint has best/worst pairs for "constrained"."""
    if config.pairs == "best_worst":
        return best_worst_pairs(rewards, generator)
    if config.pairs == "top_bottom":
        return top_bottom_pairs(rewards, config.pairs_per_prompt, generator)
    if config.pairs == "all":
        return all_pairs(rewards)
    quality, constraint = rewards.clone(), rewards.clone()
    for p, task in enumerate(task_of):
        if hasattr(task, "constraint"):
            for n in range(rollout.n_samples):
                parts = parts_of(task, rollout.prompts[p], rollout.responses[p * rollout.n_samples + n])
                quality[p, n], constraint[p, n] = parts[task.quality], parts[task.constraint]
    return constrained_pairs(quality, constraint, generator)


def share_of_choices(rollout: Rollout, rows: Tensor) -> list[float]:
    """The share of each temperature among the decisions behind some responses (the paper's Fig. 7); zeros if there are none."""
    counts = torch.bincount(
        rollout.temperature_ids[rows][rollout.decision_mask[rows]], minlength=len(rollout.temperature_choices)
    )
    return (counts / counts.sum().clamp(min=1)).tolist()


def fit(
    head: AdaptiveDecoder,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    pairs: PreferencePairs,
    config: LPOConfig,
    generator: torch.Generator,
    words: WordScores | None = None,
) -> list[dict[str, float]]:
    """The LPO step, over and over: `config.epochs` passes over the pairs, in random order.

    Args:
        head: changed in place.
        optimizer: of the head, and with `words` of the language model too.
        rollout: the responses that are in a pair.
        pairs: rows of it.
        config: the loss, the number of epochs and the rest.
        generator: draws the order of the pairs.
        words: trains the language model too, by Eq. 9.

    Returns:
        A log of the epochs, see `describe_fit`.

    Raises:
        ValueError: as soon as a loss isn't finite, or a weight after an epoch; it names the flags to change.
    """
    epochs = []
    for epoch in range(config.epochs):
        for batch in torch.randperm(len(pairs.chosen), generator=generator).split(config.pairs_per_batch):
            chosen = response_scores(head, rollout.rows(pairs.chosen[batch]), config, words)
            rejected = response_scores(head, rollout.rows(pairs.rejected[batch]), config, words)
            nll = config.loss == "nll"
            losses = nll_loss(chosen) if nll else preference_loss(chosen, rejected, config.beta)  # (B,)
            loss = losses.mean()
            if not math.isfinite(loss.item()):
                raise _diverged("loss", epoch, rollout, config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epochs.append(describe_fit(head, rollout, pairs, config, words))
        weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not all(map(math.isfinite, epochs[-1].values())) or not _all_finite(weights):
            raise _diverged("loss or weights", epoch, rollout, config)
    return epochs


def response_scores(head: AdaptiveDecoder, rollout: Rollout, config: LPOConfig, words: WordScores | None = None) -> Tensor:
    """The score of every response of a rollout under the loss that `config` names, (R,).

    The head reads the stored hidden states: the transformer isn't run, unless it is trained too (`words`).
    """
    options = _score_options(config)
    if words is not None:
        return words.joint_scores(head, rollout, options)[0]
    if config.loss in NEEDS_CHOICE_LOGPROBS and rollout.choice_logprobs is None:
        raise ValueError(f"loss {config.loss} must have a rollout with choice_logprobs, got none; call `with_choice_logprobs`")
    temperature_logits = unpack(head(rollout.hidden_states), rollout.decision_mask)  # (R, S, K)
    if config.loss == "eq11":
        return latent_scores(temperature_logits, rollout.choice_logprobs, rollout.response_mask, **options)
    if config.loss == "eq11_marginal":
        del options["reduce"]  # one temperature a response: there are no steps to take the mean of
        return marginal_scores(temperature_logits, rollout.choice_logprobs, rollout.response_mask, **options)
    # Eq. 9 with a frozen language model is Eq. 10.
    return choice_scores(temperature_logits, rollout.temperature_ids, rollout.decision_mask, **options)


def _score_options(config: LPOConfig) -> dict[str, Any]:
    reference = config.reference == "uniform" and config.loss != "nll"  # which compares nothing
    return {"reduce": config.reduce, "uniform_reference": reference}


@torch.no_grad()
def describe_fit(
    head: AdaptiveDecoder, rollout: Rollout, pairs: PreferencePairs, config: LPOConfig, words: WordScores | None = None
) -> dict[str, float]:
    """How well the head fits the pairs: mean loss and margin, share of positive margins, and the head's mean entropy.

    With `words`, the language model is trained too: the loss is the joint one of Eq. 9, and the head reads the model as it is.
    """
    parts = torch.arange(len(rollout.responses)).split(256)
    if words is None:
        scores = torch.cat([response_scores(head, rollout.rows(rows), config) for rows in parts])  # (R,)
        entropies = [entropy(head(part)) for part in rollout.hidden_states.split(8192)]
    else:
        read = [words.joint_scores(head, rollout.rows(rows), _score_options(config)) for rows in parts]
        scores = torch.cat([scores for scores, _ in read])
        entropies = [entropy(temperature_logits) for _, temperature_logits in read]
    chosen, rejected = scores[pairs.chosen], scores[pairs.rejected]
    margin = chosen - rejected
    losses = nll_loss(chosen) if config.loss == "nll" else preference_loss(chosen, rejected, config.beta)
    differs = margin != 0  # with the same temperatures on both sides there is nothing to be right about
    return {
        "loss": losses.mean().item(),
        "margin": margin.mean().item(),
        "pair_accuracy": (margin[differs] > 0).float().mean().item() if differs.any() else 0.5,
        "entropy": torch.cat(entropies).mean().item(),
    }


def entropy(logits: Tensor) -> Tensor:
    """In nats: (..., K) logits to (...)."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def validation_reward(
    model: GPT,
    tokenizer: Tokenizer,
    head: AdaptiveDecoder,
    task_of: Sequence[Task],
    prompts: Sequence[str],
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Mean reward of `VALIDATION_SAMPLES` responses to each held-out prompt, with the head's most likely temperatures."""
    rollout = generate(model, tokenizer, prompts, head, generator, n_samples=VALIDATION_SAMPLES, progress=progress)
    return score(rollout, task_of).mean().item()


def _optimizer(trained: dict[str, nn.Module], config: LPOConfig) -> torch.optim.Optimizer:
    rates = {"head": config.head_learning_rate, "model": config.lm_learning_rate}
    return torch.optim.Adam([{"params": list(module.parameters()), "lr": rates[name]} for name, module in trained.items()])


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _check_language_model(*tensors: Tensor) -> None:
    """More samples or a lower --head-learning-rate won't help if the language model itself is broken: says so."""
    if not _all_finite(tensors):
        raise ValueError(
            "the language model's weights and hidden states must be finite, got NaN or infinity; "
            "pretrain another one in a new run, with a lower --learning-rate if it was this training that diverged"
        )


def _diverged(what: str, epoch: int, rollout: Rollout, config: LPOConfig) -> ValueError:
    """The error of a training that has left the finite numbers: when, and which flags to lower."""
    _check_language_model(rollout.hidden_states)
    flags = ["head_learning_rate"] + ["lm_learning_rate"] * config.train_lm + ["beta"] * (config.loss != "nll")
    lower = " or ".join(f"--{flag.replace('_', '-')} (now {getattr(config, flag):g})" for flag in flags)
    return ValueError(
        f"the {what} must stay finite, got NaN or infinity in epoch {epoch + 1} of {config.epochs} of LPO; lower {lower}"
    )
