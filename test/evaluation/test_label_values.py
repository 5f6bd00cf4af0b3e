# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Labels mean the same wherever they come from, and what means nothing is named."""

from __future__ import annotations

import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ood_evaluation.datasets import DatasetError, open_dataset
from ood_evaluation.evaluator import Evaluator
from ood_evaluation.joining import Recording
from ood_evaluation.labels import LabelFolder, LabelValues, parse_values
from ood_evaluation.replay import evaluate_bag, predicted
from ood_perception.bags import reading as bags
from ood_perception.bags import writing
from ood_perception.result import Result

SHAPE = (40, 60)


class Brightness:
    """Stands where a pipeline goes: brightness is the score."""

    profile = types.SimpleNamespace(name='brightness')

    def reset(self, stream):
        pass

    def __call__(self, frames, streams=None, wants=(), stamps=None):
        score = frames[0].astype(np.float32).mean(2)
        ids = (score > 180).astype(np.uint16)
        return [Result(score=score, heatmap=score.astype(np.uint8), instances=ids)]


def truth() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 20:40] = 1
    return label


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 150, SHAPE)
    return np.repeat((truth() * 100 + noise)[..., None], 3, -1).astype(np.uint8)


def save(root: Path, label: Image.Image) -> Path:
    for name in ('images', 'labels'):
        (root / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture()).save(root / 'images' / 'a.png')
    label.save(root / 'labels' / 'a.png')
    return root


def evaluated(root: Path, values: str = '', dataset: str = 'pairs'):
    data = open_dataset(dataset, root)
    evaluator = Evaluator('x', 'exact')
    meaning = LabelValues(data.layout.values, parse_values(values))
    for frame in data.frames(evaluator.problems, meaning):
        assert predicted(Brightness(), frame, evaluator.problems)
        evaluator.update(frame)
    return evaluator.compute()


def palette(label: np.ndarray, colours: int) -> Image.Image:
    image = Image.fromarray(label, 'P')
    image.putpalette(np.random.default_rng(colours).integers(0, 256, 768, np.uint8).tolist())
    return image


WAYS = {
    'plain': (lambda t: Image.fromarray(t), ''),
    'palette': (lambda t: palette(t, 0), ''),
    'another palette': (lambda t: palette(t, 9), ''),
    'one bit': (lambda t: Image.fromarray(t == 1), ''),
    'rgb': (lambda t: Image.fromarray(t).convert('RGB'), ''),
    '255 of a tool': (lambda t: Image.fromarray(t * 255), '255=1'),
    '254': (lambda t: Image.fromarray(t * 254), '254=1'),
    '16 bit': (lambda t: Image.fromarray(t.astype(np.uint16) * 9000), '9000=1'),
}


@pytest.mark.parametrize('way', WAYS)
def test_every_way_of_writing_a_label_gives_the_same_figures(way, tmp_path):
    make, values = WAYS[way]
    wanted = evaluated(save(tmp_path / 'plain', Image.fromarray(truth())))
    found = evaluated(save(tmp_path / 'other', make(truth())), values)
    assert found.problems == {}
    assert found.summary['ap'] == wanted.summary['ap'] > 0.3
    assert found.summary['positives'] == 200
    # As labels of a recording they mean the same.
    stamp = writing.DRIVE_START_NS
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        out.put('/camera/image_raw', out.image(out.header(stamp), picture(), 'rgb8'), stamp)
    folder = tmp_path / 'stamped'
    folder.mkdir()
    make(truth()).save(folder / f'{stamp}.png')
    labels = LabelFolder(folder, LabelValues(more=parse_values(values)))
    found = evaluate_bag(Brightness(), Recording(tmp_path / 'bag', labels=labels), mode='exact')
    assert found.summary['ap'] == wanted.summary['ap']
    assert found.problems == {}


@pytest.mark.parametrize('value', [2, 128, 254, 255])
def test_without_one_unknown_pixel_there_is_no_ap(value, tmp_path):
    found = evaluated(save(tmp_path, Image.fromarray(truth() * np.uint8(value))))
    assert found.summary['ap'] is None
    assert found.summary['fpr95'] is None
    assert found.summary['positives'] == 0
    text = ' '.join(found.problems)
    assert f'values found: 0: 2200 px, {value}: 200 px' in text
    assert '--values' in text
    if value != 255:
        assert f'label value {value} (200 px, first in a.png) has no meaning' in text


def test_colours_are_named_and_not_taken_for_values(tmp_path):
    red = np.zeros((*SHAPE, 3), np.uint8)
    red[..., 0] = truth() * 255
    found = evaluated(save(tmp_path, Image.fromarray(red)))
    assert found.summary['labelled'] == 0
    assert found.summary.get('ap') is None
    assert any('(255, 0, 0) 200 px' in p for p in found.problems)


def test_labels_of_a_topic_are_mapped_too(tmp_path):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        header = out.header(5)
        out.put('/camera/image_raw', out.image(header, picture(), 'rgb8'), 5)
        out.put('/labels/anomaly', out.image(header, truth() * np.uint8(254), 'mono8'), 5)
    found = evaluate_bag(Brightness(), Recording(tmp_path / 'bag'), mode='exact')
    assert found.summary['ap'] is None
    assert any('label value 254 (200 px' in p for p in found.problems)
    values = LabelValues(more={254: 1})
    found = evaluate_bag(Brightness(), Recording(tmp_path / 'bag', values=values), mode='exact')
    assert found.summary['ap'] > 0.3


