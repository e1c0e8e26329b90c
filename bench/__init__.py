"""The figures of docs/benchmarks.md, measured as ratios in one run: one script a figure."""
