# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood run`: pictures, a video or a bag through a profile, without ROS."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ood_perception.cli import common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from ood_perception.bags.sources import Item
    from ood_perception.result import Result

INDEX = 'index.json'
VIDEO = 'overlay.mp4'


def run(
    source: Annotated[
        str, typer.Argument(help='Folder of pictures, picture, video, rosbag2, webcam number.')
    ],
    output: Annotated[Path, typer.Argument(help='Folder of the results.')] = Path('ood_output'),
    profile: common.ProfileName = 'compact',
    device: common.Device = 'auto',
    engine: Annotated[str, typer.Option(help='auto or an engine.')] = 'auto',
    limit: Annotated[int, typer.Option(help='Most frames, 0 = all.', min=0)] = 0,
    topic: common.Topic = '',
    video: Annotated[
        bool, typer.Option('--video', help=f'Write the overlays as a video too, {VIDEO}.')
    ] = False,
    pictures: Annotated[bool, typer.Option(help='Write the files of each frame.')] = True,
    rate: Annotated[
        float, typer.Option(help="Frames per second of that video, 0 = the source's.", min=0)
    ] = 0.0,
    intensity_range: common.IntensityRange = '',
    in_flight: Annotated[
        int, typer.Option(help='Frames of a video or bag that a CPU works on at once.', min=1)
    ] = 3,
) -> None:
    """
    Find unknown objects in every picture of a source.

    Writes NAME_overlay.jpg, NAME_heatmap.png, NAME_instances.png and NAME.json for each picture,
    NAME being that of its file (or the number of its frame), and index.json: file, size, status
    and reason of every picture, the unusable ones included.
    """
    from ood_perception.bags.sources import SourceError, nothing, open_source
    from ood_perception.bags.video import VideoWriter
    from ood_perception.drawing import draw
    from ood_perception.in_flight import ahead, ready
    from ood_perception.pipeline import Pipeline

    opened = open_source(source, topic=topic, intensity=common.parse_range(intensity_range))
    if Path(source).is_dir() and output.resolve() == Path(source).resolve():
        raise SourceError(f'{output}: results need another folder than the pictures')
    # Pictures have nothing to do with each other: each begins afresh, when the last is through.
    pictures_only = opened.kind == 'pictures'
    at_once = 1 if pictures_only else in_flight
    pipeline = Pipeline.from_profile(profile, device, engine, in_flight=at_once)

    def begin(item: Item) -> Future[list[Result]]:
        if item.image is None:
            return ready([])
        if pictures_only:
            pipeline.reset('camera')
        stamps = None if pictures_only else [item.stamp_ns]
        return pipeline.submit(
            [item.image], ['camera'], wants=('heatmap', 'instances'), stamps=stamps
        )

    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    count = 0
    with contextlib.ExitStack() as stack:
        film = None
        if video:
            film = stack.enter_context(VideoWriter(output / VIDEO, rate or opened.rate or 10.0))
        stop = stack.enter_context(common.stopped_by_signals())
        show = stack.enter_context(common.bar(opened.name, limit or opened.length or None))
        stack.callback(pipeline.close)  # waits for what is under way
        items = _up_to(limit, opened.items())
        for item, results in ahead(items, begin, pipeline.in_flight):
            if item.image is None:
                opened.skipped.append((item.file, item.reason))
                rows.append(_row(item, 'left out'))
                continue
            (result,) = results
            overlay = draw(item.image, result.heatmap, result.instances)
            if pictures:
                _write(output, item, overlay, result)
            if film is not None:
                film.write(overlay)
            rows.append(_row(item, 'ok', len(result.ids)))
            count += 1
            show(len(rows))
            if stop.is_set():
                break
    _index(output / INDEX, opened.name, profile, rows, opened.notes)
    common.told(opened)
    if not count:
        raise common.fail(nothing(opened))
    text = common.printable(f'{count} frames in {output} (list: {INDEX})')
    common.CONSOLE.print(text, markup=False)


def _up_to(limit: int, items: Iterable[Item]) -> Iterator[Item]:
    """Items up to so many that can be used, 0 = all."""
    for item in items:
        yield item
        limit -= item.image is not None
        if not limit and item.image is not None:
            return


def _row(item: Item, status: str, objects: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = {'file': item.file, 'status': status, 'reason': item.reason}
    if item.image is not None:
        row |= {'name': item.name, 'size': [item.image.shape[1], item.image.shape[0]]}
        row['objects'] = objects
    if item.stamp_ns is not None:
        row['stamp_ns'] = item.stamp_ns
    return row


def _index(
    path: Path, source: str, profile: str, rows: list[dict[str, Any]], notes: list[str]
) -> None:
    # Names that are not UTF-8 are written as escapes, which json reads back.
    tree = {'source': source, 'profile': profile, 'notes': notes, 'files': rows}
    path.write_text(json.dumps(tree, indent=1) + '\n', encoding='ascii')


def _write(output: Path, item: Item, overlay: Any, result: Result) -> None:
    """Write the four files of a frame; encoded in memory, so that a full disk is an error."""
    from ood_perception.detections import rows
    from ood_perception.frames.picture import encode

    assert result.heatmap is not None
    assert result.instances is not None
    # A JPEG's side has at most 65500 pixels.
    suffix = '.jpg' if max(overlay.shape) <= 65500 else '.png'
    (output / f'{item.name}_overlay{suffix}').write_bytes(encode(overlay, suffix))
    (output / f'{item.name}_heatmap.png').write_bytes(encode(result.heatmap, '.png'))
    (output / f'{item.name}_instances.png').write_bytes(encode(result.instances, '.png'))
    text = json.dumps([item.json() for item in rows(result)], indent=2) + '\n'
    (output / f'{item.name}.json').write_text(text, encoding='utf-8')
