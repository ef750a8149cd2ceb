# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation as a site: `make docs`, or `python -m tools.site --out DIR`.

`stage` gathers a folder of pages: the guides of docs/ as they are, and what is generated of rows, parsers, payloads and
hosts (`features`, `tables`, `commands`, `reference`, `course`). Sphinx makes HTML of it by conf.py, with warnings as
errors; `check` goes over every link and anchor of the result. Nothing that is generated is kept in the repository.
"""
