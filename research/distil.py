# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Make the heads of `compact` narrower: they learn from the wide ones what these say of each pixel.

    python -m research.distil compact --teacher WIDE.safetensors --out runs/narrow

The narrow heads begin as the wide ones without the channels that matter least. Then both see the
samples of `research.robot7`: the narrow ones learn the labels, the teacher's likelihood ratio and
its class logits. The same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints import read_checkpoint, resolve
from ood_perception.models.compact import WIDTHS, Compact, widths_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import coarse_ratio
from ood_training.checkpointing import write_weights
from ood_training.parts import Parts, split
from ood_training.presets import override
from ood_training.trainer import Trainer
from ood_training.uem import UemTask, Validate, llr_loss
from research import real_sets, robot7
from research.compact_data import Samples, load_pairs
from research.frozen import FrozenFeatures
from research.presets import PRESETS, PaperStage
from research.rendered import render
from research.scenes import Scenes
from research.segmentor import FrozenMaps
from research.stages import torch_threads

log = logging.getLogger(__name__)

LIKELY = -2.0
"""Likelihood ratio in nats above which a pixel may be unknown."""

READERS = {
    'pyramid': 'fpn.fuse.0',
    'fused': 'fpn.head',
    'unknown': 'uem.mid',
    'fine': 'uem.dec.2.0',
    'drawn': 'uem.dec.3.0',
    'outlined': 'uem.low',
}
"""A group of channels -> the layer by whose input and weights their worth is measured."""

OUTPUTS = {
    'pyramid': ('fpn.lateral', 'fpn.smooth'),
    'fused': ('fpn.fuse',),
    'unknown': ('uem.inp', 'uem.glob', 'uem.ctx'),
    'fine': ('uem.mid', 'uem.fine', 'uem.dec.0'),
    'drawn': ('uem.dec.2',),
    'outlined': ('uem.dec.3',),
}
"""A group -> the layers whose outputs it is, depthwise ones and norms among them."""

INPUTS = {
    'pyramid': ('fpn.smooth', 'fpn.fuse'),
    'fused': ('fpn.head',),
    'unknown': ('uem.glob', 'uem.ctx', 'uem.mid'),
    'fine': ('uem.dec.2',),
    'drawn': ('uem.dec.3',),
    'outlined': ('uem.low',),
}
"""A group -> the layers that read it."""


