"""vLLM's arguments: what the plan decides, then what the registry says. Pure."""

from collections.abc import Mapping

from shoal.plan.models import option_arguments
from shoal.plan.parallel import Parallel
from shoal.spec.registry import Option
from shoal.state.status import ExecutorKind

KV_CACHE_BYTES = 512 << 20
# What the registry does not say. Without compilation no C++ compiler is needed, and the first start is about 40 s
# shorter on two cores.
CPU_DEFAULTS: dict[str, Option] = {"compilation-config": '{"mode": 0}', "kv-cache-memory-bytes": KV_CACHE_BYTES}
GUARD = "shoal.engine.guard.KeyGuard"


def arguments(
    model: str,
    key: str,
    host: str,
    port: int,
    parallel: Parallel,
    options: Mapping[str, Option],
    executor: ExecutorKind = ExecutorKind.RAY,
) -> tuple[str, ...]:
    """The words after vLLM's server: ``model`` is what it loads, ``key`` the name that clients know it by."""
    return (
        "--model", model,
        "--served-model-name", key,
        "--host", host,
        "--port", str(port),
        "--middleware", GUARD,
        "--distributed-executor-backend", executor.value,
        "--pipeline-parallel-size", str(parallel.pipeline),
        "--tensor-parallel-size", str(parallel.tensor),
        *option_arguments(options),
    )  # fmt: skip
