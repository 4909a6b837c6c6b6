"""The toy city: a data set that the project draws itself, long tail, weather and file names included."""
