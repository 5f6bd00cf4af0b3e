# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One conversion function per origin: official keys -> the names of our modules.

Our modules keep the official names wherever they can, so most conversions only drop what
inference does not need. Each function returns a :class:`Converted` and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
"""Tensors of a checkpoint by their official keys."""


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

    def then(self, second: Converted) -> Converted:
        """Join with a second conversion, which was made of the tensors of this one."""
        made = second.sources.items()
        sources = {name: [k for part in parts for k in self.sources[part]] for name, parts in made}
        ignored = {self.sources[name][0]: why for name, why in second.ignored.items()}
        return Converted(second.tensors, sources, self.ignored | ignored)


def renamed(
    state: State, rules: Iterable[tuple[str, Any]] = (), ignored: Mapping[str, str] | None = None
) -> Converted:
    """
    Give every key its name in our modules.

    Args:
        rules: patterns and what replaces them, applied to a key one after the other.
        ignored: keys that are left out -> why.
    """
    out = Converted(ignored=dict(ignored or {}))
    for key, value in state.items():
        if key not in out.ignored:
            name = key
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            out.add(name, value, key)
    return out


def convert_ours(state: State, model: nn.Module) -> Converted:
    """Take the names as they are."""
    return renamed(state)


def convert_mmseg(state: State, model: nn.Module) -> Converted:
    """
    Take mmsegmentation's names, which are ours, without what the model leaves out.

    The number of classes is read from the classifier's shape: every released configuration says
    150 whatever the data, so a constant would be wrong for anyone's own training.
    """
    own = model.state_dict()
    unused = [key for key in state if key.startswith('auxiliary_head.') and key not in own]
    ignored = dict.fromkeys(unused, 'auxiliary head, used in training only')
    if any(key.startswith('backbone.') for key in own):
        return renamed(state, ignored=ignored)
    others = [key for key in state if not key.startswith('backbone.')]
    ignored = dict.fromkeys(others, 'not part of the backbone') | ignored
    return renamed(state, [(r'^backbone\.', '')], ignored)


def convert_dinov2(state: State, model: nn.Module, prefix: str = '') -> Converted:
    """
    Rename the official hub keys, below a prefix, to timm's; see `models.dinov2`.

    With registers, timm keeps the position embedding of the class token inside the class token.
    ViT-g names its gated MLP w12 and w3.
    """
    start = f'^({re.escape(prefix)}'
    out = renamed(
        state,
        [
            (rf'{start}.*\.mlp)\.w12\.', r'\1.fc1.'),
            (rf'{start}.*\.mlp)\.w3\.', r'\1.fc2.'),
            (rf'{start})register_tokens$', r'\1reg_token'),
        ],
        {k: 'mask token, used in training only' for k in state if k == f'{prefix}mask_token'},
    )
    token, positions = f'{prefix}cls_token', f'{prefix}pos_embed'
    if f'{prefix}register_tokens' in state and positions in state:
        out.add(positions, state[positions][:, 1:])
        if token in state:
            out.add(token, state[token] + state[positions][:, :1], token, positions)
    return out


