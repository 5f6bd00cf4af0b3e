# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
import torch.nn.functional as F
from official_weights import mmseg_value
from torch import nn
from torchvision.ops import nms, roi_align

from ood_perception.checkpoints import CheckpointError, load_checkpoint
from ood_perception.engines.export import export_onnx
from ood_perception.masks.rcnn_prompts import detect_in_slots
from ood_perception.models import create_model
from ood_perception.models.faster_rcnn import STRIDES, AlignedPooler, FixedAnchors

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


def official_shapes():
    """The 295 tensors of the official checkpoint."""
    shapes = {}

    def conv(name, out, inputs, size, bias=False):
        shapes[f'{name}.weight'] = (out, inputs, size, size)
        if bias:
            shapes[f'{name}.bias'] = (out,)
        else:
            shapes.update(
                {
                    f'{name}.norm.{part}': (out,)
                    for part in ('weight', 'bias', 'running_mean', 'running_var')
                }
            )

    body = 'backbone.bottom_up'
    conv(f'{body}.stem.conv1', 64, 3, 7)
    inputs = 64
    for stage, count in BLOCKS.items():
        inner = 64 * 2 ** (stage - 2)
        for i in range(count):
            if i == 0:
                conv(f'{body}.res{stage}.0.shortcut', 4 * inner, inputs, 1)
            conv(f'{body}.res{stage}.{i}.conv1', inner, inputs, 1)
            conv(f'{body}.res{stage}.{i}.conv2', inner, inner, 3)
            conv(f'{body}.res{stage}.{i}.conv3', 4 * inner, inner, 1)
            inputs = 4 * inner
        conv(f'backbone.fpn_lateral{stage}', 256, inputs, 1, bias=True)
        conv(f'backbone.fpn_output{stage}', 256, 256, 3, bias=True)
    rpn = 'proposal_generator.rpn_head'
    conv(f'{rpn}.conv', 256, 256, 3, bias=True)
    conv(f'{rpn}.objectness_logits', 3, 256, 1, bias=True)
    conv(f'{rpn}.anchor_deltas', 12, 256, 1, bias=True)
    for name, (out, width) in {
        'box_head.fc1': (1024, 256 * 49),
        'box_head.fc2': (1024, 1024),
        'box_predictor.cls_score': (3, 1024),
        'box_predictor.bbox_pred': (8, 1024),
    }.items():
        shapes[f'roi_heads.{name}.weight'] = (out, width)
        shapes[f'roi_heads.{name}.bias'] = (out,)
    return shapes


@pytest.fixture(scope='module')
def official():
    weights = {key: mmseg_value(key, shape) for key, shape in official_shapes().items()}
    model = create_model('s2m_prompt_rcnn')
    load_checkpoint(model, weights)
    # Features of unit size, and heads strong enough that some boxes are kept and some are not.
    # Drawn from a generator of its own: with the global one the weights, and which boxes lie next
    # to a threshold, would depend on the tests that ran before.
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.backbone(images * 20 - 100)
    size = torch.cat([m.flatten() for m in maps.values()]).std()
    for key in weights:
        if key.startswith('backbone.fpn_output'):
            weights[key] = weights[key] / size
    weights['roi_heads.box_predictor.cls_score.weight'] *= 20
    weights['proposal_generator.rpn_head.objectness_logits.weight'] *= 4
    weights['proposal_generator.rpn_head.anchor_deltas.weight'] *= 0.3
    return model, weights, load_checkpoint(model, weights)


