# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from ood_perception.masks import create_segmenter
from ood_perception.masks.sam import SamSegmenter

modeling = pytest.importorskip('segment_anything.modeling', reason='needs segment-anything')


def tiny_sam(seed=0):
    """SAM's own parts, small and random: 128 pixels, 2 blocks (one windowed), width 32."""
    torch.manual_seed(seed)
    return modeling.Sam(
        modeling.ImageEncoderViT(
            img_size=128,
            patch_size=16,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=4,
        ),
        modeling.PromptEncoder(32, (8, 8), (128, 128), 16),
        modeling.MaskDecoder(
            transformer_dim=32,
            transformer=modeling.TwoWayTransformer(2, 32, 2, 64),
        ),
    ).eval()


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
    segmenter = SamSegmenter(sam)
    segmenter.set_frame(image, torch.zeros(size), torch.zeros(size))
    got = segmenter.masks(boxes)
    assert got.shape == (3, *size)
    torch.testing.assert_close(got, expected[:, 0], rtol=1e-4, atol=1e-5)
    assert torch.equal(got > 0, expected[:, 0] > 0)


def test_embedding_once_a_frame_and_only_for_a_box():
    sam = tiny_sam()
    calls = []
    sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    segmenter = SamSegmenter(sam)
    image = torch.zeros(70, 90, 3, dtype=torch.uint8)
    flat = torch.zeros(70, 90)
    segmenter.set_frame(image, flat, flat)
    assert segmenter.masks(torch.zeros(0, 4)).shape == (0, 70, 90)
    assert not calls
    segmenter.masks(BOXES)
    segmenter.masks(BOXES[:1])
    assert len(calls) == 1
    segmenter.set_frame(image, flat, flat)
    segmenter.masks(BOXES)
    assert len(calls) == 2


def test_chunks_change_nothing():
    image = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8)
    flat = torch.zeros(70, 90)
    results = []
    for chunk in (1, 2, 100):
        segmenter = SamSegmenter(tiny_sam(), chunk=chunk)
        segmenter.set_frame(image, flat, flat)
        results.append(segmenter.masks(BOXES))
    torch.testing.assert_close(results[0], results[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[1], results[2], rtol=1e-4, atol=1e-5)


def test_score_chooses_the_offer_that_agrees():
    sam = tiny_sam(3)
    image = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8)
    segmenter = SamSegmenter(sam, choose='score')
    box = torch.tensor([[5.0, 5.0, 80.0, 60.0]])
    offers = torch.full((1, 3, 32, 32), -1.0)
    offers[0, 0, :10, :10] = 1
    offers[0, 1, 8:16, 10:20] = 1
    offers[0, 2, :25, :32] = 1
    probability = torch.zeros(70, 90)
    # 32 / 128 * 128 / 90 low-resolution pixels for each pixel of the frame
    scale = 90 / 32
    probability[round(8 * scale) : round(16 * scale), round(10 * scale) : round(20 * scale)] = 1
    segmenter.set_frame(image, probability, probability)
    agreement = segmenter._agreement(offers, torch.zeros(1, 3), box * 128 / 90)
    assert agreement.argmax(1).tolist() == [1]
    assert agreement[0, 1] > 0.8
    masks = segmenter.masks(BOXES)
    assert masks.shape == (3, 70, 90)
    assert torch.isfinite(masks).all()


def test_unusable_boxes_give_empty_masks():
    segmenter = SamSegmenter(tiny_sam())
    flat = torch.zeros(70, 90)
    segmenter.set_frame(torch.zeros(70, 90, 3, dtype=torch.uint8), flat, flat)
    boxes = torch.tensor(
        [[200.0, 5, 300, 50], [10, 10, 10, 40], [float('nan'), 0, 5, 5], [30, 30, 10, 10]]
    )
    assert (segmenter.masks(boxes) < 0).all()


@pytest.fixture
def registered(monkeypatch):
    """`sam_vit_b` builds the tiny network, so that its loader can be tested whole."""
    import segment_anything

    registry = {**segment_anything.sam_model_registry, 'vit_b': lambda: tiny_sam(1)}
    monkeypatch.setattr(segment_anything, 'sam_model_registry', registry)


def test_weights_are_asked_for():
    with pytest.raises(ValueError, match='weights'):
        create_segmenter('sam_vit_b')


def test_weights_are_loaded_whole_or_not_at_all(registered, tmp_path):
    state = tiny_sam(5).state_dict()
    path = tmp_path / 'mine.pth'
    torch.save({**state, 'pixel_mean': torch.zeros(3, 1, 1)}, path)
    loaded = create_segmenter('sam_vit_b', weights=str(path)).sam.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    name = 'prompt_encoder.no_mask_embed.weight'
    torch.save({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(ValueError, match=name):
        create_segmenter('sam_vit_b', weights=str(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='truncated or not a checkpoint'):
        create_segmenter('sam_vit_b', weights=str(path))
    with pytest.raises(OSError, match='no weight file'):
        create_segmenter('sam_vit_b', weights=str(tmp_path / 'none.pth'))


class Attack:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, 'w')


def test_a_file_that_would_run_something_is_refused(registered, tmp_path):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    torch.save({**tiny_sam().state_dict(), 'more': Attack(str(trace))}, path)
    with pytest.raises(ValueError, match='refused, nothing of it was run'):
        create_segmenter('sam_vit_b', weights=str(path))
    assert not trace.exists()


def test_a_published_name_with_other_contents_is_refused(registered, tmp_path):
    path = tmp_path / 'sam_vit_b_01ec64.pth'
    torch.save(tiny_sam().state_dict(), path)
    with pytest.raises(ValueError, match=r'sha256 is [0-9a-f]{64}, expected 01ec64'):
        create_segmenter('sam_vit_b', weights=str(path))


def test_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'mobile_sam', None)
    with pytest.raises(ImportError, match=r'mobile_sam.*pip install'):
        create_segmenter('mobile_sam', weights='x.pt')


def test_sam2_adapter_hands_over_boxes_and_logits():
    """The adapter's own arithmetic, against a predictor that draws the boxes it is given."""
    from ood_perception.masks.sam import Sam2Segmenter

    class Drawer:
        images = 0

        def set_image(self, image):
            assert image.dtype == np.uint8
            self.images += 1
            self.shape = image.shape[:2]

        def predict(self, box, multimask_output, return_logits):
            assert not multimask_output
            assert return_logits
            out = np.full((len(box), 1, *self.shape), -3.0, np.float32)
            for row, (x1, y1, x2, y2) in zip(out, box.astype(int), strict=True):
                row[0, y1:y2, x1:x2] = 3
            # SAM 2 drops the first axis when there is one box
            return (out if len(box) > 1 else out[0]), None, None

    segmenter = Sam2Segmenter(Drawer())
    flat = torch.zeros(70, 90)
    for boxes in (BOXES, BOXES[:1]):
        segmenter.set_frame(torch.zeros(70, 90, 3, dtype=torch.uint8), flat, flat)
        masks = segmenter.masks(boxes)
        assert masks.shape == (len(boxes), 70, 90)
        assert int((masks[0] > 0).sum()) == 50 * 45
    assert segmenter.predictor.images == 2
