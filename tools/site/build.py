# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages to HTML, by Sphinx. It knows how the generator is called, and what of its output belongs to the site."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path

from vmm.base.docs_place import INDEX

from . import features, hosts, stage

CONFIGURATION = Path(__file__).resolve().parent
# What a reader never opens: how Sphinx built it.
LEFT_OUT = (".buildinfo", ".doctrees", "_sources", "objects.inv")


def build(out: Path) -> list[str]:
    """Make the site anew in `out`; what the generator warns of, each a sentence. Where it does, nothing is changed."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, patch_docutils(), docutils_namespace():
        source, made, trees = (Path(folder) / name for name in ("source", "made", "trees"))
        stage.stage(source)
        sphinx = Sphinx(
            str(source), str(CONFIGURATION), str(made), str(trees), "html", status=None, warning=said, freshenv=True,
        )  # fmt: skip
        sphinx.build(force_all=True)
        wrong = [line.replace(f"{source}/", "") for line in said.getvalue().splitlines() if line.strip()]
        if wrong:
            return wrong
        for name in LEFT_OUT:
            path = made / name
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
        hosts.extra(made)
        features.extra(made)
        names = sorted(sphinx.env.titles, key=lambda name: (name.count("/"), name))
        titles = {name: sphinx.env.titles[name].astext() for name in names}
        (made / INDEX).write_text(json.dumps(titles, indent=0), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, out)
    return []
