"""A model of the hub as files to push: names, sizes and checksums first, bytes only where nobody has them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from shoal.errors import ConfigError, PreconditionFailed
from shoal.ops.model_source import DEADLINE, HUB, TOKENS
from shoal.ops.push.transfer import FRAME, Piece

MAX_LISTING = 20_000_000  # bytes
SMALL = 64 << 20  # bytes of a file that Git holds itself: such a one is read to know its sha256
# Weights in other forms than the one that vLLM loads, and what is no part of the model.
OTHER_FORMS = (".pth", ".pt", ".msgpack", ".h5", ".onnx", ".onnx_data", ".gguf", ".ot", ".tflite", ".mlmodel")
NO_PART = (".md", ".png", ".jpg", ".gif", ".pdf", "LICENSE", "USE_POLICY", ".gitattributes")


def listing(model: str, env: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
    """The model's commit, and its files as the hub tells them.

    Raises:
        PreconditionFailed: the hub does not answer, or does not give it.
    """
    if env.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise PreconditionFailed(
            f"neither this machine nor any host has {model}, and HF_HUB_OFFLINE forbids to ask the hub",
            fix="name its folder, or unset HF_HUB_OFFLINE",
        )
    with _get(model, f"api/models/{quote(model)}/revision/main?blobs=true", env) as answer:
        try:
            told = json.loads(answer.read(MAX_LISTING))
            files = [dict(file) for file in told["siblings"] if wanted(str(file["rfilename"]), told["siblings"])]
            return str(told["sha"]), files
        except (ValueError, KeyError, TypeError) as error:
            raise PreconditionFailed(f"the hub's list of {model}'s files is damaged", why=str(error)) from error


def wanted(name: str, files: list[Any]) -> bool:
    """Whether vLLM needs this file; pickled weights only where there are no others."""
    safe = any(str(file["rfilename"]).endswith(".safetensors") for file in files)
    if name.startswith(("/", ".", "original/")) or ".." in name.split("/") or name.endswith(NO_PART):
        return False
    return not name.endswith(OTHER_FORMS) and not (safe and name.endswith(".bin"))


def pieces(model: str, env: Mapping[str, str], folder: str, report: Callable[[str], None]) -> tuple[Piece, ...]:
    """The model's files, below ``folder`` as the hub's own client would lay them out, each read where it is needed."""
    commit, files = listing(model, env)
    found = []
    for file in files:
        path = f"resolve/{commit}/{quote(str(file['rfilename']))}"
        target = f"{folder}/snapshots/{commit}/{file['rfilename']}"
        large = file.get("lfs")
        if isinstance(large, dict):
            read = _reader(model, f"{quote(model)}/{path}", env)
            found.append(Piece(target, int(large["size"]), str(large["sha256"]), read))
        else:
            report(f"reading {file['rfilename']} of {model}")
            found.append(_small(model, f"{quote(model)}/{path}", target, str(file.get("blobId", "")), env))
    return (*found, literal(f"{folder}/refs/main", commit.encode()))


def literal(path: str, data: bytes) -> Piece:
    """A file out of memory."""
    return Piece(path, len(data), hashlib.sha256(data).hexdigest(), lambda offset: iter((data[offset:],)))


def _small(model: str, path: str, target: str, blob: str, env: Mapping[str, str]) -> Piece:
    """A file that Git holds itself: the hub tells Git's own digest of it."""
    with _get(model, path, env) as answer:
        data = answer.read(SMALL)
    own = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324  what Git uses
    if blob and own != blob:
        raise PreconditionFailed(f"{target} came from the hub with a wrong checksum", fix="run it again")
    return literal(target, data)


def _reader(model: str, path: str, env: Mapping[str, str]) -> Callable[[int], Iterator[bytes]]:
    def read(offset: int) -> Iterator[bytes]:
        with _get(model, path, env, offset) as answer:
            if offset and answer.status != 206:  # from the start all the same
                answer.read(offset)
            try:
                yield from iter(lambda: bytes(answer.read(FRAME)), b"")
            except (HTTPException, OSError) as error:
                raise _unanswered(model, error) from error

    return read


def _get(model: str, path: str, env: Mapping[str, str], offset: int = 0) -> Any:
    base = (env.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not base.startswith(("https://", "http://")):
        raise ConfigError(f"HF_ENDPOINT={base}: expected a web address", fix="unset HF_ENDPOINT")
    asked = Request(f"{base}/{path}", headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310  checked
    if token := next((env[key] for key in TOKENS if env.get(key)), ""):
        # The hub sends one on to where the files lie, and that is a stranger to the token.
        asked.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        return urlopen(asked, timeout=DEADLINE)  # noqa: S310  http or https
    except HTTPError as error:
        error.close()
        raise PreconditionFailed(
            f"the hub does not give {model}: it answers {error.code}",
            why="it is private, gated, or not there" if error.code in {401, 403, 404} else "",
            fix=f"look at {HUB}/{model}, set HUGGING_FACE_HUB_TOKEN; or name the model's folder",
        ) from error
    except (URLError, HTTPException, OSError) as error:
        raise _unanswered(model, error) from error


def _unanswered(model: str, error: Exception) -> PreconditionFailed:
    why = str(getattr(error, "reason", error)) or type(error).__name__
    return PreconditionFailed(
        f"the hub stopped giving {model}, or cannot be asked",
        why=why,
        fix="run it again: it goes on where it stood; or name the model's folder",
    )
