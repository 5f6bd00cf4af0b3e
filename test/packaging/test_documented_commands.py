# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Every command in the pages and in messages runs, in a small world of the names that they use."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_docs import GROUPS, PAGES, ROOT, SPEAKING, commands, text_of

from ood_evaluation.evaluator import Evaluator, Frame
from ood_evaluation.report import write_report
from ood_perception import site_folder
from ood_perception.frames.picture import encode
from ood_perception.profile import Profile, StageConfig
from ood_perception.scores.tokens import TokenBank
from ood_simulation import ProvingGround

PATIENCE = float(os.environ.get('OOD_TEST_PATIENCE', '1'))
OFFLINE = dict.fromkeys(('http_proxy', 'https_proxy', 'all_proxy'), 'http://127.0.0.1:9')


@dataclass(frozen=True)
class Special:
    """
    How a command runs that cannot run as it is printed.

    Attributes:
        why: the reason.
        more: options appended.
        says: the command may end with 1 and lines of errors that say this.
        beside: another command; when that has ended, Ctrl-C.
        until: Ctrl-C as soon as this is said.
        absent: what the command makes and the world already has.

    """

    why: str
    more: str = ''
    says: str = ''
    beside: str = ''
    until: str = ''
    absent: str = ''


CAMERA = 'camera proving-ground --size 96x64 --frames 20 --wait 60'
SPECIAL = {
    'bench': Special('takes minutes', more='--sizes 96x64 --runs 1'),
    'camera 0': Special('needs a webcam', says='0: no'),
    'camera proving-ground': Special(
        'goes on for ever', beside='record seen -t /camera/image_raw --messages 3'
    ),
    'demo': Special('takes a minute', more='--seconds 1'),
    'evaluate bag DRIVE --require': Special('the drive is short', says='figures are missed'),
    'evaluate drive': Special('takes a minute', more='--seconds 1'),
    'export compact.engine': Special(
        'the library is no part of the locks', says='TensorRT for RTX is needed'
    ),
    'learn-normal': Special('the drive is short', more='--every 1'),
    'record OUT': Special('goes on for ever, needs a camera', beside=CAMERA),
    'record monday': Special('takes 600 s, needs a camera', beside=CAMERA, absent='monday'),
    'site undo': Special('there is no such entry', says='.*no entry'),
    'train uem': Special(
        'takes an hour',
        more='--set steps=2 --set batch_size=2 --set workers=0 --set warmup_steps=1 '
        "--set 'options.size=[64, 80]'",
    ),
    'view': Special('goes on for ever', until='open http'),
    'weights fetch': Special('needs a network', says='(no connection to|no direct address)'),
}
"""Beginning of a command -> how it is run; of several the longest."""

LAUNCHED = {
    'ood.launch.py': 'test_real_launch',
    'replay.launch.py': 'test_a_failed_replay_fails_the_launch',
    'webcam.launch.py': 'test_programs_are_those_of_the_package',
}
"""Launch file that the pages start -> what covers it in test_launch.py, where launch_ros is."""


def printed() -> dict[str, str]:
    """Each distinct command -> the first file that prints it."""
    found: dict[str, str] = {}
    for page in PAGES:
        for words in commands(text_of(page)):
            found.setdefault(' '.join(words), page.name)
    for file in SPEAKING:
        for text in re.findall(r'`ood ([^`\n]+)`', text_of(file)):
            # What is put in at run time: names of weights.
            found.setdefault(re.sub(r'\{[^}]*\}', 'uem_gg', text), file.name)
    return found


PRINTED = printed()


def is_mention(words: list[str]) -> bool:
    """Whether a text names a command without the arguments that it requires."""
    command: Any = GROUPS[words[0]]
    for word in words[1:]:
        if word not in getattr(command, 'commands', {}):
            return False
        command = command.commands[word]
    return hasattr(command, 'commands') or any(p.required for p in command.params)


