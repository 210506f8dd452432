"""Lesson 2: temperature. Softmax, entropy, drawing."""

from collections.abc import Iterator

import torch

from minilpo.exercises.exercise import Case, Draw, Exercise, mistake


class TemperatureSoftmax(Exercise):
    """Turn logits into the probabilities of the next token at a temperature.

    `logits` has shape (..., V), `temperature` is one number, 0 or above. Divide the logits by the
    temperature and take the softmax over the last dimension. At temperature 0 nothing is divided:
    all probability goes to the largest logit (to the first, if several are equal). The result has
    the shape and the dtype of the logits.
    """

    name = "temperature_softmax"
    lesson = 2
    hints = (
        "Which dimension has to sum to 1? And what would dividing by 0 give?",
        "Treat temperature 0 first: `logits.argmax(-1)` finds the place of the largest logit.",
        "`torch.zeros_like(logits).scatter(-1, place[..., None], 1.0)` puts a 1 at that place. "
        "For other temperatures, `(logits / temperature).softmax(-1)`.",
    )
    explanation = (
        "Dividing by a small temperature pulls the logits apart, so the likeliest token gets "
        "more; a large one pushes them together. Temperature 0 is the limit, where the largest "
        "logit gets everything. A division by 0 would give infinities and NaN, so it is treated "
        "on its own."
    )
    follow_up = "let `temperature` be a tensor (...), one for each row, some of them 0."

    @staticmethod
    def right(logits, temperature):
        if temperature == 0:
            place = logits.argmax(-1, keepdim=True)
            return torch.zeros_like(logits).scatter(-1, place, 1.0)
        return (logits / temperature).softmax(-1)

    @mistake("the logits are multiplied by the temperature; divide them by it")
    def multiplied(logits, temperature):
        return (logits * temperature).softmax(-1)

    @mistake("the softmax runs over the first dimension; -1 is the last, the tokens")
    def first_dimension(logits, temperature):
        if temperature == 0:
            return TemperatureSoftmax.right(logits, temperature)
        return (logits / temperature).softmax(0)

    @mistake("the temperature plays no part")
    def without_temperature(logits, temperature):
        return logits.softmax(-1)

    @mistake("the numbers don't sum to 1; divide them by their sum")
    def not_normalised(logits, temperature):
        if temperature == 0:
            return TemperatureSoftmax.right(logits, temperature)
        return (logits / temperature).exp()

    @mistake("at temperature 0 something is divided by 0; treat it on its own")
    def zero_divided(logits, temperature):
        return (logits / temperature).softmax(-1)

    def cases(self, draw: Draw) -> Iterator[Case]:
        """Several shapes, every sign, large numbers, ties, both precisions."""
        yield torch.tensor([1.0, 3.0, 2.0]), 1.0
        yield torch.tensor([2.0, 2.0, -1.0]), 0.0  # the first of equals
        for shape in [(5,), (2, 7), (4, 3), (3, 1, 6)]:
            for temperature in (0.0, 0.3, 1.0, 2.5):
                yield draw.normal(*shape, scale=3.0), temperature
        yield draw.normal(3, 4, scale=100.0), 0.5
        yield draw.normal(3, 4).double(), 0.7
        yield draw.normal(3, 4).double(), 0.0


temperature_softmax = TemperatureSoftmax()
