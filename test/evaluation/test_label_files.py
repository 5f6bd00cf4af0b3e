# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Label files: of every mode, of a name in any case, of a picture that is turned."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ood_evaluation.label_files import in_step, read_label, with_any_suffix
from ood_perception.bags.files import read_picture
from ood_perception.frames.picture import BadImage


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    v, u = np.mgrid[0:40, 0:60]
    return np.stack([u * 4, v * 6, 255 - u * 2 - v * 3], -1).astype(np.uint8)


def test_a_file_is_found_by_its_name_and_any_suffix(tmp_path):
    (tmp_path / 'A.JPG').touch()
    (tmp_path / 'b.WebP').touch()
    assert with_any_suffix(tmp_path / 'A.png') == tmp_path / 'A.JPG'
    assert with_any_suffix(tmp_path / 'a.png') == tmp_path / 'A.JPG'
    assert with_any_suffix(tmp_path / 'b.png') == tmp_path / 'b.WebP'
    assert with_any_suffix(tmp_path / 'c.png') is None
    assert with_any_suffix(tmp_path / 'no' / 'c.png') is None


LABEL = np.array([[0, 1, 255, 254], [3, 7, 0, 1]], np.uint8).repeat(3, 0).repeat(3, 1)


@pytest.mark.parametrize('mode', ['L', 'P', 'RGB', 'RGBA', 'LA', 'I;16', 'PA'])
def test_labels_of_every_mode_have_the_same_values(mode, tmp_path):
    if mode in ('P', 'PA'):
        image = Image.fromarray(LABEL, 'P' if mode == 'P' else 'L')
        if mode == 'P':
            image.putpalette([(i * 37) % 256 for i in range(768)])
    elif mode == 'I;16':
        image = Image.fromarray(LABEL.astype(np.uint16))
    else:
        image = Image.fromarray(LABEL).convert(mode)
    image.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_label(tmp_path / 'a.png'), LABEL)


def test_labels_of_one_bit_and_of_colours(tmp_path):
    Image.fromarray(LABEL == 1).save(tmp_path / 'bit.png')
    np.testing.assert_array_equal(read_label(tmp_path / 'bit.png'), LABEL == 1)
    red = np.zeros((6, 12, 3), np.uint8)
    red[:2, :, 0] = 255
    Image.fromarray(red).save(tmp_path / 'red.png')
    with pytest.raises(BadImage, match=r'red.png: .*\(0, 0, 0\) 48 px, \(255, 0, 0\) 24 px'):
        read_label(tmp_path / 'red.png')
    (tmp_path / 'text.png').write_text('x')
    with pytest.raises(BadImage, match=r'text.png cannot be read'):
        read_label(tmp_path / 'text.png')
    with pytest.raises(OSError, match='absent'):
        read_label(tmp_path / 'absent.png')
    Image.fromarray(LABEL.astype(np.float32)).save(tmp_path / 'float.tif')
    with pytest.raises(BadImage, match='whole numbers'):
        read_label(tmp_path / 'float.tif')


@pytest.mark.parametrize('exif', range(1, 9))
def test_a_label_of_the_stored_orientation_turns_with_its_picture(exif, tmp_path, rgb):
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=tags)
    picture = read_picture(tmp_path / 'a.png')
    assert picture.orientation == exif
    stored = rgb[..., 0]
    turned = in_step(stored, picture.rgb.shape, exif)
    assert turned.shape == picture.rgb.shape[:2]
    if exif >= 5:
        np.testing.assert_array_equal(turned, picture.rgb[..., 0])
    # One that was drawn upright stays.
    upright = picture.rgb[..., 0]
    np.testing.assert_array_equal(in_step(upright, picture.rgb.shape, exif), upright)
