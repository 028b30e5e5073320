"""What wakes the jobs: one adapter of `core.ports.Engine` per module. Rows are the truth; an engine saves waiting."""
