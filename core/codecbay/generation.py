"""``MusicGen`` and ``AudioGen``: the generation API that AudioCraft's users know.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from tqdm import tqdm

from codecbay.audio import as_batch, convert_audio
from codecbay.codec import Codec, check_codes
from codecbay.compat import NOTE, Report, compare
from codecbay.errors import AudioError, CodeRangeError, GenerationError, IncompatibleError, PackageError
from codecbay.lm.conditioners import ConditioningAttributes, WavCondition
from codecbay.lm.model import LMModel, LMOutput
from codecbay.lm.sampling import Sampling, is_number
from codecbay.package import PackageFile
from codecbay.package.parts import Parts
from codecbay.package.writing import Contents
from codecbay.sources import CODEC_FILE, LM_FILE
from codecbay.stereo import InterleavedStereo, bare

ProgressCallback = Callable[[int, int], None]
Audio = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Origin:
    """What a model was built from, for saving it again.

    Attributes:
        lm: the language model's file.
        codec: the codec's file in AudioCraft's layout, or a reference to a published one; ``None`` where it is neither.
        text_encoders: directories that lay beside the files.
    """

    lm: PackageFile
    codec: PackageFile | None
    text_encoders: tuple[Path, ...]


class GenerativeModel:
    """A language model over the codes of a codec.

    Args:
        name: what it was loaded by.
        compression_model: the codec, bare; it is set to the number of codebooks that the language model needs,
            and wrapped where that interleaves two mono streams.
        lm: the language model.
        max_duration: the longest segment that is generated at once, in seconds; by default the one that the
            language model was trained on.

    Attributes:
        report: what the check found about the two.
        origin: what the model was built from, if it was loaded.

    Raises:
        IncompatibleError: codec and language model do not fit.
    """

    default_duration: ClassVar[float]
    default_extend_stride: ClassVar[float]
    default_name: ClassVar[str]
    debug_name: ClassVar[str]

    def __init__(self, name: str, compression_model: Codec, lm: LMModel, max_duration: float | None = None) -> None:
        self.name = name
        self.lm = lm.eval()
        self.report = compare(
            lm.config.spec, bare(compression_model).spec, lm_name=name, codec_name=compression_model.name
        )
        self.compression_model = _fit(compression_model, self.report).eval()
        self.origin: Origin | None = None
        self.max_duration = lm.config.max_duration if max_duration is None else max_duration
        self.extend_stride = self.default_extend_stride
        self.duration = self.max_duration
        self.generation_params: dict[str, Any] = {}
        self._sampling = Sampling()
        self._progress_callback: ProgressCallback | None = None
        self.set_generation_params(duration=self.default_duration)

    @classmethod
    def get_pretrained(cls, name: str | None = None, device: str | None = None) -> Self:
        """Load a model as AudioCraft's users do.

        Args:
            name: an export package, a published model, or ``debug`` for a small random one.
            device: where it shall live; a GPU where there is one, by default.

        Raises:
            CodecbayError: see :func:`codecbay.load`.
        """
        import codecbay

        name = cls.default_name if name is None else name
        full_name = None if Path(name).exists() else _DEPRECATED.get(name)
        if full_name is not None:
            warnings.warn(f"The name {name!r} is deprecated; use {full_name!r}.", FutureWarning, stacklevel=2)
        model = codecbay.load(full_name or (cls.debug_name if name == "debug" else name), device=device)
        if isinstance(model, cls):
            return model
        return cls(model.name, model.compression_model, model.lm)

    def save_pretrained(
        self, out: str | os.PathLike[str], *, format: str = "safetensors", overwrite: bool = False
    ) -> None:
        """Write the model as a package: the language model's weights as they are now, the codec as it was loaded.

        Args:
            out: the directory to write.
            format: ``safetensors`` or ``audiocraft``.
            overwrite: take the place of a directory that is there.

        Raises:
            PackageError: the model was not loaded from a package, or its codec cannot be a part of one.
            OutputError: the directory cannot be written, or is there already.
        """
        self._parts().write(Path(out), format=format, overwrite=overwrite)

    def push_to_hub(
        self, repository: str, *, format: str = "safetensors", private: bool = False, licence: str | None = None
    ) -> str:
        """Share the model on the Hugging Face Hub, as :meth:`save_pretrained` writes it, with a model card.

        Args:
            repository: ``owner/name``; it is made where there is none.
            format: ``safetensors`` or ``audiocraft``.
            private: keep it private, if it is made now.
            licence: of the weights, for the card.

        Returns:
            The address of the commit.

        Raises:
            PackageError: see :meth:`save_pretrained`.
            SourceError: the Hub does not take it.
        """
        return self._parts().push(repository, format=format, private=private, licence=licence)

    def _parts(self) -> Parts:
        if self.origin is None:
            raise PackageError(
                f"The model '{self.name}' was not loaded from a package, and has no configuration to save."
            )
        header, codec = self.origin.lm.header, self.origin.codec
        if codec is None:
            raise PackageError(
                f"The codec '{self.compression_model.name}' can be no part of a package: it is neither in AudioCraft's "
                "layout nor known by a name. Save the model over another, or name this one in a registry file and load "
                "it by that name."
            )
        own = bare(self.compression_model)
        # Over a codec that is known to be another, the model is still one of the codec that it was trained on.
        another = any(f.field == "provenance" and f.severity != NOTE for f in self.report.findings)
        lm = Contents(
            {name: tensor.detach() for name, tensor in self.lm.state_dict().items()},
            header.config.to_yaml(),
            fingerprint=header.codec_fingerprint if another else own.fingerprint(),
            spec=self.lm.config.spec.to_dict(),
        )
        files = {LM_FILE: lm, CODEC_FILE: Contents.of(codec, spec=own.spec.to_dict(), fingerprint=own.fingerprint())}
        return Parts(files, self.origin.text_encoders, self.name)

    @property
    def device(self) -> torch.device:
        """Where the language model lives."""
        return self.lm.device

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return self.compression_model.frame_rate

    @property
    def sample_rate(self) -> int:
        """Of the audio, in Hz."""
        return self.compression_model.output_rate

    @property
    def audio_channels(self) -> int:
        """Of the audio."""
        return self.compression_model.channels

    def set_custom_progress_callback(self, progress_callback: ProgressCallback | None = None) -> None:
        """Have ``progress_callback(done, to_do)`` called at each step, instead of a progress bar, where a method
        is called with ``progress=True``."""
        self._progress_callback = progress_callback

    def set_generation_params(
        self,
        use_sampling: bool = True,
        top_k: int = 250,
        top_p: float = 0.0,
        temperature: float = 1.0,
        duration: float | None = None,
        cfg_coef: float = 3.0,
        two_step_cfg: bool = False,
        extend_stride: float | None = None,
    ) -> None:
        """Set how audio is generated. A parameter that is not given returns to its default.

        Args:
            use_sampling: draw tokens; otherwise the likeliest is taken.
            top_k: draw among so many of the likeliest.
            top_p: draw among the likeliest that together have this probability; 0 to go by ``top_k``.
            temperature: logits are divided by it.
            duration: of the result, in seconds (MusicGen: 30, AudioGen: 10).
            cfg_coef: strength of classifier-free guidance.
            two_step_cfg: run the model once with and once without conditions, instead of both in one batch.
            extend_stride: seconds that a result longer than ``max_duration`` advances by at a time (MusicGen:
                18, AudioGen: 2; less where the model's segments are short).

        Raises:
            GenerationError: a value makes no sense.
        """
        duration = self._full_duration if duration is None else duration
        check_duration(duration)
        if not (is_number(cfg_coef) and math.isfinite(cfg_coef)):
            raise GenerationError(f"cfg_coef should be a number, found {cfg_coef!r}.")
        if extend_stride is None:
            # The default is made for segments of 30 s; in shorter ones it keeps its proportion.
            extend_stride = min(self.default_extend_stride, 0.6 * self.max_duration)
        elif not (is_number(extend_stride) and 0 < extend_stride < self.max_duration):
            raise GenerationError(
                f"extend_stride should be more than 0 and less than the {self.max_duration:g} seconds that the model "
                f"generates at once, found {extend_stride!r}."
            )
        if not (isinstance(use_sampling, bool) and isinstance(two_step_cfg, bool)):
            raise GenerationError("use_sampling and two_step_cfg should be True or False.")
        self._sampling = Sampling(use_sampling, temperature, top_k, top_p)
        self.duration = duration
        self.extend_stride = extend_stride
        self.generation_params = {
            "use_sampling": use_sampling,
            "temp": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "cfg_coef": cfg_coef,
            "two_step_cfg": two_step_cfg,
        }

    _full_duration: ClassVar[float]

    def generate(self, descriptions: Sequence[str | None], progress: bool = False, return_tokens: bool = False) -> Any:
        """Generate audio from descriptions.

        Args:
            descriptions: one for each item of the batch.
            progress: show a progress bar, or call the progress callback.
            return_tokens: also return the codes.

        Returns:
            Audio ``[B, C, S]``; with ``return_tokens``, also codes ``[B, K, T]``.

        Raises:
            GenerationError: the descriptions are no list, or an empty one.
        """
        return self._generate(self._attributes(descriptions), None, None, progress, return_tokens)

    def generate_unconditional(self, num_samples: int, progress: bool = False, return_tokens: bool = False) -> Any:
        """Generate ``num_samples`` pieces of audio without any description; see :meth:`generate`."""
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise GenerationError(f"num_samples should be a whole number from 1, found {num_samples!r}.")
        return self.generate([None] * num_samples, progress, return_tokens)

    def generate_continuation(
        self,
        prompt: Tensor,
        prompt_sample_rate: int,
        descriptions: Sequence[str | None] | None = None,
        progress: bool = False,
        return_tokens: bool = False,
    ) -> Any:
        """Continue audio.

        Args:
            prompt: ``[B, C, S]`` or ``[C, S]``.
            prompt_sample_rate: in Hz; any.
            descriptions: one for each item of the batch.
            progress: see :meth:`generate`.
            return_tokens: see :meth:`generate`.

        Returns:
            Audio ``[B, C, S]``, the prompt included; with ``return_tokens``, also codes ``[B, K, T]``.

        Raises:
            AudioError: the prompt is no waveform.
            GenerationError: it is as long as what is to be generated, or there are more or fewer descriptions.
        """
        codec = self.compression_model
        prompt = convert_audio(as_batch(prompt), prompt_sample_rate, codec.sample_rate, codec.channels)
        attributes = self._attributes([None] * len(prompt) if descriptions is None else descriptions)
        if len(attributes) != len(prompt):
            raise GenerationError(f"There are {len(prompt)} prompts but {len(attributes)} descriptions.")
        with torch.no_grad():
            codes, scale = codec.encode(prompt.to(codec.device))
        return self._generate(attributes, codes.to(self.device), scale, progress, return_tokens)

    @torch.no_grad()
    def generate_audio(self, gen_tokens: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode codes ``[B, K, T]`` to audio ``[B, C, S]``."""
        return self.compression_model.decode(gen_tokens.to(self.compression_model.device), scale)

    def compute_predictions(self, codes: Tensor, descriptions: Sequence[str | None]) -> LMOutput:
        """What the language model predicts for each code from those before it. Gradients flow.

        Args:
            codes: int64 ``[B, K, T]``.
            descriptions: one for each item of the batch.

        Raises:
            CodeRangeError: the codes have the wrong shape, or values outside 0..card - 1.
            GenerationError: there are more or fewer descriptions than items.
        """
        attributes = self._attributes(descriptions)
        codes = check_codes(codes, [self.lm.card] * self.lm.n_q, f"the language model of '{self.name}'")
        if codes.shape[1] != self.lm.n_q:
            raise CodeRangeError(f"The codes have {codes.shape[1]} codebooks, but the language model {self.lm.n_q}.")
        if len(attributes) != len(codes):
            raise GenerationError(f"There are {len(codes)} items but {len(attributes)} descriptions.")
        return self.lm.compute_predictions(codes.to(self.device), attributes)

    def _attributes(self, descriptions: Sequence[str | None]) -> list[ConditioningAttributes]:
        listed = isinstance(descriptions, Sequence) and not isinstance(descriptions, str)
        if not listed or not all(text is None or isinstance(text, str) for text in descriptions):
            raise GenerationError("descriptions should be a list of texts (or None), one for each item.")
        if not len(descriptions):
            raise GenerationError("There is nothing to generate: the list of descriptions is empty.")
        return [ConditioningAttributes(text={"description": text}) for text in descriptions]

    def _generate(
        self,
        attributes: list[ConditioningAttributes],
        prompt: Tensor | None,
        scale: Tensor | None,
        progress: bool,
        return_tokens: bool,
    ) -> Audio:
        tokens = self._generate_tokens(attributes, prompt, progress)
        audio = self.generate_audio(tokens, scale)
        return (audio, tokens) if return_tokens else audio

    def _generate_tokens(
        self, attributes: list[ConditioningAttributes], prompt: Tensor | None, progress: bool
    ) -> Tensor:
        """Codes ``[B, K, T]``, window by window where they are longer than the model generates at once."""
        total = self._steps(self.duration)
        window = self._steps(min(self.duration, self.max_duration))
        stride = self._steps(self.extend_stride)
        known = 0 if prompt is None else prompt.shape[-1]
        if window < 1 or (self.duration > self.max_duration and stride < 1):
            raise GenerationError(f"duration {self.duration:g} s is less than a frame ({1 / self.frame_rate:g} s).")
        if known >= window:
            raise GenerationError(
                f"The prompt has {known} frames, which leaves nothing to generate of {window} "
                f"({min(self.duration, self.max_duration):g} s). Give a shorter prompt or a longer duration."
            )
        if self.duration > self.max_duration and self.extend_stride >= self.max_duration:
            raise GenerationError(
                f"extend_stride {self.extend_stride:g} s should be less than the {self.max_duration:g} seconds that "
                "the model generates at once."
            )
        with _Progress(self._progress_callback, progress, total) as report:
            if self.duration <= self.max_duration:
                return self._window(prompt, attributes, window, report)
            offset, parts = 0, [] if prompt is None else [prompt]
            while offset + known < total:
                time = offset / self.frame_rate
                frames = self._steps(min(self.duration - time, self.max_duration))
                report.offset = offset
                tokens = self._window(prompt, self._at(attributes, time), frames, report)
                parts.append(tokens[..., known:])
                prompt = tokens[..., stride:]
                known = prompt.shape[-1]
                offset += stride
        return torch.cat(parts, dim=-1)

    def _steps(self, seconds: float) -> int:
        """Steps of codes in so many seconds: as many as make whole frames."""
        steps, each = int(seconds * self.frame_rate), self.compression_model.codes_per_frame
        return steps - steps % each

    def _window(
        self,
        prompt: Tensor | None,
        attributes: list[ConditioningAttributes],
        frames: int,
        report: ProgressCallback,
    ) -> Tensor:
        return self.lm.generate(
            prompt,
            attributes,
            max_gen_len=frames,
            sampling=self._sampling,
            cfg_coef=self.generation_params["cfg_coef"],
            two_step_cfg=self.generation_params["two_step_cfg"],
            callback=report,
        )

    def _at(self, attributes: list[ConditioningAttributes], time: float) -> list[ConditioningAttributes]:
        """The conditions of a window that starts at ``time`` seconds."""
        del time
        return attributes


class MusicGen(GenerativeModel):
    """Music from text, from audio to continue, and from a melody (Copet et al. 2023,
    https://arxiv.org/abs/2306.05284)."""

    default_duration = 15.0
    default_extend_stride = 18.0
    default_name = "facebook/musicgen-melody"
    debug_name = "debug"
    _full_duration = 30.0

    def generate_with_chroma(
        self,
        descriptions: Sequence[str | None],
        melody_wavs: Tensor | Sequence[Tensor | None],
        melody_sample_rate: int,
        progress: bool = False,
        return_tokens: bool = False,
    ) -> Any:
        """Generate audio that follows a melody.

        Args:
            descriptions: one for each item of the batch.
            melody_wavs: ``[B, C, S]``, ``[C, S]``, or a list of ``[C, S]`` or ``None``.
            melody_sample_rate: in Hz; any.
            progress: see :meth:`generate`.
            return_tokens: see :meth:`generate`.

        Raises:
            AudioError: a melody is no waveform.
            GenerationError: the model takes no melody, or there are more or fewer melodies than descriptions.
        """
        if "self_wav" not in self.lm.condition_provider.conditioners:
            raise GenerationError(f"The model '{self.name}' takes no melody; use one that was trained with melodies.")
        if isinstance(melody_wavs, Tensor):
            melody_wavs = list(as_batch(melody_wavs))
        if not isinstance(melody_wavs, Sequence):
            raise GenerationError("melody_wavs should be a tensor, or a list of tensors (or None).")
        attributes = self._attributes(descriptions)
        if len(melody_wavs) != len(attributes):
            raise GenerationError(f"There are {len(melody_wavs)} melodies but {len(attributes)} descriptions.")
        for item, melody in zip(attributes, melody_wavs, strict=True):
            if melody is None:
                continue
            if not isinstance(melody, Tensor) or melody.dim() != 2:
                raise AudioError(f"Each melody has the shape [C, S], found {list(getattr(melody, 'shape', ()))}.")
            wav = convert_audio(as_batch(melody)[0], melody_sample_rate, self.sample_rate, self.audio_channels)
            item.wav["self_wav"] = WavCondition(wav[None].to(self.device), wav.shape[-1], self.sample_rate)
        return self._generate(attributes, None, None, progress, return_tokens)

    def _attributes(self, descriptions: Sequence[str | None]) -> list[ConditioningAttributes]:
        attributes = super()._attributes(descriptions)
        for item in attributes:
            item.wav["self_wav"] = WavCondition.none(self.sample_rate)
        return attributes

    def _at(self, attributes: list[ConditioningAttributes], time: float) -> list[ConditioningAttributes]:
        """The melody goes on periodically, from where the window starts."""
        start, samples = int(time * self.sample_rate), int(self.max_duration * self.sample_rate)
        moved = []
        for item in attributes:
            melody = item.wav["self_wav"]
            if melody.length:
                positions = torch.arange(start, start + samples, device=melody.wav.device) % melody.length
                melody = replace(melody, wav=melody.wav[..., positions], length=samples)
            moved.append(ConditioningAttributes(item.text, {**item.wav, "self_wav": melody}))
        return moved


class AudioGen(GenerativeModel):
    """Sounds from text (Kreuk et al. 2022, https://arxiv.org/abs/2209.15352)."""

    default_duration = 5.0
    default_extend_stride = 2.0
    default_name = "facebook/audiogen-medium"
    debug_name = "debug-audiogen"
    _full_duration = 10.0


_DAY = 86_400
_DEPRECATED = {name: f"facebook/musicgen-{name}" for name in ("small", "medium", "large", "melody")}
MODEL_CLASSES: dict[str, type[GenerativeModel]] = {"musicgen": MusicGen, "audiogen": AudioGen}


def check_duration(duration: float) -> None:
    """Refuse a duration that makes no sense.

    Raises:
        GenerationError: it is no number of seconds between 0 and a day.
    """
    if not (is_number(duration) and 0 < duration < _DAY):
        raise GenerationError(f"duration should be more than 0 and less than {_DAY} seconds, found {duration!r}.")


def _fit(codec: Codec, report: Report) -> Codec:
    """The codec as the language model needs it."""
    if not report.ok:
        raise IncompatibleError(report)
    codec, stereo = bare(codec), report.lm.stereo
    codec.set_num_codebooks(report.num_codebooks)
    return codec if stereo is None else InterleavedStereo(codec, per_timestep=stereo == "timestep")


class _Progress:
    """Steps done, to a callback or a progress bar."""

    def __init__(self, callback: ProgressCallback | None, wanted: bool, total: int) -> None:
        self._callback = callback if wanted else None
        self._total = total
        self._bar: tqdm[Any] | None = (
            tqdm(total=total, unit="frame", disable=None) if wanted and callback is None else None
        )
        self.offset = 0

    def __call__(self, done: int, to_do: int) -> None:
        if self._callback is not None:
            self._callback(self.offset + done, to_do)
        elif self._bar is not None:
            self._bar.update(min(self.offset + done, self._total) - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
