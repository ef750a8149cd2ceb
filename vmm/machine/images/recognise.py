# SPDX-License-Identifier: GPL-2.0-or-later
"""What kind of image bytes are, by their content alone, and the loader that reads them. It opens no file.

A kind is recognised by what its format demands of the first bytes, never by a file's name. Raw machine code has no
mark: it is what nothing else is, and raw.py says of some that they are plainly no code.
"""

from __future__ import annotations

from vmm.errors import ImageError
from vmm.machine.images import bzimage
from vmm.machine.images.image import Image, Mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

PROTOCOLS = (*bzimage.PROTOCOLS,)


def read_image(
    data: bytes,
    name: str,
    *,
    base: int | None = None,
    entry: int | str | None = None,
    mode: Mode | None = None,
    protocol: str | None = None,
) -> Image:
    """The image that these bytes are. `base`, `entry` and `mode` are for what has no header to say it.

    Raises:
        ImageError: damaged, foreign, or not to be started so; one line says what and where.
    """
    if bzimage.is_bzimage(data):
        return bzimage.read_bzimage(data, name, protocol)
    raise ImageError(f"{name}: not an image that pyvmm knows")
