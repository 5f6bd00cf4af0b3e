# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Is int8 worth it on this CPU? The compact network in ONNX Runtime, float32 against quantised.

    python benchmarks/int8.py --data ../shared/data --output benchmarks/results/int8.csv

Taken only where it is faster and loses at most 0.3 AP (percent) of the likelihood ratio on objects
pasted on the held-out CamVid drive. Calibrated on frames of other drives. Two variants: the whole
network, and the backbone alone with float32 heads.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compact_quality import DRIVE, pasted

from ood_perception.engine.flat import Flat
from ood_perception.engine.onnx import export_onnx
from ood_perception.engine.transfer import Uploader, as_frame, normalise
from ood_perception.evaluation.pixel_metrics import PixelMetrics
from ood_perception.models.output import SegmentorOutput
from ood_perception.models.uem import likelihood_ratio
from ood_perception.pipeline import load_segmentor
from ood_perception.profile import Profile
from ood_perception.training.sources import open_frames

LOSS = 0.3


class Frames:
    """Normalised frames in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._arrays = iter(arrays)

    def get_next(self) -> dict[str, np.ndarray] | None:
        array = next(self._arrays, None)
        return None if array is None else {'images': array}


def quantise(source: Path, target: Path, arrays: list[np.ndarray], only: str) -> None:
    """Write `source` in int8; `only`: part of the names of the nodes to quantise, '' = all."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = onnx.load(str(source)).graph.node
    quantize_static(
        str(source),
        str(target),
        Frames(arrays),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in nodes if only not in node.name],
    )


def average_precision(session: Any, flat: Flat, samples: list[Any], prepare: Any) -> float:
    """AP in percent of the likelihood ratio at the frame's size."""
    metrics = PixelMetrics()
    for image, label in samples:
        arrays = session.run(None, {'images': prepare(image)})
        output: SegmentorOutput = flat.restore([torch.from_numpy(a) for a in arrays])
        score = likelihood_ratio(output, arrays[0].shape[2:])[:, None]
        score = F.interpolate(score, label.shape, mode='bilinear')[0, 0]
        metrics.update(score.numpy(), label)
    return 100 * float(metrics.compute()['ap'])


def main() -> None:
    """Print both variants beside float32, and whether int8 would be taken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--size', default='480x360', help='WIDTHxHEIGHT at the network')
    parser.add_argument('--calibration', type=int, default=32, help='frames to calibrate on')
    parser.add_argument('--every', type=int, default=1, help='every n-th frame of the AP')
    parser.add_argument('--runs', type=int, default=30)
    parser.add_argument('--output', type=Path, help='CSV file to write')
    args = parser.parse_args()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    width, height = (int(side) for side in args.size.split('x'))
    model: Any = load_segmentor(Profile.load('compact')).eval()
    flat, upload = Flat(model, features=False), Uploader(torch.device('cpu'))

    def prepare(image: np.ndarray) -> np.ndarray:
        batch = upload([as_frame(np.ascontiguousarray(image))], (height, width))
        return normalise(batch, model.spec).contiguous().numpy()

    train = open_frames(f'camvid:{args.data / "camvid_train"}', 'train')
    others = [i for i, path in enumerate(train.images) if not path.name.startswith(DRIVE)]
    step = max(1, len(others) // args.calibration)
    arrays = [prepare(train.load(i)[0]) for i in others[::step][: args.calibration]]
    samples = list(pasted(args.data))[:: args.every]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    sessions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'float.onnx'
        with torch.inference_mode():
            export_onnx(flat, torch.from_numpy(arrays[0]), source)
        paths = {'float32': source}
        for name, only in (('int8', ''), ('int8 backbone', '/backbone/')):
            paths[name] = Path(folder) / f'{name}.onnx'
            quantise(source, paths[name], arrays, only)
        for name, path in paths.items():
            sessions[name] = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=['CPUExecutionProvider']
            )
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for run in range(-3, args.runs):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {'images': arrays[0]})
            if run >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    rows: list[dict[str, Any]] = []
    for name, session in sessions.items():
        ap = average_precision(session, flat, samples, prepare)
        pairs = zip(times['float32'], times[name], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        row = {'network': name, 'ms': round(statistics.median(times[name]), 2)}
        row |= {'ratio': round(ratio, 3), 'ap': round(ap, 2), 'frames': len(samples)}
        loss = rows[0]['ap'] - ap if rows else 0.0
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
