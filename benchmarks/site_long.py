# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Whether the memory of a site stays as fast and as small as it is, over a shift of a robot.

    python benchmarks/site_long.py --frames 100000 --output benchmarks/results/site_long.csv

Frames of a rendered drive are passed through the network once; the score of `compact_site` then
learns from a minute of them and scores them again and again. Measured in processor time, which
other processes disturb less: the first and the last tenth of the frames.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
import torch
from soak import of_process
from table import append
from tqdm import tqdm

from ood_perception.building import load_segmentor
from ood_perception.frames.transfer import Uploader, as_frame, network_size, normalise
from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import Profile
from ood_perception.scores import create_score
from ood_simulation.proving_ground import ProvingGround

FIELDS = ('profile', 'size', 'frames', 'figure', 'first_tenth', 'last_tenth', 'command')


def outputs(profile: Profile, count: int) -> tuple[list[SegmentorOutput], tuple[int, int]]:
    """What the network says of frames of a drive at 480x360, and the size that it saw."""
    segmentor: Any = load_segmentor(profile).eval()
    ground = ProvingGround(seed=7, width=480, height=360)
    side, longest = profile.image.short_side, profile.image.max_long_side
    size = network_size(360, 480, side, longest, segmentor.spec.multiple_of)
    upload, found = Uploader(torch.device('cpu')), []
    for number in range(count):
        images = upload([as_frame(ground.frame(4 * number).image)], size)
        found.append(segmentor(normalise(images, segmentor.spec)))
    return found, size


@torch.inference_mode()
def main() -> None:
    """Print the table, and append it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--frames', type=int, default=100_000)
    parser.add_argument('--profile', default='compact_site')
    parser.add_argument('--learn', type=int, default=60, help='frames that are learnt')
    parser.add_argument('--output', type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    profile = Profile.load(arguments.profile)
    seen, size = outputs(profile, arguments.learn)
    score: Any = create_score(profile.score.name, **profile.score.options)
    score.start()
    for output in seen:
        score(output, size, ['camera'])
    score.stop()
    tokens = score.size
    ms, memory = [], []
    for number in tqdm(range(arguments.frames), disable=not sys.stderr.isatty()):
        started = time.process_time()
        score(seen[number % len(seen)], size, ['camera'])
        ms.append((time.process_time() - started) * 1e3)
        if number % 100 == 0:
            memory.append(of_process(os.getpid())['rss_mb'])
    assert score.size == tokens
    command = f'python {shlex.join(sys.argv)}'
    base = {
        'profile': profile.name, 'size': '480x360', 'frames': arguments.frames, 'command': command,
    }  # fmt: skip
    rows = []
    for figure, values in (('ms', ms), ('megabytes', memory)):
        tenth = max(1, len(values) // 10)
        ends = values[:tenth], values[-tenth:]
        first, last = (round(float(np.median(part)), 2) for part in ends)
        print(f'{figure}: first tenth {first}, last tenth {last} ({tokens} tokens)')
        rows.append({**base, 'figure': figure, 'first_tenth': first, 'last_tenth': last})
    if arguments.output:
        append(arguments.output, FIELDS, rows)


if __name__ == '__main__':
    main()
