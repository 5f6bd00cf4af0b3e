# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One conversion function per origin: official keys -> the names of our modules.

Our modules keep the official names wherever they can, so most conversions only drop what
inference does not need. Each function returns a :class:`Converted` and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Converted:
    """A checkpoint in our names."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # our parameter name -> value
    # our parameter name -> the official keys that it was made from
    sources: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)  # official key -> why it is not used

    def add(self, name: str, value: Tensor, *sources: str) -> None:
        """Set the parameter `name`, made from the keys `sources`."""
        self.tensors[name] = value
        self.sources[name] = list(sources) or [name]


def convert_ours(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """Take the names as they are."""
    out = Converted()
    for key, value in state.items():
        out.add(key, value)
    return out


def convert_mmseg(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """
    Take mmsegmentation's names, which are ours, without what the model leaves out.

    The number of classes is read from the classifier's shape: every released configuration says
    150 whatever the data, so a constant would be wrong for anyone's own training.
    """
    out = Converted()
    own = model.state_dict().keys()
    backbone_only = not any(key.startswith('backbone.') for key in own)
    for key, value in state.items():
        name = key
        if key.startswith('auxiliary_head.') and key not in own:
            out.ignored[key] = 'auxiliary head, used in training only'
            continue
        if backbone_only:
            if not key.startswith('backbone.'):
                out.ignored[key] = 'not part of the backbone'
                continue
            name = key.removeprefix('backbone.')
        out.add(name, value, key)
    return out


def convert_dinov2(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """
    Rename the official hub keys to timm's; see `models.dinov2`.

    With registers, timm keeps the position embedding of the class token inside the class token.
    ViT-g names its gated MLP w12 and w3.
    """
    out = Converted()
    registers = 'register_tokens' in state
    for key, value in state.items():
        if key == 'mask_token':
            out.ignored[key] = 'mask token, used in training only'
        elif key == 'register_tokens':
            out.add('reg_token', value, key)
        elif registers and key == 'cls_token' and 'pos_embed' in state:
            out.add(key, value + state['pos_embed'][:, :1], key, 'pos_embed')
        elif registers and key == 'pos_embed':
            out.add(key, value[:, 1:], key)
        else:
            name = re.sub(r'\.mlp\.w12\.', '.mlp.fc1.', key)
            out.add(re.sub(r'\.mlp\.w3\.', '.mlp.fc2.', name), value, key)
    return out


_HUGGING_FACE = [
    (r'embeddings\.(cls_token|mask_token|register_tokens)$', r'\1'),
    (r'embeddings\.position_embeddings$', 'pos_embed'),
    (r'embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'(?:encoder\.)?layer\.(\d+)\.attention\.output\.dense\.', r'blocks.\1.attn.proj.'),
    (r'(?:encoder\.)?layer\.(\d+)\.layer_scale(\d)\.lambda1$', r'blocks.\1.ls\2.gamma'),
    (r'(?:encoder\.)?layer\.(\d+)\.mlp\.weights_in\.', r'blocks.\1.mlp.w12.'),
    (r'(?:encoder\.)?layer\.(\d+)\.mlp\.weights_out\.', r'blocks.\1.mlp.w3.'),
    (r'(?:encoder\.)?layer\.(\d+)\.', r'blocks.\1.'),
    (r'layernorm\.', 'norm.'),
]
"""Names of transformers' Dinov2Model -> names of the official hub."""

_QUERY_KEY_VALUE = re.compile(
    r'(?:encoder\.)?layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$'
)


