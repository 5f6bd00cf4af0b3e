# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What half precision on a GPU costs, computed on the CPU, beside float32.

    python benchmarks/half_precision.py --data ../shared/data --output half_precision.csv
    python benchmarks/half_precision.py --profiles dinov2_uem_gg,sam_vit_b

`float16` and `bfloat16` are torch.autocast, as `eager` and `compiled` use it on a GPU;
`float16 weights` is the network that a TensorRT engine is built from.

Profiles whose weights are in the package: average precision on the sets of `real_quality.py`, with
the score of the profile. A memory of normal learns a building in float32 (dhcn_indoor, of which
the later part is scored).

The papers' networks have the random weights of the golden tests, so nothing is known of what they
find. The AP there is against the twentieth of a frame's pixels that score highest in float32; for
SAM, whose image encoder is halved, the logits of its masks are the score.

`rms` is the root mean square difference of the score over its standard deviation in float32.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkout
import numpy as np
import torch
import torch.nn.functional as F
from site_quality import sites
from table import append
from torch import Tensor, nn

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.building import load_segmentor
from ood_perception.engines.measure import probe_frames, prober
from ood_perception.engines.tensorrt import in_precision
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models import create_model
from ood_perception.models.output import InputSpec
from ood_perception.profile import Profile
from ood_perception.scores import create_score, learns
from research.real_sets import Pair, Scores, drives, photographed

sys.path.insert(0, str(Path(checkout.__file__).resolve().parents[1] / 'test'))
from official_weights import mmseg_value, uem_value

FIELDS = (
    'profile', 'set', 'precision', 'frames', 'ap', 'ap_float32', 'loss', 'rms', 'command',
)  # fmt: skip

AUTOCAST = {'float16': torch.float16, 'bfloat16': torch.bfloat16}
WEIGHTS = 'float16 weights'
HALVES = (*AUTOCAST, WEIGHTS)
SHIPPED = ('compact', 'compact_free', 'compact_clusters', 'compact_site', 'compact_novelty')
RULES: dict[str, tuple[Callable[..., Tensor], tuple[int, int]]] = {
    'dinov2_novelty': (uem_value, (518, 686)),
    'dinov2_uem_dd': (uem_value, (518, 1036)),
    'dinov2_uem_gd': (uem_value, (518, 1036)),
    'dinov2_uem_gg': (uem_value, (518, 1036)),
    'internimage_clusters': (mmseg_value, (256, 512)),
}
"""Profile of a paper -> rule of its weights, and the size at which it is run."""


class Comparison:
    """Average precision of a score in float32 and in halves, on the same frames."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {name: PixelMetrics() for name in ('float32', *HALVES)}
        self.rms: dict[str, list[float]] = {name: [] for name in HALVES}

    def update(self, maps: dict[str, np.ndarray], label: np.ndarray | None = None) -> None:
        """Take maps float (h, w) by precision; without a label uint8 (h, w), see the module."""
        want = maps['float32']
        if label is None:
            label = (want > np.quantile(want, 0.95)).astype(np.uint8)
        for name, found in maps.items():
            self.metrics[name].update(np.nan_to_num(found, nan=0.0), label)
            if name in self.rms:
                self.rms[name].append(float(np.sqrt(np.mean((found - want) ** 2)) / want.std()))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each half, AP in percent."""
        values = {name: metric.compute() for name, metric in self.metrics.items()}
        ap = {name: 100 * float(value['ap']) for name, value in values.items()}
        for name, rms in self.rms.items():
            yield {
                'precision': name, 'frames': len(rms), 'ap': ap[name], 'rms': max(rms),
                'ap_float32': ap['float32'], 'loss': ap['float32'] - ap[name],
            }  # fmt: skip


