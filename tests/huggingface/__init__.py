"""No test here downloads anything: models are tiny and random, tokenizers made in memory."""

import pytest

pytest.importorskip("transformers", reason='needs pip install "minilpo[huggingface]"')
