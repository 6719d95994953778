"""What is shipped: the wheel holds the packages and the registry, and every plugin folder is registered."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return zipfile.ZipFile(path)


def test_the_wheel_holds_core_plugins_and_registry_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "codecbay/registry.toml" in names
    assert "codecbay/py.typed" in names
    assert "codecbay/cli/generate.py" in names
    assert "codecbay_encodec/py.typed" in names
    assert {"codecbay/docs/plugins/write.md", "codecbay/docs/plugins/conformance.md"} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"codecbay", *plugin_folders()}


def test_every_plugin_folder_is_an_entry_point() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["codecbay.plugins"]
    assert sorted(points.values()) == sorted(plugin_folders())


def test_one_version() -> None:
    import codecbay

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == codecbay.__version__


def plugin_folders() -> list[str]:
    return [path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file()]
