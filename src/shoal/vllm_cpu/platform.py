"""vLLM's CPU platform with what it lacks to run under Ray."""

from typing import Any

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):
    """Stock CPU platform, offered to Ray under the resource name that vLLM asks Ray for."""

    # `ray start --num-gpus=1` offers "GPU" as a logical resource; vLLM places one rank on each.
    ray_device_key = "GPU"

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        """Use the communicator that looks at host names before it takes shared memory."""
        return "shoal.vllm_cpu.communicator.HostAwareCpuCommunicator"

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Let the stock platform decide, then run our worker in place of its own."""
        super().check_and_update_config(vllm_config)
        parallel = vllm_config.parallel_config
        if parallel.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker":
            parallel.worker_cls = "shoal.vllm_cpu.worker.PipelineCpuWorker"
