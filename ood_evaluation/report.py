# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The report: one HTML file that works offline, light and dark, with JSON and CSV beside it.

    write_report('out/report.html', [evaluation_a, evaluation_b])
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.curves import Curve
from ood_evaluation.evaluator import Evaluation, plain
from ood_evaluation.pictures import jpeg_uri

TILES = (
    ('fps', 'Frames per second', 'outputs received', False),
    ('alarms_per_minute', 'False alarms a minute', 'objects that never were one', False),
    ('ap', 'AP', 'share of area under precision over recall', True),
    ('fpr95', 'FPR95', 'false alarms when 95 % is found', True),
    ('auroc', 'AUROC', 'area under the ROC curve', True),
    ('instance_f1', 'Instance F1', 'objects matched at IoU 0.5', True),
    ('latency_ms_p50', 'Latency, median', 'ms, frame sent to outputs received', False),
    ('latency_ms_p95', 'Latency, p95', 'ms', False),
)
"""Key of the summary, title, explanation, whether it is a fraction."""

INK = '#0a0b0c'
"""Stands for the page's own text colour in a drawing."""

NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))

CURVES = ('thresholds', 'tp', 'fp')
"""Fields of a `Curve` that are arrays, lists in the JSON."""

COLOURS = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#eab308', '#ec4899')


def write_report(
    path: str | Path,
    runs: Sequence[Evaluation],
    title: str = 'Unknown objects: evaluation',
    photographs: Sequence[tuple[str, NDArray[np.uint8]]] = (),
) -> Path:
    """
    Write the report, and ``<stem>.json`` and ``<stem>.csv`` with all figures beside it.

    Args:
        path: of the HTML file; its folder is made.
        runs: one evaluation, or several to be compared.
        photographs: (caption with the credit, RGB panel) of pictures beside the runs.

    Returns:
        The path.

    Raises:
        ValueError: no runs.
        ImportError: Jinja2 or matplotlib is missing; the text says how to get them.
    """
    if not runs:
        raise ValueError('runs: expected at least one evaluation, got none')
    try:
        import jinja2
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f'{error.name} is missing; pip install "ood_perception[report]"'
        ) from error
    matplotlib.use('Agg')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = jinja2.FileSystemLoader(Path(__file__).parent / 'templates')
    page = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True).get_template(
        'report.html.j2'
    )
    html = page.render(
        title=title,
        runs=[_run(run) for run in runs],
        photographs=[(caption, jpeg_uri(picture)) for caption, picture in photographs],
        names=[run.name for run in runs],
        table=summary_rows(runs),
        charts=charts(runs),
        colours=COLOURS,
    )
    path.write_text(html, encoding='utf-8')
    write_numbers(path, runs)
    return path


def write_numbers(path: Path, runs: Sequence[Evaluation]) -> None:
    """Write the figures of all runs as JSON and CSV beside the report."""
    tree = [
        {
            'name': run.name,
            'summary': run.summary,
            'breakdown': [{'condition': name, **figures} for name, figures in run.breakdown],
            'problems': run.problems,
            'curve': _curve_json(run.curve) if run.curve else None,
            'latencies_ms': [round(value, 3) for value in run.latencies_ms],
        }
        for run in runs
    ]
    path.with_suffix('.json').write_text(json.dumps(tree, indent=1) + '\n')
    with path.with_suffix('.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['figure', *(run.name for run in runs)])
        for key, values in summary_rows(runs, shown=False):
            writer.writerow([key, *values])


def read_numbers(path: str | Path) -> list[Evaluation]:
    """
    Evaluations from the JSON beside a report, without their pictures; for comparing runs.

    Args:
        path: the JSON file, the report, or the folder that holds ``report.json``.

    Raises:
        ValueError: no such file, or another kind of JSON.
    """
    path = Path(path)
    path = path / 'report.json' if path.is_dir() else path.with_suffix('.json')
    try:
        tree = json.loads(path.read_text())
        runs = []
        for run in tree:
            curve: dict[str, Any] = run['curve'] or {}
            curve |= {name: np.array(curve[name]) for name in CURVES if curve}
            kept = {key: run[key] for key in ('name', 'summary', 'latencies_ms', 'problems')}
            kept['breakdown'] = [(row.pop('condition'), row) for row in run['breakdown']]
            runs.append(Evaluation(**kept, curve=Curve(**curve) if curve else None))
    except OSError as error:
        raise ValueError(f'{path}: no report here: {error.strerror}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is not the JSON of a report: {error!r}') from error
    return runs


def summary_rows(runs: Sequence[Evaluation], shown: bool = True) -> list[tuple[str, list[Any]]]:
    """Every figure of the summaries with its value in each run, as text where `shown`."""
    keys = dict.fromkeys(key for run in runs for key in run.summary)
    return [
        (key, [text(run.summary.get(key)) if shown else run.summary.get(key) for run in runs])
        for key in keys
    ]


def text(value: Any) -> str:
    """Figure for people."""
    if value is None:
        return '–'
    if isinstance(value, float):
        return f'{value:.4f}' if abs(value) < 10 else f'{value:,.1f}'
    return f'{value:,}' if isinstance(value, int) else str(value)


def objects_found(summary: Mapping[str, Any]) -> str:
    """'5 of 6' true objects that were matched in some frame; '' where none was there."""
    objects = summary.get('objects')
    return f'{objects - summary["never_found"]} of {objects}' if objects else ''


def charts(runs: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """(Caption, SVG) of every curve that the runs have data for."""
    kinds = (
        ('curve', 'Precision over recall', _precision_recall),
        ('curve', 'ROC: found over false alarms (logarithmic)', _roc),
        ('reliability', 'Calibration: share unknown over stated probability', _reliable),
        ('latencies_ms', 'Latency in ms', _latency),
    )
    coloured = list(zip(runs, itertools.cycle(COLOURS), strict=False))
    found = []
    for data, caption, draw in kinds:
        chosen = [(run, colour) for run, colour in coloured if getattr(run, data)]
        if chosen:
            found.append((caption, _drawn(draw, chosen, legend=len(runs) > 1)))
    return found


def _run(run: Evaluation) -> dict[str, Any]:
    tiles = []
    if found := objects_found(run.summary):
        tiles.append(('Objects found', found, 'in one frame or more, at IoU 0.5'))
    for key, title, meaning, fraction in TILES:
        value = run.summary.get(key)
        if value is not None:
            shown = f'{100 * value:.1f} %' if fraction else f'{value:.1f}'
            tiles.append((title, shown, meaning))
    columns = list(dict.fromkeys(key for _, figures in run.breakdown for key in figures))
    return {
        'name': run.name,
        'tiles': tiles,
        'columns': columns,
        'breakdown': [
            (name, [text(plain(figures.get(key))) for key in columns])
            for name, figures in run.breakdown
        ],
        'pictures': [(caption, jpeg_uri(picture)) for caption, picture in run.pictures],
        'problems': list(run.problems.items()),
    }


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {k: v.tolist() if k in CURVES else v for k, v in vars(curve.thinned()).items()}


def _drawn(
    draw: Callable[[Any, Any, str], None], runs: Sequence[tuple[Evaluation, str]], legend: bool
) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout='constrained')
    axes = figure.add_subplot()
    for run, colour in runs:
        draw(axes, run, colour)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    for side in ('left', 'bottom'):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=INK, alpha=0.12)
    if legend:
        axes.legend(labelcolor=INK, frameon=False, fontsize='small')
    target = io.StringIO()
    figure.savefig(target, format='svg', transparent=True, metadata=NO_METADATA)
    svg = target.getvalue()
    return svg[svg.index('<svg') :].replace(INK, 'currentColor')


