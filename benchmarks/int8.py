# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Is int8 worth it on this CPU? The compact network, float32 against quantised.

In OpenVINO, which the engine `auto` takes on x86, or in ONNX Runtime; in OpenVINO bfloat16 too.

    python benchmarks/int8.py --data ../shared/data --output benchmarks/results/int8.csv
    python benchmarks/int8.py --runtime onnxruntime
    PYTHONPATH=. python benchmarks/int8.py --ranges ood_perception/weights/int8_ranges.json

Taken only where it is faster and loses at most 0.3 AP (percent) of the likelihood ratio on either
set: objects pasted on the held-out CamVid drive, and unseen drives of the proving ground.
Variants: what the engines openvino_bf16 and openvino_int8 run (in int8 the backbone but for its
first layers, with the package's ranges, and the wide layers of the heads), and as ONNX Runtime
quantises it the whole network.
Calibrated on frames of other drives; --ranges writes the package's file. Needs onnx and ml_dtypes.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compact_quality import DRIVE, pasted, proving_ground

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception import Pipeline
from ood_perception.building import detecting, load_segmentor
from ood_perception.engines.export import TupleOutput, export_onnx
from ood_perception.engines.openvino import compile_network, convert, int8_form
from ood_perception.frames.transfer import Uploader, as_frame, normalise
from ood_perception.models.compact import BACKBONE
from ood_perception.models.int8 import observed_ranges
from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import Profile
from ood_perception.scores import log_likelihood_ratio
from ood_training.data import read_image
from ood_training.sources import open_frames
from research.photographs import read_index

LOSS = 0.3

Run = Callable[[np.ndarray], list[np.ndarray]]


class Frames:
    """Normalised frames in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._arrays = iter(arrays)

    def get_next(self) -> dict[str, np.ndarray] | None:
        array = next(self._arrays, None)
        return None if array is None else {'images': array}


FLOAT32 = ('conv_stem', 'blocks.0.')
"""Layers that --ranges leaves out: on their map of stride 2 the smallest things are found."""

ANSWERS = ('out', 'head')
"""Last layers of the mask head and the detection head, which stay in float32, too."""

PHOTOGRAPHS = ('idd_lite', 'lums_road', 'dhcn_indoor', 'coco_context')
"""Folders that --ranges also takes frames of: indoors, night, lens casts."""


def quantise(source: Path, target: Path, arrays: list[np.ndarray]) -> None:
    """Write `source` with all of its nodes in int8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        str(source),
        str(target),
        Frames(arrays),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def open_network(path: Any, shape: tuple[int, ...], runtime: str, bfloat16: bool = False) -> Run:
    """Make a function from images (B, 3, h, w) to the network's outputs."""
    threads = torch.get_num_threads()
    if runtime == 'openvino':
        request = compile_network(path, shape, threads, bfloat16).create_infer_request()
        return lambda images: list(request.infer({0: images}, share_inputs=True).values())
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=['CPUExecutionProvider']
    )
    return lambda images: session.run(None, {'images': images})


def write_ranges(path: Path, model: Any, images: list[np.ndarray], prepare: Any) -> None:
    """Write the ranges of the package's convolutions over uint8 frames, as it reads them."""
    arrays = (torch.from_numpy(prepare(image)) for image in images)
    ranges = {BACKBONE: observed_ranges(model.backbone, arrays)}
    for layer in [name for name in ranges[BACKBONE] if name.startswith(FLOAT32)]:
        del ranges[BACKBONE][layer]
    for profile in ('compact', 'compact_free'):
        pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
        assert pipeline.outliner is not None
        free = '_free' * (profile == 'compact_free')
        head = pipeline.outliner.mask_model.head  # type: ignore[attr-defined]
        found = observed_ranges(head, images, is_inner, pipeline)
        ranges[f'package:mask_head{free}.safetensors'] = found
        network: Any = load_segmentor(pipeline.profile).eval()
        network = detecting(network, pipeline.outliner.prompts, pipeline.profile)
        arrays = (torch.from_numpy(prepare(image)) for image in images)
        found = observed_ranges(network.detection, arrays, is_inner, network)
        ranges[f'package:detection_head{free}.safetensors'] = found
    rounded = {
        weights: {name: [round(value, 4) for value in pair] for name, pair in found.items()}
        for weights, found in ranges.items()
    }
    command = shlex.join(['python', *sys.argv])
    path.write_text(json.dumps({'command': command, 'ranges': rounded}, indent=1) + '\n')


