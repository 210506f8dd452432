"""Small untrained runs to play with, and a server for them."""

import contextlib
import threading

from minilpo.config import ModelConfig
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.play.server import Server
from minilpo.play.table import Table
from minilpo.tasks import Task
from tests.conftest import CHOICES, head_of, seeded

MATH = "Mia has 7 apples. Then Tom buys 5 more. How many apples are left?"


class Own(Task):
    """Knows no prompt, as a user's task by default, and has only a few."""

    name = "own"

    def prompt(self, rng):
        return f"{rng.randrange(2, 20)} apples"

    def reward(self, prompt, response):
        return len(response) % 8 / 7


def table_of(level, tokenizer, tasks, kind=Table):
    """A table with a model and a head that know nothing, but aren't uniform."""
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 80}
    model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, **shape), seeded(0))
    lm = GPTLanguageModel(model.requires_grad_(False), tokenizer)
    return kind(lm, tasks, head_of(level), CHOICES, "mine")


@contextlib.contextmanager
def serving(table):
    """A server of a table, whose questions are answered in a thread of their own."""
    with Server(table) as server:
        worker = threading.Thread(target=server.answer_questions)
        worker.start()
        try:
            yield server
        finally:
            server.is_open = False
            worker.join()
