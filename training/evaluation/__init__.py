"""Judge a model: scores, calibration, comparison, diagnosis and acceptance."""
