"""The trained localiser: its file format, scores, fusion, calibration and predictions."""