def special(command: str) -> Special:
    if is_mention(shlex.split(command)):
        return Special('names a command', more='--help')
    keys = [key for key in SPECIAL if f'{command} '.startswith(f'{key} ')]
    return SPECIAL[max(keys, key=len)] if keys else Special('')


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bags, pictures, labels, profiles, runs and a weight file of the names in the pages."""
    bags = pytest.importorskip('ood_perception.bags.writing')
    root = tmp_path_factory.mktemp('world')
    ground = ProvingGround(1007, 160, 120, 10)
    shots = list(ground.drive(1.2))
    for name in ('DRIVE', 'BAG', 'A', 'B', 'C', 'monday', 'tuesday'):
        bags.write_drive(root / name, shots, focal=ground.focal)

    def save(path: str, pixels: np.ndarray) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(pixels, file.suffix))

    for number, shot in enumerate(shots[::4]):
        for picture in ('PATH/{}.jpg', 'FOLDER_OR_VIDEO/{}.jpg', 'labelled/images/{}.png'):
            save(picture.format(number), shot.image)
        save(f'labelled/labels/{number}.png', shot.anomaly)
        save(f'ROOT/images/{number}.jpg', shot.image)
        save(f'ROOT/labels_masks/{number}_labels_semantic.png', shot.anomaly)
        for folder in ('FOLDER', 'tuesday_labels'):
            stamp = bags.DRIVE_START_NS + round(shot.stamp * 1e9)
            save(f'{folder}/{stamp}.png', shot.anomaly)
        cut_out = np.full((30, 20, 4), 60 * number, np.uint8)
        cut_out[..., 3] = 255
        (root / 'my_cutouts').mkdir(exist_ok=True)
        Image.fromarray(cut_out).save(root / 'my_cutouts' / f'{number}.png')
    profile = Profile.load('compact')
    for name in ('site', 'components'):
        changed = dataclasses.replace(profile, name=name, prompts=StageConfig('components'))
        changed.save(root / f'{name}.yaml')
    for name in ('RUN1', 'RUN2', 'before', 'after'):
        evaluator = Evaluator(name)
        evaluator.update(Frame(0, heatmap=shots[0].anomaly * 200, anomaly=shots[0].anomaly))
        (root / name).mkdir()
        write_report(root / name / 'report.html', [evaluator.compute()])
    memory = TokenBank(8, [1])
    memory.add(torch.eye(4), torch.zeros(4))
    for name in ('robot_a', 'robot_b'):
        memory.save(str(root / f'{name}.safetensors'))
    site_folder.keep(root / 'site', 'reported', '', 1, shots[0].image, shots[0].anomaly == 1)
    torch.save({'weight': torch.zeros(1)}, root / 'FILE')
    return root


def start(words: list[str], folder: Path, log: Path) -> subprocess.Popen:
    """One process of the command, of a group of its own as in a terminal."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, **OFFLINE, 'PYTHONPATH': path, 'COLUMNS': '200'}
    environment |= {'OOD_WEIGHTS': str(folder / 'cache'), 'ROS_LOG_DIR': str(folder / 'ros')}
    with open(f'{log}.out', 'wb') as out, open(f'{log}.err', 'wb') as err:
        return subprocess.Popen(
            [sys.executable, '-m', 'ood_perception', *words],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def run(command: str, how: Special, folder: Path, log: Path) -> tuple[int, str, str]:
    """Run a command to its end, or to Ctrl-C; returns exit code, standard output and errors."""
    words = shlex.split(f'{command} {how.more}'.replace('PROFILE', 'dinov2_novelty'))
    started = [start(words, folder, log)]
    if how.beside:
        helper = start(shlex.split(how.beside), folder, log.with_name('beside'))
        started.append(helper)
    stopped, end = False, time.monotonic() + 400 * PATIENCE
    try:
        while started[0].poll() is None:
            assert time.monotonic() < end, f'{command}: goes on'
            ready = how.until and how.until in Path(f'{log}.err').read_text()
            if not stopped and (ready or (how.beside and helper.poll() == 0)):
                os.killpg(started[0].pid, signal.SIGINT)
                stopped = True
            time.sleep(0.2)
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert stopped == bool(how.beside or how.until), Path(f'{log}.err').read_text()
    return started[0].returncode, *(Path(f'{log}.{k}').read_text() for k in ('out', 'err'))


@pytest.mark.slow
@pytest.mark.timeout(900 * PATIENCE)
@pytest.mark.parametrize('command', PRINTED)
def test_it_runs(command: str, world: Path, tmp_path: Path) -> None:
    how = special(command)
    for module in ('rclpy', 'lightning', 'onnxruntime'):
        pytest.importorskip(module, reason='needs an installation for development')
    if command.startswith('camera 0') and Path('/dev/video0').exists():
        pytest.skip('there is a webcam')
    folder = tmp_path / 'here'
    shutil.copytree(world, folder)
    if how.absent:
        shutil.rmtree(folder / how.absent)
    code, out, err = run(command, how, folder, tmp_path / 'log')
    text = f'{PRINTED[command]}: ood {command} {how.more}\n{out}\n{err}'
    assert 'Traceback' not in out + err, text
    if how.says and code == 1:
        lines = [line for line in err.splitlines() if line.strip()]
        assert lines, text
        assert all(re.match(f'error: .*{how.says}', line) for line in lines), text
    else:
        assert code == 0, text


def test_nothing_is_left_out() -> None:
    """Each command is extracted, each row of the tables is of use, each launch is covered."""
    for page in PAGES:
        code = ' '.join(re.findall(r'```.*?```|`[^`]+`', text_of(page), flags=re.DOTALL))
        names = [n for n in re.findall(r'\bood\s+([a-z][a-z-]+)', code) if n in GROUPS]
        assert sorted(names) == sorted(words[0] for words in commands(text_of(page))), page.name
        for name in re.findall(r'ros2 launch\s+ood_perception\s+(\S+\.py)', text_of(page)):
            assert name in LAUNCHED, page.name
    assert {special(command) for command in PRINTED} >= set(SPECIAL.values())
    tests = text_of(ROOT / 'test' / 'ros' / 'test_launch.py')
    assert all(f'def {name}(' in tests for name in LAUNCHED.values())
