"""Colours of a decoded image as a viewer shows them: upright, in sRGB, on white, 8 bits."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageCms

ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Exif's orientation, and the operation that brings such an image upright."""

ANIMATION = "animations or files of several pages, of which the first image is taken"
PROFILE = "colour profiles converted to sRGB"
DAMAGED_PROFILE = "colour profiles that cannot be used, and are not applied"
TWELVE_BITS = (
    "16-bit images with values below 4,096 (12 bits?), which are as dark as a viewer shows them"
)
MAX_DARK = 4095 >> 8
"""Brightest value of 12 bits in 16, of which Pillow keeps the upper 8 in colour images."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def as_seen(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """``image`` in mode L or RGB, and notes on what was done to it.

    Grey stays grey, the rest becomes RGB. Raises ``ValueError`` for floats and 32-bit integers, and
    all that Pillow raises for damaged files.
    """
    notes = [ANIMATION] if getattr(image, "n_frames", 1) > 1 else []
    profile = image.info.get("icc_profile")
    is_deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    image.load()
    # Not ImageOps.exif_transpose, which also writes the Exif anew and stumbles over damaged ones.
    rotation = ROTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if rotation is not None:
        image = image.transpose(rotation)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no 8-bit range")
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255 where a viewer scales.
        values = np.asarray(image)
        if 255 < values.max() < 4096:
            notes.append(TWELVE_BITS)
        return Image.fromarray((values >> 8).astype(np.uint8)), notes
    if is_deep and 0 < np.asarray(image)[..., :3].max() <= MAX_DARK:
        notes.append(TWELVE_BITS)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    transparent = image.has_transparency_data
    if transparent:
        image = image.convert("RGBA")
    if profile:
        image, note = _in_srgb(image, profile, grey=mode == "L")
        notes += note
    if transparent:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode), notes


def _in_srgb(image: Image.Image, profile: bytes, grey: bool) -> tuple[Image.Image, list[str]]:
    source = image if image.mode in ("L", "RGB", "RGBA", "CMYK") else image.convert("RGB")
    if grey and source.mode != "L":
        alpha = source.getchannel("A") if source.mode == "RGBA" else None
        converted, note = _in_srgb(source.convert("L"), profile, grey=True)
        if alpha is not None:
            converted = converted.convert("RGBA")
            converted.putalpha(alpha)
        return converted, note
    try:
        transform = _transform(profile, source.mode)
        if transform is None:
            return image, []
        return ImageCms.applyTransform(source, transform) or source, [PROFILE]
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, [DAMAGED_PROFILE]


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform to sRGB; None if ``profile`` is sRGB already."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in (ImageCms.getProfileDescription(opened) or "").lower():
        return None
    return ImageCms.buildTransform(opened, SRGB, mode, "RGBA" if mode == "RGBA" else "RGB")
