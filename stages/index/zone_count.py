"""Which UTM zone most images of a source lie in, and the errors where positions do not belong together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason
from stages.index.utm_zone import Zone, zones_of

_HOW_TO_STATE = "in a CSV a column zone, such as 10S; in SF-XL names number and letter, such as @10@S@"


@dataclass
class ZoneCount:
    """The usable images of a source by what they state: degrees, metres with or without a zone.

    Attributes
    ----------
    by_zone
        (61, 256) images in each zone, by number and code of the band.
    with_zone, without_zone, degrees
        Images with metres of a stated zone, metres of no stated zone, degrees.
    outside
        Images too far from the zone of the manifest; `first_outside` is the first one's key and zone.
    has_metres
        Whether any position in metres is too large to be degrees.
    """

    by_zone: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((61, 256), np.int64))
    with_zone: int = 0
    without_zone: int = 0
    degrees: int = 0
    outside: int = 0
    first_without_zone: str = ""
    first_outside: str = ""
    has_metres: bool = False

    def add(self, batch: EntryBatch) -> None:
        """Count a batch whose positions are not converted yet."""
        usable = batch.usable
        in_degrees = usable & batch.latlon
        metres = usable & ~batch.latlon
        stated = metres & (batch.zone_numbers > 0)
        without_zone = np.flatnonzero(metres & ~stated)
        if len(without_zone) and not self.without_zone:
            self.first_without_zone = batch.keys[int(without_zone[0])].as_py()
        self.without_zone += len(without_zone)
        self._count(batch.zone_numbers[stated], batch.bands[stated])
        self._count(*zones_of(batch.positions[in_degrees]))
        self.with_zone += int(stated.sum())
        self.degrees += int(in_degrees.sum())
        if not self.has_metres:
            # The first batch almost always settles it, so the others are not searched.
            sizes = np.abs(batch.positions[metres])
            self.has_metres = bool(((sizes.max(axis=1) > 180) | (sizes.min(axis=1) > 90)).any())

    def add_outside(self, batch: EntryBatch, latlon: npt.NDArray[np.float64]) -> None:
        """Count the images of a batch that are too far from the manifest's zone, at (m, 2) degrees."""
        if len(latlon) and not self.outside:
            number, band = zones_of(latlon[:1])
            row = int(np.argmax(batch.skip_reasons == SkipReason.TOO_FAR))
            self.first_outside = f"{batch.keys[row].as_py()} in {Zone(int(number[0]), chr(band[0])).name}"
        self.outside += len(latlon)

    def most(self) -> Zone | None:
        """Return the zone of most images, None if none states or implies one.

        The bands of one hemisphere count as one zone, because they share their metres.
        """
        if not self.with_zone + self.degrees:
            return None
        south, north = self.by_zone[:, : ord("N")].sum(axis=1), self.by_zone[:, ord("N") :].sum(axis=1)
        first_band = 0 if south.max() > north.max() else ord("N")
        number = int((north if first_band else south).argmax())
        stop = 256 if first_band else ord("N")
        return Zone(number, chr(first_band + int(self.by_zone[number, first_band:stop].argmax())))

    def require_agreement(self, source: str, split: str, zone: Zone | None, other_zone: str | None) -> None:
        """Check that all positions of a source can be compared with each other and with the other split's.

        Parameters
        ----------
        source, split
            What is indexed, for messages.
        zone
            The zone that positions were converted to; None if no image states or implies one.
        other_zone
            The zone of the split that is indexed already, "" if it states none; None if none is indexed.

        Raises
        ------
        InputError
            If metres are degrees, a zone is known for some positions only, or most images lie elsewhere.
        """
        other = "the database" if split == "queries" else "the other split"
        if self.with_zone + self.without_zone and not self.has_metres:
            raise InputError(
                f"{source} states degrees where metres are expected: no utm_east, utm_north is beyond "
                "180, 90; name the columns lat and lon (if they are metres of a small map, add 1000 to both)"
            )
        if other_zone == "" and (implied := self.most()):
            raise InputError(
                f"{other} states no UTM zone, the {split} in {source} lie in {implied.name}: "
                f"add the zone to {other} and index both again ({_HOW_TO_STATE})"
            )
        if zone and self.without_zone > self.with_zone:
            known = f"{other} lies in {zone.name}" if other_zone else f"others lie in {zone.name}"
            raise InputError(
                f"{self.without_zone:,} images in {source} state metres without a UTM zone (first: "
                f"{self.first_without_zone}), but {known}: add the zone ({_HOW_TO_STATE})"
            )
        images = self.with_zone + self.without_zone + self.degrees
        if zone and 2 * self.outside > images:
            whose = f"the zone of {other}" if other_zone else "the zone of the largest part"
            raise InputError(
                f"{self.outside:,} of {images:,} images in {source} lie too far from UTM zone {zone.name}, "
                f"{whose} (first: {self.first_outside}): index one city per project, or fix these positions"
            )

    def _count(self, numbers: npt.NDArray[np.uint8], bands: npt.NDArray[np.uint8]) -> None:
        codes = (numbers.astype(np.uint16) << 8) | bands
        self.by_zone += np.bincount(codes, minlength=self.by_zone.size).reshape(self.by_zone.shape)
