"""What each family's ``config.json`` says: the spec, and the arguments of the library's own configuration class.

Only values that are taken here, with their types and bounds, reach the library; what else a configuration holds
(names of code to import, quantization, attention kernels …) does not. Defaults are the library's. Nothing here imports
torch: a module a family, each with its ``describe``.
"""

from __future__ import annotations

from collections.abc import Callable

from codecbay.package import Header, Section
from codecbay_transformers.families.dac import describe as describe_dac
from codecbay_transformers.families.description import Description
from codecbay_transformers.families.encodec import describe as describe_encodec
from codecbay_transformers.families.fsq import describe_neucodec, describe_xcodec2
from codecbay_transformers.families.higgs import describe as describe_higgs
from codecbay_transformers.families.mimi import describe as describe_mimi
from codecbay_transformers.families.xcodec import describe as describe_xcodec

__all__ = ["FAMILIES", "Description", "describe"]

FAMILIES: dict[str, Callable[[Section, Header], Description]] = {
    "encodec": describe_encodec,
    "dac": describe_dac,
    "mimi": describe_mimi,
    "xcodec": describe_xcodec,
    "xcodec2": describe_xcodec2,
    "neucodec": describe_neucodec,
    "higgs_audio_v2_tokenizer": describe_higgs,
}


def describe(header: Header) -> Description:
    """The codec in a package.

    Raises:
        ConfigError: the configuration is wrong.
        WeightsError: the codebooks are not those that it describes.
    """
    return FAMILIES[header.config["model_type"]](header.config.top(), header)