@torch.no_grad()
def worth(teacher: Compact, images: Tensor) -> dict[str, Tensor]:
    """
    How much each channel moves what reads it: its deviation times the norm of its weights.

    Args:
        teacher: in evaluation mode.
        images: normalised (B, 3, H, W).

    Returns:
        Group of `READERS` -> float (C,).

    """
    found: dict[str, Tensor] = {}

    def note(group: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            weight = layer.get_parameter('weight')
            found[group] = inputs[0].std((0, 2, 3)) * weight.square().sum((0, 2, 3)).sqrt()

        return hook

    hooks = [
        teacher.get_submodule(layer).register_forward_pre_hook(note(group))
        for group, layer in READERS.items()
    ]
    teacher(images)
    for hook in hooks:
        hook.remove()
    return found


def narrowed(
    state: dict[str, Tensor], widths: dict[str, int], worths: dict[str, Tensor]
) -> dict[str, Tensor]:
    """
    Cut the least worthy channels out of the heads' weights.

    Args:
        state: of the wide heads; not changed.
        widths: group of `READERS` -> channels that are kept.
        worths: see `worth`.

    """
    kept = {g: w.topk(widths[g]).indices.sort().values for g, w in worths.items()}
    found = {}
    for key, value in state.items():
        for group, layers in OUTPUTS.items():
            if value.ndim and _below(key, layers):
                value = value[kept[group]]
        # of a depthwise convolution the second axis is one channel
        for group, layers in INPUTS.items():
            if value.ndim > 1 and value.shape[1] > 1 and _below(key, layers):
                value = value[:, kept[group]]
        found[key] = value.clone()
    return found


def _below(key: str, layers: Sequence[str]) -> bool:
    return any(key.startswith(f'{layer}.') for layer in layers)


class DistilTask(FrozenMaps, UemTask):
    """
    Train both narrow heads on a frozen backbone.

    Args:
        parts: of the narrow model.
        stage: weights of the loss over the labels.
        validate: measures the parts, None = no validation.

    """

    def __init__(self, parts: Parts, stage: PaperStage, validate: Validate | None = None) -> None:
        both = dataclasses.replace(parts, uem=[*parts.decoder, *parts.uem])
        super().__init__(both, stage, validate)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """
        Return 'loss' and its parts.

        They are 'truth' (as of the UEM), 'ratio' (off the teacher's likelihood ratio, nats, smooth
        L1 at stride 2, mostly where one of both finds the unknown likely: how surely the rest is
        known matters to nobody) and 'classes' (its class logits: smooth L1, and their divergence).
        """
        batch = self._with_targets(batch)
        maps, target = self.features(batch), batch['target']
        assert self.parts.logits is not None
        assert self.parts.ood is not None
        own = SegmentorOutput(logits=self.parts.logits(maps), ood=self.parts.ood(maps))
        his = SegmentorOutput(logits=batch['logits'].float(), ood=batch['ood'].float())
        truth = llr_loss(
            self.score(own, (int(target.shape[-2]), int(target.shape[-1]))),
            target,
            unknown_weight=self.unknown_weight,
            pixel_weight=batch.get('pixel_weight'),
        )
        found, wanted = coarse_ratio(own), coarse_ratio(his)
        apart = F.smooth_l1_loss(found, wanted, reduction='none')
        likely = (torch.maximum(found.detach(), wanted) - LIKELY).sigmoid()
        ratio = (apart * likely).sum() / likely.sum() + 0.1 * apart.mean()
        assert own.logits is not None
        assert his.logits is not None
        classes = (
            F.smooth_l1_loss(own.logits, his.logits)
            + F.kl_div(
                own.logits.log_softmax(1),
                his.logits.log_softmax(1),
                reduction='none',
                log_target=True,
            )
            .sum(1)
            .mean()
        )
        loss = 0.3 * truth + ratio + 0.3 * classes
        return {'loss': loss, 'truth': truth, 'ratio': ratio, 'classes': classes}


def compact_of(state: Mapping[str, Tensor]) -> Compact:
    """Build the segmentor that a checkpoint of `compact` is of, whatever its widths, with it."""
    model = Compact(len(state['fpn.head.bias']), widths=widths_of(state))
    model.load_state_dict(state, strict=False)
    return model.eval()


def main() -> None:
    """Distil one set of weights."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('name', choices=sorted(robot7.WEIGHTS))
    parser.add_argument('--teacher', required=True, help='weights of the wide heads')
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--weights', default='', help='narrow ones to go on from')
    parser.add_argument('--drawn', type=Path, help='rendered frames and rooms; default OUT/drawn')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    drawn = arguments.drawn or arguments.out / 'drawn'
    material = robot7.gather(arguments.name, arguments.data, drawn)
    val = load_pairs(render(drawn / 'val', robot7.VAL_DRIVES, 3, workers=2))
    sets = real_sets.photographed(arguments.data, real_sets.as_unknown(val))
    stage = override(
        PRESETS['compact'].uem, ['monitor=mean', 'validate_every=1000', *arguments.set]
    )
    stage = dataclasses.replace(stage, trainer=stage.trainer.for_this_machine())
    makers = [(s.weight, s.pairs, Scenes(s, material.things)) for s in material.sources]
    samples = Samples(makers, 4000, stage.trainer.seed)
    teacher = compact_of(read_checkpoint(resolve(arguments.teacher)))
    torch.manual_seed(stage.trainer.seed)
    student = Compact(len(robot7.VOCABULARY))
    parts = split(student)
    images = torch.stack([samples[(0, i)]['image'] for i in range(32)])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (student.spec.mean, student.spec.std))
    pyramid, unknown, fine = WIDTHS
    kept = dict(zip(READERS, (pyramid, pyramid, unknown, fine, fine, fine), strict=True))
    state = {k: v for k, v in teacher.state_dict().items() if not k.startswith('backbone.')}
    start: Mapping[str, Tensor] = narrowed(
        state, kept, worth(teacher, (images / 255 - mean) / std)
    )
    if arguments.weights:
        start = read_checkpoint(resolve(arguments.weights))
    student.load_state_dict(start, strict=False)
    task = DistilTask(parts, stage, robot7.RealValidation(sets))
    frozen = FrozenFeatures(samples, split(teacher), logits=True, ood=True)
    trainer = Trainer(task, frozen, stage.trainer, arguments.out)
    with torch_threads(max(1, torch.get_num_threads() - stage.trainer.workers)):
        numbers = trainer.fit()
    trained = {k: v for k, v in student.state_dict().items() if not k.startswith('backbone.')}
    write_weights(arguments.out / 'weights.safetensors', trained)
    log.info('%s', numbers)


if __name__ == '__main__':
    main()
