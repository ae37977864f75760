"""Draws scenes: uint8 pictures, anti-aliased by supersampling, with jittered hues."""

import colorsys

import numpy as np

from janus_jax.shapes.scene import COLORS, Scene

SUPERSAMPLE = 4
CROSS_ARM = 0.36  # width of a cross's arm, as a fraction of its size


def inside(shape: str, u, v):
    """Whether points (u, v), in units of the object's size with the centre at 0, lie in the shape: bool array."""
    if shape == "circle":
        return u * u + v * v <= 0.25
    if shape == "square":
        return (np.abs(u) <= 0.5) & (np.abs(v) <= 0.5)
    if shape == "triangle":  # apex up
        return (np.abs(v) <= 0.5) & (np.abs(u) <= (v + 0.5) / 2)
    if shape == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) <= CROSS_ARM / 2) & (np.maximum(np.abs(u), np.abs(v)) <= 0.5)
    raise ValueError(f"unknown shape {shape!r}")


def coverage(shape: str, x, y, width, height, side: int):
    """Share of each pixel that the shape covers: f32[side, side]. Centre and extents are in pixels."""
    result = np.zeros((side, side), np.float32)
    # only the pixels that the bounding box touches
    (x0, x1), (y0, y1) = (
        (max(int(np.floor(centre - extent / 2)), 0), min(int(np.ceil(centre + extent / 2)), side))
        for centre, extent in ((x, width), (y, height))
    )
    if x0 < x1 and y0 < y1:
        u, v = (
            ((np.arange(first * SUPERSAMPLE, last * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - centre) / extent
            for first, last, centre, extent in ((x0, x1, x, width), (y0, y1, y, height))
        )
        fine = inside(shape, u[None, :], v[:, None]).astype(np.float32)
        result[y0:y1, x0:x1] = fine.reshape(y1 - y0, SUPERSAMPLE, x1 - x0, SUPERSAMPLE).mean((1, 3))
    return result


def render(scene: Scene, side: int = 48, rng=None):
    """Draws a scene: u8[side, side, 3]. With `rng`, hue, saturation and value of each object are jittered."""
    picture = np.full((side, side, 3), scene.background, np.float32)
    for item in scene.items:
        hue, saturation, value = COLORS[item.color]
        if rng is not None:
            hue += rng.uniform(-4, 4)
            saturation *= rng.uniform(0.95, 1.05)
            value *= rng.uniform(0.95, 1.05)
        rgb = np.array(colorsys.hsv_to_rgb(hue % 360 / 360, min(saturation, 1), min(value, 1)), np.float32) * 255
        # squares and crosses fill their bounding square; slightly smaller ones look the same size as the others
        size = item.size * side * (0.88 if item.shape == "square" else 1.0)
        alpha = coverage(item.shape, item.x * side, item.y * side, size, size, side)[..., None]
        picture = picture * (1 - alpha) + rgb * alpha
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
