# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Labels from a folder keyed by stamp, offline and after a live run; the breakdown by distance."""

from __future__ import annotations

import types
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ood_evaluation.breakdown import Breakdown
from ood_evaluation.evaluator import Evaluator, Frame
from ood_evaluation.joining import Recording
from ood_evaluation.labels import DatasetError, LabelFolder, LabelValues, parse_stamp
from ood_evaluation.replay import evaluate_bag, evaluate_live
from ood_perception.bags.live_run import LiveRun
from ood_perception.result import Result

pytest.importorskip('rosbags')
from ood_perception.bags import writing
from ood_simulation import ProvingGround, SimulatedFrame

START = writing.DRIVE_START_NS


class Brightness:
    """Stands where a pipeline goes: brightness is the score."""

    profile = types.SimpleNamespace(name='brightness')

    def reset(self, stream):
        pass

    def __call__(self, frames, streams=None, wants=(), stamps=None):
        score = frames[0].astype(np.float32).mean(2)
        ids = (score > 180).astype(np.uint16)
        return [Result(score=score, heatmap=score.astype(np.uint8), instances=ids)]


@pytest.fixture(scope='module')
def shots() -> list[SimulatedFrame]:
    return list(ProvingGround(1007, 160, 120, 10).drive(0.8))


@pytest.fixture(scope='module')
def plain(shots, tmp_path_factory) -> Path:
    """Bag without labels."""
    path = tmp_path_factory.mktemp('bags') / 'plain'
    writing.write_drive(path, shots, labels='')
    return path


def stamp_of(shot: SimulatedFrame) -> int:
    return START + round(shot.stamp * 1e9)


