# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ood_perception.checkpoints import CheckpointError, WeightsMissing, read_checkpoint

STATE = {'a.weight': torch.arange(6.0).view(2, 3), 'a.bias': torch.ones(2)}


class RunsCode:
    """Pickles as a call that writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def same(state):
    return set(state) == set(STATE) and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('wrapper', ['', 'state_dict', 'model', 'model_state_dict'])
def test_tensors_come_out_of_every_layout(tmp_path, wrapper, legacy):
    tree = {wrapper: STATE, 'meta': {'epoch': 3}, 'optimizer': {}} if wrapper else dict(STATE)
    path = tmp_path / 'a.pth'
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(path))


def test_safetensors_are_read_whatever_their_name(tmp_path):
    for name in ('a.safetensors', 'a.pth'):
        save_file(STATE, tmp_path / name)
        assert same(read_checkpoint(tmp_path / name))


def test_prefix_of_data_parallel_is_taken_off(tmp_path):
    torch.save({f'module.{key}': value for key, value in STATE.items()}, tmp_path / 'a.pth')
    assert same(read_checkpoint(tmp_path / 'a.pth'))


def test_numpy_arrays_and_scalars_are_data(tmp_path):
    tree = {
        'model': {key: value.numpy() for key, value in STATE.items()},
        'meta': {'best_score': np.float64(0.5), 'dtype': np.dtype('int64')},
    }
    torch.save(tree, tmp_path / 'a.pth')
    assert same(read_checkpoint(tmp_path / 'a.pth'))


def foreign_class(module, name, base=object):
    """A class that pickles by a name which is not importable here."""
    return type(name, (base,), {'__module__': module, '__qualname__': name})


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('legacy', [False, True])
def test_hyper_parameters_of_other_frameworks_are_dropped_unread(
    tmp_path, monkeypatch, legacy, protocol
):
    """Lightning files hold nested EasyDicts; the module is not imported to read them."""
    import sys
    import types

    kinds = {}
    for module, name, base in (
        ('easydict', 'EasyDict', dict),
        ('pytorch_lightning', 'AttributeDict', dict),
        ('omegaconf', 'ListConfig', object),
    ):
        kinds[name] = foreign_class(module, name, base)
        stub = types.ModuleType(module)
        setattr(stub, name, kinds[name])
        monkeypatch.setitem(sys.modules, module, stub)
    inner = kinds['EasyDict'](lr=0.1)
    inner.__dict__['lr'] = 0.1
    config = kinds['ListConfig']()
    config.__dict__['items'] = [1, 2]
    tree = {
        'state_dict': collections.OrderedDict(STATE),
        'hyper_parameters': kinds['AttributeDict'](cfg=kinds['EasyDict'](model=inner), c=config),
    }
    path = tmp_path / 'a.ckpt'
    torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    for module in ('easydict', 'pytorch_lightning', 'omegaconf'):
        monkeypatch.setitem(sys.modules, module, None)  # an import would fail now
    assert same(read_checkpoint(path))


@pytest.mark.parametrize('legacy', [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, legacy):
    mark, path = tmp_path / 'mark', tmp_path / 'a.pth'
    torch.save(
        {'state_dict': STATE, 'x': RunsCode(mark)},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(CheckpointError, match=r'refused.*open') as caught:
        read_checkpoint(path)
    assert '\n' not in str(caught.value)
    assert not mark.exists()


def test_bare_pickle_with_code_is_refused_and_not_run(tmp_path):
    mark, path = tmp_path / 'mark', tmp_path / 'a.pth'
    path.write_bytes(pickle.dumps(RunsCode(mark)))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    'name', ['os.system', 'builtins.eval', 'builtins.getattr', 'torch.load', 'numpy.memmap']
)
def test_names_that_are_not_data_do_not_resolve(name):
    from ood_perception.checkpoints.reading import RestrictedUnpickler

    module, attribute = name.rsplit('.', 1)
    with pytest.raises(pickle.UnpicklingError, match=name):
        RestrictedUnpickler(io.BytesIO()).find_class(module, attribute)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('part', [0.02, 0.5, 0.95])
def test_truncated_file_is_one_error(tmp_path, part, legacy):
    path = tmp_path / 'a.pth'
    state = {f'{i}': torch.randn(64, 64) for i in range(4)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(CheckpointError, match='truncated or not a checkpoint') as caught:
        read_checkpoint(path)
    assert '\n' not in str(caught.value)


def test_truncated_safetensors_is_one_error(tmp_path):
    save_file({'a': torch.randn(64, 64)}, tmp_path / 'a.safetensors')
    data = (tmp_path / 'a.safetensors').read_bytes()
    (tmp_path / 'a.safetensors').write_bytes(data[:5000])
    with pytest.raises(CheckpointError, match='truncated'):
        read_checkpoint(tmp_path / 'a.safetensors')


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'', 'empty'),
        (b'<!DOCTYPE html><html><body>Sign in</body></html>', 'HTML page'),
        (b'\n  <html><head>', 'HTML page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
        (b'{"weight_map": {"a": "model-00001.safetensors"}}', 'text'),
        (bytes(257) + b'ustar' + bytes(250), 'a tar archive; unpack it first'),
        (b'just some text, long enough to be something else', 'not a checkpoint'),
        (bytes(4096), 'not a checkpoint'),
        (b'PK\x03\x04' + bytes(500), 'not a checkpoint'),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, text):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('tree', [{}, [1, 2], {'state_dict': {}}, {'epoch': 3}, 'text'])
def test_file_without_tensors_is_one_error(tmp_path, tree):
    torch.save(tree, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='no tensors'):
        read_checkpoint(tmp_path / 'a.pth')


def test_other_containers_are_named(tmp_path):
    torch.save(STATE, tmp_path / 'a.safetensors')
    with pytest.raises(CheckpointError, match=r'name it \.pth'):
        read_checkpoint(tmp_path / 'a.safetensors')
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        archive.writestr('model.safetensors', b'')
    with pytest.raises(CheckpointError, match=r'a zip archive of model\.safetensors; unpack'):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_folder_of_weights_names_the_files_in_it(tmp_path):
    with pytest.raises(CheckpointError, match='no weight file is in it'):
        read_checkpoint(tmp_path)
    (tmp_path / 'model.safetensors').touch()
    with pytest.raises(CheckpointError, match=r'a folder, name the file \(it has model'):
        read_checkpoint(tmp_path)


def test_missing_file_says_where_to_look(tmp_path):
    with pytest.raises(WeightsMissing, match='ood weights list'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'path',
    ['teacher', 'student', 'ema', 'net', 'weights', 'params_ema', 'model_state', 'G', 'a.b.c'],
)
def test_tensors_come_out_of_any_nesting(tmp_path, path):
    tree = STATE
    for key in reversed(path.split('.')):
        tree = {key: tree, 'epoch': 3, 'optimizer': {'state': {0: {'step': torch.ones(1)}}}}
    torch.save(tree, tmp_path / 'a.pth')
    assert same(read_checkpoint(tmp_path / 'a.pth'))


def test_known_name_wins_over_loose_tensors_and_callbacks(tmp_path):
    tree = {
        'best': torch.ones(1),
        'callbacks': {'checkpoint': {'best_model_score': torch.ones(1)}},
        'state_dict': STATE,
    }
    torch.save(tree, tmp_path / 'a.ckpt')
    assert same(read_checkpoint(tmp_path / 'a.ckpt'))


def test_two_dicts_of_equal_right_are_named(tmp_path):
    torch.save({'left': STATE, 'right': STATE}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='left, right; save the one that is meant'):
        read_checkpoint(tmp_path / 'a.pth')


def test_keys_of_a_file_without_tensors_are_named(tmp_path):
    torch.save({'epoch': 3, 'args': {'lr': 0.1}}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='its keys are epoch, args'):
        read_checkpoint(tmp_path / 'a.pth')


def test_torchscript_is_named_for_what_it_is(tmp_path):
    path = tmp_path / 'weights.pt'
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match=r'TorchScript.*state_dict'):
        read_checkpoint(path)


def test_exported_program_and_arrays_are_named_for_what_they_are(tmp_path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / 'a.pt2')
    with pytest.raises(CheckpointError, match=r'torch\.export'):
        read_checkpoint(tmp_path / 'a.pt2')
    np.savez(tmp_path / 'a.npz', a=np.zeros(2))
    with pytest.raises(CheckpointError, match='numpy'):
        read_checkpoint(tmp_path / 'a.npz')
