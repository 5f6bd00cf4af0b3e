# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Ours beside what others offer for the same work, in one run on this machine's CPU.

    python benchmarks/peers.py --output benchmarks/results/peers.csv
    python benchmarks/peers.py --quick                  # a rehearsal in seconds
    python benchmarks/peers.py --only sam,metrics

Both sides of a pair get the same inputs and alternate; the ratio is the median over the rounds of
peer's time over ours (above 1: ours is faster), `difference` the largest of the outputs. Random
weights where a network is needed, except for the compact one.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIELDS = ('section', 'peer', 'ours', 'peer_ms', 'ours_ms', 'ratio', 'difference', 'note')


def pair(
    peer: Callable[[], Any], ours: Callable[[], Any], rounds: int
) -> tuple[dict[str, float], Any, Any]:
    """Time two functions in turns after a warm-up; times, ratio and what they last gave."""
    times: tuple[list[float], list[float]] = ([], [])
    results: list[Any] = [None, None]
    for number in range(-1, rounds):
        for i, function in enumerate((peer, ours)):
            start = time.perf_counter()
            results[i] = function()
            if number >= 0:
                times[i].append(1e3 * (time.perf_counter() - start))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    medians = [statistics.median(t) for t in times]
    figures = {'peer_ms': medians[0], 'ours_ms': medians[1], 'ratio': ratio}
    return figures, results[0], results[1]


def gap(a: Any, b: Any) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


