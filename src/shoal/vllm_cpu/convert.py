"""Write a GGUF model that a Python package carries as a Hugging Face folder, which vLLM's CPU build can load.

    python -m shoal.vllm_cpu.convert MODULE/FILE.gguf TARGET_DIR

A program of its own, because transformers and torch are heavy. Stdout carries one JSON object per step and nothing
else; an error is one sentence, the last line of stderr. Of two that write the same folder, one waits for the other.
"""

import ctypes
import fcntl
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

Say = Callable[[float, str], None]
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Convert as ``argv`` says (without the program's name); the exit code."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m shoal.vllm_cpu.convert MODULE/FILE.gguf TARGET_DIR\n")
        return 2
    say = _progress()
    try:
        source, target = find(argv[0]), Path(argv[1]).absolute()
        with alone(target, say):
            if not target.is_dir():
                _make(source, target, say)
    # transformers raises anything; the caller shows this sentence, and the traceback is above it.
    except Exception as error:  # noqa: BLE001
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}\n")
        return 1
    say(1.0, "done")
    return 0


def find(reference: str) -> Path:
    """The GGUF file of ``MODULE/FILE``; ValueError where the module or the file is not there or is no GGUF."""
    module, _, name = reference.partition("/")
    spec = find_spec(module) if module else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ValueError(f"the Python package {module!r} is not installed")
    file = Path(folders[0]) / name
    if not file.is_file():
        raise ValueError(f"the Python package {module} has no file {name}")
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise ValueError(f"{file} is not a GGUF file")
    return file


@contextmanager
def alone(target: Path, say: Say) -> Iterator[None]:
    """Hold the lock that goes with ``target``; wait while another process holds it. It ends with its process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(0.0, "waiting for another process that converts it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _progress() -> Say:
    """A function that prints steps; from here on, what libraries print on stdout goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(done: float, step: str) -> None:
        out.write(json.dumps({"progress": done, "step": step}) + "\n")
        out.flush()

    return say


def _make(source: Path, target: Path, say: Say) -> None:
    # We hold the lock, so a part that is there belongs to a run that was killed.
    for part in target.parent.glob(f".{target.name}.part*"):
        shutil.rmtree(part)
    part = target.parent / f".{target.name}.part"
    try:
        part.mkdir()
        _write(source, part, say)
        _settle(part)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write(source: Path, folder: Path, say: Say) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / ".inductor")  # else torch leaves a folder in /tmp
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the file; asking the hub would only wait for it
    say(0.05, "loading the converter")
    # By name and here: it takes seconds, which a process that only waits for the lock does not spend.
    transformers = importlib.import_module("transformers")
    say(0.1, "reading the tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    say(0.4, "reading the weights")
    model = transformers.AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="bfloat16")
    # The GGUF quantiser stays attached, and transformers then refuses to save; the weights are dense already.
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    model.config.__dict__.pop("quantization_config", None)
    say(0.95, "writing the folder")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.rmtree(folder / ".inductor", ignore_errors=True)


def _settle(folder: Path) -> None:
    """Bring the files to disk before the folder gets its name: not even a power cut leaves half a model under it."""
    folder.chmod(0o755)
    for path in (*folder.iterdir(), folder):
        if path.is_file():
            path.chmod(0o644)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _end_with_parent() -> None:
    """Have the kernel end this process with the one that asked for it, so that the lock is free at once."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_parent()
    raise SystemExit(main(sys.argv[1:]))