_HUGGING_FACE = [
    (r'^embeddings\.(cls_token|mask_token|register_tokens)$', r'\1'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^(?:encoder\.)?layer\.(\d+)\.attention\.output\.dense\.', r'blocks.\1.attn.proj.'),
    (r'^(?:encoder\.)?layer\.(\d+)\.layer_scale(\d)\.lambda1$', r'blocks.\1.ls\2.gamma'),
    (r'^(?:encoder\.)?layer\.(\d+)\.mlp\.weights_in\.', r'blocks.\1.mlp.w12.'),
    (r'^(?:encoder\.)?layer\.(\d+)\.mlp\.weights_out\.', r'blocks.\1.mlp.w3.'),
    (r'^(?:encoder\.)?layer\.(\d+)\.', r'blocks.\1.'),
    (r'^layernorm\.', 'norm.'),
]
"""Names of transformers' Dinov2Model -> names of the official hub."""

_QUERY_KEY_VALUE = re.compile(
    r'(?:encoder\.)?layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$'
)


def convert_dinov2_hf(state: State, model: nn.Module) -> Converted:
    """Join query, key and value of Hugging Face's DINOv2 and rename it; see `convert_dinov2`."""
    parts: dict[str, dict[str, str]] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        if found := _QUERY_KEY_VALUE.match(key):
            parts.setdefault(f'blocks.{found[1]}.attn.qkv.{found[3]}', {})[found[2]] = key
        else:
            rest[key] = value
    official = renamed(rest, _HUGGING_FACE)
    for name, keys in parts.items():
        order = [keys[part] for part in ('query', 'key', 'value') if part in keys]
        official.add(name, torch.cat([state[key] for key in order]), *order)
    return official.then(convert_dinov2(official.tensors, model))


def convert_dinov3(state: State, model: nn.Module) -> Converted:
    """
    Rename the official DINOv3 keys to timm's, or take timm's own; see `models.dinov3`.

    The bias of the keys is held at zero in training, so timm has none.
    """
    ends = ('.bias_mask', '.periods')
    unused = [key for key in state if key == 'mask_token' or key.endswith(ends)]
    out = renamed(
        {key: value for key, value in state.items() if not key.endswith('.qkv.bias')},
        [(r'ls([12])\.gamma', r'gamma_\1'), ('storage_tokens', 'reg_token'), ('^', 'vit.')],
        dict.fromkeys(unused, 'used in training only, or fixed in our model'),
    )
    for key, value in state.items():
        if key.endswith('.qkv.bias'):
            query, _, values = value.chunk(3)
            block = f'vit.{key.removesuffix("qkv.bias")}'
            out.add(f'{block}q_bias', query, key)
            out.add(f'{block}v_bias', values, key)
    return out


UEM_TRAINING_STATE = {
    'queue': 'memory queue of GMMSeg, used in training only',
    'queue_ptr': 'memory queue of GMMSeg, used in training only',
    'iteration_counter': 'counter of GMMSeg, used in training only',
    'eye_matrix': 'constant of GMMSeg, always one',
}
"""Last part of a key of the official UEM code -> why inference does not need it."""


def convert_uem(state: State, model: nn.Module) -> Converted:
    """
    Strip what only training uses and convert the DINOv2 inside.

    A full checkpoint holds the segmentor under `segmentor.`, whose batch norm statistics differ
    from the first stage's own file: that copy belongs to the UEM and is the one taken. A first
    stage file, or the segmentor's part of a full one, loads into a bare segmentor.
    """
    full_model = any(key.startswith('segmentor.') for key in model.state_dict())
    full_state = any(key.startswith('segmentor.') for key in state)
    ends = {key: key.rsplit('.', 1)[-1] for key in state}
    ignored = {k: UEM_TRAINING_STATE[end] for k, end in ends.items() if end in UEM_TRAINING_STATE}
    rules: list[tuple[str, str]] = []
    if full_state and not full_model:
        others = [key for key in state if not key.startswith('segmentor.')]
        ignored = dict.fromkeys(others, 'not part of the segmentor') | ignored
        rules = [(r'^segmentor\.', '')]
    elif full_model and not full_state:
        rules = [('^(?!ood_)', 'segmentor.')]
    out = renamed(state, rules, ignored)
    prefix = 'segmentor.backbone.dinov2.' if full_model else 'backbone.dinov2.'
    return out.then(convert_dinov2(out.tensors, model, prefix))


def _less(start: str, by: int) -> Callable[[re.Match[str]], str]:
    """Replacement by a text and the number that was found, less some."""
    return lambda found: f'{start}{int(found[1]) - by}'


_DETECTRON2 = [
    # detectron2 counts stages and levels from 2, torchvision layers from 1 and levels from 0.
    (r'^backbone\.bottom_up\.res(\d)', _less('backbone.body.layer', 1)),
    (r'^backbone\.fpn_lateral(\d)', _less('backbone.fpn.inner_blocks.', 2)),
    (r'^backbone\.fpn_output(\d)', _less('backbone.fpn.layer_blocks.', 2)),
    (r'^(backbone\.fpn\.\w+\.\d+)\.', r'\1.0.'),
    (r'^backbone\.bottom_up\.stem\.conv1\.norm\.', 'backbone.body.bn1.'),
    (r'^backbone\.bottom_up\.stem\.', 'backbone.body.'),
    (r'^(backbone\.body\.layer\d\.\d+)\.shortcut\.norm\.', r'\1.downsample.1.'),
    (r'^(backbone\.body\.layer\d\.\d+)\.shortcut\.', r'\1.downsample.0.'),
    (r'^(backbone\.body\.layer\d\.\d+)\.conv(\d)\.norm\.', r'\1.bn\2.'),
    (r'^proposal_generator\.rpn_head\.conv\.', 'rpn.head.conv.0.0.'),
    (r'^proposal_generator\.rpn_head\.objectness_logits\.', 'rpn.head.cls_logits.'),
    (r'^proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn.head.bbox_pred.'),
    (r'^roi_heads\.box_head\.fc2\.', 'roi_heads.box_head.fc7.'),
    (r'^roi_heads\.box_head\.fc1\.', 'roi_heads.box_head.fc6.'),
]
"""Names of detectron2's Faster R-CNN -> torchvision's."""

_CONSTANTS = ('pixel_mean', 'pixel_std')


def convert_detectron2(state: State, model: nn.Module) -> Converted:
    """
    Rename detectron2's Faster R-CNN R50-FPN to torchvision's.

    The classifier's rows [class 0, class 1, background] become [background, class 0, class 1],
    and the box regressor gets four rows of zeros for the background in front.
    """
    fixed = [key for key in state if key in _CONSTANTS or 'anchor_generator.cell_anchors' in key]
    out = renamed(state, _DETECTRON2, dict.fromkeys(fixed, 'constant, fixed in our model'))
    for name, value in out.tensors.items():
        if name.startswith('roi_heads.box_predictor.cls_score.'):
            out.tensors[name] = torch.cat([value[-1:], value[:-1]])
        elif name.startswith('roi_heads.box_predictor.bbox_pred.'):
            out.tensors[name] = torch.cat([torch.zeros_like(value[:4]), value])
    return out


def convert_sam(state: State, model: nn.Module) -> Converted:
    """Take Segment Anything's names as they are, without its constants."""
    fixed = (set(_CONSTANTS) & state.keys()) - model.state_dict().keys()
    return renamed(state, ignored=dict.fromkeys(fixed, 'constant, fixed in the model'))


ORIGINS: dict[str, Callable[[State, nn.Module], Converted]] = {
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
