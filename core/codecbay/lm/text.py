"""Text in: tokenizers of the lookup-table conditioner, and the T5 encoder of the transformers library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codecbay.errors import MissingDependencyError, UnresolvedReferenceError
from codecbay.imports import harmless_torchaudio

Tokenized = tuple[Tensor, Tensor]
Words = Callable[[str], list[str]]

_PUNCTUATION = "?:!.,;"


def word_index(word: str, num_bins: int) -> int:
    """The row of a lookup table that a word falls on, by hashing."""
    return int(hashlib.sha256(word.encode()).hexdigest(), 16) % num_bins


def length_mask(lengths: Sequence[int]) -> Tensor:
    """1 where a step is within its sequence, ``[B, T]``; at least one step wide."""
    widest = max([1, *lengths])
    return (torch.arange(widest)[None] < torch.tensor(lengths)[:, None]).int()


class NoopTokenizer:
    """One token for a whole text, such as the name of a genre."""

    def __init__(self, num_bins: int, pad: int = 0) -> None:
        self.num_bins = num_bins
        self.pad = pad

    def __call__(self, texts: Sequence[str | None]) -> Tokenized:
        """Tokens ``[B, 1]`` and a mask ``[B, 1]`` that is 0 where there is no text."""
        tokens = [self.pad if text is None else word_index(text, self.num_bins) for text in texts]
        return torch.tensor(tokens)[:, None], length_mask([text is not None for text in texts])


class WordTokenizer:
    """One token for each word.

    Args:
        num_bins: rows of the lookup table.
        pad: stands where there is no text.
        words: splits a text into words.
    """

    def __init__(self, num_bins: int, pad: int = 0, words: Words = str.split) -> None:
        self.num_bins = num_bins
        self.pad = pad
        self.words = words

    def __call__(self, texts: Sequence[str | None]) -> Tokenized:
        """Tokens ``[B, T]`` and a mask ``[B, T]``."""
        split = [None if text is None else self.words(text) for text in texts]
        rows = [
            torch.tensor([self.pad] if words is None else [word_index(w, self.num_bins) for w in words]).long()
            for words in split
        ]
        mask = length_mask([len(words or ()) for words in split])
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        if tokens.shape[1] < mask.shape[1]:  # texts of nothing but stop words
            tokens = tokens.new_full(mask.shape, self.pad)
        return tokens, mask


def spacy_words(*, what: str) -> Words:
    """Lemmas of the words that carry meaning, by spaCy's small English model, as AudioCraft splits texts.

    Args:
        what: needs it, for the message.

    Raises:
        MissingDependencyError: spaCy, its model, or num2words is not installed.
    """
    try:
        import spacy
        from num2words import num2words

        nlp = spacy.load("en_core_web_sm")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"{what} splits texts with spaCy, which cannot be used here ({error}). "
            "Install it: pip install spacy num2words && python -m spacy download en_core_web_sm"
        ) from error

    def words(text: str) -> list[str]:
        text = re.sub(r"(\d+)", lambda found: num2words(int(found.group(0))), text)
        tokens = [token for token in nlp(text) if not token.is_stop]
        return [token.lemma_ for token in tokens if token.text not in _PUNCTUATION]

    return words


def load_t5(path: str, *, weights: bool = True) -> tuple[Any, Any]:
    """The tokenizer and the encoder of a T5 model.

    Args:
        path: a directory that holds it.
        weights: load them; otherwise the encoder is built on the meta device.

    Raises:
        UnresolvedReferenceError: it cannot be loaded, or lacks weights.
    """
    with harmless_torchaudio():  # transformers imports it, for models that T5 is not
        return _load_t5(path, weights)


def _load_t5(path: str, weights: bool) -> tuple[Any, Any]:
    import transformers
    from transformers import AutoConfig, AutoTokenizer, T5EncoderModel
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Without a word on remote code, transformers would ask on the terminal whether to run a directory's own.
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(path, **options)
        if config.model_type not in ("t5", "mt5"):
            raise UnresolvedReferenceError(
                f"The text encoder '{path}' is a model of type '{config.model_type}', expected t5."
            )
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        if not weights:
            with torch.device("meta"):
                return tokenizer, T5EncoderModel(config)
        loaded: Any = T5EncoderModel.from_pretrained(
            path, config=config, output_loading_info=True, dtype=torch.float32, **options
        )
    except UnresolvedReferenceError:
        raise
    except Exception as error:  # transformers raises a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise UnresolvedReferenceError(
            f"The text encoder '{path}' cannot be loaded by transformers {transformers.__version__}: {reason} "
            "Name a directory that holds it with text_encoder= (--text-encoder)."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    encoder, info = loaded
    missing = [*info["missing_keys"], *info["mismatched_keys"]]
    if missing:
        raise UnresolvedReferenceError(
            f"The text encoder '{path}' lacks weights, which would be random: {', '.join(map(str, missing[:5]))}."
        )
    return tokenizer, encoder.eval().requires_grad_(False)