@torch.inference_mode()
def sam(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """segment-anything's own predictor with 1 and 8 boxes a frame; a small random encoder."""
    from segment_anything import SamPredictor, modeling

    from ood_perception.masks.sam import SamMaskModel

    torch.manual_seed(0)
    side, width, depth = (128, 32, 2) if quick else (512, 192, 6)
    grid = side // 16
    encoder = modeling.ImageEncoderViT(
        img_size=side,
        embed_dim=width,
        depth=depth,
        num_heads=width // 16,
        out_chans=64,
        use_rel_pos=True,
        global_attn_indexes=(depth - 1,),
        window_size=14,
    )
    net = modeling.Sam(
        encoder,
        modeling.PromptEncoder(64, (grid, grid), (side, side), 16),
        modeling.MaskDecoder(
            transformer_dim=64, transformer=modeling.TwoWayTransformer(2, 64, 4, 128)
        ),
    ).eval()
    height, length = (60, 80) if quick else (360, 640)
    image = torch.randint(0, 256, (height, length, 3), dtype=torch.uint8)
    predictor, mask_model = SamPredictor(net), SamMaskModel(net)
    zeros = torch.zeros(1, height, length)
    rows = []
    for count in (1, 8):
        left = torch.rand(count, 2) * torch.tensor([length / 2, height / 2])
        boxes = torch.cat([left, left + torch.tensor([length / 3, height / 3])], 1)

        def theirs(boxes: Tensor = boxes) -> np.ndarray:
            # box by box, as its predictor's example does it
            predictor.set_image(image.numpy())
            options = {'multimask_output': False, 'return_logits': True}
            return np.stack([predictor.predict(box=b.numpy(), **options)[0][0] for b in boxes])

        def batched(boxes: Tensor = boxes) -> Tensor:
            predictor.set_image(image.numpy())
            moved = predictor.transform.apply_boxes_torch(boxes, (height, length))
            options = {'multimask_output': False, 'return_logits': True}
            return predictor.predict_torch(None, None, boxes=moved, **options)[0][:, 0]

        def mine(boxes: Tensor = boxes) -> Tensor:
            return mask_model(image.permute(2, 0, 1)[None], zeros, boxes[None])[0]

        def empty(boxes: Tensor = boxes) -> Tensor:
            return mask_model(image.permute(2, 0, 1)[None], zeros, boxes[None, :0])[0]

        for name, peer in (('predict, box by box', theirs), ('predict_torch', batched)):
            figures, a, b = pair(peer, mine, rounds)
            about = {'peer': f'segment-anything {name}', 'ours': 'SamMaskModel'}
            rows.append({**about, **figures, 'difference': gap(a, b), 'note': f'{count} boxes'})
    figures, _, _ = pair(lambda: predictor.set_image(image.numpy()), empty, rounds)
    about = {'peer': 'segment-anything set_image', 'ours': 'SamMaskModel'}
    rows.append({**about, **figures, 'note': 'a frame without a box: no embedding is computed'})
    return rows


def kmeans(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """scikit-learn's K-means, converged and warm with three iterations, frame by frame."""
    from streaming_kmeans import case

    rows = []
    for width, clusters in ((32, 8),) if quick else ((384, 16), (768, 64)):
        found = case(width, clusters, 2 if quick else max(rounds, 5), 2)
        for name, key in (('converged', 'converged'), ('warm, 3 iterations', 'warm_3')):
            rows.append(
                {
                    'peer': f'scikit-learn KMeans, {name}',
                    'ours': 'StreamingKMeans.step',
                    'peer_ms': found[f'ms_sklearn_{key}'],
                    'ours_ms': found['ms_ours'],
                    'ratio': found[f'faster_than_{key}'],
                    'note': f'2738 x {width} tokens, {clusters} clusters, '
                    f'inertia {found["inertia_ratio"]:.4f} of converged',
                }
            )
    return rows


@torch.inference_mode()
def windows(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """The official per-window loop of UEM with its two passes of DINOv2, and the one-pass loop."""
    import uem_windows

    from ood_perception.models import create_model

    torch.manual_seed(0)
    options, size = uem_windows.NETWORKS['small']
    model = create_model('uem_gd', mode='sliding', **options).eval()
    width, height = (280, 140) if quick else (int(side) for side in size.split('x'))
    images = torch.randn(1, 3, height, width)
    rows = []
    for name, passes in (('official two-pass loop', 2), ('plain loop, one pass', 1)):
        figures, a, b = pair(
            lambda n=passes: uem_windows.plain_loop(model, images, n),  # type: ignore[misc]
            lambda: uem_windows.ours(model, images, None),
            rounds,
        )
        note = f'small random network, {width}x{height}'
        rows.append(
            {'peer': name, 'ours': 'sliding', **figures, 'difference': gap(a, b), 'note': note}
        )
    return rows


@torch.inference_mode()
def network(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """The compact network as timm and PyTorch run it by themselves, against our engines."""
    from ood_perception.building import load_segmentor
    from ood_perception.engines import create_engine
    from ood_perception.profile import Profile

    plain: Any = load_segmentor(Profile.load('compact')).eval()
    images = torch.randn(1, 3, *((64, 96) if quick else (360, 640)))
    rows = []
    for name in ('eager', 'openvino'):  # at equal output: not in int8
        model = load_segmentor(Profile.load('compact'))
        engine = create_engine(name, model, torch.device('cpu'), features=False)
        figures, a, b = pair(lambda: plain(images), lambda e=engine: e(images), rounds)  # type: ignore[misc]
        ours = name if engine.name == name else f'{name} ({engine.name})'
        about = {'peer': 'timm, PyTorch eager', 'ours': f'engine {ours}', **figures}
        rows.append({**about, 'difference': gap(a.logits, b.logits), 'note': 'compact network'})
    return rows


def metrics(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """scikit-learn's AP, AUROC and ROC curve over all pixels, against streaming histograms."""
    from pixel_metrics import frames
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    from ood_evaluation.pixel_metrics import PixelMetrics

    samples = list(frames(1 if quick else 10))
    if quick:
        samples = [(score[::8, ::8], label[::8, ::8]) for score, label in samples]

    def theirs() -> float:
        score = np.concatenate([s.ravel() for s, _ in samples])
        label = np.concatenate([y.ravel() for _, y in samples])
        roc_auc_score(label, score)
        roc_curve(label, score)
        return float(average_precision_score(label, score))

    def mine() -> float:
        found = PixelMetrics('streaming')
        for score, label in samples:
            found.update(score, label)
        return float(found.compute()['ap'])

    figures, a, b = pair(theirs, mine, min(rounds, 2))
    about = {'peer': 'scikit-learn AP, AUROC, ROC', 'ours': 'PixelMetrics streaming', **figures}
    return [{**about, 'difference': gap(a, b), 'note': f'{len(samples)} frames'}]


SECTIONS: dict[str, Callable[[bool, int], list[dict[str, Any]]]] = {
    'sam': sam,
    'kmeans': kmeans,
    'windows': windows,
    'network': network,
    'metrics': metrics,
}


def main() -> int:
    """Run the sections, print and write the table; 1 when a section failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true', help='tiny sizes; the figures mean little')
    parser.add_argument('--only', default=','.join(SECTIONS), help='sections, by commas')
    parser.add_argument('--rounds', type=int, default=0, help='timed rounds; 0 = 9, or 1')
    parser.add_argument('--output', type=Path, help='CSV file to write')
    args = parser.parse_args()
    if unknown := set(args.only.split(',')) - set(SECTIONS):
        parser.error(f'--only: expected some of {", ".join(SECTIONS)}, got {sorted(unknown)}')
    rounds = args.rounds or (1 if args.quick else 9)
    table: list[dict[str, Any]] = []
    failed = []
    for name in args.only.split(','):
        try:
            rows = SECTIONS[name](args.quick, rounds)
        except Exception as error:
            failed.append(name)
            rows = [{'peer': name, 'note': f'failed: {error}'}]
        for row in rows:
            table.append({'section': name, **row})
            print(
                '  '.join(
                    f'{v:.4g}' if isinstance(v, float) else str(v) for v in table[-1].values()
                ),
                flush=True,
            )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open('w', newline='', encoding='utf-8') as file:
            threads = torch.get_num_threads()
            command = shlex.join(['python', *sys.argv])
            file.write(f'# {command} (torch {torch.__version__}, CPU, {threads} threads)\n')
            writer = csv.DictWriter(file, FIELDS, restval='')
            writer.writeheader()
            for row in table:
                rounded = {k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(rounded)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
