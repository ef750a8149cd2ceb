# SPDX-License-Identifier: GPL-2.0-or-later
"""What pyproject.toml cannot say: cffi_build.py makes the extension, one wheel serves every Python from 3.11 on,
tools/share.py writes the wheel's manual page and completions, with the modules that have just been built, and
PYVMM_DOCS_URL is where the documentation is published, which `pyvmm docs` of a wheel without a site then names.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# An isolated build does not put the project's folder on the path, and cffi_build.py reads its constants from vmm.abi.
sys.path.insert(0, str(ROOT))

# The extension is abi3, so its wheel says so; a free-threaded Python has no limited API, and gets a wheel of its own.
limited = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}}
# tools.share, with two folders first on the path.
RUN = """
import runpy, sys
sys.path[:0] = sys.argv[1:3]
del sys.argv[1:3]
runpy.run_module("tools.share", None, "__main__", True)
"""


class WithSite(build_py):
    """A wheel that is built after `make docs` carries the site, as vmm/site/: it is generated, and no source. `make
    wheel` builds from the sdist, which has none, and says where it is.
    """

    SITE = Path(os.environ.get("PYVMM_SITE") or ROOT / "build" / "site")

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (self.SITE / "pages.json").is_file():
            self.copy_tree(str(self.SITE), str(Path(self.build_lib) / "vmm" / "site"))


class BuildShare(Command):
    """A step of `build`, after the extension, which the parsers import. An editable install is for who has the sources,
    and goes without.
    """

    editable_mode = False
    user_options: ClassVar[list] = []

    def initialize_options(self) -> None:
        self.build_base = self.build_lib = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_base", "build_base"), ("build_lib", "build_lib"))

    def run(self) -> None:
        if self.editable_mode:
            return
        share = Path(self.build_base, "share")
        # tools/ is of the sources, and everything else of what has been built: its folder stands first on the path. The
        # environment stays: pip's isolated one takes an editable install's folder, which may be ROOT, off the path.
        first = [str(Path(self.build_lib).resolve()), str(ROOT)]
        subprocess.run([sys.executable, "-P", "-c", RUN, *first, str(share)], check=True)
        found = sorted(each for each in share.rglob("*") if each.is_file())
        self.distribution.data_files = [
            (str(Path("share") / each.relative_to(share).parent), [str(each)]) for each in found
        ]

    def get_outputs(self) -> list:
        return []

    def get_output_mapping(self) -> dict:
        return {}

    def get_source_files(self) -> list:
        return []


build.sub_commands = [*build.sub_commands, ("build_share", None)]
published = os.environ.get("PYVMM_DOCS_URL")
setup(
    cffi_modules=["cffi_build.py:builder"],
    options=limited,
    cmdclass={"build_py": WithSite, "build_share": BuildShare},
    project_urls={"Documentation": published} if published else {},
)
