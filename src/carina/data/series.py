"""An hourly time series, such as a sensor's or a counter's, as a tensor of days. Pandas parses.

Must not know what is measured.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from carina.data.table import read_frame
from carina.errors import InputError

HOURS = 24


@dataclass(frozen=True, eq=False)
class Days:
    """Whole days of hourly values.

    Attributes:
        values: channels are the columns of the file; NaN where an hour is missing from it.
        channels: names of the columns.
        dates: day of each entry, ISO 8601.
    """

    values: Float32[Tensor, "day channel hour"]
    channels: tuple[str, ...]
    dates: tuple[str, ...]


def read_hourly(path: str | Path, *, time: str, hour: str | None = None, fill: bool = True) -> Days:
    """Read a CSV table with one row per hour.

    Args:
        path: the file; rows in any order.
        time: column of the time, or of the date only where ``hour`` names another.
        hour: column of the hour, 0 to 23.
        fill: hours that are missing take the values of the hour before (the first ones: of the hour after).

    Raises:
        InputError: not such a table, two rows of one hour, or a column that is no number.
    """
    frame = read_frame(path)
    missing = [name for name in (time, hour) if name is not None and name not in frame]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(frame.columns)}")
    try:
        at = pd.to_datetime(frame.pop(time))
        if hour is not None:
            hours = frame.pop(hour)
            if not hours.isin(range(HOURS)).all():
                raise ValueError(f"column {hour!r} holds {hours[~hours.isin(range(HOURS))].iloc[0]!r}, not 0 to 23")
            at = at.dt.normalize() + pd.to_timedelta(hours, unit="h")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: column {time!r} does not hold times ({error})") from error
    if frame.columns.empty:
        raise InputError(f"{path} holds times and nothing else")
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    if words:
        raise InputError(f"{path}: column {words[0]!r} holds {frame[words[0]].iloc[0]!r}, expected numbers")
    frame.index = pd.DatetimeIndex(at).floor("h")
    if frame.index.has_duplicates:
        raise InputError(f"{path}: two rows for {frame.index[frame.index.duplicated()][0]}")
    first, last = frame.index.min().normalize(), frame.index.max().normalize()
    days = pd.date_range(first, last, freq="D")
    frame = frame.reindex(pd.date_range(first, periods=HOURS * len(days), freq="h"))
    if fill:
        frame = frame.ffill().bfill()
    values = torch.tensor(frame.to_numpy("float32")).view(len(days), HOURS, -1).transpose(1, 2).contiguous()
    return Days(values, tuple(map(str, frame.columns)), tuple(str(day.date()) for day in days))
