"""Changes to a recipe, side by side: what each adds, what all add one after the other, and what a network costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from emcad_lib.show.plots import COLOURS


def draw_changes(axes: Axes, baseline: Sequence[float], steps: Mapping[str, Sequence[float]], label: str) -> None:
    """A row for each step: a dot for each seed, a bar at their mean; behind them the baseline's range and mean.

    Coloured is only what lies outside that range with all of its dots.

    Args:
        axes: where to draw.
        baseline: a score for each seed of what the steps are compared with.
        steps: the same for each step, drawn from the top to the bottom.
        label: what the scores are.
    """
    axes.axvspan(min(baseline), max(baseline), color="0.88", linewidth=0, label="baseline, lowest to highest seed")
    axes.axvline(float(np.mean(baseline)), color="0.45", linestyle="--", label="baseline, mean")
    said = set()
    for row, scores in enumerate(steps.values()):
        if min(scores) > max(baseline):
            colour, marker, where = COLOURS["blue"], "o", "all dots to its right"
        elif max(scores) < min(baseline):
            colour, marker, where = COLOURS["red"], "s", "all dots to its left"
        else:
            colour, marker, where = "0.35", "D", "not all on one side"
        dots = axes.scatter(scores, [row] * len(scores), color=colour, marker=marker, s=22, alpha=0.8, zorder=3)
        dots.set_label("" if where in said else where)
        said.add(where)
        axes.vlines(np.mean(scores), row - 0.35, row + 0.35, color=colour, linewidth=2.5, zorder=3)
    axes.set_yticks(range(len(steps)), list(steps))
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)


def draw_waterfall(axes: Axes, rungs: Mapping[str, Sequence[float]], label: str) -> None:
    """From one rung to the next, each with one thing more: bars from mean to mean, up or down, and a dot for each run.

    Args:
        axes: where to draw.
        rungs: the scores of each rung's runs; the first rung's bar starts at 0.
        label: what the scores are.
    """
    means = [float(np.mean(scores)) for scores in rungs.values()]
    for place, (before, after, scores) in enumerate(zip([0.0, *means], means, rungs.values(), strict=False)):
        gained = after >= before
        colour, hatch = (COLOURS["sky"], "") if gained else (COLOURS["orange"], "//")
        if place == 0:
            colour = "0.75"
        axes.bar(place, after - before, 0.6, bottom=before, color=colour, hatch=hatch, edgecolor="0.3", linewidth=0.6)
        said = f"{after:.2f}" if place == 0 else f"{after - before:+.2f}"
        top = max(before, after, *scores)
        axes.annotate(said, (place, top), (0, 6), textcoords="offset points", ha="center", fontsize=9)
        if place:
            axes.hlines(before, place - 0.7, place + 0.3, color="0.3", linewidth=0.8)
    for place, scores in enumerate(rungs.values()):
        beside = place + np.linspace(-0.12, 0.12, len(scores)) if len(scores) > 1 else [place]
        axes.scatter(beside, scores, color="black", s=12, zorder=3)
    axes.set_xticks(range(len(rungs)), list(rungs), rotation=30, ha="right")
    axes.set_ylabel(label)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)


def draw_pareto(axes: Axes, costs: Mapping[str, float], scores: Mapping[str, Sequence[float]], label: str) -> list[str]:
    """Score against cost: a point for each network, with a bar from its lowest seed to its highest.

    A line joins the networks that no other beats in both at once.

    Args:
        axes: where to draw.
        costs: of each network, on a logarithmic axis.
        scores: a score for each seed of each network.
        label: what the cost is.

    Returns:
        The networks on the line, from the cheapest on.
    """
    means = {name: float(np.mean(scores[name])) for name in costs}
    best = unbeaten(costs, means)
    axes.plot([costs[name] for name in best], [means[name] for name in best], color="0.6", linestyle="--", zorder=1)
    for (name, cost), marker in zip(costs.items(), "os^Dvp*Xh<>" * 3, strict=False):
        colour = COLOURS["blue"] if name in best else COLOURS["orange"]
        axes.vlines(cost, min(scores[name]), max(scores[name]), color=colour, linewidth=1.5)
        axes.plot(cost, means[name], marker, color=colour, markersize=8, linestyle="none", label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    return best


def unbeaten(costs: Mapping[str, float], scores: Mapping[str, float]) -> list[str]:
    """Whom nobody beats: the names for which no other costs less or as much and scores more. From the cheapest on."""
    chosen: list[str] = []
    for name in sorted(costs, key=lambda name: (costs[name], -scores[name])):
        if not chosen or scores[name] > scores[chosen[-1]]:
            chosen.append(name)
    return chosen