class Halved(nn.Module):
    """A segmentor as the engines of a GPU run it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.kind = model.eval(), 'float32'
        self.rounded = in_precision(model, torch.float16)
        self.spec: InputSpec = getattr(model, 'spec', InputSpec())

    def forward(self, images: Tensor) -> Any:
        """Run it as `kind` says."""
        if self.kind == WEIGHTS:
            return self.rounded(images.half())
        dtype = AUTOCAST.get(self.kind)
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            return self.model(images)

    def each(self, run: Callable[[], Any]) -> dict[str, np.ndarray]:
        """What `run` gives, by precision."""
        found = {}
        for self.kind in ('float32', *HALVES):
            found[self.kind] = np.asarray(run())
        self.kind = 'float32'
        return found


def own_score(profile: Profile) -> Any:
    """Make the score of a profile; clusters are those of each frame by itself."""
    options = dict(profile.score.options)
    if profile.score.name == 'clusters':
        options['streaming'] = False
    return create_score(profile.score.name, **options)


def shipped(
    profile: Profile, data: Path, sets: dict[str, list[Pair]], most: int
) -> Iterator[dict[str, Any]]:
    """Rows of a profile whose weights are in the package."""
    model = Halved(load_segmentor(profile))
    scores = Scores(model, profile.image.short_side)
    scores.score = score = own_score(profile)
    if learns(score):
        learnt, scored = sites(data, 0)['dhcn_indoor']()
        score.start()
        for image, _ in learnt[:: -(-len(learnt) // most)]:
            scores(image)
        score.stop()
        sets = {'dhcn_indoor, learnt': scored}
    for name, pairs in sets.items():
        comparison = Comparison()
        for index in np.unique(np.linspace(0, len(pairs) - 1, most).astype(int)):
            image, label = pairs[index]
            maps = model.each(lambda image=image: scores(image)[1::2, 1::2])  # type: ignore[misc]
            comparison.update(maps, label[1::2, 1::2])
        for row in comparison.rows():
            yield {'set': name, **row}


@torch.inference_mode()
def of_papers(profile: Profile) -> Iterator[dict[str, Any]]:
    """Rows of a profile of a paper, on the frames that ship with the package."""
    rule, size = RULES[profile.name]
    options = {k: v for k, v in profile.segmentor.options.items() if k != 'used_classes'}
    network = create_model(profile.segmentor.name, **options)
    network.load_state_dict({k: rule(k, v.shape) for k, v in network.state_dict().items()})
    model, score = Halved(network), own_score(profile)
    inputs = {'shipped frames': prober(model.spec, torch.device('cpu'))((2, 3, *size)).split(1)}
    if rule is uem_value:  # as the golden file of UEM
        noise = torch.randn(1, 3, 526, 1044, generator=torch.Generator().manual_seed(7))
        inputs['golden window'] = (9 * F.avg_pool2d(noise, 9, stride=1)[..., : size[1]],)
    if learns(score):
        score.start()
        score(model(inputs['shipped frames'][0]), size)
        score.stop()
        inputs['shipped frames'] = inputs['shipped frames'][1:]
    for name, images in inputs.items():
        comparison = Comparison()
        for image in images:
            comparison.update(model.each(lambda x=image: score(model(x), size)[0]))  # type: ignore[misc]
        for row in comparison.rows():
            yield {'set': name, **row}


@torch.inference_mode()
def of_sam() -> Iterator[dict[str, Any]]:
    """Rows of SAM ViT-B: four boxes of a frame that ships with the package."""
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    model = SamMaskModel(sam_model_registry['vit_b']())
    encoder = model.sam.image_encoder
    model.sam.image_encoder = half = Halved(encoder)
    half.img_size = encoder.img_size
    image = torch.from_numpy(probe_frames()[0]).permute(2, 0, 1)[None]
    boxes = torch.tensor([[[x, 100.0, x + 150, 300] for x in (10.0, 110, 210, 310)]])
    comparison = Comparison()
    comparison.update(half.each(lambda: model(image, torch.zeros(1), boxes)[0].flatten(0, 1)))
    for row in comparison.rows():
        yield {'set': 'shipped frames', **row}


def main() -> None:
    """Print the rows and append them to the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    everything = ','.join((*SHIPPED, *RULES, 'sam_vit_b'))
    parser.add_argument('--profiles', default=everything, help='separated by commas')
    parser.add_argument('--most', type=int, default=20, help='frames a set')
    parser.add_argument('--output', type=Path)
    arguments = parser.parse_args()
    command = shlex.join(['python', *sys.argv])
    sets: Any = None
    for name in arguments.profiles.split(','):
        if name == 'sam_vit_b':
            rows = of_sam()
        elif name in RULES:
            rows = of_papers(Profile.load(name))
        else:
            profile = Profile.load(name)
            sets = sets or photographed(arguments.data, list(drives(100_000, 10)))
            rows = shipped(profile, arguments.data, sets, arguments.most)
        for row in rows:
            row = {'profile': name, **row, 'command': command}
            print({k: v for k, v in row.items() if k != 'command'}, flush=True)
            if arguments.output:
                append(arguments.output, FIELDS, [row])


if __name__ == '__main__':
    main()