def convert_dinov2_hf(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """Join query, key and value of Hugging Face's DINOv2 and rename it; see `convert_dinov2`."""
    official: dict[str, Tensor] = {}
    sources: dict[str, list[str]] = {}
    parts: dict[str, dict[str, str]] = {}
    for key, value in state.items():
        if found := _QUERY_KEY_VALUE.match(key):
            parts.setdefault(f'blocks.{found[1]}.attn.qkv.{found[3]}', {})[found[2]] = key
            continue
        name = key
        for pattern, replacement in _HUGGING_FACE:
            name, count = re.subn(rf'^{pattern}', replacement, key)
            if count:
                break
        official[name], sources[name] = value, [key]
    for name, keys in parts.items():
        order = [keys[part] for part in ('query', 'key', 'value') if part in keys]
        official[name], sources[name] = torch.cat([state[key] for key in order]), order
    part = convert_dinov2(official, model)
    return Converted(
        part.tensors,
        {name: [k for s in found for k in sources[s]] for name, found in part.sources.items()},
        {sources[name][0]: reason for name, reason in part.ignored.items()},
    )


def convert_dinov3(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """
    Rename the official DINOv3 keys to timm's, or take timm's own; see `models.dinov3`.

    The bias of the keys is held at zero in training, so timm has none.
    """
    out = Converted()
    for key, value in state.items():
        if key == 'mask_token' or key.endswith(('.bias_mask', '.periods')):
            out.ignored[key] = 'used in training only, or fixed in our model'
        elif key.endswith('.qkv.bias'):
            query, _, values = value.chunk(3)
            block = f'vit.{key.removesuffix("qkv.bias")}'
            out.add(f'{block}q_bias', query, key)
            out.add(f'{block}v_bias', values, key)
        else:
            name = re.sub(r'ls([12])\.gamma', r'gamma_\1', key)
            out.add('vit.' + name.replace('storage_tokens', 'reg_token'), value, key)
    return out


UEM_TRAINING_STATE = {
    'queue': 'memory queue of GMMSeg, used in training only',
    'queue_ptr': 'memory queue of GMMSeg, used in training only',
    'iteration_counter': 'counter of GMMSeg, used in training only',
    'eye_matrix': 'constant of GMMSeg, always one',
}
"""Last part of a key of the official UEM code -> why inference does not need it."""


def convert_uem(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """
    Strip what only training uses and convert the DINOv2 inside.

    A full checkpoint holds the segmentor under `segmentor.`, whose batch norm statistics differ
    from the first stage's own file: that copy belongs to the UEM and is the one taken. A first
    stage file, or the segmentor's part of a full one, loads into a bare segmentor.
    """
    out = Converted()
    full_model = any(key.startswith('segmentor.') for key in model.state_dict())
    full_state = any(key.startswith('segmentor.') for key in state)
    prefix = 'segmentor.' if full_model else ''
    inner: dict[str, Tensor] = {}
    dino = f'{prefix}backbone.dinov2.'
    official: dict[str, str] = {}
    for key, value in state.items():
        if (reason := UEM_TRAINING_STATE.get(key.rsplit('.', 1)[-1])) is not None:
            out.ignored[key] = reason
            continue
        name = key
        if full_state and not full_model:
            if not key.startswith('segmentor.'):
                out.ignored[key] = 'not part of the segmentor'
                continue
            name = key.removeprefix('segmentor.')
        elif full_model and not full_state and not key.startswith('ood_'):
            name = prefix + key
        if name.startswith(dino):
            inner[name.removeprefix(dino)] = value
            official[name.removeprefix(dino)] = key
        else:
            out.add(name, value, key)
    part = convert_dinov2(inner, model)
    for name, value in part.tensors.items():
        out.add(dino + name, value, *(official[source] for source in part.sources[name]))
    out.ignored.update({official[key]: reason for key, reason in part.ignored.items()})
    return out


_DETECTRON2 = [
    (r'backbone\.bottom_up\.stem\.conv1\.norm\.', 'backbone.body.bn1.'),
    (r'backbone\.bottom_up\.stem\.', 'backbone.body.'),
    (r'backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.', r'layer\1.\2.downsample.1.'),
    (r'backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.', r'layer\1.\2.downsample.0.'),
    (r'backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.', r'layer\1.\2.bn\3.'),
    (r'backbone\.bottom_up\.res(\d)\.(\d+)\.', r'layer\1.\2.'),
    (r'backbone\.fpn_lateral(\d)\.', r'inner\1.0.'),
    (r'backbone\.fpn_output(\d)\.', r'output\1.0.'),
    (r'proposal_generator\.rpn_head\.conv\.', 'rpn.head.conv.0.0.'),
    (r'proposal_generator\.rpn_head\.objectness_logits\.', 'rpn.head.cls_logits.'),
    (r'proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn.head.bbox_pred.'),
    (r'roi_heads\.box_head\.fc1\.', 'roi_heads.box_head.fc6.'),
    (r'roi_heads\.box_head\.fc2\.', 'roi_heads.box_head.fc7.'),
]

_DETECTRON2_CONSTANTS = ('pixel_mean', 'pixel_std')


def _torchvision_name(key: str) -> str:
    for pattern, replacement in _DETECTRON2:
        name, count = re.subn(rf'^{pattern}', replacement, key)
        if not count:
            continue
        # detectron2 counts stages and levels from 2, torchvision layers from 1 and levels from 0.
        if found := re.match(r'layer(\d)(.*)', name):
            return f'backbone.body.layer{int(found[1]) - 1}{found[2]}'
        if found := re.match(r'(inner|output)(\d)(.*)', name):
            blocks = 'inner_blocks' if found[1] == 'inner' else 'layer_blocks'
            return f'backbone.fpn.{blocks}.{int(found[2]) - 2}{found[3]}'
        return name
    return key


def convert_detectron2(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """
    Rename detectron2's Faster R-CNN R50-FPN to torchvision's.

    The classifier's rows [class 0, class 1, background] become [background, class 0, class 1],
    and the box regressor gets four rows of zeros for the background in front.
    """
    out = Converted()
    for key, value in state.items():
        if key in _DETECTRON2_CONSTANTS or 'anchor_generator.cell_anchors' in key:
            out.ignored[key] = 'constant, fixed in our model'
        elif key.startswith('roi_heads.box_predictor.cls_score.'):
            out.add(key, torch.cat([value[-1:], value[:-1]]))
        elif key.startswith('roi_heads.box_predictor.bbox_pred.'):
            out.add(key, torch.cat([torch.zeros_like(value[:4]), value]))
        else:
            out.add(_torchvision_name(key), value, key)
    return out


def convert_sam(state: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """Take Segment Anything's names as they are, without its constants."""
    out = Converted()
    own = model.state_dict().keys()
    for key, value in state.items():
        if key in ('pixel_mean', 'pixel_std') and key not in own:
            out.ignored[key] = 'constant, fixed in the model'
        else:
            out.add(key, value)
    return out


ORIGINS: dict[str, Callable[[Mapping[str, Tensor], nn.Module], Converted]] = {
    'mmseg': convert_mmseg,
    'dinov2': convert_dinov2,
    'dinov2_hf': convert_dinov2_hf,
    'dinov3': convert_dinov3,
    'uem': convert_uem,
    'detectron2': convert_detectron2,
    'sam': convert_sam,
    'ours': convert_ours,
}
"""Origin -> its conversion."""


def detect_origin(keys: Collection[str], own: Collection[str] = ()) -> str:
    """
    Tell whose checkpoint it is by its keys; '' if it is nobody's that we know.

    Args:
        own: names of the model's parameters; keys among them that no publisher uses are 'ours'.
    """
    signs = {
        'detectron2': r'backbone\.bottom_up\.|proposal_generator\.|backbone\.fpn_lateral\d',
        'mmseg': r'decode_head\.|backbone\.levels\.|backbone\.patch_embed\.conv',
        'sam': r'image_encoder\.|sam_mask_decoder\.|prompt_encoder\.|mask_decoder\.',
        'uem': r'(segmentor\.)?backbone\.(dinov2|learnable_layers)\.|ood_projector\._layers\.',
        'dinov2_hf': r'(encoder\.)?layer\.\d+\.attention\.attention\.query\.',
        'dinov3': r'storage_tokens$|blocks\.\d+\.(gamma_1$|attn\.q_bias$)',
        'dinov2': r'blocks\.\d+\.(norm1|attn|ls1)\.|register_tokens',
    }
    for origin, pattern in signs.items():
        if any(re.match(pattern, key) for key in keys):
            # Converted UEM and DINOv2 weights differ from official ones in the registers' name.
            converted = origin != 'dinov3' and any(key.endswith('reg_token') for key in keys)
            return 'ours' if converted else origin
    return 'ours' if any(key in own for key in keys) else ''
