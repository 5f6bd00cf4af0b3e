# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import hashlib
import http.server
import threading

import pytest

from ood_perception.checkpoints import CheckpointError, WeightsMissing, resolve
from ood_perception.checkpoints.fetching import fetch
from ood_perception.checkpoints.store import Entry, cache_folder, cached_path, catalogue

DATA = bytes(range(256)) * 20_000
SHA = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA with ranges, breaks off, answers with HTML or 404."""

    def do_GET(self):
        seen = self.headers.get('Range')
        self.server.ranges.append(seen)
        if self.path == '/login.pth':
            body = b'<!DOCTYPE html><html>Sign in</html>'
            self.send_response(200)
            self.send_header('Content-Type', self.server.kind)
        elif self.path != '/a.pth':
            self.send_error(404)
            return
        else:
            start = int(seen.removeprefix('bytes=').rstrip('-')) if seen else 0
            if start >= len(DATA):
                self.send_error(416)
                return
            body = DATA[start:]
            self.send_response(206 if seen else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *args):
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path / 'cache'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as made:
        made.ranges, made.limit, made.kind = [], None, 'text/html'
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def entry(server, path='/a.pth', **options):
    url = f'http://127.0.0.1:{server.server_port}{path}'
    about = {'origin': 'sam', 'licence': 'none', 'purpose': 'test', **options}
    return Entry(name='a', file='a.pth', url=url, **about)


def test_whole_file_arrives_and_progress_is_told(server):
    told = []
    path = fetch(entry(server, sha256=SHA), progress=lambda *args: told.append(args))
    assert path == cache_folder() / 'a.pth'
    assert path.read_bytes() == DATA
    assert told[0] == (0, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert not list(cache_folder().glob('*.part'))
    fetch(entry(server, sha256=SHA))
    assert len(server.ranges) == 1  # what is there and right is not fetched again


def test_interrupted_download_goes_on_where_it_stopped(server):
    server.limit = 1_234_567
    with pytest.raises(CheckpointError, match='1234567 of 5120000 bytes'):
        fetch(entry(server, sha256=SHA))
    assert cached_path(entry(server)) is None
    server.limit = None
    assert fetch(entry(server, sha256=SHA)).read_bytes() == DATA
    assert server.ranges == [None, 'bytes=1234567-']


def test_stale_part_that_is_too_long_starts_anew(server):
    cache_folder().mkdir()
    (cache_folder() / 'a.pth.part').write_bytes(DATA + b'x')
    assert fetch(entry(server, sha256=SHA)).read_bytes() == DATA


@pytest.mark.parametrize('about', [{'sha256': '0' * 64}, {'sha256_prefix': '01ec64'}])
def test_wrong_sha256_is_one_error_and_nothing_stays(server, about):
    with pytest.raises(CheckpointError, match=f'sha256 is {SHA}, expected 0'):
        fetch(entry(server, **about))
    assert not list(cache_folder().iterdir())


def test_published_prefix_is_enough(server):
    assert fetch(entry(server, sha256_prefix=SHA[:6])).is_file()


@pytest.mark.parametrize('kind', ['text/html; charset=utf-8', 'application/octet-stream'])
def test_html_page_is_one_error_and_nothing_stays(server, kind):
    server.kind = kind
    with pytest.raises(CheckpointError, match='HTML page'):
        fetch(entry(server, '/login.pth'))
    assert not list(cache_folder().iterdir())


def test_answer_of_the_server_is_told(server):
    with pytest.raises(CheckpointError, match=r'404.*see https://example.org/page'):
        fetch(entry(server, '/gone.pth', page='https://example.org/page'))


def test_no_connection_is_one_error(server):
    with pytest.raises(CheckpointError, match=r'no connection.*--from'):
        fetch(dataclasses.replace(entry(server), url='http://127.0.0.1:9/a.pth'))


def test_no_disk_space_is_one_error_with_the_way_out(server):
    """/dev/full refuses every byte, as a full disk does."""
    cache_folder().mkdir()
    (cache_folder() / 'a.pth.part').symlink_to('/dev/full')
    with pytest.raises(CheckpointError, match=r'no space in .*OOD_WEIGHTS'):
        fetch(entry(server))
    assert cached_path(entry(server)) is None


def test_file_without_an_address_says_what_to_do(server):
    about = dataclasses.replace(entry(server), url='', page='https://example.org/page')
    with pytest.raises(
        WeightsMissing, match=r'by hand from https://example.org/page.*--from FILE'
    ):
        fetch(about)


@pytest.mark.parametrize('as_file', [False, True])
def test_folder_or_file_instead_of_the_network(server, tmp_path, as_file):
    (tmp_path / 'usb').mkdir()
    source = tmp_path / 'usb' / ('renamed.pth' if as_file else 'a.pth')
    source.write_bytes(DATA)
    path = fetch(entry(server, sha256=SHA), source if as_file else source.parent)
    assert path.read_bytes() == DATA
    assert server.ranges == []
    assert source.is_file()


def test_folder_without_the_file_is_named(server, tmp_path):
    with pytest.raises(WeightsMissing, match=r'a\.pth'):
        fetch(entry(server), tmp_path)


def test_names_of_the_catalogue_resolve_to_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path))
    with pytest.raises(WeightsMissing, match=r'run `ood weights fetch uem_dd`') as caught:
        resolve('uem_dd')
    assert isinstance(caught.value, (FileNotFoundError, ValueError))
    (tmp_path / 'uem_dd.ckpt').write_bytes(b'x')
    assert resolve('uem_dd') == tmp_path / 'uem_dd.ckpt'
    (tmp_path / 'uem_dd.safetensors').write_bytes(b'x')
    assert resolve('uem_dd') == tmp_path / 'uem_dd.safetensors'
    assert resolve(str(tmp_path / 'uem_dd.ckpt')) == tmp_path / 'uem_dd.ckpt'


@pytest.mark.parametrize(
    ('reference', 'text'),
    [
        ('uem_ddd', "did you mean 'uem_dd'"),
        ('', 'no weights named'),
        ('package:nothing.safetensors', 'nothing.safetensors is not in this installation'),
        ('/nowhere/a.pth', 'no weight file at /nowhere/a.pth'),
        ('a.ckpt', 'no weight file at a.ckpt'),
    ],
)
def test_references_that_lead_nowhere_are_named(reference, text):
    with pytest.raises(WeightsMissing, match=text):
        resolve(reference)


def test_catalogue_is_complete_and_points_to_models():
    from ood_perception.checkpoints.origins import ORIGINS
    from ood_perception.models import MODELS

    entries = catalogue()
    for one in entries.values():
        assert one.origin in ORIGINS
        assert not one.model or one.model in MODELS
        assert one.licence
        assert one.purpose
        assert one.megabytes > 0
        assert one.url.startswith('https://') or one.page.startswith('https://')
        assert not one.url or one.url.endswith(one.file)
    assert len({one.file for one in entries.values()}) == len(entries)
    assert {one.model for one in entries.values()} >= {
        *(f'internimage_{v}_upernet' for v in ('t', 's', 'b', 'l', 'xl', 'h')),
        *(f'dinov2_vit{v}14{r}' for v in 'sblg' for r in ('', '_reg')),
        *('uem_dd', 'uem_gd', 'uem_gg', 's2m_prompt_rcnn'),
    }
    for name, prefix in (('b', '01ec64'), ('l', '0b3195'), ('h', '4b8939')):
        assert entries[f'sam_vit_{name}'].sha256_prefix == prefix