def decode(boxes, deltas, scale):
    dx, dy, dw, dh = (deltas / torch.tensor(scale)).unbind(-1)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    x = boxes[..., 0] + width / 2 + dx * width
    y = boxes[..., 1] + height / 2 + dy * height
    width = width * dw.clamp(max=math.log(1000 / 16)).exp()
    height = height * dh.clamp(max=math.log(1000 / 16)).exp()
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def clip(boxes, height, width):
    limit = torch.tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def detect(w, score):
    """detectron2's computation over the official keys, restated without any module."""
    height, width = score.shape
    images = score.expand(3, -1, -1) - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    images = F.pad(images, (0, -width % 32, 0, -height % 32))[None]

    def conv(x, name, stride=1):
        weight = w[f'{name}.weight']
        x = F.conv2d(x, weight, w.get(f'{name}.bias'), stride, weight.shape[-1] // 2)
        if f'{name}.norm.weight' not in w:
            return x
        mean, var, gain, shift = (
            w[f'{name}.norm.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return F.batch_norm(x, mean, var, gain, shift, False, 0.0, 1e-5)

    body = 'backbone.bottom_up'
    x = F.max_pool2d(conv(images, f'{body}.stem.conv1', 2).relu(), 3, 2, 1)
    laterals = {}
    for stage, count in BLOCKS.items():
        for i in range(count):
            name, stride = f'{body}.res{stage}.{i}', 2 if stage > 2 and i == 0 else 1
            y = conv(x, f'{name}.conv1', stride).relu()  # the stride is in the 1x1
            y = conv(conv(y, f'{name}.conv2').relu(), f'{name}.conv3')
            x = (y + (conv(x, f'{name}.shortcut', stride) if i == 0 else x)).relu()
        laterals[stage] = conv(x, f'backbone.fpn_lateral{stage}')
    for stage in (4, 3, 2):
        up = F.interpolate(laterals[stage + 1], scale_factor=2.0, mode='nearest')
        laterals[stage] = laterals[stage] + up
    maps = [conv(laterals[stage], f'backbone.fpn_output{stage}') for stage in BLOCKS]
    maps.append(maps[-1][:, :, ::2, ::2])

    found = []
    for level, feature in enumerate(maps):
        rpn = 'proposal_generator.rpn_head'
        hidden = conv(feature, f'{rpn}.conv').relu()
        logits = conv(hidden, f'{rpn}.objectness_logits')[0].permute(1, 2, 0).reshape(-1)
        deltas = conv(hidden, f'{rpn}.anchor_deltas')[0].unflatten(0, (3, 4))
        deltas = deltas.permute(2, 3, 0, 1).reshape(-1, 4)
        anchors = []
        for i in range(feature.shape[2]):
            for j in range(feature.shape[3]):
                for ratio in (0.5, 1.0, 2.0):
                    side, stride = 32 * 2**level, 4 * 2**level
                    half_w, half_h = side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2
                    x, y = j * stride, i * stride
                    anchors.append([x - half_w, y - half_h, x + half_w, y + half_h])
        logits, order = logits.topk(min(1000, len(logits)))
        boxes = decode(torch.tensor(anchors)[order], deltas[order], (1.0, 1.0, 1.0, 1.0))
        boxes = clip(boxes, height, width)
        alive = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        boxes, logits = boxes[alive], logits[alive]
        kept = nms(boxes, logits, 0.7)
        found.append((logits[kept], boxes[kept]))
    logits, order = torch.cat([f[0] for f in found]).sort(descending=True, stable=True)
    boxes = torch.cat([f[1] for f in found])[order[:1000]]

    pooled = []
    for box in boxes:
        area = ((box[2] - box[0]) * (box[3] - box[1])).sqrt()
        level = int((4 + (area / 224 + 1e-8).log2()).floor().clamp(2, 5)) - 2
        pooled.append(roi_align(maps[level], [box[None]], 7, 1 / STRIDES[level], 0, aligned=True))
    x = torch.cat(pooled).flatten(1)

    def linear(x, name):
        return F.linear(x, w[f'roi_heads.{name}.weight'], w[f'roi_heads.{name}.bias'])

    x = linear(linear(x, 'box_head.fc1').relu(), 'box_head.fc2').relu()
    scores = linear(x, 'box_predictor.cls_score').softmax(-1)[:, :2]
    deltas = linear(x, 'box_predictor.bbox_pred').unflatten(1, (2, 4))
    moved = clip(decode(boxes[:, None], deltas, (10.0, 10.0, 5.0, 5.0)), height, width)
    results = []
    for label in (0, 1):
        chosen = scores[:, label] > 0.05
        kept = nms(moved[chosen, label], scores[chosen, label], 0.5)
        results += [
            (s.item(), label + 1, b)
            for s, b in zip(scores[chosen, label][kept], moved[chosen, label][kept], strict=True)
        ]
    return sorted(results, key=lambda r: -r[0])[:100]


def test_every_official_key_is_used(official):
    _, weights, report = official
    assert len(weights) == 295
    assert sum(v.numel() for v in weights.values()) == 41_406_426
    assert report.origin == 'detectron2'
    assert set(report.used) == set(weights)
    assert not report.ignored


def score_maps():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 1, 6, 9, generator=generator)
    return 20 * F.interpolate(coarse, (101, 150), mode='bicubic')[:, 0] - 10


@pytest.fixture(scope='module')
def found(official):
    with torch.inference_mode():
        return official[0](score_maps())


def test_boxes_equal_the_official_computation(official, found):
    weights, scores = official[1], score_maps()
    with torch.inference_mode():
        for score, out in zip(scores, found, strict=True):
            expected = detect(weights, score)
            assert len(expected) > 10
            assert len(out['boxes']) == len(expected)
            values = out['scores'].tolist()
            assert values == sorted(values, reverse=True)
            assert values == pytest.approx([e[0] for e in expected], abs=1e-4)
            for box, label, (_, wanted_label, wanted) in zip(
                out['boxes'], out['labels'], expected, strict=True
            ):
                assert label == wanted_label
                assert (box - wanted).abs().max() < 0.1


@pytest.mark.parametrize('always', [False, True])
def test_slots_hold_the_same_boxes(official, found, monkeypatch, always):
    monkeypatch.setattr('ood_perception.masks.boxes.ALWAYS_WAITS', always)
    model, scores = official[0], score_maps()
    with torch.inference_mode():
        boxes, confidences = detect_in_slots(model, scores)
        for i, out in enumerate(found):
            count = len(out['scores'])
            assert count > 10
            assert (confidences[i, count:] == 0).all()
            torch.testing.assert_close(confidences[i, :count], out['scores'], atol=1e-4, rtol=0)
            torch.testing.assert_close(boxes[i, :count], out['boxes'], atol=1e-2, rtol=0)


class InSlots(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, scores):
        return detect_in_slots(self.detector, scores)


@pytest.mark.slow
def test_an_onnx_file_finds_the_same_boxes(official, monkeypatch, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    monkeypatch.setattr('ood_perception.masks.boxes.ALWAYS_WAITS', True)
    network, scores = InSlots(official[0]).eval(), score_maps()[:1]
    export_onnx(network, scores, tmp_path / 'model.onnx', batch=False)
    session = runtime.InferenceSession(tmp_path / 'model.onnx', providers=['CPUExecutionProvider'])
    boxes, confidences = session.run(None, {'images': scores.numpy()})
    with torch.inference_mode():
        wanted_boxes, wanted = network(scores)
    found = wanted[0] > 0
    assert found.sum() > 10
    torch.testing.assert_close(torch.from_numpy(confidences), wanted, atol=1e-4, rtol=0)
    boxes = torch.from_numpy(boxes)[0, found]
    torch.testing.assert_close(boxes, wanted_boxes[0, found], atol=1e-2, rtol=0)


def test_labels_name_both_foreground_classes(official):
    model, _, _ = official
    assert model.roi_heads.box_predictor.cls_score.bias.numel() == 3
    assert (model.roi_heads.box_predictor.bbox_pred.weight[:4] == 0).all()


def test_map_where_nothing_is_found_gives_empty_boxes():
    model = create_model('s2m_prompt_rcnn', score_threshold=1.0)
    out = model(torch.zeros(1, 40, 50))[0]
    assert out['boxes'].shape == (0, 4)
    assert out['scores'].shape == (0,)


def test_anchors_are_not_rounded_and_lie_at_fixed_strides():
    from torchvision.models.detection.image_list import ImageList

    maps = [torch.zeros(1, 1, math.ceil(96 / s), math.ceil(128 / s)) for s in STRIDES]
    (anchors,) = FixedAnchors()(ImageList(torch.zeros(1, 3, 96, 128), [(90, 120)]), maps)
    assert len(anchors) == sum(3 * m.shape[2] * m.shape[3] for m in maps)
    half = 16 * math.sqrt(2)
    assert anchors[0].tolist() == pytest.approx([-half, -half / 2, half, half / 2])
    assert anchors[3].tolist() == pytest.approx([4 - half, -half / 2, 4 + half, half / 2])
    assert (anchors[-3:, :2] + anchors[-3:, 2:]).unique().tolist() == [2 * 64.0]


def test_pooler_sends_boxes_to_levels_by_area():
    maps = {str(i): torch.full((1, 1, 64 >> i, 64 >> i), float(i)) for i in range(5)}
    sides = torch.tensor([10.0, 111.0, 112.5, 224.5, 250.0])
    boxes = torch.stack([torch.zeros(5), torch.zeros(5), sides, sides], dim=1)
    out = AlignedPooler()(maps, [boxes], [(256, 256)])
    assert out[:, 0, 3, 3].tolist() == [0, 0, 1, 2, 2]


def test_empty_set_of_boxes_is_pooled_to_nothing():
    maps = {str(i): torch.zeros(1, 4, 8, 8) for i in range(5)}
    assert AlignedPooler()(maps, [torch.zeros(0, 4)], [(32, 32)]).shape == (0, 4, 7, 7)


def test_wrong_inputs_are_named(official):
    model, weights, _ = official
    with pytest.raises(ValueError, match=r'\(B, H, W\), got \(1, 3, 8, 8\)'):
        model(torch.zeros(1, 3, 8, 8))
    key = 'roi_heads.box_predictor.cls_score.weight'
    wrong = {**weights, key: torch.zeros(81, 1024)}
    with pytest.raises(CheckpointError, match='wrong shape'):
        load_checkpoint(model, wrong)


def test_training_gives_losses():
    model = create_model('s2m_prompt_rcnn').train()
    target = {'boxes': torch.tensor([[10.0, 10, 40, 50]]), 'labels': torch.tensor([1])}
    losses = model(torch.randn(1, 64, 64), [target])
    assert set(losses) == {
        'loss_objectness',
        'loss_rpn_box_reg',
        'loss_classifier',
        'loss_box_reg',
    }
    assert all(loss.isfinite() for loss in losses.values())
