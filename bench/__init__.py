"""Side-by-side measurements: each prints ratios to a floor measured in the same run."""
