# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the search: Sphinx brings each to its stem anew for every page, and most pages have the same words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sphinx.search.en import SearchEnglish


class English(SearchEnglish):
    """English as Sphinx has it; a word that a page before had is known."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.stem = lru_cache(None)(super().stem)  # type: ignore[method-assign]


def setup(app: Any) -> None:
    """Hook into Sphinx."""
    app.add_search_language(English)
