"""shoal on two real GPUs, as two nodes.

    python3 tests/gpu/run.py [--wheels DIR] [--out DIR] [--work DIR] [--only STEP,...] [--rehearse]

For a Linux machine with two NVIDIA GPUs, root, and a Python 3.12 with torch 2.11.0+cu130; it needs neither the internet
nor `ip`. The wheels are vllm 0.26.0, Ray 2.60.0 and what they lack there; they are unpacked into a folder of the run's
own. Each step leaves nothing running, and writes what it found into OUT/results.json as it goes. `--rehearse` runs the
same steps with the Python at hand, on CPUs.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.gpu.place import MARK, Place, make_python, under


def options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="folder with the wheels; without it WORK/site is used as it is")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="where results and evidence go")
    parser.add_argument("--work", type=Path, default=Path("/tmp/shoal-gpu"), help="where the run lives")
    parser.add_argument("--only", default="", metavar="STEP,...", help="these steps only, in this order")
    parser.add_argument("--rehearse", action="store_true", help="on CPUs, with the Python at hand")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the steps; 1 where one of them failed, and the others were run all the same."""
    chosen = options(argv)
    work, out = chosen.work.absolute(), chosen.out.absolute()
    if not os.environ.get(MARK):
        python = Path(sys.executable) if chosen.rehearse else make_python(work, chosen.wheels)
        under(python, argv)
    from tests.gpu.steps import STEPS

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a run that is ended takes its hosts down
    place = Place(work, out, chosen.rehearse)
    work.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in chosen.only.split(",") if chosen.only else STEPS:
        began = time.monotonic()
        place.say(f"== {name}")
        try:
            place.keep(name, STEPS[name](place))
        except Exception:  # noqa: BLE001 (the next step may still tell something)
            failed.append(name)
            place.keep(name, {"error": traceback.format_exc()})
            place.say(traceback.format_exc())
        place.keep(name, {"step_s": round(time.monotonic() - began, 1)})
        place.say(f"== {name}: {'FAILED' if name in failed else 'done'} in {time.monotonic() - began:.1f} s")
        place.pack()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
