"""The toy city: a drawn data set with a long tail, weather and SF-XL file names."""
