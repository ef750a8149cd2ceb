# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm debug`: a machine on a terminal. Panes are text, made of a scene; only app.py and widgets.py know textual."""