def test_hidden_files_and_cases_of_suffixes(tmp_path):
    root = save(tmp_path, Image.fromarray(truth()))
    (root / 'images' / 'a.png').rename(root / 'images' / 'a.PNG')
    (root / 'labels' / '._a.png').write_bytes(b'resource fork')
    (root / 'labels' / '.ipynb_checkpoints').mkdir()
    Image.fromarray(truth()).save(root / 'labels' / '.ipynb_checkpoints' / 'a-checkpoint.png')
    assert len(open_dataset('pairs', root)) == 1
    (root / 'labels' / 'a.png').rename(root / 'labels' / 'a.PNG')
    assert len(open_dataset('pairs', root)) == 1
    (root / 'images' / 'a.PNG').unlink()
    with pytest.raises(DatasetError, match='1 of 1 labels have no image'):
        open_dataset('pairs', root)


@pytest.mark.parametrize('kind', ['jpeg', 'webp'])
def test_a_lossy_label_is_refused(kind, tmp_path):
    root = save(tmp_path, Image.fromarray(truth()))
    Image.fromarray(truth() * 255).save(root / 'labels' / 'a.png', kind)
    found = evaluated(root, '255=1')
    assert found.summary['labelled'] == 0
    assert any('write labels as PNG' in problem for problem in found.problems)


def test_what_a_folder_has_instead_and_pictures_without_a_label_are_named(tmp_path):
    root = save(tmp_path, Image.fromarray(truth()))
    Image.fromarray(picture()).save(root / 'images' / 'b.png')
    found = evaluated(root)
    assert found.problems[f'pictures without a label, first {root}/images/b.png'] == 1
    (root / 'labels').rename(root / 'Labels')
    with pytest.raises(DatasetError, match=r'has no labels/.*, but images, Labels'):
        open_dataset('pairs', root)


def test_labels_of_several_kinds_are_all_found(tmp_path):
    root = save(tmp_path, Image.fromarray(truth()))
    for name in ('images/b.png', 'labels/b.bmp', 'labels/a.jpg'):
        Image.fromarray(truth()).save(root / name)
    pairs = open_dataset('pairs', root).pairs
    assert [(image.name, label.name) for image, label in pairs] == [
        ('a.png', 'a.png'),
        ('b.png', 'b.bmp'),
    ]


@pytest.mark.parametrize('exif', [3, 6, 8])
def test_a_turned_picture_and_its_label(exif, tmp_path):
    root = save(tmp_path, Image.fromarray(truth()))
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.fromarray(picture()).save(root / 'images' / 'a.png', exif=tags)
    found = evaluated(root)
    assert found.summary['labelled'] == 1
    if exif != 3:  # of half a turn nothing tells how the label was drawn
        assert found.summary['ap'] > 0.3


@pytest.mark.parametrize(
    ('dataset', 'label', 'image'),
    [
        ('road_anomaly_jpg', 'labels/a.png', 'original/a.jpg'),
        ('cityscapes', 'gtFine/v/x/1_gtFine_labelIds.png', 'leftImg8bit/v/x/1_leftImg8bit.png'),
        ('smiyc_anomaly', 'labels_masks/a_labels_semantic.png', 'images/a.webp'),
    ],
)  # fmt: skip
def test_layouts(dataset, label, image, tmp_path):
    for name, pixels in ((label, truth()), (image, picture())):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    assert evaluated(tmp_path, dataset=dataset).summary['ap'] > 0.3


def test_values_are_parsed():
    assert parse_values('255=1, 3=0,128=255') == {255: 1, 3: 0, 128: 255}
    assert parse_values('') == {}
    for text in ('255', '255=2', 'x=1', '=1', '70000=1', '-1=1'):
        with pytest.raises(ValueError, match='values'):
            parse_values(text)


def bag_of(path: Path, stamps: list[int], written: list[int] | None = None) -> Path:
    with writing.open_writer(path) as writer:
        out = writing.MessageWriter(writer)
        times = written or [writing.DRIVE_START_NS + i * 10**8 for i in range(len(stamps))]
        for stamp, time in zip(stamps, times, strict=True):
            image = out.image(out.header(stamp), picture(), 'rgb8')
            out.put('/camera/image_raw', image, time)
    return path


START = writing.DRIVE_START_NS


@pytest.mark.parametrize(
    'stamps',
    [
        [0] * 6,
        [START + i // 2 * 2 * 10**8 for i in range(6)],
        [START + i % 3 * 10**8 for i in range(6)],
        [START, START, 0, START + 10**8, 0, START],
        [START + 10**17, *(START + i * 10**8 for i in range(5))],
        [(6 - i) * 10**9 for i in range(6)],
    ],
)
def test_no_frame_is_lost_to_its_stamp(stamps, tmp_path):
    found = evaluate_bag(Brightness(), Recording(bag_of(tmp_path / 'bag', stamps)))
    assert found.summary['frames_in'] == found.summary['frames_out'] == 6
    assert any('time of recording' in p for p in found.problems)


def test_good_stamps_are_kept_and_nothing_is_said(tmp_path):
    stamps = [START + 7 + i * 10**8 for i in range(6)]
    found = evaluate_bag(Brightness(), Recording(bag_of(tmp_path / 'bag', stamps)))
    assert found.problems == {}
    assert found.summary['frames_out'] == 6


def test_a_bag_of_bad_images_is_an_error(tmp_path):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        out.put('/camera/image_raw', out.image(out.header(5), picture(), 'mono99'), 5)
    with pytest.raises(bags.BagError, match='mono99'):
        evaluate_bag(Brightness(), Recording(tmp_path / 'bag'))


def test_a_counter_of_problems_is_filled_once():
    values, problems = LabelValues(), Counter()
    values(np.array([[0, 1, 7]], np.uint8), 'x')
    values(np.array([[7, 7, 7]], np.uint8), 'y')
    values.finish(problems)
    (text,) = problems
    assert problems[text] == 2
    assert 'label value 7 (4 px, first in x)' in text
