"""What each family's ``config.json`` says: the spec, and the arguments of the library's own configuration class.

Only values that are taken here, with their types and bounds, reach the library; what else a configuration holds
(names of code to import, quantization, attention kernels …) does not. Defaults are the library's. Nothing here imports
torch: a module a family, each with its ``describe``.
"""

from __future__ import annotations

from collections.abc import Callable

from codecbay.package import Header, Section
from codecbay_transformers.families import dac, encodec, fsq, higgs, mimi, xcodec
from codecbay_transformers.families.description import Description

__all__ = ["FAMILIES", "Description", "describe"]

FAMILIES: dict[str, Callable[[Section, Header], Description]] = {
    "encodec": encodec.describe,
    "dac": dac.describe,
    "mimi": mimi.describe,
    "xcodec": xcodec.describe,
    "xcodec2": fsq.describe_xcodec2,
    "neucodec": fsq.describe_neucodec,
    "higgs_audio_v2_tokenizer": higgs.describe,
}


def describe(header: Header) -> Description:
    """The codec in a package.

    Raises:
        ConfigError: the configuration is wrong.
        WeightsError: the codebooks are not those that it describes.
    """
    return FAMILIES[header.config["model_type"]](header.config.top(), header)
