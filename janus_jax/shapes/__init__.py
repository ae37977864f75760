"""The embedded world: scenes of coloured shapes, their texts, their pictures, and a verifier that reads pictures.

numpy only; nothing here imports jax, so that data workers can use it.
"""
