"""The toy city: a data set that the project draws itself, long tail, weather and file names included."""

from stages.city.config import CityConfig, CityResult
from stages.city.drawing import draw

__all__ = ["CityConfig", "CityResult", "draw"]
