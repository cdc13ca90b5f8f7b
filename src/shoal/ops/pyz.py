"""``shoal.pyz``: all of shoal as one file that any Python runs. The same sources give the same bytes.

Stored and not compressed: what zlib makes of the same bytes differs from one Python to the next.
"""

import io
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from shoal import __version__

SHEBANG = b"#!/usr/bin/env python3\n"
KEPT = (".py", ".yaml", ".typed", ".html", ".css", ".js", ".svg")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
# An old Python stops here, before it meets a syntax that it does not know.
MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("error: shoal needs Python 3.11 or newer, and this is %d.%d" % sys.version_info[:2])

from shoal.__main__ import main

main()
"""
# vLLM finds its platform plugins by the metadata of what is on the path, zip files included. The same is in
# pyproject.toml, for a shoal that pip installs.
ENTRY_POINTS = "[vllm.platform_plugins]\nshoal_cpu = shoal.vllm_cpu:register\n"
METADATA = f"Metadata-Version: 2.1\nName: shoal\nVersion: {__version__}\n"


def build() -> bytes:
    """The archive, made of the package that runs now, be that a folder or an archive itself."""
    content = {"__main__.py": MAIN.encode()} | dict(_package(files("shoal"), "shoal"))
    info = f"shoal-{__version__}.dist-info"
    content |= {f"{info}/METADATA": METADATA.encode(), f"{info}/entry_points.txt": ENTRY_POINTS.encode()}
    out = io.BytesIO()
    out.write(SHEBANG)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # a plain file of Unix, on every system
            archive.writestr(entry, content[name])
    return out.getvalue()


def _package(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for item in folder.iterdir():
        name = f"{path}/{item.name}"
        if item.is_dir():
            if item.name != "__pycache__":
                yield from _package(item, name)
        elif item.name.endswith(KEPT):
            yield name, item.read_bytes()
