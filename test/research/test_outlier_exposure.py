# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Outlier exposure: labels say what was pasted, and everything is a function of the seed."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from ood_training.checkpointing import TrainingError
from ood_training.recipes import match_light
from research.augment import random_view
from research.outlier_exposure import (
    Exposure,
    cut_known,
    load_objects,
    paste,
    validation_set,
)
from research.photometric import (
    change_camera,
    change_object,
    recolour_surface,
)
from research.procedural import _KINDS, draw_object, draw_texture

cv2.setNumThreads(1)

OBJECTS = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'outliers_train'


def street(seed: int = 0, size: tuple[int, int] = (90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """Sky, road and a car, with noise; one row of void."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[size[0] // 2 :] = 3
    label[50:70, 30:60] = 8
    label[0] = 255
    image = rng.integers(40, 200, (*size, 3)).astype(np.uint8)
    return image, label


def red_disc(side: int = 40) -> np.ndarray:
    rgba = np.zeros((side, side, 4), np.uint8)
    cv2.circle(rgba, (side // 2, side // 2), side // 2 - 2, (255, 0, 0, 255), -1)
    return rgba


def exposure(**options: object) -> Exposure:
    return Exposure([street(i) for i in range(3)], [red_disc()], (90, 120), **options)


class TestPaste:
    def test_label_changes_where_the_object_is_and_nowhere_else(self) -> None:
        for seed in range(20):
            image, label = street()
            before, old = image.copy(), label.copy()
            done = paste(np.random.default_rng(seed), image, label, red_disc(), 254, side=24.0)
            new = label == 254
            assert done == new.any()
            assert np.array_equal(label[~new], old[~new])
            if done:
                # inside the object the picture has changed
                assert (image[new] != before[new]).any(axis=-1).mean() > 0.9

    def test_seed_decides(self) -> None:
        results = []
        for _ in range(2):
            image, label = street()
            paste(np.random.default_rng(5), image, label, red_disc(), 254)
            results.append((image, label))
        assert np.array_equal(results[0][0], results[1][0])
        assert np.array_equal(results[0][1], results[1][1])

    def test_transparent_pixels_lend_no_colour_to_the_edge(self) -> None:
        """Cut-outs are black where alpha is 0: enlarging must not draw a black outline."""
        rgba = np.zeros((20, 20, 4), np.uint8)
        rgba[5:15, 5:15] = (200, 200, 200, 255)
        from ood_training.recipes import _scaled

        for side in (10.0, 60.0):
            scaled = _scaled(np.random.default_rng(0), rgba, side, (200, 200), rotate=False)
            assert (scaled[scaled[..., 3] > 16][:, :3] > 180).all()

    def test_an_empty_object_is_not_pasted(self) -> None:
        image, label = street()
        before = label.copy()
        rgba = np.zeros((30, 30, 4), np.uint8)
        assert not paste(np.random.default_rng(0), image, label, rgba, 254)
        assert np.array_equal(label, before)

    def test_an_object_larger_than_the_frame_is_made_to_fit(self) -> None:
        for seed in range(10):
            image, label = street()
            paste(np.random.default_rng(seed), image, label, red_disc(300), 254, side=1000.0)
            assert image.shape == (90, 120, 3)


class TestExposure:
    def test_known_frames_hold_nothing_unknown(self) -> None:
        made = exposure()
        for seed in range(10):
            image, label = made.known(np.random.default_rng(seed), *street())
            assert image.shape == (90, 120, 3)
            assert image.dtype == np.uint8
            assert label.shape == (90, 120)
            assert set(np.unique(label)) <= {0, 3, 8, 255}

    def test_unknown_objects_appear_in_most_frames(self) -> None:
        made, found = exposure(), 0
        for seed in range(40):
            _, label = made.outlier(np.random.default_rng(seed), *street())
            assert set(np.unique(label)) <= {0, 3, 8, 254, 255}
            found += bool((label == 254).any())
        assert 25 <= found < 40

    def test_inputs_stay_as_they_are(self) -> None:
        made = exposure()
        image, label = street()
        before = image.copy(), label.copy()
        made.outlier(np.random.default_rng(1), image, label)
        assert np.array_equal(image, before[0])
        assert np.array_equal(label, before[1])

    def test_seed_decides(self) -> None:
        made = exposure()
        one = made.outlier(np.random.default_rng((1, 2)), *street())
        two = made.outlier(np.random.default_rng((1, 2)), *street())
        other = made.outlier(np.random.default_rng((1, 3)), *street())
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])
        assert not np.array_equal(one[0], other[0])

    def test_nothing_to_paste_is_an_error(self) -> None:
        with pytest.raises(TrainingError, match='0'):
            Exposure([street()], [])

    def test_known_things_are_cut_with_their_class(self) -> None:
        things = cut_known([street(1)])
        ((rgba, value),) = things
        assert value == 8
        assert rgba.shape == (20, 30, 4)
        assert (rgba[..., 3] == 255).all()
        assert np.array_equal(rgba[..., :3], street(1)[0][50:70, 30:60])


class TestView:
    @pytest.mark.parametrize('size', [(90, 120), (64, 64), (33, 101)])
    def test_size_and_classes(self, size: tuple[int, int]) -> None:
        for seed in range(20):
            image, label = random_view(np.random.default_rng(seed), *street(), size)
            assert image.shape == (*size, 3)
            assert label.shape == size
            assert set(np.unique(label)) <= {0, 3, 8, 255}

    def test_image_and_label_move_together(self) -> None:
        """The class is written into the picture, so both must agree in the view."""
        _, label = street()
        image = np.repeat(label[..., None], 3, 2)
        for seed in range(20):
            seen, classes = random_view(np.random.default_rng(seed), image, label, (90, 120))
            known = classes != 255
            differs = np.abs(seen[..., 0].astype(int) - classes)[known] > 2
            assert differs.mean() < 0.08  # edges only, where the picture is interpolated

    def test_a_view_towards_a_class_holds_it_more_often(self) -> None:
        image, label = street()
        label = np.where(label == 8, 8, 3).astype(np.uint8)

        def held(towards: int | None) -> int:
            views = (
                random_view(np.random.default_rng(s), image, label, (60, 80), towards=towards)
                for s in range(40)
            )
            return sum(bool((seen == 8).any()) for _, seen in views)

        assert held(8) == 40
        assert held(None) < 40
        assert held(9) == held(None)


class TestPhotometric:
    def test_camera_keeps_shape_and_type(self) -> None:
        image, _ = street()
        for seed in range(30):
            changed = change_camera(np.random.default_rng(seed), image)
            assert changed.shape == image.shape
            assert changed.dtype == np.uint8

    def test_object_keeps_its_alpha_but_for_mirroring(self) -> None:
        rgba = red_disc()
        rgba[:, 25:, 3] = 0
        for seed in range(20):
            alpha = change_object(np.random.default_rng(seed), rgba)[..., 3]
            assert np.array_equal(alpha, rgba[..., 3]) or np.array_equal(
                alpha[:, ::-1], rgba[..., 3]
            )

    def test_light_moves_towards_the_place(self) -> None:
        rgb = np.full((10, 10, 3), 240, np.float32)
        rgb[::2] = 220
        place = np.full((10, 10, 3), 30, np.float32)
        opaque = np.ones((10, 10), bool)
        means = [
            match_light(np.random.default_rng(s), rgb, opaque, place).mean() for s in range(50)
        ]
        assert min(means) >= 30
        assert max(means) <= 230.1
        assert np.mean(means) < 200

    def test_recolouring_touches_one_surface(self) -> None:
        image, label = street()
        image[...] = 120
        for seed in range(10):
            changed = image.copy()
            recolour_surface(np.random.default_rng(seed), changed, label)
            moved = (changed != image).any(axis=-1)
            assert not moved[label != 3].any()
            assert moved[label == 3].mean() > 0.5


class TestDrawn:
    def test_every_kind_has_a_shape(self) -> None:
        for kind in _KINDS:
            for seed in range(8):
                rng = np.random.default_rng(seed)
                height, width = (int(v) for v in rng.integers(60, 260, 2))
                surface = draw_texture(rng, height, width)
                mask = np.zeros((height, width), np.uint8)
                kind(rng, surface, mask)
                assert set(np.unique(mask)) <= {0, 255}
                assert (mask > 0).mean() > 0.05, kind
                assert np.isfinite(surface).all()

    def test_objects_are_images(self) -> None:
        for seed in range(20):
            rgba = draw_object(np.random.default_rng(seed))
            assert rgba.dtype == np.uint8
            assert rgba.shape[2] == 4


class TestValidationSet:
    def test_same_every_time_and_labelled(self) -> None:
        frames = [street(i, (360, 480)) for i in range(3)]
        one = validation_set(frames, [red_disc()])
        two = validation_set(frames, [red_disc()])
        for (image, label), (again, same) in zip(one, two, strict=True):
            assert np.array_equal(image, again)
            assert np.array_equal(label, same)
            assert set(np.unique(label)) <= {0, 1, 255}
            assert (label[0] != 0).all()  # void stays ignored where nothing is pasted upon it
        assert any((label == 1).any() for _, label in one)
        for (plain, classes), (old, old_classes) in zip(
            frames, [street(i, (360, 480)) for i in range(3)], strict=True
        ):
            assert np.array_equal(plain, old)
            assert np.array_equal(classes, old_classes)

    def test_pictures_of_validation_objects_are_never_trained_on(self) -> None:
        if not OBJECTS.is_dir():
            pytest.skip('no ../shared/data/outliers_train')
        with (OBJECTS / 'INDEX.csv').open(newline='') as file:
            rows = list(csv.DictReader(file))
        held_out, trained = (load_objects(OBJECTS, held_out=h) for h in (True, False))
        assert 20 <= len(held_out) < len(trained) <= len(rows)
        seen = {o.tobytes() for o in trained}
        assert not any(o.tobytes() in seen for o in held_out)

    def test_an_index_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r'INDEX\.csv'):
            load_objects(tmp_path, held_out=False)

    def test_the_split_goes_by_picture(self, tmp_path: Path) -> None:
        lines = ['file,coco_image_id,recommended,fill,border_sides']
        for picture in range(12):
            for part in range(2):
                name = f'{picture}_{part}.png'
                rgba = red_disc(20 + picture)
                rgba[0, 0] = (picture, part, 7, 0)
                cv2.imwrite(str(tmp_path / name), rgba[..., [2, 1, 0, 3]])
                lines.append(f'{name},{picture},1,0.8,')
        (tmp_path / 'INDEX.csv').write_text('\n'.join(lines))
        pictures = [
            {int(o[0, 0, 0]) for o in load_objects(tmp_path, held_out=h)} for h in (True, False)
        ]
        assert pictures[0]
        assert not pictures[0] & pictures[1]
        assert pictures[0] | pictures[1] == set(range(12))
