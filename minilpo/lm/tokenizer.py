"""One token per word, number or punctuation mark, learned from the corpus with `tokenizers`."""

import difflib
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PAD, SEP, EOS = "<pad>", "<sep>", "<eos>"
PART = 500  # texts encoded together: the library's encodings take far more memory than the ids


class Tokenizer:
    """Text to token ids and back, without loss.

    A space belongs to the word after it, and each text gets one in front, so "fox" is one token
    wherever it stands.

    >>> tokenizer = Tokenizer.train(["The fox sees 7 owls.", "Is it 12?"])
    >>> token_ids = tokenizer.encode("The fox sees 12 owls.")
    >>> len(token_ids), tokenizer.decode(token_ids)
    (6, 'The fox sees 12 owls.')
    >>> tokenizer.encode("The cat sees 12 owls.")
    Traceback (most recent call last):
    ValueError: every word must be one the model was trained on, got 'cat'; use words of the tasks
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        # "<eos>" in a text is three pieces of text, not the end.
        backend.encode_special_tokens = True
        self.pad_id, self.sep_id, self.eos_id = self.ids_of([PAD, SEP, EOS])

    @property
    def vocab_size(self) -> int:
        """Counts the tokens, V."""
        return self._backend.get_vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str]) -> "Tokenizer":
        """Makes a token of every word in the texts; the same texts give the same ids."""
        backend = tokenizers.Tokenizer(models.WordLevel(unk_token=None))
        backend.normalizer = normalizers.Prepend(" ")
        backend.pre_tokenizer = pre_tokenizers.Split(
            tokenizers.Regex(r" ?\w+| ?[^\w\s]+|\s+"), behavior="isolated"
        )
        backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        special = [PAD, SEP, EOS]
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        """Encodes a text; raises ValueError that names the first unknown word."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Encodes many texts at once."""
        token_ids = []
        try:
            for start in range(0, len(texts), PART):
                encodings = self._backend.encode_batch_fast(texts[start : start + PART])
                token_ids += [encoding.ids for encoding in encodings]
            return token_ids
        except Exception:  # the library raises a bare Exception, without the word
            unknown = next(piece for text in texts for piece in self._unknown_pieces(text))
            word = unknown.strip() or unknown
            special = {PAD, SEP, EOS, ""}
            known = {piece.strip() for piece in self._backend.get_vocab()} - special
            similar = ", ".join(map(repr, difflib.get_close_matches(word, sorted(known), n=3)))
            remedy = f"near it are {similar}; " if similar else ""
            remedy += "use words of the tasks"
            if word in known:  # a space belongs to the word after it
                has_space = unknown.startswith(" ")
                remedy = f"{'leave out the' if has_space else 'put a'} space before it"
            raise ValueError(
                f"every word must be one the model was trained on, got {word!r}; {remedy}"
            ) from None

    def decode(self, token_ids: list[int]) -> str:
        """Returns the text of token ids; a special token in their midst is shown by its name."""
        return self._backend.decode(token_ids, skip_special_tokens=False)

    def pieces(self, token_ids: list[int]) -> list[str]:
        """Returns each token's text with its leading space: joined, the text after a space."""
        return [self._backend.id_to_token(token_id) or "" for token_id in token_ids]

    def ids_of(self, pieces: Iterable[str]) -> list[int]:
        """Finds the ids of tokens by their text, space included; unknown ones are left out."""
        token_ids = map(self._backend.token_to_id, pieces)
        return [token_id for token_id in token_ids if token_id is not None]

    def _unknown_pieces(self, text: str) -> list[str]:
        id_of = self._backend.token_to_id
        pieces = [piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(" " + text)]
        return [piece for piece in pieces if id_of(piece) is None]

    def to_bytes(self) -> bytes:
        """Returns the tokenizer as JSON: the same for the same tokens."""
        return self._backend.to_str(pretty=True).encode()

    @classmethod
    def of_bytes(cls, data: bytes) -> "Tokenizer":
        """Reads `to_bytes` back."""
        return cls(tokenizers.Tokenizer.from_buffer(data))