def _precision_recall(axes: Any, run: Any, colour: str) -> None:
    curve = run.curve.thinned()
    axes.plot(curve.recall, curve.precision, color=colour, label=run.name)
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1.01), ylim=(0, 1.03))


def _roc(axes: Any, run: Any, colour: str) -> None:
    curve = run.curve.thinned()
    axes.plot(np.maximum(curve.fpr, 1e-5), curve.recall, color=colour, label=run.name)
    axes.axhline(0.95, color=INK, alpha=0.4, linewidth=0.8, linestyle=':')
    axes.set(xlabel='false positive rate', ylabel='true positive rate')
    axes.set(xscale='log', xlim=(1e-5, 1), ylim=(0, 1.03))


def _reliable(axes: Any, run: Any, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linewidth=0.8, linestyle=':')
    axes.plot(*run.reliability[:2], color=colour, marker='o', markersize=4, label=run.name)
    axes.set(xlabel='probability said', ylabel='share unknown', xlim=(0, 1.01), ylim=(0, 1.03))


def _latency(axes: Any, run: Any, colour: str) -> None:
    # A few stragglers would squeeze the rest into one bar.
    shown = np.minimum(run.latencies_ms, np.percentile(run.latencies_ms, 99.5))
    axes.hist(shown, bins=40, color=colour, alpha=0.7, label=run.name)
    axes.set(xlabel='milliseconds', ylabel='frames')


AT_LEAST = (
    'frames', 'labelled', 'fps', 'ap', 'auroc', 'best_f1', 'siou', 'ppv', 'f1_star',
    'instance_f1', 'instance_precision', 'instance_recall', 'instance_mean_iou',
    'instance_recall_small', 'instance_recall_large', 'instance_ap50', 'instance_ap',
)  # fmt: skip
"""Figures of which more is better,"""

AT_MOST = (
    'dropped', 'fpr95', 'ece', 'mce', 'brier', 'false_alarms', 'alarms_per_minute', 'flicker',
    'track_switches', 'switches_per_object', 'delay_frames', 'delay_s', 'delay_s_max',
    'never_found', 'latency_ms_p50', 'latency_ms_p95', 'latency_ms_p99',
)  # fmt: skip
"""and of which less is."""


def parse_requirements(texts: Sequence[str]) -> dict[str, float]:
    """
    Read ``NAME=NUMBER`` texts.

    Raises:
        ValueError: not of that form, or no such figure; names the nearest one.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition('=')
        name = name.strip()
        if name not in AT_LEAST + AT_MOST:
            near = difflib.get_close_matches(name, AT_LEAST + AT_MOST, 1, 0.3)
            hint = (
                f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(AT_LEAST + AT_MOST)
            )
            raise ValueError(f'no figure is named {name!r}; {hint}')
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f'expected NAME=NUMBER such as ap=0.9, got {text!r}') from None
    return found


def missed(summary: Mapping[str, Any], required: Mapping[str, float]) -> list[str]:
    """Say of each requirement that a summary does not meet what it is and what was measured."""
    lines = []
    for name, limit in required.items():
        value, least = summary.get(name), name in AT_LEAST
        if value is None:
            lines.append(f'{name}: not measured (are there labels for it?)')
        elif not (value >= limit if least else value <= limit):
            lines.append(f'{name}: {value:.4g}, required {">=" if least else "<="} {limit:g}')
    return lines
