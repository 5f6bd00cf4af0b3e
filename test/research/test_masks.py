# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of the masks stage: scenes, crops, the loop, both networks to the end."""

from __future__ import annotations

import csv
import dataclasses

import cv2
import numpy as np
import pytest
import torch

from ood_evaluation.component_metrics import TRACKS, component_figures
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.masks.crops import log_odds
from ood_perception.masks.fusion import fuse
from ood_perception.masks.mask_head import MaskHead
from ood_training.checkpointing import TrainingError
from research import masks as room
from research.detection_head import PROPOSED, VARIANTS, Backbone, Records, proposed
from research.mask_head import crops, mask_loss, train_mask_head
from research.mask_validation import Tally, match, siou
from research.masks import MaskData, make_scenes, train_masks
from research.robot7 import DRIVES, VAL_DRIVES
from research.score_scenes import Scene, load_frames, load_objects, photographed, spoil
from research.small_networks import train_small

torch.set_num_threads(1)


def simple_scene(seed=0, size=(96, 128)):
    """A coloured rectangle on grey ground, with the score map of a good model."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), 110, np.uint8) + rng.integers(0, 20, (*size, 1), dtype=np.uint8)
    labels = np.zeros(size, np.uint8)
    x, y = rng.integers(5, 60), rng.integers(5, 40)
    labels[y : y + 30, x : x + 40] = 1
    image[labels > 0] = rng.integers(0, 256, 3)
    return Scene(image, labels, spoil(labels, rng).astype(np.float16))


class Same(torch.utils.data.Dataset):
    """One sample again and again."""

    def __init__(self, inputs, *wanted):
        self.sample = {'input': inputs, 'wanted': list(wanted), 'name': 'it'}

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return self.sample


@pytest.fixture
def data(tmp_path):
    """Two frames of two sequences and a few cut-outs, as folders with an INDEX.csv."""
    rng = np.random.default_rng(0)
    frames, objects = tmp_path / 'frames', tmp_path / 'objects'
    for folder in (frames, objects):
        folder.mkdir()
    with (frames / 'INDEX.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['image', 'sequence'])
        for name, sequence in (('a.png', 'one'), ('b.png', 'two')):
            cv2.imwrite(str(frames / name), rng.integers(90, 120, (96, 128, 3), np.uint8))
            writer.writerow([name, sequence])
    with (objects / 'INDEX.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'coco_image_id', 'recommended'])
        for i in range(12):
            cut = np.full((40, 50, 4), 255, np.uint8)
            cut[..., :3] = rng.integers(0, 256, 3)
            cut[:4, :4, 3] = 0
            cv2.imwrite(str(objects / f'{i}.png'), cut)
            writer.writerow([f'{i}.png', i, int(i != 0)])
    return MaskData(
        frames, objects, '', leave_out='two', scenes=5, drives=1, validation=2, spoilt=1.0
    )


def test_scenes_hold_objects_proposals_and_are_repeatable(data):
    scenes = make_scenes(data)
    assert len(scenes) == 5 + room.FRAMES_PER_DRIVE
    for scene in scenes:
        assert scene.image.shape == (432, 576, 3)
        assert scene.image.dtype == np.uint8
        assert scene.labels.shape == scene.probability.shape == (432, 576)
        assert scene.proposals.shape[1] == 4
        assert 0 <= scene.probability.min() <= scene.probability.max() <= 1
    assert any(len(scene.proposals) for scene in scenes)
    again = make_scenes(data)
    for a, b in zip(scenes, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.probability, b.probability)
    held_out = make_scenes(data, held_out=True)
    assert len(held_out) == 2 + room.FRAMES_PER_DRIVE
    assert not np.array_equal(held_out[0].image, scenes[0].image)


def test_drives_are_none_that_the_network_learnt_from(data, monkeypatch):
    seen = []

    def scenes(seeds, width, height):
        for seed in seeds:
            seen.append(seed)
            for _ in range(room.FRAMES_PER_DRIVE):
                yield np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)

    monkeypatch.setattr(room, 'drive_scenes', scenes)
    data = dataclasses.replace(data, drives=9, validation=8)
    make_scenes(data)
    make_scenes(data, held_out=True)
    assert len(set(seen)) == 9 + 8 // room.FRAMES_PER_DRIVE
    assert not set(seen) & {*range(DRIVES), *VAL_DRIVES}


def test_held_out_frames_and_objects_are_others(data):
    frames = [load_frames(data.frames, **w) for w in ({'without': 'two'}, {'only': 'two'})]
    assert [len(f) for f in frames] == [1, 1]
    assert not np.array_equal(frames[0][0], frames[1][0])
    kept, held = (load_objects(data.objects, held_out) for held_out in (False, True))
    assert len(kept) + len(held) == 11
    colours = [{tuple(o[20, 20]) for o in objects} for objects in (kept, held)]
    assert not colours[0] & colours[1]


def test_crops_hold_the_object_and_false_alarms_nothing():
    scene = simple_scene()
    inputs, targets = crops(scene, np.random.default_rng(0), jitter=0)
    assert inputs.shape == (1, 5, 96, 96)
    assert targets.shape == (1, 96, 96)
    # 30 x 40 pixels in a window with a quarter on each side: 4/9 of it, less where clipped
    assert 0.35 < float(targets.mean()) < 0.8
    # with corners that do not move, the object is the box
    assert (
        torch.equal(targets[0] > 0.99, inputs[0, 4] > 0)
        or float(((targets[0] > 0.5) != (inputs[0, 4] > 0)).float().mean()) < 0.02
    )
    y, x = np.nonzero(scene.labels)
    box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    free = [100, 80, 120, 92] if box[2] < 95 or box[3] < 75 else [0, 0, 12, 12]
    scene.proposals = np.array([[box[0] + 4, box[1], box[2], box[3] - 3], free], np.float32)
    inputs, targets = crops(scene, np.random.default_rng(0))
    assert len(inputs) == 3
    assert [bool(t.any()) for t in targets] == [True, True, False]
    nothing = Scene(scene.image, scene.labels * 0, scene.probability)
    assert len(crops(nothing, np.random.default_rng(0))[0]) == 0


def test_loss_is_cross_entropy_plus_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    targets = (torch.rand(3, 8, 8, generator=generator) > 0.5).float()
    expected = 0.0
    for row, truth in zip(logits.double().sigmoid(), targets.double(), strict=True):
        dice = (2 * (row * truth).sum() + 1) / (row.sum() + truth.sum() + 1)
        entropy = -(truth * row.log() + (1 - truth) * (1 - row).log()).mean()
        expected += float(entropy + 1 - dice) / 3
    assert float(mask_loss(logits, targets)) == pytest.approx(expected, rel=1e-5)
    sure = torch.where(targets > 0, 30.0, -30.0)
    assert float(mask_loss(sure, targets)) < 1e-3
    assert float(mask_loss(torch.full((1, 8, 8), -30.0), torch.zeros(1, 8, 8))) < 1e-3


def test_steps_are_repeatable_and_lower_the_loss(tmp_path):
    scenes = [simple_scene(i) for i in range(4)]
    losses, states = [], []
    for _ in range(2):
        head = train_mask_head(scenes, tmp_path / 'h.safetensors', batch=2, steps=6)
        assert not head.training
        states.append({k: v.clone() for k, v in head.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))
    inputs, targets = crops(scenes[0], np.random.default_rng(1), size=32)
    same, losses = Same(inputs[0], targets[0]), []

    def loss_of(logits, wanted):
        loss = mask_loss(logits, wanted)
        losses.append(float(loss.detach()))
        return loss

    torch.manual_seed(0)
    train_small(MaskHead((8, 8, 8, 8)), same, loss_of, tmp_path / 'o.safetensors', 40, 1, 0.02)
    assert len(losses) == 40
    assert losses[-1] < 0.8 * losses[0]


def test_the_loop_refuses_what_cannot_go_on(tmp_path):
    model, path = torch.nn.Conv2d(1, 1, 1), tmp_path / 'x.safetensors'
    same = Same(torch.zeros(1, 2, 2), torch.zeros(2, 2))
    with pytest.raises(TrainingError, match='steps: expected 1 or more'):
        train_small(model, same, torch.sum, path, 0, 1, 0.1)
    with pytest.raises(TrainingError, match=r'step 0: the loss is .*nan'):
        train_small(model, same, lambda out, _: out.sum() * float('nan'), path, 2, 1, 0.1)
    assert not path.exists()
    empty = Scene(*(np.zeros(s, np.uint8) for s in ((32, 32, 3), (32, 32), (32, 32))))
    with pytest.raises(TrainingError, match='hold no object'):
        train_mask_head([empty], tmp_path / 'x.safetensors', steps=1)


def test_both_networks_are_written_with_cards_and_load(data, tmp_path):
    told = []
    out = tmp_path / 'out'
    written = train_masks(
        data, out, 2, 2, command='the command', progress=lambda *a: told.append(a[0]),
    )  # fmt: skip
    assert {p.name for p in out.iterdir()} == {
        f'{name}{end}'
        for name in ('mask_head', 'light_prompts')
        for end in ('.safetensors', '.md')
    }
    assert told[0] == 'scenes'
    card = (out / 'mask_head.md').read_text()
    for text in ('the command', '| steps | 2 |', 'validation objects', 'leave_out: two'):
        assert text in card
    mask_model = create_mask_model('compact', weights=str(written['mask_head']))
    prompts = create_prompts('score_detector', weights=str(written['light_prompts']))
    maps = torch.from_numpy(simple_scene().probability).float()[None]
    image = torch.zeros(1, 3, 96, 128, dtype=torch.uint8)
    assert prompts(image, maps, maps).boxes.shape == (1, 16, 4)
    assert mask_model(image, maps, torch.tensor([[[5.0, 5, 50, 50]]])).shape == (1, 1, 96, 128)
    only = train_masks(
        dataclasses.replace(data, validation=0), tmp_path / 'head', 0, 1, start=out,
    )  # fmt: skip
    assert list(only) == ['mask_head']


def test_score_maps_of_a_profile(data):
    scenes = make_scenes(dataclasses.replace(data, profile='compact', scenes=2, spoilt=0.0))
    judge = room._judge('compact')
    got = scenes[0].probability.astype(np.float32)
    assert np.abs(judge(scenes[0].image) - got).max() < 2e-3


def test_missing_data_is_named(data, tmp_path):
    with pytest.raises(TrainingError, match=r'INDEX\.csv: cannot be read'):
        load_frames(tmp_path)
    (data.frames / 'a.png').write_bytes(b'no image')
    with pytest.raises(TrainingError, match=r'a\.png cannot be read'):
        load_frames(data.frames)
    (data.frames / 'INDEX.csv').write_text('file\na.png\n')
    with pytest.raises(TrainingError, match='no column image, sequence'):
        load_frames(data.frames)
    with pytest.raises(TrainingError, match=r'x\.safetensors: cannot be started from'):
        train_mask_head([simple_scene()], tmp_path / 'o', start=tmp_path / 'x.safetensors')


def test_tally_counts_what_a_person_would():
    truth = np.zeros((60, 80), np.uint8)
    truth[5:25, 5:25], truth[30:58, 20:75], truth[0:3, 70:75] = 1, 2, 3  # small, large, a speck
    logits = torch.full((3, 60, 80), -1.0)
    logits[0, 5:25, 5:25] = 1
    logits[1, 30:45, 20:75] = 1  # 15 of 28 rows: IoU 0.536
    logits[2, 5:25, 50:70] = 1  # a false alarm
    boxes = torch.tensor([[5.0, 5, 25, 25], [20, 30, 75, 40], [50, 5, 70, 25]])
    found = fuse(logits, torch.tensor([0.9, 0.8, 0.7]), torch.ones(3).bool(), torch.zeros(60, 80))
    tally = Tally()
    tally.add(truth, found, boxes, np.zeros(truth.shape, bool))
    numbers = tally.numbers()
    assert numbers['objects'] == 2
    assert numbers['box_recall'] == 0.5  # the large box covers 10 of 28 rows
    assert numbers['box_precision'] == pytest.approx(1 / 3)
    assert numbers['small_objects'] == numbers['small_recall'] == numbers['small_found'] == 1
    assert numbers['found'] == 1
    assert numbers['matched_iou'] == pytest.approx((1 + 15 / 28) / 2)
    assert numbers['component_f1'] == pytest.approx(2 * 2 / (2 * 2 + 1))
    ignore = np.zeros(truth.shape, bool)
    ignore[5:25, 50:70] = True
    tally = Tally()
    tally.add(truth, found, boxes, ignore)
    assert tally.alarms == 0


def test_matching_equals_the_best_pairs_first():
    overlap = np.array([[0.9, 0.8], [0.85, 0.1], [0.0, 0.6]])
    assert match(overlap, 0.5) == [(0, 0), (2, 1)]
    assert match(np.zeros((0, 3)), 0.5) == []


def test_siou_is_that_of_the_field_where_objects_are_apart():
    rng = np.random.default_rng(3)
    track = dataclasses.replace(TRACKS['obstacle'], smallest_truth=0, smallest_prediction=0)
    for _ in range(20):
        truth, labels = np.zeros((2, 60, 80), np.uint8)
        for index in range(1, 5):
            x, w, y, h = 20 * (index - 1), rng.integers(3, 18), *rng.integers(3, 30, 2)
            truth[y : y + h, x : x + w] = index
        # Blocks that cover some objects, parts of them, or none.
        for index in range(1, 7):
            y, x = rng.integers(0, 60), rng.integers(0, 80)
            labels[y : y + 12, x : x + 25] = index
        wanted, _ = component_figures(labels > 0, (truth > 0).astype(np.uint8), track)
        parts = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=8)[1]
        assert np.allclose(sorted(siou(truth, parts)[1:]), sorted(wanted))


def test_siou_does_not_blame_a_mask_for_the_object_next_door():
    truth, labels = np.zeros((2, 20, 40), np.uint8)
    truth[5:15, 5:10], truth[5:15, 10:30] = 2, 4
    labels[5:15, 5:30] = 7
    assert siou(truth, labels).tolist() == [0, 0, 1, 0, 1]
    labels[5:15, 30:35] = 7  # 50 pixels of ground, which count against both
    assert siou(truth, labels)[[2, 4]] == pytest.approx([50 / 100, 200 / 250])
    assert siou(truth * 0, labels).tolist() == [0]


@pytest.fixture
def real(tmp_path):
    """Folders of photographs: two unknown things each, one mostly void, one not free."""
    for folder in ('dhcn_indoor', 'coco_context'):
        root = tmp_path / folder
        (root / 'images').mkdir(parents=True)
        with (root / 'INDEX.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['image', 'label', 'split', 'licence', 'source'])
            for i in range(60):
                label = np.zeros((60, 100), np.uint8)
                label[10:30, 40:50] = label[10:30, 60:70] = 254
                label[50:52, 50:52] = 254  # four pixels
                if i == 0:
                    label[:, :60] = 255
                cv2.imwrite(str(root / f'images/p_{i:06}.jpg'), np.full((60, 100, 3), i, np.uint8))
                cv2.imwrite(str(root / f'images/p_{i:06}.png'), label)
                licence = 'CC BY-NC 2.0' if folder == 'coco_context' and i % 2 else 'CC BY 2.0'
                row = [
                    f'images/p_{i:06}.jpg',
                    f'images/p_{i:06}.png',
                    'val' if i > 50 else 'train',
                ]
                writer.writerow([*row, licence, 'here'])
    return tmp_path


@pytest.mark.parametrize('held_out', [False, True])
def test_photographs_make_scenes_of_their_unknown_things(real, held_out):
    found = photographed(real, 120, 96, held_out)
    free = photographed(real, 120, 96, held_out, free=True)
    assert 0 < len(free) < len(found)
    for image, labels in found:
        assert image.shape == (96, 120, 3)
        assert labels.shape == (96, 120)
        assert set(np.unique(labels)) == {0, 1, 2}  # the four pixels are no object
    both = photographed(real, 120, 96, not held_out)
    assert len(found) + len(both) == 118  # of 120, the two of which too little is labelled


def test_free_scenes_need_no_frames_and_say_their_licence(real, tmp_path):
    data = MaskData(None, None, '', drives=1, photographs=real, photographed=3, free=True)
    scenes = make_scenes(data)
    assert [scene.image.shape for scene in scenes] == [(432, 576, 3)] * (room.FRAMES_PER_DRIVE + 3)
    path = tmp_path / 'mask_head.safetensors'
    path.write_bytes(b'')
    room.card(path, {}, room._sources(data), {}, 'x')
    assert 'Apache-2.0' in path.with_suffix('.md').read_text()
    bound = dataclasses.replace(data, free=False)
    room.card(path, {}, room._sources(bound), {}, 'x')
    assert 'Apache-2.0' not in path.with_suffix('.md').read_text()


def test_the_detection_head_is_trained_on_recorded_maps(data, tmp_path):
    out = tmp_path / 'out'
    written = train_masks(
        dataclasses.replace(data, scenes=3, validation=2), out, 0, 0, 2, command='the command',
    )  # fmt: skip
    assert {p.name for p in out.iterdir()} == {'detection_head.safetensors', 'detection_head.md'}
    assert 'validation box_recall' in (out / 'detection_head.md').read_text()
    prompts = create_prompts('detection_head', weights=str(written['detection_head']))
    assert prompts.head.channels == (24, 40, 112, 320)


def test_outlines_are_learnt_in_the_boxes_that_a_detection_head_finds(data, tmp_path, monkeypatch):
    scenes, seen = [simple_scene(seed) for seed in range(2)], []
    monkeypatch.setattr(room, 'train_mask_head', lambda scenes, *_, **__: seen.extend(scenes))
    monkeypatch.setattr(room, 'card', lambda *_: None)
    data = dataclasses.replace(data, profile='compact', validation=0)
    train_masks(data, tmp_path, prompts_steps=0, head_steps=1, scenes=scenes)
    boxes = [scene.proposals for scene in seen]
    assert len(boxes) == 2
    assert sum(map(len, boxes)) > 0
    # As the pipeline finds them, where its head sees these log-odds.
    prompts = create_prompts('detection_head', threshold=PROPOSED)
    backbone = Backbone('compact')
    for scene, proposals in zip(scenes, boxes, strict=True):
        assert proposals.dtype == np.float32
        probability = torch.from_numpy(scene.probability).float()[None]
        odds = torch.nn.functional.avg_pool2d(log_odds(probability)[None], 2)
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
        with torch.no_grad():
            detections = prompts.head(odds, *backbone(image[0]))
        found = prompts(image, probability, probability, detections)
        wanted = found.boxes[0][found.valid[0]].numpy()
        np.testing.assert_allclose(proposals, wanted, atol=0.05)
    untouched = proposed(scenes, 'compact_clusters', None)  # it has no detection head
    assert untouched is scenes


def test_a_record_is_a_part_of_a_scene_and_may_be_mirrored(tmp_path):
    scenes = [simple_scene(seed, (320, 416)) for seed in range(2)]
    backbone = Backbone('compact')
    records = Records(scenes, backbone, tmp_path, seed=0)
    assert len(records) == VARIANTS * len(scenes)
    seen = set()
    for epoch in range(12):
        example = records[epoch, 1]
        odds, *features = example['input']
        assert odds.shape == (1, 144, 192)
        assert [x.shape[1:] for x in features] == [(72, 96), (36, 48), (18, 24), (9, 12)]
        heat, sides, weight, asked = example['wanted']
        assert heat.shape == weight.shape == asked.shape == (72, 96)
        chosen = weight > 0
        width = (sides[0] + sides[2])[chosen]
        if len(width):  # left and right change places together, so a box keeps its width
            seen.add(round(float(width.median())))
    assert len(seen) == 1
    again = Records(scenes, backbone, tmp_path, seed=0)[3, 1]
    assert all(
        torch.equal(a, b) for a, b in zip(again['input'], records[3, 1]['input'], strict=True)
    )
