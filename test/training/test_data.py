# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Label maps, frames, their errors, and a stream that is a function of the seed alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from ood_perception.frames.picture import BadImage
from ood_training import cut_outs
from ood_training.checkpointing import TrainingError
from ood_training.data import Frames, StreamSampler, TrainingSet, read_rgba
from ood_training.label_maps import label_map_names, load_label_map
from ood_training.recipes import make_recipe
from ood_training.sources import FRAMES, open_frames

SHARED = Path(__file__).resolve().parents[3] / 'shared' / 'data'


class Green:
    """A single green object of 12 x 9 pixels."""

    name = 'green'

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> np.ndarray:
        return np.full((12, 9, 4), (0, 255, 0, 255), np.uint8)


def write_pair(root: Path, name: str, label: np.ndarray, size: tuple[int, int] = (6, 8)) -> None:
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(image).save(root / 'images' / f'{name}.png')
    Image.fromarray(label.astype(np.uint8)).save(root / 'labels' / f'{name}.png')


@pytest.fixture
def site(tmp_path):
    for i in range(5):
        write_pair(tmp_path, f'frame{i}', np.full((6, 8), i))
    return tmp_path


# ------------------------------------------------------------------------------- label maps


@pytest.mark.parametrize('name', label_map_names())
def test_shipped_maps_are_right_in_form(name):
    label_map = load_label_map(name)
    used = {int(v) for v in np.unique(label_map.table)} - {254, 255, 65535}
    assert used == set(range(len(label_map.classes)))


def test_mapillary_and_cityscapes_remaps():
    mapillary, cityscapes = load_label_map('mapillary'), load_label_map('cityscapes')
    assert len(mapillary.classes) == 19
    assert mapillary.classes == cityscapes.classes
    names = mapillary.classes

    def of(label_map, value: int) -> str:
        got = int(label_map.table[value])
        return 'void' if got == 255 else names[got]

    wanted = {13: 'road', 24: 'road', 41: 'road', 2: 'sidewalk', 15: 'sidewalk', 17: 'building'}
    wanted |= {45: 'pole', 47: 'pole', 20: 'rider', 22: 'rider', 58: 'train', 52: 'bicycle'}
    wanted |= {0: 'void', 14: 'void', 64: 'void', 27: 'sky', 50: 'traffic sign'}
    assert {v: of(mapillary, v) for v in wanted} == wanted
    wanted = {7: 'road', 26: 'car', 33: 'bicycle', 29: 'void', 0: 'void', 16: 'void'}
    assert {v: of(cityscapes, v) for v in wanted} == wanted


def test_ade_zero_is_void():
    label_map = load_label_map('ade20k')
    got = label_map.apply(np.array([[0, 1, 150]], np.uint8), 'x.png')
    assert got.tolist() == [[255, 0, 149]]


def test_values_outside_the_map_name_the_file():
    with pytest.raises(TrainingError, match=r'x\.png: label value 77 .*1 such values, 2 pixels'):
        load_label_map('camvid').apply(np.array([[0, 77], [77, 11]], np.uint8), 'x.png')


@pytest.mark.parametrize(
    ('tree', 'message'),
    [
        ({'classes': ['a'], 'labels': {0: 1}}, 'class id below 1, got 0: 1'),
        ({'classes': [], 'labels': {0: 0}}, 'classes: expected'),
        ({'classes': ['a'], 'labels': {}}, 'labels: expected'),
        ({'classes': ['a'], 'labels': {0: 0}, 'voids': [1]}, r"expected the keys .*'voids'"),
        ({'classes': ['a'], 'labels': {0: 0}, 'others': 'x'}, 'others: expected'),
        ({'classes': ['a'], 'labels': {0: 0}, 'void': ['x']}, 'void: expected'),
    ],
)
def test_wrong_maps_are_named(tmp_path, tree, message):
    path = tmp_path / 'map.yaml'
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(TrainingError, match=message):
        load_label_map(path)


def test_unknown_map_lists_those_there_are():
    with pytest.raises(TrainingError, match=r'camvid, .*cityscapes, '):
        load_label_map('camvids')


# ----------------------------------------------------------------------------------- frames


def test_folder_with_a_map(site):
    frames = open_frames(f'folder:{site}', 'train', 'camvid')
    assert len(frames) == 5
    image, label = frames.load(3)
    assert image.shape == (6, 8, 3)
    assert image.dtype == label.dtype == np.uint8
    assert (label == 3).all()
    frames.check()


def test_folder_without_labels_is_all_known(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / 'a.jpg')
    frames = open_frames(str(tmp_path), 'train')
    assert frames.label_map.classes == ['normal']
    assert not frames.load(0)[1].any()


def test_palette_labels_are_read_as_indices(site):
    label = Image.fromarray(np.full((6, 8), 4, np.uint8), mode='P')
    label.putpalette([i % 256 for i in range(768)])
    label.save(site / 'labels' / 'frame0.png')
    assert (open_frames(str(site), 'train', 'camvid').load(0)[1] == 4).all()


