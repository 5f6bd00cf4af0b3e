# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from official_weights import golden, mmseg_value, uem_value, weights_by_rule
from safetensors.torch import save_file

from ood_perception.checkpoints import CheckpointError, load_checkpoint
from ood_perception.models import create_model

DINO = {'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'table_size': 42}
UEM = {
    **DINO,
    'out_indices': (0, 1, 2, 3),
    'channels': 8,
    'mlp_hidden': 6,
    'projector_hidden': (7, 7),
    'num_classes': 3,
    'num_components': 2,
    'window': (28, 28),
    'stride': (14, 14),
}


def internimage(head='upernet', **options):
    case = golden('internimage_heads_small.pt')[head]
    model = create_model(
        f'internimage_l_{head}',
        **{
            **case['backbone_cfg'],
            'head_channels': case['head']['channels'],
            **({'aux_channels': case['aux']['channels']} if head == 'upernet' else {}),
            **options,
        },
    )
    return model, weights_by_rule(case['shapes'], mmseg_value)


def official_uem(form, state):
    """The official keys for a model of ours: DINOv2 renamed, training state added."""
    out = {}
    for key, value in state.items():
        if key.endswith('dinov2.reg_token'):
            out[key.replace('reg_token', 'register_tokens')] = value
        elif key.endswith('dinov2.pos_embed'):
            dim = value.shape[-1]
            first = torch.full((1, 1, dim), 0.25)
            out[key] = torch.cat([first, value], dim=1)
            out[key.replace('pos_embed', 'mask_token')] = torch.zeros(1, dim)
        elif key.endswith('dinov2.cls_token'):
            out[key] = value - 0.25
        else:
            out[key] = value
    heads = {'segmentor.segmentation_head': form[0], 'ood_head': form[1]}
    for head, kind in heads.items():
        if kind == 'g':
            out[f'{head}.queue'] = torch.randn(6, 8, 10)
            out[f'{head}.queue_ptr'] = torch.zeros(6, dtype=torch.int64)
            out[f'{head}.iteration_counter'] = torch.zeros(1)
            out[f'{head}.eye_matrix'] = torch.ones(8)
    return out


def randomised(model):
    for name, value in model.state_dict().items():
        value.copy_(uem_value(name, tuple(value.shape), str(value.dtype).removeprefix('torch.')))
    return model


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    now = model.state_dict()
    return set(now) == set(before) and all(torch.equal(now[k], before[k]) for k in before)


@pytest.mark.parametrize('form', ['dd', 'gd', 'gg'])
def test_full_uem_checkpoint_is_stripped_and_loaded(form):
    source = randomised(create_model(f'uem_{form}', **UEM))
    state = official_uem(form, source.state_dict())
    model = create_model(f'uem_{form}', **UEM)
    report = load_checkpoint(model, {'state_dict': state, 'hyper_parameters': {'lr': 1}})
    assert report.origin == 'uem'
    assert report.ok
    assert set(report.used) | set(report.ignored) == set(state)
    ignored = {key.rsplit('.', 1)[-1] for key in report.ignored}
    queues = {'queue', 'queue_ptr', 'iteration_counter', 'eye_matrix'}
    assert ignored == {'mask_token'} | (queues if 'g' in form else set())
    assert all(report.ignored.values())
    for name, value in source.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-6), name


def test_uem_checkpoint_without_training_state_loads_too():
    source = randomised(create_model('uem_gg', **UEM))
    state = official_uem('gg', source.state_dict())
    for key in list(state):
        if key.rsplit('.', 1)[-1] in ('queue', 'queue_ptr', 'iteration_counter', 'eye_matrix'):
            del state[key]
    assert load_checkpoint(create_model('uem_gg', **UEM), state, origin='uem').ok


def test_first_stage_file_loads_into_the_segmentor_only():
    source = randomised(create_model('uem_gd', **UEM))
    full = official_uem('gd', source.state_dict())
    stage = {k.removeprefix('segmentor.'): v for k, v in full.items() if k.startswith('seg')}
    model = create_model('uem_gd', **UEM)
    assert load_checkpoint(model.segmentor, stage).origin == 'uem'
    assert torch.equal(
        model.segmentor.segmentation_head.means, source.segmentor.segmentation_head.means
    )
    with pytest.raises(CheckpointError, match='ood_projector'):
        load_checkpoint(create_model('uem_gd', **UEM), stage)
    report = load_checkpoint(create_model('uem_gd', **UEM).segmentor, full)
    assert report.ignored['ood_head._head.bias'] == 'not part of the segmentor'


