"""LUNA16's protocol written as its text reads, with loops over everything: slow, short, and easy to believe.

Rows are tuples: a detection is (series, (x, y, z), score), a mark of the truth (series, (x, y, z), diameter).
"""

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def is_hit(position, mark_position, diameter):
    radius = (10.0 if diameter < 0 else diameter) / 2
    return sum((a - b) ** 2 for a, b in zip(position, mark_position, strict=True)) < radius**2


def kept_detections(detections, scans, marks_per_scan):
    kept = []
    for scan in scans:
        of_scan = [d for d in detections if d[0] == scan]
        if marks_per_scan is not None and len(of_scan) > marks_per_scan:
            first_left_out = sorted((d[2] for d in of_scan), reverse=True)[marks_per_scan]
            of_scan = [d for d in of_scan if d[2] > first_left_out]
        kept += of_scan
    return kept


def judge(detections, nodules, excluded, scans, marks_per_scan=None):
    """(best score of each nodule or None, scores of the false positives)."""
    best, false = [], []
    detections = kept_detections(detections, scans, marks_per_scan)
    for series, center, diameter in nodules:
        if series in scans:
            scores = [s for u, p, s in detections if u == series and is_hit(p, center, diameter)]
            best.append(max(scores, default=None))
    for series, position, score in detections:
        marks = [m for m in [*nodules, *excluded] if m[0] == series]
        if not any(is_hit(position, center, diameter) for _, center, diameter in marks):
            false.append(score)
    return best, false


def operating_points(best, false, n_scans):
    """(false positives per scan, sensitivity, threshold) from the strictest threshold down, after (0, 0)."""
    points = [(0.0, 0.0, float("inf"))]
    for threshold in sorted({s for s in [*best, *false] if s is not None}, reverse=True):
        found = sum(s is not None and s >= threshold for s in best)
        points.append((sum(s >= threshold for s in false) / n_scans, found / len(best), threshold))
    return points


def sensitivity_at(points, rate):
    """On the straight line between the last point at or below the rate and the first above it."""
    below = [p for p in points if p[0] <= rate][-1]
    above = next((p for p in points if p[0] > rate), None)
    if above is None:
        return below[1]
    return below[1] + (above[1] - below[1]) * (rate - below[0]) / (above[0] - below[0])


def sensitivities(detections, nodules, excluded, scans, rates=RATES):
    """Sensitivity at the rates."""
    best, false = judge(detections, nodules, excluded, scans)
    points = operating_points(best, false, len(scans))
    return [sensitivity_at(points, rate) for rate in rates]


def repeat_scans(rows, drawn):
    """Rows of a cohort in which scan number k is a copy of ``drawn[k]``."""
    return [(f"{k}", *row[1:]) for k, scan in enumerate(drawn) for row in rows if row[0] == scan]
