# SPDX-License-Identifier: GPL-2.0-or-later
"""What pyproject.toml cannot say: cffi_build.py makes the extension, and one wheel serves every Python from 3.11 on."""

import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# An isolated build does not put the project's folder on the path, and cffi_build.py reads its constants from vmm.abi.
sys.path.insert(0, str(Path(__file__).resolve().parent))

# The extension is abi3, so its wheel says so; a free-threaded Python has no limited API, and gets a wheel of its own.
limited = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}}


class WithSite(build_py):
    """A wheel that is built after `make docs` carries the site, as vmm/site/: it is generated, and no source."""

    SITE = Path(__file__).resolve().parent / "build" / "site"

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (self.SITE / "pages.json").is_file():
            self.copy_tree(str(self.SITE), str(Path(self.build_lib) / "vmm" / "site"))


setup(cffi_modules=["cffi_build.py:builder"], options=limited, cmdclass={"build_py": WithSite})
