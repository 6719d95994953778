"""``SnacCodec``: the codec itself, and how it gets its tensors.

Letters: ``B`` batch, ``S`` samples, ``K`` streams, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrize

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError, CodeRangeError
from codecbay.imports import import_library
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors
from codecbay.packed import pack_layers
from codecbay.spec import ranges
from codecbay_snac.config import DIRECTIONS, LENGTHS, SnacConfig
from codecbay_snac.layout import to_levels, to_streams

INSTALL = "pip install 'codecbay[snac]'"
SEED = 0  # of the noise that the decoder adds


class SnacCodec(Codec):
    """SNAC. See :class:`codecbay.codec.Codec` for what its methods promise.

    Codes are laid out as :mod:`codecbay_snac.layout` tells. A codec with attention takes only whole windows of it:
    the encoder sees zeros after the signal's end, as in SNAC's library, whose codes are cut to the frames that the
    signal reaches into; the decoder sees the codes of silence after the last frame, and what it makes of them is cut.

    Where a model has noise in its decoder, the library draws it anew for each call. Here each call draws the same, from
    a generator of its own, on the CPU and in float32, and for all items of a batch: audio depends on the codes alone,
    whatever the device, the precision and what lies beside it in the batch. :meth:`decode_audio` gives each of its
    windows the noise of its place in the recording, so that windows make what one pass makes. After
    ``torch.manual_seed(0)``, the library makes the same audio of a single item.

    Args:
        config: of the codec.
        name: what it was loaded by.
        model: the library's ``SNAC``.
    """

    model: Any
    silence: Tensor

    def __init__(self, config: SnacConfig, name: str, model: Any) -> None:
        super().__init__(config.spec, name)
        self.config = config
        self.model = model
        self._reach = config.reach
        self.register_buffer("silence", torch.zeros(1, config.spec.num_codebooks, 1, dtype=torch.long))

    def codebooks(self) -> list[Tensor]:
        """The codebook of each stream, ``[entries, width]``; those of a level share one."""
        parts = zip(self.model.quantizer.quantizers, self.config.streams, strict=True)
        return [part.codebook.weight for part, count in parts for _ in range(count)]

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 1, S]`` to codes ``[B, K, T]``."""
        check_waveform(wav, channels=1)
        frames = -(-wav.shape[-1] // self.frame_size)
        whole = self.frame_size * self.config.whole_frames
        wav = F.pad(wav.to(self.codebooks()[0]), (0, -wav.shape[-1] % whole))
        residual = _run(self.model.encoder.block, wav)
        levels: list[Tensor] = []
        for part in self.model.quantizer.quantizers[: self._levels(self.num_codebooks)]:
            quantized, indices = part(residual)
            residual = residual - quantized
            levels.append(indices)
        return to_streams(levels, self.config.streams)[..., :frames].contiguous(), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]``, ``K`` of whole levels, to ``[B, 1, T * frame_size]``."""
        if scale is not None:
            raise AudioError(f"The codec '{self.name}' has no scale, but one was given.")
        codes = self.check_codes(codes)
        return self._decode_window(codes, None, 0, codes.shape[-1])

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``: of each frame, the mean of its steps at the finest rate."""
        return F.avg_pool1d(self._latent(self.check_codes(codes)), max(self.config.vq_strides))

    def check_codes(self, codes: Tensor) -> Tensor:
        """``codes`` itself, if the codec can decode it.

        Raises:
            CodeRangeError: not; they are out of range, or a level lacks some of its streams.
        """
        codes = super().check_codes(codes)
        if codes.shape[1] not in self.spec.allowed_num_codebooks:
            raise CodeRangeError(
                f"The codes have {codes.shape[1]} streams, but the levels of the codec '{self.name}' end after "
                f"{ranges(self.spec.allowed_num_codebooks)}; only whole levels can be decoded."
            )
        return codes

    def _levels(self, streams: int) -> int:
        return self.spec.allowed_num_codebooks.index(streams) + 1

    def _latent(self, codes: Tensor) -> Tensor:
        """The latent at the finest rate."""
        latent: Tensor | float = 0.0
        for part, indices in zip(self.model.quantizer.quantizers, to_levels(codes, self.config.streams), strict=False):
            latent = latent + part.out_proj(part.decode_code(indices)).repeat_interleave(part.stride, dim=-1)
        assert isinstance(latent, Tensor)
        return latent

    def _decode_window(self, codes: Tensor, scale: Tensor | None, start: int, frames: int) -> Tensor:
        batch, streams, given = codes.shape
        whole = self.config.whole_frames
        silence = self.silence[:, :streams].expand(batch, -1, -given % whole)
        codes = torch.cat([codes, silence], dim=-1)
        noise = _Noise(codes.shape[-1], start, frames + -frames % whole)
        return _run(self.model.decoder.model, self._latent(codes), noise)[..., : given * self.frame_size]

    def _windows(self, frames: int, progress: bool = False) -> Iterator[tuple[int, int, int, int]]:
        # Surroundings begin and end where windows of attention do, so that these lie as they do in one pass.
        whole = self.config.whole_frames
        for first, last, start, end in super()._windows(frames, progress):
            yield first, last, start - start % whole, min(end + -end % whole, frames)


