#!/usr/bin/env python3
"""Scores `rebound analyze anomalies` by the rules of the Numenta Anomaly Benchmark (Lavin & Ahmad 2015), beside the
windowed Gaussian detector that NAB publishes, a detector that finds nothing, and chance.

    python3 benches/nab.py NAB_FOLDER [--rebound target/release/rebound] [--scores FOLDER]

NAB_FOLDER holds `<family>/<series>.csv` (timestamp,value) and `windows.json` (NAB's combined_windows.json), in the
folder itself or in `data/` and `labels/`. Only Python's standard library is needed. One threshold is chosen for all
series, as NAB does; because that lets the threshold see the labels, a second figure chooses it on one half of the
series and scores the other, both ways.
"""

import argparse
import csv
import json
import math
import pathlib
import random
import subprocess
import sys

# Weights of (true positive, false positive, missed window): NAB's three application profiles.
PROFILES = {"standard": (1.0, 0.11, 1.0), "low_FP": (1.0, 0.22, 1.0), "low_FN": (1.0, 0.11, 2.0)}


def sigmoid(position):
    """What a detection is worth: 1 well before a window's end, 0 at it, -1 far behind it."""
    return -1.0 if position > 3.0 else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


class Series:
    """A series, its labelled windows as pairs of row numbers (both ends included), and what each row is worth."""

    def __init__(self, name, path, windows):
        self.name = name
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        self.times = [row["timestamp"] for row in rows]
        self.values = [float(row["value"]) for row in rows]
        self.path = path
        # NAB's files may hold a time twice, so a window's ends are looked up, not computed.
        self.windows = []
        for start, end in windows:
            start, end = start.split(".")[0], end.split(".")[0]
            inside = [at for at, time in enumerate(self.times) if start <= time <= end]
            self.windows.append((inside[0], inside[-1]))
        # NAB's probationary period: 15 % of the rows, at most 750; it counts for nothing.
        self.probation = int(0.15 * min(len(rows), 5000))

    def worth(self, profile):
        """For each row behind the probation: (window it lies in or None, what a detection there adds)."""
        hit, false_alarm, _ = PROFILES[profile]
        worths = []
        for at in range(self.probation, len(self.times)):
            inside = next((n for n, (start, end) in enumerate(self.windows) if start <= at <= end), None)
            if inside is not None:
                start, end = self.windows[inside]
                position = -(end - at + 1) / (end - start + 1)
                worths.append((inside, hit * sigmoid(position) / sigmoid(-1.0)))
                continue
            before = [window for window in self.windows if window[1] < at]
            if not before:
                worths.append((None, -false_alarm))
            else:
                start, end = before[-1]
                worths.append((None, false_alarm * sigmoid((at - end) / (end - start))))
        return worths


def curve(all_series, scores, profile):
    """Total and per-series scores for every threshold, from the highest down: yields (threshold, total)."""
    missed = PROFILES[profile][2]
    rows = []
    for number, series in enumerate(all_series):
        for (window, worth), score in zip(series.worth(profile), scores[series.name][series.probation:], strict=True):
            rows.append((score, number, window, worth))
    rows.sort(key=lambda row: -row[0])
    total = -missed * sum(len(series.windows) for series in all_series)
    found = {}
    yield math.inf, total
    for at, (score, number, window, worth) in enumerate(rows):
        if window is None:
            total += worth
        elif (number, window) not in found:
            total += missed + worth
            found[number, window] = worth
        elif worth > found[number, window]:
            total += worth - found[number, window]
            found[number, window] = worth
        if at + 1 == len(rows) or rows[at + 1][0] < score:
            yield score, total


def normal(all_series, total, profile):
    """0 is what finding nothing earns, 100 what a perfect detector does."""
    hit, _, missed = PROFILES[profile]
    windows = sum(len(series.windows) for series in all_series)
    return 100.0 * (total + missed * windows) / ((hit + missed) * windows)


def best(all_series, scores, profile):
    """The best threshold, and the score at it."""
    threshold, total = max(curve(all_series, scores, profile), key=lambda point: point[1])
    return threshold, normal(all_series, total, profile)


def at_threshold(all_series, scores, profile, threshold):
    """The score at a threshold that was chosen elsewhere."""
    total = [total for score, total in curve(all_series, scores, profile) if score >= threshold][-1]
    return normal(all_series, total, profile) if any(series.windows for series in all_series) else total


