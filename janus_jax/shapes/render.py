"""Draws scenes: uint8 pictures, anti-aliased by supersampling, with jittered hues."""

import colorsys

import numpy as np

from janus_jax.shapes.scene import Scene
from janus_jax.shapes.world import SHIPPED, World

SUPERSAMPLE = 4
# Squares fill their bounding square: slightly smaller ones look the same size as the others.
DRAWN = {"square": 0.88}  # side of a shape as it is drawn, in units of the object's size
CROSS_ARM = 0.36  # width of a cross's arm, as a fraction of its size
STAR_WAIST = 0.46  # where a star's inner corners lie, as a fraction of where its tips do


def inside(shape: str, u, v):
    """Whether points (u, v), in units of the object's size with the centre at 0, lie in the shape: bool array. Every
    shape touches all sides of the square [-0.5, 0.5] x [-0.5, 0.5]."""
    if shape == "circle":
        return u * u + v * v <= 0.25
    if shape == "square":
        return (np.abs(u) <= 0.5) & (np.abs(v) <= 0.5)
    if shape == "triangle":  # apex up
        return (np.abs(v) <= 0.5) & (np.abs(u) <= (v + 0.5) / 2)
    if shape == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) <= CROSS_ARM / 2) & (np.maximum(np.abs(u), np.abs(v)) <= 0.5)
    if shape == "diamond":
        return np.abs(u) + np.abs(v) <= 0.5
    if shape == "heart":  # two discs, and a wedge below their centres
        lobes = (np.abs(u) - 0.24) ** 2 + (v + 0.24) ** 2 <= 0.26**2
        return lobes | ((v >= -0.24) & (v <= 0.5) & (np.abs(u) <= 0.5 * (0.5 - v) / 0.74))
    if shape == "star":
        return _star(u, v)
    # no words, but shapes that those of a world have to be told apart from: see World.decoys
    if shape in ("pentagon", "hexagon"):
        return _polygon(5 if shape == "pentagon" else 6, u, v)
    way, _, turned = shape.partition(" ")
    if way == "inverted":
        return inside(turned, u, -v)
    if way == "sideways":
        return inside(turned, v, u)
    raise ValueError(f"unknown shape {shape!r}")


def _star(u, v):
    """Five tips, one of them up, at distance R. The box of a regular star is lower than it is wide: it is stretched."""
    R = 0.5 / np.sin(2 * np.pi / 5)
    v = (v + 0.5) * R * (1 + np.cos(np.pi / 5)) - R
    angle = (np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.abs(np.sin(angle))
    corner = R * STAR_WAIST * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    return (corner[0] - R) * y - corner[1] * (x - R) >= 0


def _polygon(corners, u, v):
    """A regular polygon with a corner on top, stretched to its box."""
    step = 2 * np.pi / corners
    at = np.arange(corners) * step
    width, top, bottom = 2 * np.sin(at).max(), -1.0, -np.cos(at).min()
    u, v = u * width, (v + 0.5) * (bottom - top) + top
    angle = (np.arctan2(u, -v) + step / 2) % step - step / 2
    return np.hypot(u, v) * np.cos(angle - np.sign(angle) * step / 2) <= np.cos(step / 2)


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


def rgb(hue, saturation, value):
    """A colour in degrees and shares as f32[3] in [0, 255]."""
    return np.array(colorsys.hsv_to_rgb(hue % 360 / 360, min(saturation, 1), min(value, 1)), np.float32) * 255


def render(scene: Scene, side: int | None = None, rng=None, world: World = SHIPPED):
    """Draws a scene: u8[side, side, 3]; side: None for the world's. With `rng`, hue, saturation and value of each
    object are jittered."""
    side = side or world.side
    picture = np.full((side, side, 3), scene.background, np.float32)
    for item in scene.items:
        hue, saturation, value = world.colors[item.color]
        if rng is not None:
            _, degrees, share = world.jitter
            hue += rng.uniform(-degrees, degrees)
            saturation *= rng.uniform(1 - share, 1 + share)
            value *= rng.uniform(1 - share, 1 + share)
        size = item.size * side * DRAWN.get(item.shape, 1.0)
        alpha = coverage(item.shape, item.x * side, item.y * side, size, size, side)[..., None]
        picture = picture * (1 - alpha) + rgb(hue, saturation, value) * alpha
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
