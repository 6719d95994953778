"""Export packages: AudioCraft's ``state_dict.bin`` and ``compression_state_dict.bin``, read without trust.

A file's *header* (keys, configuration, tensor names, shapes and dtypes) is read without tensor data, without
torch and without running anything; weights are read only after the header was found good.
"""

from codecbay.package.config import Config, Section
from codecbay.package.files import Package, PackageFile, fetch_directory, read_package_file
from codecbay.package.header import Header, TensorInfo
from codecbay.package.layouts import CONFIG_FILE

__all__ = [
    "CONFIG_FILE",
    "Config",
    "Header",
    "Package",
    "PackageFile",
    "Section",
    "TensorInfo",
    "fetch_directory",
    "read_package_file",
]
