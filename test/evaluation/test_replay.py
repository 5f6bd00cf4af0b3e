# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Bags: offline evaluation, joining by stamp, output bag, damaged and incomplete input, report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import types
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation.shard_work import by_thresholds, dies_once, fails_always

from ood_evaluation.datasets import DatasetError, open_dataset
from ood_evaluation.evaluator import Evaluator, Frame
from ood_evaluation.joining import Recording, Topics, join
from ood_evaluation.replay import (
    WorkerError,
    evaluate_bag,
    evaluate_live,
    evaluate_shards,
)
from ood_evaluation.report import read_numbers, write_report
from ood_perception.result import Result

pytest.importorskip('rosbags')
from ood_perception.bags import reading as bags
from ood_perception.bags import writing
from ood_perception.bags.live_run import LiveRun
from ood_simulation import ProvingGround, SimulatedFrame


class Brightness:
    """Stands where a pipeline goes: brightness is the score, bright regions are the objects."""

    profile = types.SimpleNamespace(name='brightness')

    def reset(self, stream):
        pass

    def __call__(self, frames, streams=None, wants=(), stamps=None):
        score = frames[0].astype(np.float32).mean(2)
        count, ids = cv2.connectedComponents((score > 180).astype(np.uint8))
        return [
            Result(
                score=score,
                heatmap=score.astype(np.uint8),
                instances=ids.astype(np.uint16),
                ids=np.arange(1, count),
                confidences=np.linspace(0.5, 1, count - 1),
            )
        ]


@pytest.fixture(scope='module')
def frames() -> list[SimulatedFrame]:
    """A rendered world takes seconds, so all the bags are of one."""
    return list(ProvingGround(1007, 160, 120, 10).drive(2.0))


@pytest.fixture(scope='module')
def drive(tmp_path_factory, frames) -> Path:
    path = tmp_path_factory.mktemp('bags') / 'drive'
    writing.write_drive(path, frames[:12])
    return path


def same(a: dict, b: dict) -> None:
    timed = ('fps', 'latency_ms_p50', 'latency_ms_p95', 'latency_ms_p99', 'replay')
    assert {k: v for k, v in a.items() if k not in timed} == {
        k: v for k, v in b.items() if k not in timed
    }


def test_offline_twice_is_the_same_and_its_output_bag_evaluates_alike(drive, tmp_path):
    first = evaluate_bag(Brightness(), Recording(drive), track='obstacle', write=tmp_path / 'out')
    second = evaluate_bag(Brightness(), Recording(drive), track='obstacle')
    same(first.summary, second.summary)
    assert first.summary['frames_out'] == first.summary['labelled'] == 12
    assert 0 < first.summary['ap'] < 1
    assert first.problems == {}
    run = LiveRun(tmp_path / 'out', 12, 1.2)
    replayed = evaluate_live(run, Recording(drive), profile='brightness', track='obstacle')
    same(first.summary, replayed.summary)


def test_dropped_frames_and_foreign_stamps_are_counted(drive, frames, tmp_path):
    evaluate_bag(Brightness(), Recording(drive), write=tmp_path / 'out', limit=5)
    run = LiveRun(tmp_path / 'out', 12, 1.2)
    found = evaluate_live(run, Recording(drive))
    assert (found.summary['frames_out'], found.summary['dropped']) == (5, 7)
    shifted = tmp_path / 'shifted'
    writing.write_drive(shifted, frames[:5], start_ns=7 * 10**9)
    problems: Counter[str] = Counter()
    assert list(join(tmp_path / 'out', Recording(shifted), problems)) == []
    (problem,) = problems
    assert 'outputs whose stamp no image has (1735689600000000000, ' in problem
    assert problems[problem] == 5


def test_without_labels_there_are_rates_and_pictures(frames, tmp_path):
    path = tmp_path / 'plain'
    writing.write_drive(path, frames[:5], labels='')
    found = evaluate_bag(Brightness(), Recording(path))
    assert found.summary['ap'] is None
    assert found.summary['flicker'] is not None
    assert len(found.pictures) == 5
    assert all('most unknown' in caption for caption, _ in found.pictures)
    with pytest.raises(bags.BagError, match='/camera/image_raw'):
        evaluate_bag(Brightness(), Recording(path, Topics(image='/nothing')))


