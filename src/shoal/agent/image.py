"""What an image must bring: a vLLM, and the Ray that its ranks on other nodes need. Asked before anything starts."""

from shoal.errors import PreconditionFailed
from shoal.state.status import Versions


def require(found: Versions) -> None:
    """Raise PreconditionFailed, by name, for what the image lacks. vLLM itself has no Ray in it since 0.18."""
    if found.vllm is None:
        raise PreconditionFailed("there is no vLLM in this image", fix="set SHOAL_IMAGE to an image with vLLM and Ray")
    if found.ray is None:
        raise PreconditionFailed(
            f"there is no Ray in this image, beside vLLM {found.vllm}",
            why="vLLM's ranks on several nodes live in Ray",
            fix="set SHOAL_IMAGE to an image with Ray, or build one: FROM the image, RUN pip install 'ray>=2.48'",
        )
