"""Packages in other layouts: AudioCraft's own, its safetensors twin, and the transformers library's."""

from codecbay.convert.musicgen import from_transformers, to_transformers
from codecbay.convert.packages import convert_package, is_transformers_model, push_package

__all__ = ["convert_package", "from_transformers", "is_transformers_model", "push_package", "to_transformers"]
