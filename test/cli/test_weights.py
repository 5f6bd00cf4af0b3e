# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import resource
from pathlib import Path

import pytest
import timm
import torch
from official_weights import golden, mmseg_value, weights_by_rule
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ood_perception
from ood_perception.checkpoints import CheckpointError, load_checkpoint
from ood_perception.checkpoints.store import catalogue
from ood_perception.cli.weights import app
from ood_perception.models import create_model, registry
from ood_perception.models.encoder_decoder import EncoderDecoder
from ood_perception.profile import Profile, profile_names
from ood_training.converting import convert_file

RUN = CliRunner()
CASE = golden('internimage_heads_small.pt')['upernet']


def small(**options):
    channels = {
        'head_channels': CASE['head']['channels'],
        'aux_channels': CASE['aux']['channels'],
    }
    return EncoderDecoder('l', 'upernet', **CASE['backbone_cfg'], **channels, **options)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A file as mmcv writes it, for a small model that the registry knows."""
    monkeypatch.setitem(registry.MODELS, 'internimage_l_upernet', small)
    state = weights_by_rule(CASE['shapes'], mmseg_value)
    path = tmp_path / 'official.pth'
    optimizer = {'state': {0: {'exp_avg': torch.zeros(1000)}}}
    torch.save({'meta': {'epoch': 1}, 'state_dict': state, 'optimizer': optimizer}, path)
    return path


def test_list_shows_every_file_with_licence_and_numbers(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path))
    (tmp_path / 'sam_vit_b_01ec64.pth').write_bytes(b'x')
    out = RUN.invoke(app, ['list', '-v']).output
    for entry in catalogue().values():
        assert entry.name in out
        assert entry.licence in out
        assert entry.published in out
        assert (entry.url or entry.page) in out
    assert out.count(' here\n') == 1
    assert 'sam_vit_l' not in RUN.invoke(app, ['list', 'vit_b']).output


def test_fetch_from_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path / 'cache'))
    (tmp_path / 's2m_detector.pth').write_bytes(b'content')
    result = RUN.invoke(app, ['fetch', 's2m', '--from', str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / 'cache' / 's2m_detector.pth').read_bytes() == b'content'


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['fetch', 'zebra'], 'no weights named'),
        (['fetch', 'uem_gd'], 'download it by hand'),
        (['fetch', 'sam_vit_b', '--from', '/nowhere'], 'no file at /nowhere'),
        (['check', '/nowhere/a.pth'], 'no weight file'),
        (['convert', '/nowhere/a.pth'], 'no weight file'),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, text, monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path))
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert text in line


def test_fetched_file_with_a_wrong_sha256_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path / 'cache'))
    (tmp_path / 'sam_vit_b_01ec64.pth').write_bytes(b'other')
    result = RUN.invoke(app, ['fetch', 'sam_vit_b', '--from', str(tmp_path)])
    assert result.exit_code == 1
    assert 'expected 01ec64' in result.stderr
    assert not list((tmp_path / 'cache').iterdir())


def test_check_says_what_fits_and_what_does_not(official, tmp_path):
    result = RUN.invoke(app, ['check', str(official), '--model', 'internimage_l_upernet'])
    assert result.exit_code == 0, result.output
    assert 'fits internimage_l_upernet: origin mmseg; 231 keys used' in result.output
    page = tmp_path / 'page.pth'
    page.write_bytes(b'<html>')
    result = RUN.invoke(app, ['check', str(page)])
    assert result.exit_code == 1
    assert 'HTML page' in result.stderr
    state = torch.load(official, weights_only=True)['state_dict']
    state['backbone.patch_embed.conv1.bias'][0] = torch.nan
    torch.save(state, official)
    result = RUN.invoke(app, ['check', str(official), '--model', 'internimage_l_upernet'])
    assert 'not finite' in result.stderr


@pytest.mark.parametrize('prefix', ['', 'model.', 'module.', 'net.model.', '_orig_mod.'])
def test_check_finds_the_model_behind_any_prefix(prefix, recwarn, tmp_path):
    state = load_file(Path(ood_perception.__file__).parent / 'weights' / 'compact.safetensors')
    wrapped = {f'{prefix}{key}': value for key, value in state.items()}
    torch.save({'state_dict': wrapped | {'loss.weight': torch.ones(1)}}, tmp_path / 'last.ckpt')
    if not prefix:
        torch.save(state, tmp_path / 'last.ckpt')
    result = RUN.invoke(app, ['check', str(tmp_path / 'last.ckpt')])
    assert result.exit_code == 0, result.output
    assert 'fits compact: origin ours; 158 keys used' in result.output
    assert not [w for w in recwarn if 'non-meta' in str(w.message)]


@pytest.mark.parametrize('prefix', ['teacher.backbone.', 'dinov2.'])
def test_check_finds_dinov2_behind_a_prefix(prefix, tmp_path):
    with torch.device('meta'):
        state = timm.create_model('vit_small_patch14_dinov2').state_dict()
    zeros = {f'{prefix}{key}': torch.zeros(value.shape) for key, value in state.items()}
    save_file(zeros, tmp_path / 'model.safetensors')
    result = RUN.invoke(app, ['check', str(tmp_path / 'model.safetensors')])
    assert 'fits dinov2_vits14: origin dinov2' in result.output, result.output


@pytest.mark.parametrize('half', [False, True])
def test_convert_strips_and_loads_back(official, tmp_path, half):
    target = tmp_path / 'out.safetensors'
    arguments = ['convert', str(official), str(target), '--model', 'internimage_l_upernet']
    result = RUN.invoke(app, arguments + ['--half'] * half)
    assert result.exit_code == 0, result.output
    with safe_open(target, 'pt') as file:
        assert file.metadata()['model'] == 'internimage_l_upernet'
        assert not any(key.startswith('auxiliary_head') for key in file.keys())  # noqa: SIM118
        dtype = file.get_tensor('decode_head.conv_seg.weight').dtype
    assert dtype == (torch.float16 if half else torch.float32)
    model, plain = create_model('internimage_l_upernet'), create_model('internimage_l_upernet')
    load_checkpoint(model, target)
    load_checkpoint(plain, official)
    with torch.no_grad():
        out, expected = model(CASE['input']).logits, plain(CASE['input']).logits
    assert (out - expected).abs().max() <= (0.05 if half else 0)


def test_convert_to_a_disk_that_takes_no_more_is_one_error(official, tmp_path):
    target = tmp_path / 'out.safetensors'
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match='cannot be written'):
            convert_file(official, target, 'internimage_l_upernet')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [official]


def test_convert_refuses_numbers_that_half_precision_cannot_hold(official, tmp_path):
    state = torch.load(official, weights_only=True)['state_dict']
    state['decode_head.conv_seg.bias'][0] = 1e6
    torch.save(state, official)
    with pytest.raises(CheckpointError, match=r'conv_seg\.bias'):
        convert_file(official, tmp_path / 'a.safetensors', 'internimage_l_upernet', half=True)
    assert not (tmp_path / 'a.safetensors').exists()


@pytest.mark.parametrize('profile', profile_names())
def test_fetch_of_a_profile_brings_every_file_that_it_names(profile, monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path / 'cache'))
    needed = [n for n in Profile.load(profile).weight_names() if not n.startswith('package:')]
    for name in needed:
        assert name in catalogue(), f'{profile}: {name} is in no catalogue'
        (tmp_path / catalogue()[name].file).write_bytes(b'content')
    monkeypatch.setattr('ood_perception.checkpoints.fetching.wrong_sha256', lambda *_: '')
    result = RUN.invoke(app, ['fetch', profile, '--from', str(tmp_path)])
    if needed:
        assert result.exit_code == 0, result.output
        for name in needed:
            assert (tmp_path / 'cache' / catalogue()[name].file).is_file()
    else:
        assert 'its weights come with the package' in result.stderr


def test_one_file_that_cannot_be_had_does_not_stop_the_others(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path / 'cache'))
    (tmp_path / 's2m_detector.pth').write_bytes(b'content')
    result = RUN.invoke(app, ['fetch', 'uem_gd', 's2m', '--from', str(tmp_path)])
    assert result.exit_code == 1
    assert 'uem_gd' in result.stderr
    assert (tmp_path / 'cache' / 's2m_detector.pth').is_file()


def test_check_knows_segment_anything(tmp_path):
    from segment_anything import sam_model_registry

    with torch.device('meta'):
        shapes = {k: v.shape for k, v in sam_model_registry['vit_b']().state_dict().items()}
    # One value, seen at every place: a file of vit_b's shape without its 358 MB.
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / 'mine.pth')
    for arguments in ([], ['--model', 'sam_vit_b']):
        result = RUN.invoke(app, ['check', str(tmp_path / 'mine.pth'), *arguments])
        assert result.exit_code == 0, result.output
        assert 'fits sam_vit_b' in result.output
    result = RUN.invoke(app, ['check', str(tmp_path / 'mine.pth'), '--model', 'sam_vit_l'])
    assert result.exit_code == 1
    assert 'does not fit' in result.stderr
