#!/usr/bin/env python3
"""Write shoal.pyz into each folder that is named: `make pyz`. Needs the standard library only, and no install."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))


def main(folders: list[str]) -> int:
    """Write the file; the exit code."""
    from shoal.ops.pyz import build  # noqa: PLC0415 (found by the line above)

    data = build()
    for folder in folders:
        file = Path(folder) / "shoal.pyz"
        file.write_bytes(data)
        file.chmod(0o755)
        print(f"wrote {file} ({len(data)} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
