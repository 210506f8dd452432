"""Makes a run folder: its tokenizer and its corpus, after all checks that need no training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from minilpo.config import RunConfig
from minilpo.evaluation.measure import prompts_to_measure
from minilpo.evaluation.rehearse import rehearse
from minilpo.lm.pretraining import Corpus, Example, encode_examples
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.files import RECORD, Record, digest_of
from minilpo.rivals.controls import ALL_TASKS
from minilpo.run.folder import PUT_BACK, Run, chosen_settings, first_difference
from minilpo.seeds import python_rng
from minilpo.tasks import corpus, load_tasks, mixed_demonstrations
from minilpo.training import draw_prompts

HELD_OUT = 256  # demonstrations of the validation split on which pretraining is measured
STUMPS = {f".{name}.partial" for name in ("config.json", "tokenizer.json", "record.json", "trial")}
SECTIONS = ("model", "pretrain", "lpo", "evaluation")


def create_run(path: Path, config: RunConfig, compare: Sequence[str] = SECTIONS) -> Run:
    """Makes a run folder, after all checks, or opens one with the same settings.

    `compare` names the sections of settings that must be the same, and that have to be possible.
    Raises ValueError if the folder holds something else, or the settings ask too much of the tasks.
    """
    files = [name for name in config.tasks if name.endswith(".py") and Path(name).is_file()]
    config = replace(config, digests={name: digest_of(Path(name)) for name in files})
    if (path / "config.json").exists() or (path / RECORD).exists():
        run = Run.open(path, config.tasks)
        old, asked = (chosen_settings(c, compare) for c in (run.config, config))
        if difference := first_difference(old, asked):
            raise ValueError(
                f"{path} holds a run with other settings ({difference}); choose another folder"
            )
        return run
    if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= STUMPS):
        raise ValueError(
            f"{path} must be a new or empty folder, or one with a run of the same settings; "
            "choose another"
        )
    run = Run(path, config, load_tasks(config.tasks, ALL_TASKS), Record(path, PUT_BACK))
    prompts = prompts_of(run, compare)
    if files:  # somebody's own task fails now, not after all the work
        rehearse(run.tasks, run.choices, config.level)
    tokenizer = train_tokenizer(run)
    run.config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
    rng = python_rng(config.seed, "unseen words")
    unseen = mixed_demonstrations(run.tasks, 200 * len(run.tasks), "test", rng)
    check_prompts(run, tokenizer, prompts + [prompt for prompt, _ in unseen])
    corpus_of(run, tokenizer)  # says if a demonstration is too long
    path.mkdir(parents=True, exist_ok=True)
    run.commit({"tokenizer": (None, {"tokenizer.json": tokenizer.to_bytes()})})
    return run


def prompts_of(run: Run, sections: Sequence[str]) -> list[str]:
    """Draws the prompts of LPO ("lpo") and of the measuring ("evaluation") beforehand.

    Raises ValueError with the flag to change if a task offers too few.
    """
    config, seed = run.config, run.config.seed
    prompts: list[str] = []
    if "lpo" in sections:
        rounds, held_out = draw_prompts(run.tasks, replace(config.lpo, rounds=1), seed)
        prompts += [prompt.text for prompt in (*rounds[0], *held_out)]
    if "evaluation" in sections:
        for split in ("train", "test", "ood"):
            prompts += prompts_to_measure(run.tasks, split, config.evaluation, seed).texts
    return prompts


def check_prompts(run: Run, tokenizer: Tokenizer, prompts: list[str]) -> None:
    """Raises a ValueError if a prompt has an unknown word, or doesn't fit into the model."""
    # Two more: its end mark and one token of a response.
    longest = max(map(len, tokenizer.encode_batch(prompts)), default=0) + 2
    if longest > run.config.model.block_size:
        raise ValueError(
            f"--block-size must be at least {longest}, the longest prompt with room for an "
            f"answer, got {run.config.model.block_size}; "
            "the language model can't be changed later, so make a new run folder"
        )


def train_tokenizer(run: Run) -> Tokenizer:
    """Makes the tokenizer: the same tasks make the same one."""
    return Tokenizer.train(text for block in _blocks(run) for pair in block for text in pair)


def _blocks(run: Run) -> Iterator[list[tuple[str, str]]]:
    rng = python_rng(run.config.seed, "demonstrations")
    return corpus(run.tasks, run.config.pretrain.demonstrations, "train", rng)


def corpus_of(run: Run, tokenizer: Tokenizer) -> Corpus:
    """Makes the demonstrations for training and for measuring; the run keeps them.

    Raises ValueError if one is too long for the model.
    """
    if run.corpus is None:
        examples: list[Example] = []
        for block in _blocks(run):
            examples += encode_examples(tokenizer, block)
        rng = python_rng(run.config.seed, "held-out demonstrations")
        unseen = mixed_demonstrations(run.tasks, HELD_OUT, "validation", rng)
        held_out = encode_examples(tokenizer, unseen)
        longest = max(len(token_ids) for token_ids, _ in [*examples, *held_out])
        if longest > run.config.model.block_size:
            raise ValueError(
                f"--block-size must be at least {longest}, the longest demonstration with its "
                f"prompt, got {run.config.model.block_size}"
            )
        run.corpus = Corpus(examples, held_out, tokenizer.pad_id)
    return run.corpus


def pretraining_prompts(run: Run) -> set[str]:
    """Returns every prompt that the language model has learned to answer."""
    return {prompt for block in _blocks(run) for prompt, _ in block}
