"""Images out of a request: base64 text (JSON) or the file's own bytes (binary data), to pixels.

Knows files and pixels; what a model does with them is its own image processor's business.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from PIL import Image

_MOST_PIXELS = 64_000_000
_REMEDY = "send a JPEG, PNG, WebP, GIF, BMP or TIFF file"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def file_bytes(value: str | bytes) -> bytes:
    """The file that an element of a BYTES tensor holds. Raises InvalidInput."""
    if isinstance(value, bytes):
        return value
    data = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("an image in JSON is not base64", remedy="send the file's bytes as base64 text") from None


def decode(value: str | bytes, mode: str = "RGB") -> Image.Image:
    """The first picture of an image file, turned upright, in Pillow's mode. Raises InvalidInput, MissingExtra."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtra("pillow", "serve") from error
    data = file_bytes(value)
    try:
        image: Any = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > _MOST_PIXELS:
            raise InvalidInput(f"an image has {image.width} × {image.height} pixels", remedy="send a smaller one")
        upright: Image.Image = ImageOps.exif_transpose(image).convert(mode)
    except InvalidInput:
        raise
    # Decoders of many formats raise many things for what is cut off or crafted.
    except Exception as error:
        raise InvalidInput(
            f"{len(data)} bytes can't be read as an image ({type(error).__name__})", remedy=_REMEDY
        ) from error
    return upright
