"""A pickle reader that runs nothing.

It is the standard library's own pickle machine with the opcodes that import, call or build reduced to what
``torch.save`` writes for dictionaries of tensors: every tensor comes back as a stub that holds its name,
shape and place, and any other global is refused before it is looked up.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from codecbay.errors import SourceError, UnsafePickleError

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip
_MAX_DIMS = 64  # as in torch


@dataclass(frozen=True)
class StorageStub:
    """A block of a file's tensor data: its key among the file's blocks, dtype and number of elements."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorStub:
    """A tensor without its data."""

    storage: StorageStub
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class NumpyStub:
    """Stands for a number that numpy pickled, and for its dtype; what they are is not needed."""


class StubDict(dict[Any, Any]):
    """Stands for ``OrderedDict``, whose instances may carry attributes (``state_dict()._metadata``)."""


@dataclass(frozen=True)
class _StorageType:
    dtype: str


class _RebuildTensor:
    """Stands for the functions that put a tensor together."""

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_unused: Any) -> TensorStub:
        def counts(values: Any) -> tuple[int, ...]:
            if type(values) is not tuple or any(type(v) is not int or not 0 <= v < 1 << 63 for v in values):
                raise UnsafePickleError("a tensor's shape, stride or offset is not made of whole numbers")
            if len(values) > _MAX_DIMS:
                raise UnsafePickleError(f"a tensor has {len(values)} dimensions")
            return values

        if not isinstance(storage, StorageStub):
            raise UnsafePickleError("a tensor is built from something that is not a storage")
        shape, stride = counts(shape), counts(stride)
        (offset,) = counts((offset,))
        if len(shape) != len(stride):
            raise UnsafePickleError(f"a tensor has {len(shape)} sizes but {len(stride)} strides")
        return TensorStub(storage, offset, shape, stride)


def _rebuild_parameter(data: Any, *_unused: Any) -> TensorStub:
    if not isinstance(data, TensorStub):
        raise UnsafePickleError("a parameter is built from something that is not a tensor")
    return data


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not (isinstance(text, str) and len(text) <= 64 and encoding == "latin1"):
        raise UnsafePickleError("codecs.encode is called in a way that numpy scalars never need")
    return text.encode("latin1")


def _ordered_dict(*items: Any) -> StubDict:
    if items:
        raise UnsafePickleError("an OrderedDict is built in a way that torch.save never writes")
    return StubDict()


def _numpy(*_unused: Any) -> NumpyStub:
    return NumpyStub()


def _size(values: Any = (), *_unused: Any) -> Any:
    return values


class BinaryStream(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102

    def readline(self) -> bytes: ...  # noqa: D102


_CALLABLES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _size,
    ("numpy", "dtype"): _numpy,
    ("numpy.core.multiarray", "scalar"): _numpy,
    ("numpy._core.multiarray", "scalar"): _numpy,
    ("torch.storage", "UntypedStorage"): _StorageType("uint8"),
    **{("torch", name): _StorageType(dtype) for name, dtype in STORAGE_DTYPES.items()},
}
_CALLABLE_IDS = {id(value) for value in _CALLABLES.values() if not isinstance(value, _StorageType)}

# Everything torch.save and a plain protocol 2 to 5 pickle of dictionaries, lists, tuples, strings and numbers use.
_OPCODES = (
    b"PROTO STOP FRAME MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT "
    b"BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    b"SHORT_BINBYTES TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT "
    b"SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD "
    b"BINPERSID"
).decode().split()  # fmt: skip