def save(folder: Path, shots: list[SimulatedFrame], kind: str, shift: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shot in shots:
        cv2.imwrite(str(folder / f'{stamp_of(shot) + shift}.png'), getattr(shot, kind))


def test_a_folder_gives_the_figures_of_the_topics(shots, plain, tmp_path):
    labelled = tmp_path / 'labelled'
    writing.write_drive(labelled, shots)
    wanted = evaluate_bag(Brightness(), Recording(labelled))
    save(tmp_path / 'labels' / 'anomaly', shots, 'anomaly')
    save(tmp_path / 'labels' / 'instances', shots, 'instances')
    found = evaluate_bag(
        Brightness(),
        Recording(plain, labels=LabelFolder(tmp_path / 'labels')),
        write=tmp_path / 'out',
    )
    assert found.problems == {}
    for name in ('ap', 'fpr95', 'auroc', 'labelled', 'instance_f1', 'instance_truths', 'ece'):
        assert found.summary[name] == wanted.summary[name]
    live = evaluate_live(
        LiveRun(tmp_path / 'out', len(shots), 1.0),
        Recording(plain, labels=LabelFolder(tmp_path / 'labels')),
    )
    assert live.problems == {}
    assert live.summary['ap'] == wanted.summary['ap']


def test_a_value_without_a_meaning_is_counted_once(shots, plain, tmp_path):
    foreign = np.where(shots[0].anomaly == 0, 7, shots[0].anomaly).astype(np.uint8)
    (tmp_path / 'labels').mkdir()
    for shot in shots:
        cv2.imwrite(str(tmp_path / 'labels' / f'{stamp_of(shot)}.png'), foreign)
    values = LabelValues()
    recording = Recording(plain, labels=LabelFolder(tmp_path / 'labels', values), values=values)
    problems = evaluate_bag(Brightness(), recording).problems
    (text,) = [text for text in problems if text.startswith('label value 7 (')]
    assert problems[text] == len(shots)


def test_stamps_that_do_not_match_are_counted_and_named(shots, plain, tmp_path):
    folder = tmp_path / 'labels'
    save(folder, shots[:5], 'anomaly')
    save(folder, shots[5:7], 'anomaly', shift=1)
    found = evaluate_bag(
        Brightness(), Recording(plain, labels=LabelFolder(folder)), write=tmp_path / 'out'
    )
    assert found.summary['labelled'] == 5
    wanted = {
        f'labels whose stamp no image has ({stamp_of(shots[5]) + 1}, {stamp_of(shots[6]) + 1})': 2,
        f'frames whose stamp no label has ({", ".join(str(stamp_of(s)) for s in shots[5:])})': 3,
    }
    assert found.problems == wanted
    run = LiveRun(tmp_path / 'out', len(shots), 1.0)
    assert evaluate_live(run, Recording(plain, labels=LabelFolder(folder))).problems == wanted


def test_a_table_of_stamps_and_files(shots, tmp_path):
    for number, shot in enumerate(shots[:2]):
        cv2.imwrite(str(tmp_path / f'l{number}.png'), shot.anomaly)
    table = tmp_path / 'labels.csv'
    table.write_text(f'stamp,file\n{START},l0.png\n{START // 10**9}.1,l1.png\n')
    for root in (tmp_path, table):
        labels = LabelFolder(root)
        assert labels.stamps == {START, START + 10**8}
        frame, problems = Frame(START + 10**8), Counter()
        labels.fill(frame, problems)
        np.testing.assert_array_equal(frame.anomaly, shots[1].anomaly)
        assert not problems
    (tmp_path / 'l1.png').write_bytes(b'no picture')
    LabelFolder(table).fill(Frame(START + 10**8), problems)
    assert 'l1.png cannot be read' in next(iter(problems))
    for text, message in (
        ('7,l9.png\n', 'l9.png'),
        ('7\n', 'stamp,file'),
        ('7,l0.png\n7,l1.png\n', 'already'),
        ('soon,l0.png\n', "'soon'"),
        ('', 'no .png'),
    ):
        table.write_text(text)
        with pytest.raises(DatasetError, match=message):
            LabelFolder(table)
    with pytest.raises(DatasetError, match='absent'):
        LabelFolder(tmp_path / 'absent')
    for text in ('-1', '1e9', 'nan', '', '1.5.2'):
        with pytest.raises(ValueError, match='no stamp'):
            parse_stamp(text)


def test_breakdown_by_distance():
    truth = np.zeros((30, 40), np.uint16)
    truth[2:6, 2:6], truth[12:18, 12:18], truth[22:29, 22:29] = 1, 2, 3
    anomaly = (truth > 0).astype(np.uint8)
    found = np.where(truth == 2, 0, truth)
    distance = np.full(truth.shape, np.nan, np.float32)
    distance[truth == 1], distance[truth == 2], distance[:2] = 60, 15, 5
    heat = anomaly * np.uint8(200)

    def rows(**more):
        parts = Evaluator('x', smallest=1), Evaluator('x', smallest=1)
        for part, stream in zip(parts, 'ab', strict=True):
            frame = Frame(0, stream, None, heat, found, None, anomaly, truth, **more)
            part.update(frame)
        return dict(parts[0].merge(parts[1]).compute().breakdown)

    made = rows(distance=distance)
    assert made['objects 40 m and farther'] == {'objects': 2, 'recall': 1.0}
    assert made['objects 10 to 20 m'] == {'objects': 2, 'recall': 0.0}
    assert made['objects, distance unknown'] == {'objects': 2, 'recall': 1.0}
    assert made['pixels nearer than 10 m']['ap'] is None
    assert made['pixels 10 to 20 m']['ap'] == 1.0
    assert 'pixels 20 to 40 m' not in made
    made = rows(distances={1: 3.0, 2: 25.0, 3: 40.0})
    assert made['objects nearer than 10 m']['recall'] == 1.0
    assert made['objects 20 to 40 m']['recall'] == 0.0
    assert made['objects 40 m and farther']['recall'] == 1.0
    assert not any(name.startswith('pixels') for name in made)
    # Nothing is known of the distance: the row in the image, said so.
    made = rows()
    for third, recall in (('upper', 1.0), ('middle', 0.0), ('lower', 1.0)):
        name = f'objects whose foot is in the {third} third of the image'
        assert made[name] == {'objects': 2, 'recall': recall}
    assert made['objects below 32x32'] == {'objects': 6, 'recall': 2 / 3}


def test_breakdown_of_labels_without_ids_is_by_row():
    part = Breakdown('exact')
    label = np.zeros((9, 4), np.uint8)
    label[4, :2], label[8] = 1, 255
    score = label.astype(np.float32)
    score[0, 0] = 2
    part.add_pixels(score, label, Frame(0, anomaly=label))
    made = dict(part.rows())
    assert made['pixels in the middle third of the image']['ap'] == 1.0
    assert np.isnan(made['pixels in the upper third of the image']['ap'])


def test_the_proving_ground_tells_its_distances(shots):
    evaluator = Evaluator('x')
    for shot in shots:
        seen = set(np.unique(shot.instances).tolist()) - {0}
        assert seen <= set(shot.distances)
        assert all(1 < metres < 500 for metres in shot.distances.values())
        frame = Frame(0, heatmap=shot.anomaly, anomaly=shot.anomaly, truth=shot.instances)
        frame.instances, frame.distances = shot.instances, shot.distances
        evaluator.update(frame)
    rows = dict(evaluator.compute().breakdown)
    named = {name for name in rows if name.endswith((' m', 'farther'))}
    assert named
    assert all(rows[name]['recall'] == 1.0 for name in named)
    # Nearer things come nearer: the camera drives on.
    for identity, metres in shots[0].distances.items():
        later = shots[-1].distances.get(identity)
        assert later is None or later < metres + 2


def test_objects_too_small_for_anyone_are_no_misses():
    truth = np.zeros((40, 40), np.int32)
    truth[:7, :7], truth[20:27, 20:28] = 1, 2  # 49 and 56 pixels
    found = np.where(truth == 2, 5, 0)
    anomaly = (truth > 0).astype(np.uint8)
    evaluator = Evaluator('x')
    evaluator.update(Frame(0, '', None, anomaly * np.uint8(200), found, None, anomaly, truth))
    evaluation = evaluator.compute()
    assert evaluation.summary['instance_truths'] == 1
    assert evaluation.summary['instance_recall'] == 1.0
    assert (evaluation.summary['objects'], evaluation.summary['never_found']) == (1, 0)
    assert dict(evaluation.breakdown)['objects below 32x32'] == {'objects': 1, 'recall': 1.0}
