"""Data pipelines (grain). Nothing here imports jax."""