class _StubUnpickler(pickle._Unpickler):
    """The pure Python machine of ``pickle``, cut down to ``_OPCODES``.

    The pure one, because its memo is a dictionary: in C, one opcode can make it allocate gigabytes.
    """

    read: Callable[[int], bytes]
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch = {  # noqa: RUF012
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _CALLABLES[module, name]
        except KeyError:
            hint = (
                "; this looks like a training checkpoint, which has to be exported first"
                if module.startswith("omegaconf")
                else ""
            )
            wanted = f"{module}.{name}"
            raise UnsafePickleError(
                f"it asks for {wanted[:100]!r}, which no export package needs; nothing was run{hint}"
            ) from None

    def persistent_load(self, pid: Any) -> StorageStub:
        if (
            isinstance(pid, tuple)
            and (len(pid) == 5 or (len(pid) == 6 and pid[5] is None))  # the sixth once told of a view into another
            and pid[0] == "storage"
            and isinstance(pid[1], _StorageType)
            and isinstance(pid[2], str)
            and type(pid[4]) is int
            and pid[4] >= 0
        ):
            return StorageStub(pid[2], pid[1].dtype, pid[4])
        raise UnsafePickleError("a storage is described in a way that torch.save never writes")

    def load_frame(self) -> None:
        self.read(8)  # a hint for buffering; what the frame holds follows as if there was none

    def load_reduce(self) -> None:
        args = self.stack.pop()
        func = self.stack[-1]
        if id(func) not in _CALLABLE_IDS or not isinstance(args, tuple):
            raise UnsafePickleError("it calls something that is not a tensor constructor; nothing was run")
        self.stack[-1] = func(*args)

    def load_build(self) -> None:
        self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (StubDict, NumpyStub)):  # whose attributes say nothing about tensors
            raise UnsafePickleError("it sets the state of something that is not a dictionary; nothing was run")

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._target()[self._key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self._target()
        for i in range(0, len(items) - 1, 2):
            target[self._key(items[i])] = items[i + 1]

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({self._key(items[i]): items[i + 1] for i in range(0, len(items) - 1, 2)})

    def _key(self, key: Any) -> Any:
        return _plain_key(key)

    def _target(self) -> dict[Any, Any]:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise UnsafePickleError("it sets an item of something that is not a dictionary")
        return target

    def load_append(self) -> None:
        value = self.stack.pop()
        self._list().append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        target = self.stack[-1]
        if type(target) is not list:
            raise UnsafePickleError("it appends to something that is not a list")
        return target


_OVERRIDES: dict[str, Callable[[Any], None]] = {
    "FRAME": _StubUnpickler.load_frame,
    "REDUCE": _StubUnpickler.load_reduce,
    "BUILD": _StubUnpickler.load_build,
    "SETITEM": _StubUnpickler.load_setitem,
    "SETITEMS": _StubUnpickler.load_setitems,
    "DICT": _StubUnpickler.load_dict,
    "APPEND": _StubUnpickler.load_append,
    "APPENDS": _StubUnpickler.load_appends,
}
for _name, _method in _OVERRIDES.items():
    _StubUnpickler.dispatch[getattr(pickle, _name)[0]] = _method


def _plain_key(key: Any) -> Any:
    # A deeply nested tuple as a key would overflow the C stack when it is hashed.
    if isinstance(key, (str, int, float, bytes)) or key is None:
        return key
    raise UnsafePickleError(f"a dictionary has a {type(key).__name__} for a key")


@dataclass
class InertObject:
    """Stands for an object of a class that is not looked up, with what the pickle says of it.

    Attributes:
        kind: module and name of the class, or of what would be called to make the object.
        args: that it would be made with.
        state: that it would be given.
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class _InertType:
    """Stands for a class or function that is not looked up."""

    kind: str


class _InertUnpickler(_StubUnpickler):
    """Takes any pickle, and makes :class:`InertObject` of all that is not plain data or a tensor.

    Nothing is looked up, called, or given a state; what objects hold as dictionaries or lists is dropped.
    """

    dispatch = dict(_StubUnpickler.dispatch)  # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        return _CALLABLES.get((module, name)) or _InertType(f"{module}.{name}")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        func = self.stack[-1]
        if not isinstance(args, tuple):
            raise UnsafePickleError("it calls something with what are no arguments")
        if id(func) in _CALLABLE_IDS:
            try:
                self.stack[-1] = func(*args)
                return
            except (UnsafePickleError, TypeError):  # such as an OrderedDict of items
                pass
        self.stack[-1] = InertObject(getattr(func, "kind", ""), args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = InertObject(getattr(self.stack[-1], "kind", ""), args if isinstance(args, tuple) else ())

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], InertObject):
            self.stack[-1].state = state

    def load_empty_set(self) -> None:
        self.append([])

    def load_frozenset(self) -> None:
        self.append(self.pop_mark())

    def persistent_load(self, pid: Any) -> Any:
        try:
            return super().persistent_load(pid)
        except UnsafePickleError:
            return InertObject("persistent", (pid,))

    def _key(self, key: Any) -> Any:
        try:
            return _plain_key(key)
        except UnsafePickleError:
            return object()  # no key that anything asks for

    def _target(self) -> dict[Any, Any]:
        target = self.stack[-1]
        return target if isinstance(target, dict) else {}

    def _list(self) -> list[Any]:
        target = self.stack[-1]
        return target if type(target) is list else []


for _name, _method in {
    **{name: getattr(_InertUnpickler, f"load_{name.lower()}") for name in ("REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX")},
    "EMPTY_SET": _InertUnpickler.load_empty_set,
    "FROZENSET": _InertUnpickler.load_frozenset,
    "ADDITEMS": _InertUnpickler.load_appends,
}.items():
    _InertUnpickler.dispatch[getattr(pickle, _name)[0]] = _method


def load_stub(stream: BinaryStream, *, inert: bool = False) -> Any:
    """The object that the pickle at the start of ``stream`` describes, its tensors as :class:`TensorStub`.

    Args:
        stream: to read from.
        inert: take pickles of any objects, which come back as :class:`InertObject`; else they are refused.

    Raises:
        UnsafePickleError: it needs anything else than dictionaries of tensors do, or is no pickle.
    """
    try:
        return (_InertUnpickler if inert else _StubUnpickler)(stream).load()
    except (UnsafePickleError, SourceError):
        raise
    except MemoryError:
        raise UnsafePickleError("it asks for more memory than there is") from None
    except KeyError as error:
        code = error.args[0] if error.args else None
        what = f"opcode 0x{code:02x}" if isinstance(code, int) else f"the entry {code!r}"
        raise UnsafePickleError(f"it is no pickle that torch.save writes ({what})") from None
    except Exception as error:  # a broken pickle can fail in any way that a machine of opcodes can
        raise UnsafePickleError(f"it is no valid pickle ({type(error).__name__}: {error})") from None