def is_inner(layer: str) -> bool:
    """Whether a layer of a head is not its last."""
    return layer not in ANSWERS


def average_precision(run: Run, flat: TupleOutput, samples: list[Any], prepare: Any) -> float:
    """AP in percent of the likelihood ratio at the frame's size."""
    metrics = PixelMetrics()
    for image, label in samples:
        arrays = run(prepare(image))
        output: SegmentorOutput = flat.restore([torch.from_numpy(a) for a in arrays])
        ratio = log_likelihood_ratio(output.logits, output.ood, label.shape)
        metrics.update(ratio[0].numpy(), label)
    return 100 * float(metrics.compute()['ap'])


def main() -> None:
    """Print the variants beside float32, and whether int8 would be taken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--size', default='576x432', help='WIDTHxHEIGHT at the network')
    parser.add_argument('--runtime', choices=('openvino', 'onnxruntime'), default='openvino')
    parser.add_argument('--calibration', type=int, default=32, help='frames to calibrate on')
    parser.add_argument('--every', type=int, default=1, help='every n-th frame of the AP')
    parser.add_argument('--runs', type=int, default=30)
    parser.add_argument('--ranges', type=Path, help='JSON file of ranges to write, and no more')
    parser.add_argument('--output', type=Path, help='CSV file to write')
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split('x'))
    model: Any = load_segmentor(Profile.load('compact')).eval()
    flat, upload = TupleOutput(model, features=False), Uploader(torch.device('cpu'))

    def prepare(image: np.ndarray) -> np.ndarray:
        batch = upload([as_frame(np.ascontiguousarray(image))], (height, width))
        return normalise(batch, model.spec).contiguous().numpy()

    train = open_frames(f'camvid:{args.data / "camvid_train"}', 'train')
    others = [i for i, path in enumerate(train.images) if not path.name.startswith(DRIVE)]
    step = max(1, len(others) // args.calibration)
    images = [train.load(i)[0] for i in others[::step][: args.calibration]]
    if args.ranges:
        images += [image for image, _ in proving_ground(0, args.calibration // 2, frames=1)]
        for folder in PHOTOGRAPHS:
            found = [p.image for p in read_index(args.data / folder) if p.split == 'train']
            images += [read_image(path) for path in found[:: len(found) // args.calibration + 1]]
        write_ranges(args.ranges, model, images, prepare)
        return
    arrays = [prepare(image) for image in images]
    sets = {'pasted': pasted(args.data), 'proving ground': proving_ground(100_000, 30)}
    samples = {name: list(made)[:: args.every] for name, made in sets.items()}
    sessions: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'float.onnx'
        with torch.inference_mode():
            export_onnx(flat, torch.from_numpy(arrays[0]), source)
        paths: dict[str, Any] = {'float32': source}
        if args.runtime == 'openvino':
            own = TupleOutput(int8_form(model), features=False)
            own(torch.from_numpy(arrays[0]))  # tells it which outputs there are
            paths['openvino_int8'] = convert(own, arrays[0].shape)
        paths['int8'] = Path(folder) / 'int8.onnx'
        quantise(source, paths['int8'], arrays)
        for name, path in paths.items():
            sessions[name] = open_network(path, arrays[0].shape, args.runtime)
        if args.runtime == 'openvino':
            sessions['openvino_bf16'] = open_network(source, arrays[0].shape, 'openvino', True)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for run in range(-3, args.runs):
        for name, session in sessions.items():
            start = time.perf_counter()
            session(arrays[0])
            if run >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    rows: list[dict[str, Any]] = []
    for name, session in sessions.items():
        aps = {k: average_precision(session, flat, v, prepare) for k, v in samples.items()}
        pairs = zip(times['float32'], times[name], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        row = {'runtime': args.runtime, 'network': name}
        row |= {'ms': round(statistics.median(times[name]), 2)}
        row |= {'ratio': round(ratio, 3)} | {f'ap {k}': round(ap, 2) for k, ap in aps.items()}
        loss = max(rows[0][f'ap {k}'] - ap for k, ap in aps.items()) if rows else 0.0
        row['taken'] = '' if not rows else 'yes' if ratio > 1 and loss <= LOSS else 'no'
        rows.append(row)
        print('  '.join(f'{key} {value}' for key, value in row.items()), flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open('w', newline='', encoding='utf-8') as file:
            command = shlex.join(['python', *sys.argv])
            file.write(f'# {command} (CPU, {torch.get_num_threads()} threads)\n')
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