def broken(site: Path, what: str) -> None:
    if what == 'partner':
        (site / 'labels' / 'frame2.png').unlink()
    elif what == 'corrupt':
        data = (site / 'images' / 'frame2.png').read_bytes()
        (site / 'images' / 'frame2.png').write_bytes(data[: len(data) // 2])
    elif what == 'not an image':
        (site / 'labels' / 'frame2.png').write_bytes(b'hello')
    elif what == 'size':
        write_pair(site, 'frame2', np.zeros((5, 8)))
    elif what == 'value':
        write_pair(site, 'frame2', np.full((6, 8), 99))
    else:
        red = np.full((6, 8, 3), (255, 0, 0), np.uint8)
        Image.fromarray(red).save(site / 'labels' / 'frame2.png')


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ('partner', r'frame2\.png: has no label .*1 of 5'),
        ('corrupt', r'images/frame2\.png cannot be read as an image'),
        ('not an image', r'labels/frame2\.png cannot be read as an image'),
        ('size', r'labels/frame2\.png: label is 8x5 pixels, its image .* is 8x6'),
        ('value', r'labels/frame2\.png: label value 99 is not in the label map'),
        ('colours', r'labels/frame2\.png: a label needs one value'),
    ],
)
def test_bad_data_is_named_before_training(site, what, message):
    broken(site, what)
    with pytest.raises(TrainingError, match=message):
        open_frames(str(site), 'train', 'camvid').check()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('wild:.', 'kind one of folder'),
        ('camvid:/nowhere', '/nowhere: no such file'),
        ('cityscapes:.', 'no leftImg8bit/train'),
    ],
)
def test_bad_sources_are_named(text, message):
    with pytest.raises(TrainingError, match=message):
        open_frames(text, 'train')


def test_labels_without_a_map_are_refused(site):
    with pytest.raises(TrainingError, match='needs --label-map'):
        open_frames(str(site), 'train')


def test_cityscapes_layout(tmp_path):
    for kind, folder in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine')):
        (tmp_path / folder / 'train' / 'bonn').mkdir(parents=True)
        assert kind
    image = np.zeros((4, 8, 3), np.uint8)
    label = np.full((4, 8), 26, np.uint8)
    base = tmp_path / 'leftImg8bit' / 'train' / 'bonn' / 'bonn_0_leftImg8bit.png'
    Image.fromarray(image).save(base)
    target = tmp_path / 'gtFine' / 'train' / 'bonn' / 'bonn_0_gtFine_labelIds.png'
    with pytest.raises(TrainingError, match=r'labelIds\.png: missing \(1 of 1'):
        FRAMES['cityscapes'](tmp_path)
    Image.fromarray(label).save(target)
    frames = FRAMES['cityscapes'](tmp_path)
    assert frames.noncommercial
    assert (frames.load(0)[1] == 13).all()
    ready = target.with_name('bonn_0_gtFine_labelTrainIds.png')
    Image.fromarray(np.full((4, 8), 5, np.uint8)).save(ready)
    assert (FRAMES['cityscapes'](tmp_path).load(0)[1] == 5).all()


@pytest.mark.skipif(not SHARED.exists(), reason='no shared data beside the repository')
def test_camvid():
    frames = open_frames(f'camvid:{SHARED / "camvid_train"}', 'train')
    assert len(frames) == 367
    image, label = frames.load(0)
    assert image.shape == (360, 480, 3)
    assert set(np.unique(label)) <= {*range(11), 255}


def test_cut_outs_need_alpha(tmp_path):
    rgb = np.zeros((40, 60, 3), np.uint8)
    Image.fromarray(rgb).convert('RGBA').save(tmp_path / 'a.png')
    assert cut_outs.read_rgba(tmp_path / 'a.png').shape == (40, 60, 4)
    Image.fromarray(rgb).save(tmp_path / 'b.png')
    with pytest.raises(BadImage, match='alpha channel, got mode RGB'):
        cut_outs.read_rgba(tmp_path / 'b.png')


def test_cut_outs_need_an_alpha_channel(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(path)
    with pytest.raises(TrainingError, match=r'a\.png: a cut-out needs an alpha channel'):
        read_rgba(path)


# ----------------------------------------------------------------------------------- stream


def keys(**kwargs) -> list:
    return list(StreamSampler(**{'length': 7, 'batch_size': 3, 'seed': 1, **kwargs}))


def test_every_epoch_is_a_permutation():
    flat = [key for batch in keys(stop=14) for key in batch]
    for epoch in range(6):
        assert sorted(i for e, i in flat if e == epoch) == list(range(7))
    assert [i for e, i in flat if e == 0] != [i for e, i in flat if e == 1]
    assert keys(stop=14) != keys(stop=14, seed=2)


def test_a_stream_goes_on_anywhere():
    whole = keys(stop=9)
    for start in range(9):
        assert keys(start=start, stop=9) == whole[start:]


def test_processes_share_the_stream_of_one():
    one = keys(batch_size=6, stop=5)
    parts = [keys(stop=5, rank=rank, world=2) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == one
    assert len(list(islice(StreamSampler(7, 3, 1), 20))) == 20


def test_samples_depend_on_their_key_alone(site):
    frames = open_frames(str(site), 'train', 'camvid')
    recipe = make_recipe('paste', Green(), size=[5, 7])
    dataset = TrainingSet([frames, frames], recipe, seed=3)
    assert len(dataset) == 10
    sampler = StreamSampler(len(dataset), 4, 3, stop=5)
    for workers in (0, 2):
        batches = list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
        if workers == 0:
            first = batches
    assert all(torch.equal(a['image'], b['image']) for a, b in zip(first, batches, strict=True))
    sample = dataset[(2, 6)]
    assert sample['image'].shape == (3, 5, 7)
    assert sample['image'].dtype == torch.uint8
    assert sample['label'].dtype == torch.int64
    assert sample['name'].endswith('frame1.png')
    other = dataset[(3, 6)]
    assert not torch.equal(sample['image'], other['image'])


def test_empty_frames_are_refused():
    with pytest.raises(TrainingError, match='no images'):
        Frames([], [], load_label_map('camvid'), 'nothing').check()
