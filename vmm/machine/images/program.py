# SPDX-License-Identifier: GPL-2.0-or-later
"""A loaded image as the Program of its machine: who asks a machine for names finds those of the image."""

from __future__ import annotations

from vmm.asm.program import Program
from vmm.machine.images.image import Image


class ImageProgram(Program):
    """A Program without a text; symbols and source lines are the image's, read when somebody first asks."""

    def __init__(self, image: Image) -> None:
        low = min((each.gpa for each in image.segments), default=0)
        super().__init__(image.name, low, b"", {}, ())
        object.__setattr__(self, "image", image)