def test_a_truncated_mcap_is_evaluated_up_to_the_cut(frames, tmp_path):
    path = tmp_path / 'whole'
    writing.write_drive(path, frames, storage='mcap')
    whole = evaluate_bag(Brightness(), Recording(path))
    assert whole.problems == {}
    data = (path / 'whole.mcap').read_bytes()
    for share in (0.5, 0.9):
        cut = tmp_path / f'cut_{share}'
        shutil.copytree(path, cut)
        (cut / 'whole.mcap').write_bytes(data[: round(share * len(data))])
        # The recorder was killed: no metadata either.
        (cut / 'metadata.yaml').unlink(missing_ok=share == 0.5)
        found = evaluate_bag(Brightness(), Recording(cut))
        done = found.summary['labelled']
        assert share * 20 - 2 <= done <= share * 20
        (problem,) = (name for name in found.problems if 'cut off' in name)
        assert f'whole.mcap ends at byte {round(share * len(data))}' in problem
        # What is left gives the very figures of the same frames of the whole bag.
        same(found.summary, evaluate_bag(Brightness(), Recording(path), limit=done).summary)
    # The records are read alike where nothing is missing.
    (tmp_path / 'bare').mkdir()
    shutil.copy(path / 'whole.mcap', tmp_path / 'bare')
    bare = evaluate_bag(Brightness(), Recording(tmp_path / 'bare'))
    assert bare.problems == {}
    same(bare.summary, whole.summary)
    (cut / 'whole.mcap').write_bytes(data[:5])
    with pytest.raises(bags.BagError, match='cut'):
        evaluate_bag(Brightness(), Recording(cut))


def test_a_bad_frame_is_counted_and_the_rest_evaluated():
    evaluator = Evaluator('x')
    label = np.zeros((8, 8), np.uint8)
    label[2:4] = 1
    evaluator.update(Frame(0, heatmap=label * 200, anomaly=label))
    evaluator.update(Frame(1, heatmap=label[:4] * 200, anomaly=label))
    evaluator.update(Frame(2, heatmap=label * 200, anomaly=label + 3))
    evaluator.update(Frame(3))
    found = evaluator.compute()
    assert found.summary['ap'] == 1.0
    assert (found.summary['frames'], found.summary['labelled']) == (4, 1)
    assert sum(found.problems.values()) == 3


def test_workers_agree_with_one_process_bit_for_bit(tmp_path):
    shards = [1, 2, 3]
    alone = evaluate_shards(shards, by_thresholds, 1).compute().summary
    assert evaluate_shards(shards, by_thresholds, 2).compute().summary == alone
    # One worker is killed on its first shard; the shard goes to another.
    mortal = [(tmp_path / 'died', seed) for seed in shards]
    assert evaluate_shards(mortal, dies_once, 2).compute().summary == alone
    assert (tmp_path / 'died').exists()


def test_a_shard_that_always_kills_is_named():
    with pytest.raises(WorkerError, match='bad shard'):
        evaluate_shards(['bad shard'], fails_always, 2)


def test_report_holds_everything_and_reads_back(drive, tmp_path):
    run = evaluate_bag(Brightness(), Recording(drive))
    other = dataclasses.replace(run, name='second <b>')
    path = write_report(tmp_path / 'report.html', [run, other])
    page = path.read_text()
    assert 'second &lt;b&gt;' in page
    assert page.count('<svg') == 4
    assert 'http://' not in page.replace('http://www.w3.org', '')
    assert json.loads(path.with_suffix('.json').read_text())[0]['summary'] == run.summary
    back = read_numbers(path)
    assert back[1].summary == other.summary
    write_report(tmp_path / 'again.html', back)
    with pytest.raises(ValueError, match='no report'):
        read_numbers(tmp_path / 'absent')


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs chromium')
def test_report_in_a_browser_light_and_dark(drive, tmp_path):
    write_report(tmp_path / 'report.html', [evaluate_bag(Brightness(), Recording(drive))])
    light, dark = (screenshot(tmp_path, mode) for mode in ('light', 'dark'))
    # The page is light or dark at its edge, and there is something on it in both.
    assert light[:, :10].mean() > 200
    assert dark[:, :10].mean() < 60
    assert min(light.std(), dark.std()) > 10


def screenshot(folder: Path, mode: str) -> np.ndarray:
    target = folder / f'{mode}.png'
    options = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run'
    options += ' --disable-background-networking --disable-component-update --disable-sync'
    if mode == 'dark':
        options += ' --blink-settings=preferredColorScheme=0 --force-dark-mode'
    subprocess.run(
        [
            'chromium',
            *options.split(),
            f'--user-data-dir={folder / mode}',
            '--window-size=1000,1600',
            f'--screenshot={target}',
            (folder / 'report.html').as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return cv2.imread(str(target))


def test_data_sets_say_what_is_missing(tmp_path):
    with pytest.raises(DatasetError, match='segmentmeifyoucan'):
        open_dataset('smiyc_anomaly', tmp_path / 'absent')
    (tmp_path / 'frames' / 'a.labels').mkdir(parents=True)
    label = np.zeros((4, 6), np.uint8)
    label[1] = 2
    cv2.imwrite(str(tmp_path / 'frames' / 'a.labels' / 'labels_semantic.png'), label)
    with pytest.raises(DatasetError, match=r'a\.jpg'):
        open_dataset('road_anomaly', tmp_path)
    cv2.imwrite(str(tmp_path / 'frames' / 'a.jpg'), np.zeros((4, 6, 3), np.uint8))
    (frame,) = open_dataset('road_anomaly', tmp_path).frames()
    np.testing.assert_array_equal(frame.anomaly, label // 2)
    assert frame.image().shape == (4, 6, 3)
    with pytest.raises(DatasetError, match="'nowhere'"):
        open_dataset('nowhere', tmp_path)
