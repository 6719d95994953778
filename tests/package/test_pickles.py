"""The pickle reader: what it understands, what it refuses, and that it never runs or hoards anything."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codecbay.errors import PackageError, UnsafePickleError
from codecbay.package.pickles import _OPCODES, NumpyStub, TensorStub, load_stub
from package.conftest import Read
from package.forge import harmless, legacy, mapping, package, record, saved, tensor, tensors, text, with_pickle

PROTOCOLS = (2, 3, 4, 5)
GLOBALS = [
    "os.system",
    "posix.system",
    "nt.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "__builtin__.eval",
    "builtins.__import__",
    "importlib.import_module",
    "runpy.run_path",
    "functools.partial",
    "operator.attrgetter",
    "pathlib.Path",
    "webbrowser.open",
    "codecs.open",
    "io.open",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.serialization.load",
    "torch.storage._load_from_bytes",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_tensor_v2.__globals__",
    "collections.OrderedDict.fromkeys",
    "numpy.load",
    "omegaconf.dictconfig.DictConfig",
]

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 80), 1 << 80) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
)


def stub(data: bytes) -> Any:
    with harmless():
        return load_stub(io.BytesIO(data))


@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    assert load_stub(io.BytesIO(pickle.dumps(value, protocol))) == value


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with suppress(UnsafePickleError):
        load_stub(io.BytesIO(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_become_stubs(protocol: int) -> None:
    content: dict[str, Any] = {
        "a": torch.zeros(4, 6, dtype=torch.float16)[1:, ::2],
        "b": torch.nn.Parameter(torch.zeros(3)),
    }
    content["c"] = OrderedDict(d=np.float64(2.5), e=np.dtype("f4"), f=np.int64(3), g=torch.Size([1, 2]), h=b"bytes")
    found = stub(record(saved(content, pickle_protocol=protocol), "data.pkl"))
    assert (found["a"].storage.dtype, found["a"].shape, found["a"].stride, found["a"].offset) == (
        "float16",
        (3, 3),
        (6, 2),
        6,
    )
    assert isinstance(found["b"], TensorStub)
    assert [type(found["c"][key]) for key in "def"] == [NumpyStub] * 3
    assert (found["c"]["g"], found["c"]["h"]) == ((1, 2), b"bytes")


@pytest.mark.parametrize("name", GLOBALS)
@pytest.mark.parametrize("call", [b"R", b"\x81", b"b"], ids=["REDUCE", "NEWOBJ", "BUILD"])
@pytest.mark.parametrize("by_stack", [False, True], ids=["GLOBAL", "STACK_GLOBAL"])
def test_a_global_is_refused(name: str, call: bytes, by_stack: bool, tmp_path: Path) -> None:
    module, function = name.rsplit(".", 1) if not name.startswith("torch._utils") else ("torch._utils", name[13:])
    touched = tmp_path / "touched"
    ask = text(module) + text(function) + b"\x93" if by_stack else f"c{module}\n{function}\n".encode()
    with pytest.raises(UnsafePickleError, match="nothing was run"):
        stub(b"\x80\x04" + ask + b"(" + text(f"touch {touched}") + b"t" + call + b".")
    assert not touched.exists()


class Evil:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("write", [saved, legacy])
@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "touch touched"),
        Evil(eval, "open('touched', 'w')"),
        Evil(subprocess.Popen, ["touch", "touched"]),
        Evil(torch.load, "touched"),
        Evil(getattr, Evil(__import__, "os"), "system"),
    ],
    ids=lambda evil: str(evil.call[0].__name__),
)
def test_a_pickle_that_calls_is_refused(
    evil: Evil,
    write: Callable[..., bytes],
    protocol: int,
    read: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (package("lm", evil=evil), package("lm", best_state=tensors("lm", evil=evil))):
        data = write(content, pickle_protocol=protocol)
        with pytest.raises(UnsafePickleError, match="nothing was run"):
            read(data)
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    "opcode", [op for op in pickletools.opcodes if op.name not in _OPCODES], ids=lambda op: str(op.name)
)
def test_an_opcode_that_torch_never_writes_is_refused(opcode: Any) -> None:
    with pytest.raises(UnsafePickleError, match="opcode"):
        stub(b"\x80\x04}(K\x01" + opcode.code.encode("latin1") + b"\n\n.")


STORAGE = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
MALFORMED = {
    "nothing": b"",
    "stop alone": b".",
    "no stop": b"}",
    "empty stack": b"K\x01s.",
    "mark alone": b"(.",
    "cut": text("abc")[:-1] + b".",
    "memo": b"h\x05.",
    "negative memo": b"}p-5\n.",
    "newer protocol": b"\x80\x63}.",
    "huge text": b"X\xff\xff\xff\xff.",
    "huger text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "a number with too many digits": b"L" + b"9" * 60_000 + b"L\n.",
    "bad escape": b"V\\uZZZZ\n.",
    "item of a list": b"]K\x01K\x02s.",
    "item of a tensor": tensor() + b"K\x01K\x02s.",
    "append to a dictionary": b"}K\x01a.",
    "extend a tuple": b")(K\x01e.",
    "state of a list": b"]}b.",
    "call of a text": text("x") + b")R.",
    "call without arguments": b"ccollections\nOrderedDict\n}R.",
    "filled OrderedDict": b"ccollections\nOrderedDict\n]\x85R.",
    "list as key": b"}]K\x01s.",
    "tuple as key": b"})K\x01s.",
    "list as key, at once": b"(]K\x01d.",
    "tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "tensor of a number": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\0))tR.",
    "parameter of a number": b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R.",
    "negative shape": tensor(shape=b"J\xff\xff\xff\xff\x85") + b".",
    "negative offset": tensor(offset=b"J\xff\xff\xff\xff") + b".",
    "shape of bool": tensor(shape=b"\x88\x85") + b".",
    "shape of float": tensor(shape=b"G?\xf0\0\0\0\0\0\0\x85") + b".",
    "list as shape": tensor(shape=b"]") + b".",
    "huge shape": tensor(shape=b"\x8a\x09" + b"\xff" * 8 + b"\0\x85") + b".",
    "huge stride": tensor(stride=b"\x8a\x09" + b"\xff" * 8 + b"\0\x85") + b".",
    "more strides than sizes": tensor(stride=b"K\x01K\x01\x86") + b".",
    "a thousand dimensions": tensor(shape=b"(" + b"K\x01" * 1000 + b"t") + b".",
    "storage of a text": text("0") + b"Q.",
    "storage without size": b"(" + STORAGE + b"tQ.",
    "storage of negative size": b"(" + STORAGE + b"J\xff\xff\xff\xfftQ.",
    "storage within another": b"(" + STORAGE + b"K\x04)tQ.",
    "encoded bomb": b"c_codecs\nencode\n" + text("x" * 100) + text("latin1") + b"\x86R.",
    "other encoding": b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        stub(data)


DOUBLED = b")" + b"2\x86" * 5000  # a tuple of itself twice, and so on
HOGS = {
    "lists": b"(" + b"]" * 2_000_000 + b"l.",
    "dictionaries": b"(" + b"}" * 2_000_000 + b"l.",
    "marks": b"(" * 2_000_000 + b".",
    "memo": b"\x80\x04}" + b"\x94" * 2_000_000 + b".",
    "calls": b"ccollections\nOrderedDict\nq\0(" + b"h\0)R" * 500_000 + b"l.",
    "more than is read": b"(" + b"]" * 3_000_000 + b"l.",
    "deep list": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuple": b")" + b"\x85" * 100_000 + b".",
    "deep dictionary": b"}K\0" * 50_000 + b"}" + b"s" * 50_000 + b".",
    "deep tuple as a key": b"})" + b"\x85" * 100_000 + b"K\x01s.",
    "huge memo index": b"}r\xff\xff\xff\x7f.",
    "list in itself": b"]q\0h\0a.",
    "dictionary in itself": b"}q\0" + text("best_state") + b"h\0s" + text("xp.cfg") + text("lm_model: 1") + b"s.",
    "doubled": DOUBLED + b".",
    "doubled text": mapping(best_state=b"}", xp_cfg=DOUBLED) + b".",
    "doubled reference": mapping(pretrained=DOUBLED) + b".",
    "doubled argument": b"cnumpy\ndtype\n" + DOUBLED + b"\x85R.",
    "long name": mapping(best_state=b"}" + text("x" * 1_000_000) + b"K\x01s", xp_cfg=text("lm_model: 1")) + b".",
    "long global": b"c" + b"x" * 60_000 + b"\n" + b"y" * 60_000 + b"\n.",
    "not Unicode": mapping(best_state=b"}", xp_cfg=text(b"a: \xed\xa0\x80")) + b".",
    "big sizes": mapping(
        best_state=mapping(x=tensor(shape=b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7f" * 60 + b"t")), xp_cfg=text("")
    )
    + b".",
}


@pytest.mark.parametrize("data", HOGS.values(), ids=HOGS)
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_a_pickle_cannot_take_time_or_memory(data: bytes, container: str, read: Read) -> None:
    if container == "zip":
        content = with_pickle(data)
    else:
        before = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        content = b"".join(pickle.dumps(value, 2) for value in before) + data + pickle.dumps([], 2)
    with pytest.raises(PackageError) as caught:
        read(content)
    assert len(str(caught.value)) < 2000
