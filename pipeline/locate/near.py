"""A prior: the photos were taken near a known position, such as a cell tower or a hotel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.index.utm_zone import Zone
from stages.partition.places import Places

EDGE = 0.25
"""Width of the soft edge, as a share of the radius: places beyond it are no answers."""


@dataclass(frozen=True)
class Near:
    """A circle in which photos were taken: its centre in degrees and its radius in metres."""

    latitude: float
    longitude: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (-80 <= self.latitude <= 84 and abs(self.longitude) <= 180 and 0 < self.radius_m < np.inf):
            raise InputError(
                f"near {self}: expected a latitude from -80 to 84, a longitude from -180 to 180 and a "
                "radius above 0 in metres, such as 37.7749,-122.4194,500"
            )

    @classmethod
    def parse(cls, text: str) -> Near:
        """Return the circle that "latitude,longitude,radius" describes; InputError if it is none."""
        try:
            latitude, longitude, radius_m = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(
                f"near {text}: expected latitude,longitude,radius in degrees and metres, such as "
                "37.7749,-122.4194,500"
            ) from None
        return cls(latitude, longitude, radius_m)

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return f"{self.latitude:g},{self.longitude:g},{self.radius_m:g}"

    def log_prior(self, places: Places, zone: str) -> npt.NDArray[np.float64]:
        """Return the log weight of each place: 0 in the circle, falling to minus infinity over its edge.

        Raises
        ------
        InputError
            If there is no place within the radius or its edge, or the UTM zone of the places is unknown.
        """
        if not zone:
            raise InputError(
                f"near {self}: this localiser does not know its UTM zone, so degrees say nothing; "
                "add a column zone to the positions of the database and train it again"
            )
        centre = Zone.of(zone).metres(np.array([[self.latitude, self.longitude]]))[0]
        away = np.linalg.norm(places.centres - centre, axis=1)
        edge_m = max(EDGE * self.radius_m, places.cell_m)
        weight = np.clip((self.radius_m + edge_m - np.nan_to_num(away, nan=np.inf)) / edge_m, 0, 1)
        if not weight.any():
            nearest = f"the nearest is {away.min():,.0f} m away" if np.isfinite(away).all() else "all are far"
            raise InputError(
                f"near {self}: no place of this localiser is within {self.radius_m:g} m, {nearest}; "
                "check the position or choose a larger radius"
            )
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(weight))
