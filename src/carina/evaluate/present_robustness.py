"""What stays when a CT is changed, as a ``Summary``.

Must not know how results are computed or how pages are laid out.
"""

from carina.evaluate.page import Table
from carina.evaluate.robustness import Robustness
from carina.evaluate.summary import Summary


def present_robustness(result: Robustness, name: str) -> Summary:
    """One row per change."""
    n_nodules, stayed = result.known + result.inserted, result.rows[0].found
    rows = tuple(
        (
            row.change,
            f"{row.found} of {n_nodules}",
            f"{row.found_from_6mm} of {result.from_6mm}",
            f"{row.stayed} of {stayed}",
            str(row.false),
            f"{row.known_rank}, p {row.known_p:.2f}, {row.shift_mm:.1f} mm" if row.known_rank else "missed",
        )
        for row in result.rows
    )
    header = ("change", "found", "from 6 mm", "stayed", "false findings", "known nodule: rank, p, distance")
    return Summary(
        title=f"Robustness on {name}",
        notes=(
            f"{result.known} known and {result.inserted} inserted nodules; default threshold.",
            "A finding hits a nodule when it lies within its radius. Stayed: of those found in the unchanged scan.",
        ),
        tables=(Table("", header, rows),),
        plots=(),
        data=result,
    )