def across(all_series, scores, profile):
    """Threshold from one half of the series, score of the other, both ways, over all windows."""
    total = 0.0
    for half in (0, 1):
        chosen, held_out = all_series[half::2], all_series[1 - half::2]
        threshold, _ = best(chosen, scores, profile)
        total += [total for score, total in curve(held_out, scores, profile) if score >= threshold][-1]
    return normal(all_series, total, profile)


def windowed_gaussian(values, window=6400, step=100):
    """NAB's detector of that name: the two-sided normal tail over the last 6400 values, moved on by 100 at a time."""
    held, waiting, scores = [], [], []
    total = squares = 0.0
    mean, deviation = 0.0, 1.0

    def refresh():
        count = len(held)
        centre = total / count
        return centre, max(math.sqrt(max(squares / count - centre * centre, 0.0)), 0.0) or 1e-6

    for value in values:
        score = 0.0
        if held:
            score = 1.0 - 0.5 * math.erfc(abs(value - mean) / deviation / math.sqrt(2.0))
        scores.append(score)
        if len(held) < window:
            held.append(value)
            total, squares = total + value, squares + value * value
            mean, deviation = refresh()
        else:
            waiting.append(value)
            if len(waiting) == step:
                held = held[step:] + waiting
                waiting = []
                total, squares = sum(held), sum(v * v for v in held)
                mean, deviation = refresh()
    return scores


def load(folder):
    folder = pathlib.Path(folder)
    found = [folder / "windows.json", folder / "labels" / "combined_windows.json", folder / "combined_windows.json"]
    labels = json.loads(next(path for path in found if path.exists()).read_text())
    data = folder / "data" if (folder / "data").is_dir() else folder
    return [Series(name, data / name, windows) for name, windows in sorted(labels.items())]


def ask(program, series):
    """The scores that the program gives, a row a row."""
    command = [program, "analyze", "anomalies", "--input", str(series.path), "--time", "timestamp", "--value", "value",
               "-o", "csv"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return column(said.splitlines(), series)


def column(lines, series):
    scores = [float(row["anomaly_score"]) for row in csv.DictReader(lines)]
    assert len(scores) == len(series.times), f"{series.name}: {len(scores)} scores for {len(series.times)} rows"
    assert all(0.0 <= score <= 1.0 for score in scores), series.name
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rebound", default="target/release/rebound", help="the program to score")
    parser.add_argument("--scores", help="read <family>/<series>.csv with anomaly_score here instead of running it")
    parser.add_argument("--brief", action="store_true", help="only Rebound's own line")
    parser.add_argument("--each", action="store_true", help="what each series contributes, at the common threshold")
    given = parser.parse_args()
    all_series = load(given.folder)
    if given.scores:
        own = {s.name: column((pathlib.Path(given.scores) / s.name).read_text().splitlines(), s) for s in all_series}
    else:
        own = {s.name: ask(given.rebound, s) for s in all_series}
    detectors = {"rebound": own}
    if not given.brief:
        chance = random.Random(1)
        detectors["windowed Gaussian"] = {s.name: windowed_gaussian(s.values) for s in all_series}
        detectors["random"] = {s.name: [chance.random() for _ in s.values] for s in all_series}
        detectors["null"] = {s.name: [0.5] * len(s.values) for s in all_series}
    windows = sum(len(s.windows) for s in all_series)
    print(f"{len(all_series)} series, {sum(len(s.times) for s in all_series)} rows, {windows} windows")
    print(f"{'detector':<20}{'standard':>10}{'low FP':>10}{'low FN':>10}{'held out':>10}{'threshold':>11}{'at 0.5':>9}")
    for name, scores in detectors.items():
        threshold = best(all_series, scores, "standard")[0]
        figures = [best(all_series, scores, profile)[1] for profile in PROFILES]
        figures.append(across(all_series, scores, "standard"))
        half = at_threshold(all_series, scores, "standard", 0.5)
        print(f"{name:<20}" + "".join(f"{f:>10.1f}" for f in figures) + f"{threshold:>11.4f}{half:>9.1f}")
    if given.each:
        threshold = best(all_series, own, "standard")[0]
        for series in all_series:
            total = [total for score, total in curve([series], own, "standard") if score >= threshold][-1]
            rows = [at for at in range(series.probation, len(series.times)) if own[series.name][at] >= threshold]
            outside = [at for at in rows if not any(start <= at <= end for start, end in series.windows)]
            hit = sum(any(start <= at <= end for at in rows) for start, end in series.windows)
            print(f"  {series.name:<62} {total:>6.2f}  found {hit} of {len(series.windows)}, {len(outside)} false"
                  f"  {outside[:12]}")


if __name__ == "__main__":
    sys.exit(main())