class _Noise:
    """The noise for some frames of a recording: what one pass over all of it would draw for them.

    Args:
        frames: that are decoded.
        start: the first of them in the recording.
        total: frames of the recording.
    """

    def __init__(self, frames: int, start: int, total: int) -> None:
        self._frames, self._start, self._total = frames, start, total
        self._generator = torch.Generator().manual_seed(SEED)

    def __call__(self, x: Tensor) -> Tensor:
        """Noise ``[1, 1, S]`` for the next block, whose signal is ``[B, C, S]``."""
        size = x.shape[-1] // self._frames
        every = torch.randn(1, 1, self._total * size, generator=self._generator)
        return every[..., self._start * size :][..., : x.shape[-1]].to(x)


def _run(layers: Iterable[Any], x: Tensor, noise: _Noise | None = None) -> Tensor:
    """Run layers of the library, with noise of our own and attention in float32.

    In lower precision, the library's attention fails: its queries and keys come out in float32, its values do not.
    """
    for layer in layers:
        kind = type(layer).__name__
        if kind == "NoiseBlock":
            assert noise is not None
            x = x + noise(x) * layer.linear(x)
        elif kind == "LocalMHA":
            parameters = {name: parameter.float() for name, parameter in layer.named_parameters()}
            x = functional_call(layer, parameters, (x.float(),)).to(x)
        elif kind == "DecoderBlock":
            x = _run(layer.block, x, noise)
        else:
            x = layer(x)
    return x


def load(file: PackageFile, config: SnacConfig, *, device: torch.device, dtype: torch.dtype) -> SnacCodec:
    """Build a codec on the meta device and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
        MissingDependencyError: SNAC's library cannot be imported.
    """
    model, shapes = _empty_model(config)
    if any(name.endswith(DIRECTIONS[1]) for name in file.header.tensors):
        shapes = {_old_name(name): shape for name, shape in shapes.items()}
    check_tensors(file.header, shapes)
    assign(model, _fold(file.tensors()), device=torch.device("cpu"), dtype=torch.float32)
    pack_layers(model)
    codec = SnacCodec(config, str(file.header.path), model)
    codec.requires_grad_(False).eval()
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    middle = config.whole_frames // 2
    codec.silence = codec.encode(torch.zeros(1, 1, config.whole_frames * config.frame_size))[0][
        ..., middle : middle + 1
    ]
    frequencies = dict(model.named_buffers())
    codec.to(device=device, dtype=dtype)
    for name, buffer in frequencies.items():  # of rotary positions, which need float32
        owner, _, key = name.rpartition(".")
        setattr(model.get_submodule(owner), key, buffer.to(device))
    return codec


def _empty_model(config: SnacConfig) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The library's model on the meta device, without weight norms; and the shapes of its tensors with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses torch.jit.script, which torch deprecates
        library = import_library("snac", needed_by="The codec SNAC", install=INSTALL)
        with torch.device("meta"):
            model = library.SNAC(
                sampling_rate=config.sampling_rate,
                encoder_dim=config.encoder_dim,
                encoder_rates=list(config.encoder_rates),
                decoder_dim=config.decoder_dim,
                decoder_rates=list(config.decoder_rates),
                attn_window_size=config.attn_window_size,
                codebook_size=config.codebook_size,
                codebook_dim=config.codebook_dim,
                vq_strides=list(config.vq_strides),
                noise=config.noise,
                depthwise=config.depthwise,
            )
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            with torch.enable_grad():  # without, the weight would become a buffer
                parametrize.remove_parametrizations(module, "weight")
        if hasattr(module, "use_xpos"):
            module.scale = None  # neither stored nor used, and would stay on the meta device
    return model, shapes


def _old_name(name: str) -> str:
    return name.replace(DIRECTIONS[0], DIRECTIONS[1]).replace(LENGTHS[0], LENGTHS[1])


def _fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in float32, each pair of direction and length folded into the weight of its convolution."""
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for direction, length in zip(DIRECTIONS, LENGTHS, strict=True):
            if name.endswith(direction):
                stem = name.removesuffix(direction)
                folded[f"{stem}.weight"] = torch._weight_norm(tensor.float(), tensors[stem + length].float(), 0)
                break
        else:
            if not name.endswith(LENGTHS):
                folded[name] = tensor.float()
    return folded