def test_other_form_of_uem_is_refused_by_name():
    state = official_uem('gd', create_model('uem_gd', **UEM).state_dict())
    model = create_model('uem_dd', **UEM)
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r'segmentation_head\._head\.weight') as caught:
        load_checkpoint(model, state)
    assert 'segmentor.segmentation_head.means' in caught.value.report.unexpected
    assert unchanged(model, before)


def test_wrong_architecture_is_refused_and_nothing_is_loaded():
    model, _ = internimage()
    _, other = internimage('segformer')
    before = snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, other)
    report = caught.value.report
    assert any(name.startswith('decode_head.psp_modules') for name in report.missing)
    assert 'decode_head.fusion_conv.conv.weight' in report.unexpected
    assert '\n' not in str(caught.value)
    assert unchanged(model, before)


def test_wrong_size_names_both_shapes():
    _, state = internimage()
    model, _ = internimage(channels=32)
    before = snapshot(model)
    with pytest.raises(
        CheckpointError, match=r'\(8, 3, 3, 3\), expected \(16, 3, 3, 3\)'
    ) as caught:
        load_checkpoint(model, state)
    assert caught.value.report.wrong_shape['backbone.patch_embed.conv1.weight'] == (
        (8, 3, 3, 3),
        (16, 3, 3, 3),
    )
    assert unchanged(model, before)


@pytest.mark.parametrize('which', ['uem', 'internimage', 'dinov2', 'detector'])
def test_half_the_keys_are_refused_and_nothing_is_loaded(which):
    if which == 'internimage':
        model, state = internimage()
    elif which == 'detector':
        model = create_model('s2m_prompt_rcnn')
        state = {k: torch.zeros(1) for k in ('proposal_generator.rpn_head.conv.bias', 'x')}
    else:
        model = (
            create_model('uem_dd', **UEM)
            if which == 'uem'
            else create_model('dinov2_vits14', **DINO)
        )
        state = official_uem('dd', model.state_dict()) if which == 'uem' else model.state_dict()
    half = dict(list(state.items())[::2])
    before = snapshot(model)
    with pytest.raises(CheckpointError, match='missing') as caught:
        load_checkpoint(model, half)
    assert caught.value.report.missing
    assert unchanged(model, before)


def test_unexpected_key_is_refused():
    model, state = internimage('segformer')
    with pytest.raises(CheckpointError, match=r'1 unexpected \(decode_head\.extra\)'):
        load_checkpoint(model, {**state, 'decode_head.extra': torch.zeros(1)})


def test_auxiliary_head_may_be_absent_on_either_side():
    model, state = internimage()
    bare = {k: v for k, v in state.items() if not k.startswith('auxiliary_head.')}
    report = load_checkpoint(model, bare)
    assert not report.missing
    assert len(report.optional) == len(state) - len(bare)
    model, _ = internimage(auxiliary=False)
    report = load_checkpoint(model, state)
    assert set(report.ignored) == set(state) - set(bare)
    assert not report.optional


def test_piece_of_an_optional_part_is_refused():
    model, state = internimage()
    del state['auxiliary_head.conv_seg.bias']
    with pytest.raises(CheckpointError, match=r'auxiliary_head\.conv_seg\.bias'):
        load_checkpoint(model, state)


def test_number_of_classes_comes_from_the_file_unless_it_was_chosen():
    model, state = internimage()  # 150 rows until the file says 7
    assert load_checkpoint(model, state).ok
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape[1] == 7
    model, _ = internimage(num_classes=19)
    with pytest.raises(CheckpointError, match=r'conv_seg.*\(7, .*expected \(19, '):
        load_checkpoint(model, state)


def test_our_own_files_load_back(tmp_path):
    source = randomised(create_model('uem_gg', **UEM))
    save_file(source.state_dict(), tmp_path / 'a.safetensors')
    model = create_model('uem_gg', **UEM)
    report = load_checkpoint(model, tmp_path / 'a.safetensors')
    assert report.origin == 'ours'
    assert unchanged(model, source.state_dict())


