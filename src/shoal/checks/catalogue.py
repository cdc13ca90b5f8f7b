"""All checks of the doctor, collected from the modules that hold them."""

from shoal.checks import (
    container,
    cross,
    cross_fabric,
    environment,
    environment_devices,
    environment_node,
    gpu,
    gpu_health,
    gpu_links,
    host,
    host_kernel,
    rdma,
    rdma_counters,
    rdma_hardware,
    rdma_ports,
    roce,
    roce_net,
    roce_quality,
    runtime,
    stacks,
)
from shoal.checks.base import Check
from shoal.facts.node import Fleet, NodeFacts

CHECKS: tuple[Check[NodeFacts], ...] = (
    *gpu.CHECKS,
    *gpu_health.CHECKS,
    *gpu_links.CHECKS,
    *rdma.CHECKS,
    *rdma_ports.CHECKS,
    *rdma_hardware.CHECKS,
    *rdma_counters.CHECKS,
    *roce.CHECKS,
    *roce_net.CHECKS,
    *roce_quality.CHECKS,
    *stacks.CHECKS,
    *host.CHECKS,
    *host_kernel.CHECKS,
    *container.CHECKS,
    *environment.CHECKS,
    *environment_devices.CHECKS,
    *environment_node.CHECKS,
    *runtime.CHECKS,
)
FLEET_CHECKS: tuple[Check[Fleet], ...] = (*cross.FLEET_CHECKS, *cross_fabric.FLEET_CHECKS)
EVERY: tuple[Check[NodeFacts] | Check[Fleet], ...] = (*CHECKS, *FLEET_CHECKS)
