"""The toy city: a data set that the project draws itself, with the names, the long tail and the weather of a real one."""

from stages.city.config import CityConfig, CityResult
from stages.city.drawing import draw

__all__ = ["CityConfig", "CityResult", "draw"]
