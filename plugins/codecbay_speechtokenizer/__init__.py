"""SpeechTokenizer: a residual quantizer whose first codebook is taught what is said, the others how it sounds.

Zhang et al. 2023, "SpeechTokenizer: Unified Speech Tokenizer for Speech Large Language Models",
https://arxiv.org/abs/2308.16692.
"""

from __future__ import annotations

from collections.abc import Iterable

from codecbay.hookspecs import Backend, hookimpl
from codecbay_speechtokenizer.backend import SpeechTokenizerBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``speechtokenizer``."""
    return [SpeechTokenizerBackend()]
