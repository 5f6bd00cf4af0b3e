# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The documentation is true: links, commands, arguments, parameters, and code that runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
import yaml

from ood_perception.checkpoints.store import catalogue
from ood_perception.cli.main import COMMANDS, build
from ood_perception.frames.transfer import normalise
from ood_perception.profile import Profile, profile_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [p for p in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md') if p.is_file()]
PAGES += sorted((ROOT / 'docs').glob('*.md'))
SPEAKING = [
    *sorted((ROOT / 'config' / 'profiles').glob('*.yaml')),
    *sorted(p for p in ROOT.glob('ood_*/**/*.py') if '`ood ' in p.read_text('utf-8')),
]
"""Files whose messages and comments name commands."""

LAUNCH = (ROOT / 'launch' / 'ood.launch.py').read_text(encoding='utf-8')
GROUPS = dict(typer.main.get_command(build()).commands)


def text_of(page: Path) -> str:
    return page.read_text(encoding='utf-8')


def without_code(text: str) -> str:
    return re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    lines = re.sub(r'```.*?```', '', text_of(page), flags=re.DOTALL).splitlines()
    titles = [line.lstrip('#').strip().lower() for line in lines if re.match(r'#{1,6} ', line)]
    return {re.sub(r'[^\w\- ]', '', title).replace(' ', '-') for title in titles}


def commands(text: str) -> list[list[str]]:
    """The words after each `ood`, in code spans and blocks, with `\\` joining lines."""
    code = re.findall(r'```[a-z]*\n(.*?)```|`([^`\n]+)`', text, flags=re.DOTALL)
    lines = '\n'.join(block or span for block, span in code).replace('\\\n', ' ').splitlines()
    found = []
    for line in lines:
        for match in re.finditer(r'(?:^|[;&|(`] ?|bin/)ood ([a-z][^;&|#)`]*)', line.strip()):
            found.append(match.group(1).split())
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    wrong = []
    for target in re.findall(r'\]\(([^)\s]+)\)', without_code(text_of(page))):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize('page', PAGES + SPEAKING, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page: Path):
    for words in commands(text_of(page)):
        assert words[0] in COMMANDS, words
        command: Any = GROUPS[words[0]]
        rest = words[1:]
        if hasattr(command, 'commands') and rest and re.fullmatch('[a-z]+', rest[0]):
            assert rest[0] in command.commands, words
            command = command.commands[rest[0]]
        known = {name for param in command.params for name in param.opts + param.secondary_opts}
        for word in rest:
            if word.startswith('-') and len(word) > 1:
                assert word.split('=')[0] in known | {'--help'}, words


def test_weights_that_are_named_can_be_fetched():
    names = set()
    for page in PAGES + SPEAKING:
        for words in commands(text_of(page)):
            if words[:2] == ['weights', 'fetch']:
                names |= {word for word in words[2:] if re.fullmatch(r'[a-z][a-z0-9_]+', word)}
    assert 'dinov2_novelty' in names
    assert names <= set(catalogue()) | set(profile_names())


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_launch_arguments_exist(page: Path):
    known = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", LAUNCH))
    text = text_of(page).replace('\\\n', ' ')
    for line in re.findall(r'ros2 launch ood_perception ood\.launch\.py([^`\n]*)', text):
        assert set(re.findall(r'(\w+):=', line)) <= known, line


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_parameters_and_services_exist(page: Path):
    node = yaml.safe_load(text_of(ROOT / 'config' / 'ood.yaml'))
    known = set(next(iter(node.values()))['ros__parameters'])
    text = text_of(page)
    for name in re.findall(r'ros2 param (?:set|get) /ood (\S+)', text):
        assert name.split('.')[-1].strip('`') in known, name
    reference = text_of(ROOT / 'docs' / 'topics_and_parameters.md')
    for name in re.findall(r'ros2 service call /ood/(\w+)', text):
        assert f'`~/{name}`' in reference, name


def test_every_profile_is_in_the_table():
    page = text_of(ROOT / 'docs' / 'profiles.md')
    for path in sorted((ROOT / 'config' / 'profiles').glob('*.yaml')):
        assert path.stem in profile_names()
        row = next(line for line in page.splitlines() if line.startswith(f'| `{path.stem}`'))
        profile = Profile.load(path)
        for stage in (profile.segmentor, profile.score, profile.prompts, profile.mask_model):
            assert f'`{stage.name}`' in row, (path.stem, stage.name)


def test_index_names_every_page():
    index = text_of(ROOT / 'docs' / 'index.md')
    for page in sorted((ROOT / 'docs').glob('*.md')):
        if page.name != 'index.md':
            assert f'({page.name})' in index, page.name


def test_files_and_locks_that_the_architecture_names_exist():
    page = text_of(ROOT / 'docs' / 'architecture.md')
    names = set(re.findall(r'`((?:[\w.]+/)*(?:\w+/|[\w.]+\.(?:py|yaml|toml|xml|j2)))`', page))
    assert len(names) > 50
    folders = (ROOT, ROOT / 'ood_perception')
    assert not {n for n in names if not any((folder / n).exists() for folder in folders)}
    code = ''.join(text_of(file) for file in (ROOT / 'ood_perception').rglob('*.py'))
    for kind, name in re.findall(r'`([A-Z]\w+)\.(\w+)`', page):
        assert f'class {kind}' in code, kind
        assert re.search(
            rf'self\.{name}\b|def {name}\b|\n    {name} = functools\.partialmethod\(', code
        ), name


def test_every_room_has_its_place_in_the_architecture():
    page = text_of(ROOT / 'docs' / 'architecture.md')
    rooms = page.split('## Rooms')[1].split('\n## ')[0]
    for path in (ROOT / 'ood_perception').iterdir():
        if path.is_dir() and (path / '__init__.py').exists():
            assert f'`{path.name}/`' in rooms
        elif path.suffix == '.py' and not path.name.startswith('__'):
            assert f'`{path.name}`' in rooms


def test_code_of_extending_runs(capsys: pytest.CaptureFixture[str]):
    from ood_perception.engines import ENGINES
    from ood_perception.masks import MASK_MODELS, PROMPTS
    from ood_perception.models.registry import MODELS
    from ood_perception.scores import SCORES

    tables: list[dict[str, Any]] = [MODELS, SCORES, PROMPTS, MASK_MODELS, ENGINES]
    before = [dict(table) for table in tables]
    page = text_of(ROOT / 'docs' / 'extending.md')
    blocks = re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)
    names: dict[str, Any] = {'__name__': 'extending'}
    try:
        for block in blocks:
            exec(compile(block, 'extending.md', 'exec'), names)
    finally:
        for table, kept in zip(tables, before, strict=True):
            added = set(table) - set(kept)
            assert len(added) == 1
            table.pop(added.pop())
    result, pipeline = names['result'], names['pipeline']
    assert pipeline.engine.name == 'mirror'
    assert not pipeline.notes
    assert result.heatmap.shape == (120, 160)
    assert len(result.boxes) == 1
    assert result.instances.max() == result.ids[0]
    assert '(120, 160)' in capsys.readouterr().out


