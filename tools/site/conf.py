# SPDX-License-Identifier: GPL-2.0-or-later
"""How Sphinx makes the site: its extensions, its look, and how our docstrings are read. Sphinx imports this file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.site import docstrings, stage, words
from vmm.base.version import pyvmm_version

project = "pyvmm"
author = "the authors of pyvmm"
release = version = pyvmm_version()
html_title = f"pyvmm {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
default_role = "py:obj"  # `Machine.run` in a docstring is a link where there is such a name, and code elsewhere
highlight_language = "none"
smartquotes = False  # what a text shows can be typed
html_theme = "theme"
html_theme_path = ["."]
html_context = {"nav": stage.menu()}
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_permalinks_icon = "#"

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4  # a link `page.md#heading` is checked, and an error where there is none
myst_fence_as_directive: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": False}
autodoc_use_legacy_class_based = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 100
python_use_unqualified_type_names = True
add_module_names = False
suppress_warnings = ["ref.python"]  # a short name in a docstring that several classes have: it stays code


def setup(app: object) -> None:
    """Called by Sphinx."""
    docstrings.setup(app)
    words.setup(app)
