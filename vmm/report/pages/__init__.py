# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages for a browser (`--html FILE`): each one file that needs no network and works from a mail.

`render` knows the template library; each other module turns one kind of document into what its template shows.
"""
