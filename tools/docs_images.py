# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Make the pictures of docs/how_it_works.md: rendered frames through the real pipeline.

    python tools/docs_images.py          (needs no data; about a minute on a CPU)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception import Pipeline
from ood_simulation.proving_ground import ProvingGround

IMAGES = Path(__file__).resolve().parents[1] / 'docs' / 'images'
SIZE = (360, 270)


def panel(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """A small titled RGB copy of an image."""
    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(small, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width)
    return small


def colours(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A uint8 map in the colours of the overlay."""
    return cv2.applyColorMap(values, cv2.COLORMAP_TURBO)[..., ::-1]


def write(name: str, rows: list[list[NDArray[np.uint8]]]) -> None:
    """Write rows of panels as a JPEG."""
    picture = np.vstack([np.hstack(row) for row in rows])
    cv2.imwrite(str(IMAGES / name), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(f'{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB')


def main() -> None:
    """Render, process, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--seed', type=int, default=1007)
    parser.add_argument('--times', type=float, nargs=2, default=(2.0, 6.0), help='Seconds.')
    arguments = parser.parse_args()
    # Imported here: the overlay's module lies in the room that needs ROS only for its messages.
    from ood_perception.drawing import draw

    IMAGES.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.from_profile(arguments.profile, device='cpu', engine='eager')
    frames = list(ProvingGround(seed=arguments.seed).drive(max(arguments.times) + 0.1, 10.0))
    rows = []
    for i, seconds in enumerate(arguments.times):
        frame = frames[round(seconds * 10)]
        (result,) = pipeline(frame.image)
        low, high = np.percentile(result.score, (1, 99.9))
        score = (np.clip((result.score - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        truth = np.where(frame.anomaly == 1, 255, 0).astype(np.uint8)
        labels = [f'{n}: {s:.2f}' for n, s in zip(result.ids, result.confidences, strict=True)]
        overlay = draw(frame.image, result.heatmap, result.instances, result.boxes, labels)
        rows.append([panel(frame.image, 'camera'), panel(overlay, 'overlay')])
        if i == 0:
            ids = (result.instances.astype(np.int64) * 97 % 255).astype(np.uint8)
            coloured = colours(ids) * (result.instances > 0)[..., None]
            stages = [
                [panel(frame.image, 'camera'), panel(colours(score), 'score')],
                [panel(colours(result.heatmap), 'probability'), panel(coloured, 'instances')],
            ]
            write('stages.jpg', stages)
            print('unknown pixels in truth:', int(truth.sum() / 255))
    write('overlay.jpg', rows)


if __name__ == '__main__':
    main()
