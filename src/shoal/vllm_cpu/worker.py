"""The CPU worker, able to run pipeline parallel without compiling."""

from vllm.config import CompilationMode
from vllm.distributed import get_pp_group
from vllm.v1.worker.cpu_worker import CPUWorker


class PipelineCpuWorker(CPUWorker):
    """Stock CPU worker that always runs one profiling pass when the model is split over a pipeline.

    The pass allocates the buffers which later stages receive activations into. Stock vLLM skips it in eager mode, and
    the first request then kills the engine (`assert self.intermediate_tensors is not None`). Eager mode needs no
    C++ compiler and saves about 40 s at start on two cores.
    """

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache of this rank."""
        eager = self.compilation_config.mode == CompilationMode.NONE
        if eager and get_pp_group().world_size > 1:
            self.model_runner.profile_run()
        return super().determine_available_memory()