def test_a_score_is_added_in_20_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the page says, by somebody who follows it to the letter and reads nothing else."""
    from ood_perception import Pipeline
    from ood_perception.scores import SCORES

    section = text_of(ROOT / 'docs' / 'extending.md').split('\n## A score\n')[1].split('\n## ')[0]
    blocks = dict(re.findall(r'```(python|yaml)\n(.*?)```', section, flags=re.DOTALL))
    assert sum(len(block.splitlines()) for block in blocks.values()) <= 20
    (tmp_path / 'my_score.py').write_text(blocks['python'], encoding='utf-8')
    (tmp_path / 'margin.yaml').write_text(blocks['yaml'], encoding='utf-8')
    monkeypatch.setattr('ood_perception.scores.SCORES', dict(SCORES))
    runpy.run_path(str(tmp_path / 'my_score.py'))

    pipeline = Pipeline.from_profile(tmp_path / 'margin.yaml', device='cpu', engine='eager')
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (result,) = pipeline(image)
    inputs = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], pipeline.spec, True)
    with torch.inference_mode():
        logits = pipeline.engine(inputs).logits.numpy()
    second, best = np.sort(logits, axis=1)[:, -2:].swapaxes(0, 1)
    expected = torch.from_numpy(second - best)[:, None]
    expected = F.interpolate(expected, (64, 96), mode='bilinear')[0, 0].numpy()
    np.testing.assert_allclose(result.score, expected, atol=1e-4)
