# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Pipeline: frames -> results. The one place where the stages meet.

upload -> segmentor -> score -> calibration -> prompts -> masks -> download, all on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import resolve
from ood_perception.engines import create_engine
from ood_perception.frames.assembly import assemble, semantic_map, to_host
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.timing import StageTimer
from ood_perception.frames.transfer import Uploader, as_frame, network_size, normalise
from ood_perception.masks import Tracker, create_mask_model, create_prompts, fuse
from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.fusion import Instances
from ood_perception.models import create_model
from ood_perception.models.folding import fold
from ood_perception.models.output import InputSpec
from ood_perception.profile import Profile, ProfileError, StageConfig
from ood_perception.result import Result
from ood_perception.scores import Score, create_score
from ood_perception.scores.calibration import Calibration
from ood_perception.scores.identity import model_identity

WANTS = frozenset({'score', 'heatmap', 'instances', 'semantic'})
"""What a caller can ask of a frame; 'instances' brings boxes and everything with one row a box."""

log = logging.getLogger(__name__)


class Pipeline:
    """
    Find, score and outline unknown objects in frames of one or many cameras.

    >>> pipeline = Pipeline.from_profile('compact')  # doctest: +SKIP
    >>> result, = pipeline(image)                    # doctest: +SKIP

    Attributes:
        profile: what the pipeline was built from.
        device: where it runs.
        notes: what went wrong and what was done about it, newest last, at most 32 lines.

    """

    def __init__(
        self,
        profile: Profile,
        segmentor: nn.Module,
        device: torch.device,
        engine: str = 'auto',
    ) -> None:
        self.profile = profile
        self.device = device
        self.notes: list[str] = []
        self.spec: InputSpec = segmentor.spec  # type: ignore[assignment]
        self.score: Score = _stage('score', create_score, profile.score).to(device)
        try:
            self.score.identify(model_identity(profile))
        except ValueError as error:
            raise ProfileError(f'score.weights: {error}') from error
        self.engine = create_engine(
            engine,
            segmentor,
            device,
            getattr(torch, profile.precision),
            features=self.score.needs_features,
            note=self._note,
        )
        self.calibration = Calibration.from_config(profile.calibration).to(device)
        self._prompts: PromptModel | None = None
        self._mask_model: MaskModel | None = None
        if profile.prompts.name:
            self._prompts = _stage('prompts', create_prompts, profile.prompts).to(device)
            self._mask_model = _stage('mask_model', create_mask_model, profile.mask_model).to(
                device
            )
        if profile.classes and not profile.ground_classes:
            log.info('ground_classes of the profile are not named: no surroundings of objects')
        self._upload = Uploader(device)
        self._trackers: dict[str, Tracker] = {}
        self._ground = tuple(profile.classes.index(name) for name in profile.ground_classes)

    @classmethod
    def from_profile(
        cls, name_or_path: str | Path | Profile, device: str = 'auto', engine: str = 'auto'
    ) -> Pipeline:
        """
        Build the pipeline that a profile describes, with its weights.

        Args:
            name_or_path: name of a profile, path of a YAML file, or a Profile.
            device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
            engine: entry of `engine.ENGINES` or 'auto'.

        Raises:
            ProfileError: the profile is wrong or a weight file is missing; the message starts with
                the key's path and says what to do.

        """
        profile = name_or_path if isinstance(name_or_path, Profile) else Profile.load(name_or_path)
        return cls(profile, load_segmentor(profile), choose_device(device), engine)

    @torch.inference_mode()
    def __call__(
        self,
        frames: Any,
        streams: Sequence[str] | None = None,
        as_tensors: bool = False,
        wants: Collection[str] = WANTS,
    ) -> list[Result]:
        """
        Process frames that arrived together, as one batch for each processing size.

        Args:
            frames: one uint8 (H, W, 3) RGB array or tensor, or RawFrame, or a list of them; sizes
                may differ.
            streams: name of the camera of each frame, for what lives through time (tracks,
                streaming clusters); default '0', '1', ... by position.
            as_tensors: leave the results on the device as tensors.
            wants: what to compute, out of 'score', 'heatmap', 'instances', 'semantic'.

        Returns:
            One Result a frame, in order.

        Raises:
            ValueError: a frame that is not uint8 (H, W, 3), or an unknown name in `wants`.

        """
        if not isinstance(frames, (list, tuple)):
            frames = [frames]
        tensors = [as_frame(frame) for frame in frames]
        names = list(streams) if streams is not None else [str(i) for i in range(len(tensors))]
        if len(names) != len(tensors):
            raise ValueError(f'streams: expected {len(tensors)} names, got {len(names)}')
        if unknown := set(wants) - WANTS:
            raise ValueError(f'wants: expected some of {sorted(WANTS)}, got {sorted(unknown)}')
        groups: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(tensors):
            groups.setdefault(self.network_size(*frame.shape[:2]), []).append(index)
        results: list[Result] = [Result()] * len(tensors)
        for size, indices in groups.items():
            batch = [tensors[i] for i in indices]
            done = self._run_or_halve(
                batch, [names[i] for i in indices], size, as_tensors, frozenset(wants)
            )
            for index, result in zip(indices, done, strict=True):
                results[index] = result
        return results

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (h, w) in pixels at which a frame of (height, width) pixels is processed."""
        image = self.profile.image
        multiple = self.spec.multiple_of
        return network_size(height, width, image.short_side, image.max_long_side, multiple)

    def warm_up(self, sizes: Iterable[tuple[int, int]], batch: int = 1) -> None:
        """Run once for each (height, width) so that the first real frame is not the slow one."""
        for height, width in sizes:
            frames = [torch.zeros(height, width, 3, dtype=torch.uint8)] * batch
            self(frames, streams=[f'warm-up {i}' for i in range(batch)])
        for i in range(batch):
            self.reset(f'warm-up {i}')
            self._trackers.pop(f'warm-up {i}', None)

    def reset(self, stream: str | None = None) -> None:
        """Forget the past of one camera (None: of all): tracks, streaming clusters. Ids go on."""
        self.score.reset(stream)
        for name, tracker in self._trackers.items():
            if stream in (None, name):
                tracker.reset()

    def close(self) -> None:
        """Release the device memory. The pipeline cannot be used afterwards."""
        for name in ('engine', 'score', 'calibration', '_prompts', '_mask_model'):
            self.__dict__.pop(name, None)
        self._trackers.clear()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def _note(self, line: str) -> None:
        self.notes = [*self.notes[-31:], line]

    def _run_or_halve(
        self,
        frames: list[Tensor | RawFrame],
        streams: list[str],
        size: tuple[int, int],
        as_tensors: bool,
        wants: frozenset[str],
    ) -> list[Result]:
        """Run a batch; where the device has no room for it, run its halves."""
        try:
            return self._run(frames, streams, size, as_tensors, wants)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(frames) == 1:
                raise
        half = len(frames) // 2
        line = f'device out of memory at a batch of {len(frames)}; running halves'
        log.warning(line)
        self._note(line)
        return [
            result
            for part in (slice(None, half), slice(half, None))
            for result in self._run_or_halve(frames[part], streams[part], size, as_tensors, wants)
        ]

    def _run(
        self,
        frames: list[Tensor | RawFrame],
        streams: list[str],
        size: tuple[int, int],
        as_tensors: bool,
        wants: frozenset[str],
    ) -> list[Result]:
        timer = StageTimer(self.device)
        with timer.stage('upload'):
            images = self._upload(frames, size)
            inputs = normalise(images, self.spec)
        with timer.stage('segmentor'):
            output = self.engine(inputs)
        with timer.stage('score'):
            score = self.score(output, size, streams)
            score = torch.nan_to_num(score.float(), nan=0.0, posinf=1e4, neginf=-1e4)
            probability = self.calibration(score)
            semantic = None
            if wants & {'semantic', 'instances'}:
                semantic = semantic_map(output, size, exact='semantic' in wants)
        instances: list[Instances | None] = [None] * len(frames)
        if self._prompts is not None and 'instances' in wants:
            instances = self._masks(images, score, probability, semantic, streams, timer)
        results = []
        with timer.stage('download'):
            for i, frame in enumerate(frames):
                full = (int(frame.shape[0]), int(frame.shape[1]))
                result = assemble(
                    score[i],
                    probability[i],
                    instances[i],
                    None if semantic is None else semantic[i],
                    full,
                    wants,
                )
                results.append(result)
            if not as_tensors:
                results = to_host(results)
        timings = timer.read() if not as_tensors or self.device.type != 'cuda' else {}
        for result in results:
            result.timings = timings
        return results

    def _masks(
        self,
        images: Tensor,
        score: Tensor,
        probability: Tensor,
        semantic: Tensor | None,
        streams: list[str],
        timer: StageTimer,
    ) -> list[Instances | None]:
        assert self._prompts is not None
        assert self._mask_model is not None
        with timer.stage('prompts'):
            boxes = self._prompts(score, probability)
            # The one question to the device before the download: without a box there is no work.
            counts = boxes.valid.sum(1).tolist()
        found: list[Instances | None] = []
        with timer.stage('masks'):
            for i, stream in enumerate(streams):
                # Empty slots are the last ones, so a slice takes the others without asking.
                count = int(counts[i])
                if count:
                    logits = self._mask_model(images[i], probability[i], boxes.boxes[i, :count])
                else:
                    logits = score.new_empty(0, *score.shape[1:])
                now = fuse(
                    logits,
                    boxes.confidences[i, :count],
                    boxes.valid[i, :count],
                    score[i],
                    None if semantic is None else semantic[i],
                    ground_classes=self._ground,
                )
                found.append(self._track(now, stream, images[i]))
        return found

    def _track(self, instances: Instances, stream: str, image: Tensor) -> Instances:
        if not self.profile.tracking.enabled:
            return instances
        tracker = self._trackers.get(stream)
        if tracker is None:
            tracker = self._trackers[stream] = Tracker(**self.profile.tracking.options)
        return tracker.update(instances, image)


def load_segmentor(profile: Profile) -> nn.Module:
    """Build the segmentor of a profile with its weights. Raises ProfileError."""
    segmentor: nn.Module = _stage('segmentor', create_model, profile.segmentor, weights=False)
    if profile.segmentor.weights:
        try:
            report = load_checkpoint(segmentor, resolve(profile.segmentor.weights))
        except (OSError, ValueError) as error:
            raise ProfileError(f'segmentor.weights: {error}') from error
        log.info('%s: %s', profile.segmentor.name, report)
    return fold(segmentor)


def image_size(profile: Profile, segmentor: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Size (h, w) in pixels at which a frame of (height, width) pixels is processed."""
    spec: InputSpec = segmentor.spec  # type: ignore[assignment]
    image = profile.image
    return network_size(height, width, image.short_side, image.max_long_side, spec.multiple_of)


def choose_device(device: str) -> torch.device:
    """Turn 'auto', 'cpu', 'cuda' or 'cuda:N' into a device; ValueError where there is none."""
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device: expected auto, cpu or cuda[:N], got {device!r}') from error
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'device: {device!r} asked for, but torch {torch.__version__} sees no GPU'
        )
    return chosen


def _stage(key: str, create: Any, config: StageConfig, weights: bool = True) -> Any:
    """Call a registry's factory; what it refuses becomes a ProfileError with the key's path."""
    options = dict(config.options)
    if weights and config.weights:
        options['weights'] = config.weights
    try:
        return create(config.name, **options)
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise ProfileError(f'{key} ({config.name}): {error}') from error