def test_half_precision_files_load_into_full_precision():
    model, state = internimage('segformer')
    load_checkpoint(model, {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    weight = model.backbone.patch_embed.conv1.weight
    assert weight.dtype == torch.float32
    assert torch.allclose(weight, state['backbone.patch_embed.conv1.weight'], atol=1e-3)


def test_model_without_memory_takes_the_tensors_themselves():
    _, state = internimage('segformer')
    with torch.device('meta'):
        model, _ = internimage('segformer', num_classes=7)
    load_checkpoint(model, state)
    assert model(torch.zeros(1, 3, 32, 32)).logits.isfinite().all()


def test_other_modules_load_by_their_own_names():
    module = torch.nn.Linear(2, 3)
    state = {'weight': torch.ones(3, 2), 'bias': torch.zeros(3)}
    assert load_checkpoint(module, state).origin == 'ours'
    with pytest.raises(CheckpointError, match='known origin'):
        load_checkpoint(module, {'q': torch.ones(1)})


def test_segment_anything_names_are_taken_as_they_are():
    module = torch.nn.ModuleDict({'image_encoder': torch.nn.Linear(2, 3)})
    state = dict(module.state_dict())
    report = load_checkpoint(module, {**state, 'pixel_mean': torch.zeros(3)}, origin='sam')
    assert list(report.ignored) == ['pixel_mean']
    assert load_checkpoint(module, state).origin == 'sam'


def test_unknown_origin_is_named():
    with pytest.raises(ValueError, match="'keras'"):
        load_checkpoint(torch.nn.Linear(1, 1), {'weight': torch.ones(1, 1)}, origin='keras')


def hugging_face(state, depth, registers=True):
    """transformers' names for the official DINOv2 keys of `state`."""
    out = {}
    for key, value in state.items():
        part = key.split('.')
        layer = f'encoder.layer.{part[1]}' if part[0] == 'blocks' else ''
        if '.attn.qkv.' in key:
            for name, piece in zip(('query', 'key', 'value'), value.chunk(3), strict=True):
                out[f'{layer}.attention.attention.{name}.{part[-1]}'] = piece
        elif '.attn.proj.' in key:
            out[f'{layer}.attention.output.dense.{part[-1]}'] = value
        elif layer and part[2].startswith('ls'):
            out[f'{layer}.layer_scale{part[2][2:]}.lambda1'] = value
        elif layer:
            out[f'{layer}.{".".join(part[2:])}'] = value
        elif key == 'pos_embed':
            out['embeddings.position_embeddings'] = value
        elif key.startswith('patch_embed.proj.'):
            out[f'embeddings.patch_embeddings.projection.{part[-1]}'] = value
        elif key.startswith('norm.'):
            out[f'layernorm.{part[-1]}'] = value
        else:
            out[f'embeddings.{key}'] = value
    assert len(out) == len(state) + 4 * depth
    return out


def official_dinov2(state):
    """The official hub's keys for the weights of a DINOv2 of ours with registers."""
    official = dict(state)
    official['register_tokens'] = official.pop('reg_token')
    first = torch.full((1, 1, official['cls_token'].shape[-1]), 0.25)
    official['pos_embed'] = torch.cat([first, official['pos_embed']], dim=1)
    official['cls_token'] = official['cls_token'] - 0.25
    return official | {'mask_token': torch.zeros(1, first.shape[-1])}


def small_dinov2():
    return create_model('dinov2_vits14_reg', **DINO)


@pytest.mark.parametrize('prefix', ['', 'dinov2.', 'model.', 'model.backbone.'])
@pytest.mark.parametrize('naming', ['official', 'hugging face'])
def test_dinov2_is_taken_under_every_naming_and_prefix(naming, prefix):
    expected = randomised(small_dinov2())
    official = official_dinov2(snapshot(expected))
    named = official if naming == 'official' else hugging_face(official, DINO['depth'])
    state = {prefix + key: value for key, value in named.items()}
    if prefix:
        state['classifier.weight'] = torch.zeros(3, 16)
    model = small_dinov2()
    report = load_checkpoint(model, state)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    unused = {prefix + 'mask_token', prefix + 'embeddings.mask_token', 'classifier.weight'}
    assert set(report.used) == {key.removeprefix(prefix) for key in set(state) - unused}


@pytest.mark.parametrize('prefix', ['module.', 'model.', '_orig_mod.', 'net.module.'])
def test_prefix_of_a_wrapper_is_taken_off(prefix):
    expected = randomised(create_model('uem_dd', **UEM))
    state = {prefix + key: v for key, v in official_uem('dd', snapshot(expected)).items()}
    state['criterion.weight'] = torch.zeros(3)
    model = create_model('uem_dd', **UEM)
    report = load_checkpoint(model, state)
    assert report.origin == 'uem'
    assert report.ignored['criterion.weight'] == f'not below {prefix}'
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


def test_error_of_a_file_that_fits_under_no_prefix_is_about_the_whole_file():
    state = {f'model.{key}': v for key, v in {'a': torch.ones(1), 'b': torch.ones(2)}.items()}
    with pytest.raises(CheckpointError, match=r'first keys are model\.a, model\.b'):
        load_checkpoint(small_dinov2(), state)
