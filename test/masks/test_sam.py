# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from ood_perception.masks import create_mask_model
from ood_perception.masks.sam import SamMaskModel

from small_models import tiny_sam

pytest.importorskip('segment_anything', reason='needs segment-anything')


BOXES = torch.tensor([[10.0, 5.0, 60.0, 50.0], [0.0, 0.0, 90.0, 70.0], [30.5, 20.25, 35.0, 28.0]])


@pytest.mark.parametrize('size', [(70, 90), (128, 128), (200, 133), (31, 300)])
def test_equals_the_predictor(size):
    from segment_anything import SamPredictor

    sam = tiny_sam()
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    predictor = SamPredictor(sam)
    predictor.set_image(image.numpy())
    boxes = BOXES.minimum(torch.tensor([size[1], size[0], size[1], size[0]]).float())
    boxes[2] = torch.tensor([1.0, 2.0, 20.0, 25.0])
    moved = predictor.transform.apply_boxes_torch(boxes, size)
    expected, _, _ = predictor.predict_torch(
        None, None, boxes=moved, multimask_output=False, return_logits=True
    )
    (got,) = SamMaskModel(sam)(image.permute(2, 0, 1)[None], torch.zeros(1, *size), boxes[None])
    assert got.shape == (3, *size)
    torch.testing.assert_close(got, expected[:, 0], rtol=1e-4, atol=1e-5)
    assert torch.equal(got > 0, expected[:, 0] > 0)


def test_embedding_once_a_frame_and_only_for_a_box():
    sam = tiny_sam()
    calls = []
    sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    model = SamMaskModel(sam, chunk=1)
    image, flat = torch.zeros(1, 3, 70, 90, dtype=torch.uint8), torch.zeros(1, 70, 90)
    assert model(image, flat, torch.zeros(1, 0, 4)).shape == (1, 0, 70, 90)
    assert not calls
    model(image, flat, BOXES[None])
    assert len(calls) == 1


def test_chunks_change_nothing():
    image = torch.randint(0, 256, (1, 3, 70, 90), dtype=torch.uint8)
    flat = torch.zeros(1, 70, 90)
    results = []
    for chunk in (1, 2, 100):
        results.append(SamMaskModel(tiny_sam(), chunk=chunk)(image, flat, BOXES[None]))
    torch.testing.assert_close(results[0], results[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[1], results[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('always', [False, True])
def test_frames_together_are_the_frames_alone(monkeypatch, always):
    monkeypatch.setattr('ood_perception.masks.boxes.ALWAYS_WAITS', always)
    model, empty = SamMaskModel(tiny_sam(), chunk=2), torch.zeros(3, 4)
    images = torch.randint(0, 256, (3, 3, 70, 90), dtype=torch.uint8)
    flat, boxes = torch.zeros(3, 70, 90), torch.stack([BOXES, empty, BOXES.flip(0)])
    together = model(images, flat, boxes)
    assert (together[1] < 0).all()
    for i in (0, 2):
        alone = model(images[i : i + 1], flat[:1], boxes[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)


def test_unusable_boxes_give_empty_masks():
    image, flat = torch.zeros(1, 3, 70, 90, dtype=torch.uint8), torch.zeros(1, 70, 90)
    boxes = torch.tensor(
        [[200.0, 5, 300, 50], [10, 10, 10, 40], [float('nan'), 0, 5, 5], [30, 30, 10, 10]]
    )
    assert (SamMaskModel(tiny_sam())(image, flat, boxes[None]) < 0).all()


@pytest.fixture
def registered(monkeypatch):
    """`sam_vit_b` builds the tiny network, so that its loader can be tested whole."""
    import segment_anything

    registry = {**segment_anything.sam_model_registry, 'vit_b': lambda: tiny_sam(1)}
    monkeypatch.setattr(segment_anything, 'sam_model_registry', registry)


def test_weights_are_asked_for():
    with pytest.raises(ValueError, match='weights'):
        create_mask_model('sam_vit_b')


def test_weights_are_loaded_whole_or_not_at_all(registered, tmp_path):
    state = tiny_sam(5).state_dict()
    path = tmp_path / 'mine.pth'
    torch.save({**state, 'pixel_mean': torch.zeros(3, 1, 1)}, path)
    loaded = create_mask_model('sam_vit_b', weights=str(path)).sam.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    name = 'prompt_encoder.no_mask_embed.weight'
    torch.save({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(ValueError, match=name):
        create_mask_model('sam_vit_b', weights=str(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='truncated or not a checkpoint'):
        create_mask_model('sam_vit_b', weights=str(path))
    with pytest.raises(OSError, match='no weight file'):
        create_mask_model('sam_vit_b', weights=str(tmp_path / 'none.pth'))


class Attack:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, 'w')


def test_a_file_that_would_run_something_is_refused(registered, tmp_path):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    torch.save({**tiny_sam().state_dict(), 'more': Attack(str(trace))}, path)
    with pytest.raises(ValueError, match='refused, nothing of it was run'):
        create_mask_model('sam_vit_b', weights=str(path))
    assert not trace.exists()


def test_a_published_name_with_other_contents_is_refused(registered, tmp_path):
    path = tmp_path / 'sam_vit_b_01ec64.pth'
    torch.save(tiny_sam().state_dict(), path)
    with pytest.raises(ValueError, match=r'sha256 is [0-9a-f]{64}, expected 01ec64'):
        create_mask_model('sam_vit_b', weights=str(path))


def test_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'mobile_sam', None)
    with pytest.raises(ImportError, match=r'mobile_sam.*pip install'):
        create_mask_model('mobile_sam', weights='x.pt')
