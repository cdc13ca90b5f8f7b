"""Checks of host, container, environment and runtime: where each passes, fails, does not apply, and cannot tell."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from shoal.checks import container, environment, environment_devices, environment_node, host, host_kernel, runtime
from shoal.checks.base import Check, Status
from shoal.facts.container import ContainerFacts, DockerFacts
from shoal.facts.gpu import Gpu, GpuFacts
from shoal.facts.machine import Disk, Limit, MachineFacts, PciBridge, Stuck
from shoal.facts.net import Address, Netdev, NetFacts, Route
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice, RdmaFacts, RdmaPort
from shoal.facts.stack import RayProcess, StackFacts

OK, WARN, FAIL, SKIP, UNKNOWN = Status.OK, Status.WARN, Status.FAIL, Status.SKIP, Status.UNKNOWN
GIB = 1 << 30
CHECKS: dict[str, Check[NodeFacts]] = {
    item.id: item
    for module in (host, host_kernel, container, environment, environment_devices, environment_node, runtime)
    for item in module.CHECKS
}
PORT = RdmaPort(1, "ACTIVE", "LinkUp", "Ethernet", 200.0)
HCA = RdmaDevice("mlx5_0", (PORT,), netdevs=("eth1",), driver="mlx5_core", vendor="0x15b3", uverbs="uverbs0")
HCA2 = replace(HCA, name="mlx5_1", netdevs=("eth2",), uverbs="uverbs1")
DOWN = replace(HCA, ports=(replace(PORT, state="DOWN"),))
RDMA = RdmaFacts((HCA,), nodes=("rdma_cm", "uverbs0"), cards={"0000:01:00.0": "0x15b3"})
TWO = RdmaFacts((HCA, HCA2))
NO_RDMA = RdmaFacts((), cards={})
GPUS = GpuFacts((Gpu(0, "NVIDIA H100", 81559), Gpu(1, "NVIDIA H100", 81559)), cards=("0000:18:00.0", "0000:2a:00.0"))
SPARK = GpuFacts((Gpu(0, "NVIDIA GB10", None),))
LO = Netdev("lo", kind="loopback", addresses=(Address("127.0.0.1", 8, "host"),))


def dev(name: str, *ips: str, **more: Any) -> Netdev:
    addresses = tuple(Address(ip, 24) for ip in ips)
    return Netdev(name, kind="physical", operstate="up", running=True, addresses=addresses, **more)


NET = NetFacts((LO, dev("eth0", "10.0.0.2"), dev("eth1", "192.168.100.2"), dev("eth2", "192.168.101.2")))
TWINS = (dev("eth1", "10.1.0.2", arp_ignore=0), dev("eth2", "10.1.0.3", arp_ignore=0))


def node(**facts: Any) -> NodeFacts:
    return NodeFacts("gx1", **facts)


def machine(**fields: Any) -> dict[str, Any]:
    return {"machine": MachineFacts(**fields)}


def inside(**fields: Any) -> ContainerFacts:
    return ContainerFacts(inside="docker", **fields)


def env(text: str, **facts: Any) -> NodeFacts:
    """A node with an environment, written as ``A=1 B=2``."""
    return node(env=dict(word.partition("=")[::2] for word in text.split()), net=facts.pop("net", NET), **facts)


def locked(soft: int | None) -> dict[str, Any]:
    return machine(limits={"Max locked memory": Limit(soft, soft)})


def memory(**kinds: int) -> dict[str, Any]:
    return machine(memory={name: size * GIB for name, size in kinds.items()})


def listening(*sockets: tuple[str, int]) -> NetFacts:
    return replace(NET, listening=sockets)


def walled(rules: str | None, *sockets: tuple[str, int]) -> NetFacts:
    return replace(NET, listening=sockets, firewall=rules)


def running(*kinds: str) -> StackFacts:
    return StackFacts(processes=tuple(RayProcess(10 + at, kind) for at, kind in enumerate(kinds)))


BARE = node()
CASES: dict[str, list[tuple[NodeFacts, Status]]] = {
    "host.memlock": [
        (node(rdma=RDMA, **locked(None)), OK),
        (node(rdma=RDMA, **locked(8 << 20)), FAIL),
        (node(rdma=RDMA, **locked(4 * GIB)), WARN),
        (node(rdma=RDMA, container=inside(capabilities=frozenset({"IPC_LOCK"})), **locked(8 << 20)), OK),
        (node(rdma=NO_RDMA, **locked(8 << 20)), SKIP),
        (node(rdma=RDMA), UNKNOWN),
    ],
    "host.open-files": [
        (node(**machine(limits={"Max open files": Limit(1024, 1048576)})), OK),
        (node(**machine(limits={"Max open files": Limit(1024, 4096)})), WARN),
        (BARE, UNKNOWN),
    ],
    "host.process-limit": [
        (node(container=inside(pids_limited=True, pids_max=2048)), FAIL),
        (node(container=inside(pids_limited=False)), OK),
        (BARE, UNKNOWN),
    ],
    "host.shm": [
        (node(**machine(shm_total=64 << 20)), FAIL),
        (node(**machine(shm_total=8 * GIB)), OK),
        (BARE, UNKNOWN),
    ],
    "host.shm-free": [
        (node(**machine(shm_total=8 * GIB, shm_free=100)), WARN),
        (node(**machine(shm_total=8 * GIB, shm_free=7 * GIB)), OK),
        (BARE, UNKNOWN),
    ],
    "host.memory": [
        (node(**memory(MemTotal=128, MemAvailable=100)), OK),
        (node(**memory(MemTotal=128, MemAvailable=1)), WARN),
        (node(gpu=SPARK, **memory(MemTotal=120, MemAvailable=40)), WARN),
        (BARE, UNKNOWN),
    ],
    "host.swap": [
        (node(gpu=SPARK, **memory(SwapTotal=8, SwapFree=8)), OK),
        (node(gpu=SPARK, **memory(SwapTotal=8, SwapFree=2)), WARN),
        (node(gpu=GPUS, **memory(SwapTotal=8, SwapFree=2)), SKIP),
        (node(gpu=SPARK), UNKNOWN),
    ],
    "host.disk": [
        (node(**machine(disks=(Disk("/", 100 * GIB, 50 * GIB),))), OK),
        (node(**machine(disks=(Disk("/", 100 * GIB, 6 * GIB),))), WARN),
        (node(**machine(disks=(Disk("/", 100 * GIB, 50 * GIB), Disk("/models", 100 * GIB, 1000)))), FAIL),
        (BARE, UNKNOWN),
    ],
    "host.hostname": [
        (node(**machine(hostname="gx1", hostname_addresses=("192.168.100.2",))), OK),
        (node(rdma=RDMA, **machine(hostname="gx1", hostname_addresses=("127.0.1.1",))), FAIL),
        (env("RAY_MODE=worker", **machine(hostname="gx1", hostname_addresses=("127.0.1.1",))), FAIL),
        (
            env("RAY_MODE=worker\nVLLM_HOST_IP=127.0.0.2", **machine(hostname="a", hostname_addresses=("127.0.1.1",))),
            OK,
        ),
        (node(gpu=GPUS, **machine(hostname="gx1", hostname_addresses=("127.0.1.1",))), WARN),
        (node(**machine(hostname="laptop", hostname_addresses=("127.0.1.1",))), WARN),
        (node(env={"GLOO_SOCKET_IFNAME": "eth1"}, **machine(hostname="a", hostname_addresses=("127.0.1.1",))), OK),
        (BARE, UNKNOWN),
    ],
    "host.rp-filter": [
        (node(rdma=TWO, net=NetFacts((dev("eth1", rp_filter=2), dev("eth2", rp_filter=0)), rp_filter_all=0)), OK),
        (node(rdma=TWO, net=NetFacts((dev("eth1", rp_filter=0), dev("eth2", rp_filter=0)), rp_filter_all=1)), WARN),
        (node(rdma=RDMA, net=NET), SKIP),
        (node(rdma=TWO, net=NET), UNKNOWN),
    ],
    "host.arp": [
        (node(rdma=TWO, net=NetFacts(TWINS, arp_ignore_all=1)), OK),
        (node(rdma=TWO, net=NetFacts(TWINS)), WARN),
        (node(rdma=TWO, net=NET), SKIP),
        (node(rdma=TWO, net=NetFacts(tuple(replace(item, arp_ignore=None) for item in TWINS))), UNKNOWN),
    ],
    "host.port-range": [
        (node(net=NetFacts(port_range=(32768, 60999))), OK),
        (node(net=NetFacts(port_range=(60000, 60999))), FAIL),
        (BARE, UNKNOWN),
    ],
    "host.firewall": [
        (node(net=NetFacts(firewall="-P INPUT ACCEPT\n-P FORWARD DROP")), OK),
        (node(net=NetFacts(firewall="-P INPUT DROP\n")), WARN),
        (node(net=NetFacts(firewall="type filter hook input priority filter; policy drop;")), WARN),
        (BARE, UNKNOWN),
    ],
    "host.ports-free": [
        (node(net=listening(("127.0.0.1", 22))), OK),
        (node(gpu=GPUS, net=listening(("0.0.0.0", 6379))), FAIL),
        (node(net=listening(("127.0.0.1", 8000))), WARN),
        (node(net=listening(("0.0.0.0", 6379)), stack=running("raylet")), SKIP),
        (BARE, UNKNOWN),
    ],
    "host.wireless": [
        (node(**machine(default_route_wireless=False)), OK),
        (node(gpu=GPUS, **machine(default_route_wireless=True)), WARN),
        (node(env={"VLLM_HOST_IP": "192.168.100.2"}, **machine(default_route_wireless=True)), OK),
        (node(**machine(default_route_wireless=True)), SKIP),
        (BARE, UNKNOWN),
    ],
    "host.gpu-count": [(node(gpu=GPUS, env={"CUDA_VISIBLE_DEVICES": "0"}), OK), (BARE, SKIP)],
    "host.rdma-modules": [
        (node(rdma=RDMA, **machine(modules=host_kernel.RDMA_MODULES)), OK),
        (node(rdma=RDMA, **machine(modules=("mlx5_core",))), FAIL),
        (node(rdma=NO_RDMA, **machine(modules=())), SKIP),
        (node(rdma=RDMA), UNKNOWN),
    ],
    "host.gpu-modules": [
        (node(gpu=GPUS, **machine(modules=("nvidia", "nvidia_uvm"))), OK),
        (node(gpu=GPUS, **machine(modules=("nvidia",))), FAIL),
        (BARE, SKIP),
        (node(gpu=GPUS), UNKNOWN),
    ],
    "host.iommu": [
        (node(gpu=GPUS, rdma=RDMA, **machine(iommu="identity", virtual="")), OK),
        (node(gpu=GPUS, rdma=RDMA, **machine(iommu="DMA-FQ", virtual="")), WARN),
        (node(gpu=GPUS, rdma=RDMA, **machine(iommu="DMA-FQ", virtual="kvm")), SKIP),
        (node(gpu=GPUS, rdma=RDMA), UNKNOWN),
        (BARE, SKIP),
    ],
    "host.acs": [
        (node(gpu=GPUS, rdma=RDMA, **machine(virtual="", bridges=(PciBridge("0000:00:01.0", ("SrcValid",)),))), OK),
        (node(gpu=GPUS, rdma=RDMA, **machine(virtual="", bridges=(PciBridge("0000:00:01.0", ("ReqRedir",)),))), WARN),
        (node(gpu=GPUS, rdma=RDMA, **machine(virtual="kvm")), SKIP),
        (node(gpu=GPUS, rdma=RDMA), UNKNOWN),
    ],
    "host.numa-balancing": [
        (node(gpu=GPUS, **machine(numa_nodes=2, sysctls={"kernel.numa_balancing": "0"})), OK),
        (node(gpu=GPUS, **machine(numa_nodes=2, sysctls={"kernel.numa_balancing": "1"})), WARN),
        (node(gpu=GPUS, **machine(numa_nodes=1, sysctls={"kernel.numa_balancing": "1"})), SKIP),
        (node(gpu=GPUS, **machine(numa_nodes=2)), UNKNOWN),
    ],
    "host.clock": [
        (node(**machine(clock_synchronised=True)), OK),
        (node(gpu=GPUS, **machine(clock_synchronised=False)), WARN),
        (node(**machine(clock_synchronised=False)), SKIP),
        (BARE, UNKNOWN),
    ],
    "host.clocksource": [
        (node(**machine(clocksource="tsc")), OK),
        (node(**machine(clocksource="hpet")), WARN),
        (BARE, UNKNOWN),
    ],
    "host.governor": [(node(**machine(governor="powersave")), OK), (BARE, SKIP)],
    "host.hugepages": [(node(**machine(transparent_hugepages="always")), OK), (BARE, UNKNOWN)],
    "host.reboot": [
        (node(**machine(reboot_required=False)), OK),
        (node(**machine(reboot_required=True)), WARN),
        (BARE, UNKNOWN),
    ],
    "host.stuck": [
        (node(**machine(stuck=())), OK),
        (node(**machine(stuck=tuple(Stuck(pid, "nvidia-smi", "D") for pid in range(4)))), WARN),
        (node(**machine(stuck=tuple(Stuck(pid, "sh", "Z") for pid in range(101)))), WARN),
        (BARE, UNKNOWN),
    ],
    "host.oom": [
        (node(**machine(kernel_log=("eth0: link up",))), OK),
        (node(**machine(kernel_log=("Out of memory: Killed process 77 (ray::Rank)",))), WARN),
        (BARE, UNKNOWN),
    ],
    "host.denials": [
        (node(**machine(kernel_log=('apparmor="DENIED" profile="snap.firefox" comm="firefox"',))), OK),
        (node(**machine(kernel_log=('apparmor="DENIED" profile="docker-default" comm="raylet"',))), WARN),
        (BARE, UNKNOWN),
    ],
    "host.moving-gids": [
        (env("NCCL_IB_GID_INDEX=3", rdma=RDMA), OK),
        (
            env(
                "NCCL_IB_GID_INDEX=3",
                rdma=RDMA,
                net=NetFacts((dev("eth1", "192.168.100.2", "2001:db8::1", "2001:db8::2"),)),
            ),
            WARN,
        ),
        (env("NCCL_DEBUG=INFO", rdma=RDMA), SKIP),
        (env("NCCL_IB_GID_INDEX=3", rdma=RDMA, net=NetFacts()), UNKNOWN),
        (BARE, UNKNOWN),
    ],
    "container.kind": [(node(container=inside()), OK), (BARE, UNKNOWN)],
    "container.connection-manager": [
        (node(rdma=RDMA), OK),
        (node(rdma=replace(RDMA, nodes=("uverbs0",))), WARN),
        (node(rdma=NO_RDMA), SKIP),
        (node(rdma=replace(RDMA, nodes=None)), UNKNOWN),
    ],
    "container.ipc-lock": [
        (node(rdma=RDMA, container=inside(capabilities=frozenset({"IPC_LOCK"}))), OK),
        (node(rdma=RDMA, container=inside(capabilities=frozenset()), **locked(8 << 20)), FAIL),
        (node(rdma=RDMA, container=ContainerFacts(inside="")), SKIP),
        (node(rdma=RDMA, container=inside()), UNKNOWN),
    ],
    "container.nice": [
        (node(container=inside(capabilities=frozenset())), OK),
        (node(container=inside()), UNKNOWN),
        (node(container=ContainerFacts(inside="")), SKIP),
    ],
    "container.host-network": [
        (node(container=inside(host_network=True)), OK),
        (node(rdma=RDMA, container=inside(host_network=False)), FAIL),
        (node(container=inside(host_network=False)), WARN),
        (node(container=inside()), UNKNOWN),
        (node(container=ContainerFacts(inside="")), SKIP),
    ],
    "container.gpus": [
        (node(gpu=GPUS, container=inside()), OK),
        (node(gpu=replace(GPUS, gpus=()), container=inside()), FAIL),
        (node(gpu=GpuFacts(cards=()), container=inside()), SKIP),
        (node(container=inside()), UNKNOWN),
    ],
    "container.sysfs": [
        (node(container=inside(pci_visible=True)), OK),
        (node(container=inside(pci_visible=False)), WARN),
        (node(container=inside()), UNKNOWN),
        (node(container=ContainerFacts(inside="")), SKIP),
    ],
    "container.rdma-core": [
        (node(rdma=RDMA, container=inside(libibverbs="/usr/lib/libibverbs.so.1")), OK),
        (node(rdma=RDMA, container=inside(libibverbs="")), FAIL),
        (node(rdma=NO_RDMA), SKIP),
        (node(rdma=RDMA), UNKNOWN),
    ],
    "container.seccomp": [
        (node(container=inside(seccomp="filter")), OK),
        (node(container=inside()), UNKNOWN),
        (node(container=ContainerFacts(inside="")), SKIP),
    ],
    "container.rootless": [
        (node(container=inside(user_namespace=False)), OK),
        (node(container=inside(user_namespace=True)), WARN),
        (node(container=inside()), UNKNOWN),
        (node(container=ContainerFacts(inside="")), SKIP),
    ],
    "container.rdma-limit": [
        (node(rdma=RDMA, container=inside(rdma_max="mlx5_0 hca_handle=max hca_object=max")), OK),
        (node(rdma=RDMA, container=inside(rdma_max="mlx5_0 hca_handle=2 hca_object=2000")), FAIL),
        (node(rdma=NO_RDMA), SKIP),
        (node(rdma=RDMA), UNKNOWN),
    ],
    "container.memory-limit": [
        (node(container=inside(memory_max=64 * GIB)), OK),
        (node(container=inside(memory_max=GIB)), WARN),
        (node(container=ContainerFacts(inside="")), SKIP),
        (BARE, UNKNOWN),
    ],
    "container.docker": [
        (node(docker=DockerFacts(installed=True, running=True, version="28.2.2")), OK),
        (node(docker=DockerFacts(installed=True, running=False, trouble="Cannot connect to the Docker daemon")), WARN),
        (node(docker=DockerFacts(installed=True, running=False, trouble="permission denied")), UNKNOWN),
        (node(docker=DockerFacts(installed=False)), SKIP),
        (BARE, UNKNOWN),
    ],
    "container.nvidia-runtime": [
        (node(gpu=GPUS, docker=DockerFacts(installed=True, running=True, runtimes=("nvidia", "runc"))), OK),
        (node(gpu=GPUS, docker=DockerFacts(installed=True, running=True, runtimes=("runc",))), FAIL),
        (node(gpu=GPUS, docker=DockerFacts(installed=True, running=True)), UNKNOWN),
        (BARE, SKIP),
    ],
    "container.toolkit": [
        (node(gpu=GPUS, docker=DockerFacts(installed=True, toolkit="1.17.8")), OK),
        (node(gpu=GPUS, docker=DockerFacts(installed=True, toolkit="")), WARN),
        (node(gpu=GPUS, docker=DockerFacts(installed=True)), UNKNOWN),
        (BARE, SKIP),
    ],
    "container.compose": [
        (node(docker=DockerFacts(installed=True, compose="v2.40.0")), OK),
        (node(docker=DockerFacts(installed=True, compose="")), WARN),
        (node(docker=DockerFacts(installed=True)), UNKNOWN),
        (BARE, SKIP),
    ],
    "env.nccl-names": [
        (env("NCCL_IB_HCA==mlx5_0"), OK),
        (env("NCCL_IB_HCAS=mlx5_0"), FAIL),
        (env("A=1"), SKIP),
        (BARE, UNKNOWN),
    ],
    "env.nccl-version": [
        (env("NCCL_IB_MERGE_NICS=0", stack=StackFacts(nccl="2.27.3")), OK),
        (env("NCCL_IB_SUBNET_AWARE_ROUTING=1", stack=StackFacts(nccl="2.27.3")), WARN),
    ],
    "env.foreign-names": [(env("NCCL_DEBUG=WARN"), OK), (env("NCCL_TIMEOUT=60"), WARN)],
    "env.nccl-integers": [(env("NCCL_IB_TIMEOUT=23"), OK), (env("NCCL_IB_DISABLE=true"), FAIL)],
    "env.nccl-words": [(env("NCCL_DEBUG=INFO"), OK), (env("NCCL_DEBUG=LOUD"), FAIL)],
    "env.hca-list": [(env("NCCL_IB_HCA=^=mlx5_0"), OK), (env("NCCL_IB_HCA==^mlx5_0"), FAIL)],
    "env.hca-prefix": [(env("NCCL_IB_HCA==mlx5_1"), OK), (env("NCCL_IB_HCA=mlx5_1"), WARN)],
    "env.interface-list": [(env("NCCL_SOCKET_IFNAME=eth1"), OK), (env("NCCL_SOCKET_IFNAME=192.168.100.2"), FAIL)],
    "env.gid-index": [
        (env("NCCL_IB_GID_INDEX=-1"), OK),
        (env("NCCL_IB_GID_INDEX=3", stack=StackFacts(nccl="2.27.3")), WARN),
        (env("NCCL_IB_GID_INDEX=3", stack=StackFacts(nccl="2.20.5")), OK),
    ],
    "env.traffic-class": [(env("NCCL_IB_TC=106"), OK), (env("NCCL_IB_TC=104"), WARN)],
    "env.service-level": [
        (env("NCCL_IB_SL=3 NCCL_IB_HCA=mlx5_0"), OK),
        (env("NCCL_IB_SL=3 NCCL_IB_HCA=rocep1s0f0"), WARN),
    ],
    "env.ib-timeout": [(env("NCCL_IB_TIMEOUT=23"), OK), (env("NCCL_IB_TIMEOUT=14"), WARN)],
    "env.contradictions": [
        (env("NCCL_IB_DISABLE=0 NCCL_IB_HCA=mlx5_0"), OK),
        (env("NCCL_IB_DISABLE=1 NCCL_IB_HCA=mlx5_0"), WARN),
        (env("NCCL_IB_DISABLE=1 NCCL_NET=IB"), FAIL),
    ],
    "env.leftovers": [(env("NCCL_P2P_DISABLE=0"), OK), (env("NCCL_P2P_DISABLE=1"), WARN)],
    "env.plain-names": [(env("GLOO_SOCKET_IFNAME=eth1"), OK), (env("GLOO_SOCKET_IFNAME==eth1"), FAIL)],
    "env.cuda-visible": [(env("CUDA_VISIBLE_DEVICES=0,1"), OK), (env("CUDA_VISIBLE_DEVICES=first"), FAIL)],
    "env.quotes": [(env("NCCL_DEBUG=INFO"), OK), (env('NCCL_DEBUG=INFO"'), WARN)],
    "env.names": [(env("SHOAL_AGENT_PORT=8700"), OK), (env("SHOAL_AGNET_PORT=8700"), FAIL)],
    "env.values": [(env("SHOAL_AGENT_PORT=8700"), OK), (env("SHOAL_AGENT_PORT=many"), FAIL)],
    "env.node": [
        (env("RAY_MODE=worker VLLM_HOST_IP=10.0.0.2 RAY_ADDRESS=10.0.0.1:6379"), OK),
        (env("RAY_MODE=worker VLLM_HOST_IP=10.0.0.2"), FAIL),
    ],
    "env.worker-variables": [
        (env("VLLM_RAY_WORKER_ENV_VARS=NCCL_DEBUG NCCL_DEBUG=INFO"), OK),
        (env("VLLM_RAY_WORKER_ENV_VARS=NCCL_DEBUG"), WARN),
    ],
    "env.ib-disable": [
        (env("NCCL_IB_DISABLE=0", rdma=RDMA), OK),
        (env("NCCL_IB_DISABLE=1", rdma=RDMA), FAIL),
        (env("NCCL_IB_DISABLE=1", rdma=NO_RDMA), SKIP),
        (env("A=1", rdma=RDMA), SKIP),
        (BARE, UNKNOWN),
    ],
    "env.net": [
        (env("NCCL_NET=IB", rdma=RDMA), OK),
        (env("NCCL_NET=IB", rdma=NO_RDMA), FAIL),
        (env("NCCL_NET=Socket", rdma=RDMA), WARN),
        (BARE, UNKNOWN),
    ],
    "env.hca-exists": [
        (env("NCCL_IB_HCA==mlx5_0", rdma=RDMA), OK),
        (env("NCCL_IB_HCA=roceP2p1s0f0", rdma=RDMA), FAIL),
        (env("NCCL_IB_HCA==mlx5_0", rdma=RdmaFacts((DOWN,))), FAIL),
        (env("NCCL_IB_HCA==mlx5_0,mlx5_7", rdma=RDMA), WARN),
        (env("NCCL_IB_HCA==mlx5_0"), UNKNOWN),
        (env("A=1", rdma=RDMA), SKIP),
    ],
    "env.interface-exists": [
        (env("NCCL_SOCKET_IFNAME==eth1"), OK),
        (env("NCCL_SOCKET_IFNAME=enP2p1s0f0np0"), FAIL),
        (env("NCCL_SOCKET_IFNAME=eth9", net=NetFacts((replace(dev("eth9", "10.0.0.9"), running=False),))), FAIL),
        (env("NCCL_SOCKET_IFNAME=eth9", net=NetFacts((dev("eth9"),))), FAIL),
        (env("NCCL_SOCKET_IFNAME=eth1", net=NetFacts()), UNKNOWN),
        (env("A=1"), SKIP),
    ],
    "env.interface-prefix": [
        (env("NCCL_SOCKET_IFNAME==eth1"), OK),
        (env("NCCL_SOCKET_IFNAME=eth1"), OK),
        (env("NCCL_SOCKET_IFNAME=eth"), WARN),
        (env("NCCL_SOCKET_IFNAME=eth", net=NetFacts()), UNKNOWN),
    ],
    "env.gloo-interface": [
        (env("GLOO_SOCKET_IFNAME=eth1"), OK),
        (env("GLOO_SOCKET_IFNAME=eth7"), FAIL),
        (env("VLLM_HOST_IP=192.168.100.2"), WARN),
        (env("VLLM_HOST_IP=10.0.0.2", net=NetFacts((LO, dev("eth0", "10.0.0.2")))), OK),
        (env("A=1"), SKIP),
        (BARE, UNKNOWN),
    ],
    "env.plugin": [
        (env("NCCL_NET_PLUGIN=/opt/libnccl-net.so", stack=StackFacts(plugin="/opt/libnccl-net.so")), OK),
        (env("NCCL_NET_PLUGIN=/opt/libnccl-net.so", stack=StackFacts(plugin="")), WARN),
        (env("NCCL_NET_PLUGIN=/opt/libnccl-net.so"), UNKNOWN),
        (env("NCCL_NET_PLUGIN=none"), OK),
    ],
    "env.gdr-level": [(env("NCCL_NET_GDR_LEVEL=5", gpu=SPARK), OK), (env("A=1"), SKIP)],
    "env.ucx-devices": [
        (env("UCX_NET_DEVICES=mlx5_0:1,eth1", rdma=RDMA), OK),
        (env("UCX_NET_DEVICES=mlx5_9:1", rdma=RDMA), WARN),
        (env("UCX_NET_DEVICES=mlx5_9:1"), UNKNOWN),
    ],
    "env.gpu-indices": [
        (env("CUDA_VISIBLE_DEVICES=0,1", gpu=GPUS), OK),
        (env("CUDA_VISIBLE_DEVICES=0,2", gpu=GPUS), FAIL),
        (env("CUDA_VISIBLE_DEVICES=0"), UNKNOWN),
    ],
    "env.host-ip": [
        (env("VLLM_HOST_IP=192.168.100.2"), OK),
        (env("VLLM_HOST_IP=192.168.100.77"), FAIL),
        (env("VLLM_HOST_IP=10.0.0.9", net=NetFacts((replace(dev("eth0", "10.0.0.9"), operstate="down"),))), FAIL),
        (env("VLLM_HOST_IP=10.0.0.9", net=NetFacts()), UNKNOWN),
        (env("A=1"), SKIP),
    ],
    "env.control-interface": [
        (env("VLLM_HOST_IP=192.168.100.2 NCCL_SOCKET_IFNAME==eth1"), OK),
        (env("VLLM_HOST_IP=192.168.100.2 NCCL_SOCKET_IFNAME==eth0"), WARN),
        (env("VLLM_HOST_IP=192.168.100.2", net=NetFacts()), UNKNOWN),
    ],
    "env.nccl-conf": [(node(stack=StackFacts(nccl_conf={"NCCL_DEBUG": "WARN"})), OK), (BARE, SKIP)],
    "env.subnet-aware": [
        (env("NCCL_IB_SUBNET_AWARE_ROUTING=1", stack=StackFacts(nccl="2.30.7")), OK),
        (env("NCCL_IB_SUBNET_AWARE_ROUTING=1", stack=StackFacts(nccl="2.27.3")), FAIL),
        (
            env(
                "NCCL_IB_SUBNET_AWARE_ROUTING=1",
                stack=StackFacts(nccl="2.30.7"),
                rdma=RdmaFacts((HCA, HCA2, replace(HCA, name="mlx5_2"))),
            ),
            WARN,
        ),
        (env("NCCL_IB_SUBNET_AWARE_ROUTING=1"), UNKNOWN),
    ],
    "env.debug": [(env("NCCL_DEBUG=TRACE"), OK), (env("A=1"), SKIP)],
    "env.net-mismatch": [(env("NCCL_IGNORE_NET_MISMATCH=0"), OK), (env("NCCL_IGNORE_NET_MISMATCH=1"), WARN)],
    "env.head-address": [
        (env("VLLM_HOST_IP=192.168.100.2 RAY_ADDRESS=192.168.100.1:6379"), OK),
        (env("VLLM_HOST_IP=192.168.100.2 RAY_ADDRESS=10.9.9.1:6379"), WARN),
        (env("RAY_ADDRESS=10.9.9.1:6379"), UNKNOWN),
    ],
    "env.preload": [
        (env("A=1"), OK),
        (env("LD_PRELOAD=/opt/libnccl.so.2"), WARN),
        (env("LD_LIBRARY_PATH=/opt", stack=StackFacts(nccl_libraries=("/a/libnccl.so.2", "/b/libnccl.so.2"))), WARN),
        (BARE, UNKNOWN),
    ],
    "env.ray-token": [
        (env("RAY_MODE=head RAY_AUTH_MODE=token"), OK),
        (env("RAY_MODE=head"), WARN),
        (env("RAY_MODE=head RAY_AUTH_MODE=token", stack=StackFacts(ray="2.49.1")), WARN),
        (env("A=1"), SKIP),
        (BARE, UNKNOWN),
    ],
    "env.secrets": [(env("A=1"), OK), (env("VLLM_API_KEY=x"), WARN), (BARE, UNKNOWN)],
    "env.api-key": [
        (env("MODEL_NAME=m SHOAL_API_KEY_FILE=/run/api.key"), OK),
        (env("MODEL_NAME=m"), FAIL),
        (env("A=1"), SKIP),
        (BARE, UNKNOWN),
    ],
    "env.api-host": [
        (env("SHOAL_API_HOST=10.0.0.2"), OK),
        (env("A=1"), OK),
        (env("SHOAL_API_HOST=0.0.0.0"), WARN),
        (env("SHOAL_API_HOST=::"), WARN),
        (BARE, UNKNOWN),
    ],
    "runtime.one-ray": [
        (node(stack=running("raylet")), OK),
        (node(stack=running("raylet", "raylet")), WARN),
        (BARE, UNKNOWN),
    ],
    "runtime.orphans": [
        (node(stack=running("raylet", "vllm")), OK),
        (node(stack=running("vllm")), WARN),
        (node(stack=running()), SKIP),
        (BARE, UNKNOWN),
    ],
    "runtime.gcs-open": [
        (node(net=listening(("127.0.0.1", 6379))), OK),
        (env("RAY_AUTH_MODE=token", net=listening(("0.0.0.0", 6379))), OK),
        (env("A=1", net=listening(("::", 6379))), FAIL),
        (node(net=listening(("0.0.0.0", 6379))), UNKNOWN),
        (node(net=listening()), SKIP),
        (BARE, UNKNOWN),
    ],
    "runtime.dashboard-open": [
        (node(net=listening(("127.0.0.1", 8265))), OK),
        (node(net=listening(("0.0.0.0", 8265))), WARN),
        (BARE, UNKNOWN),
    ],
    "runtime.agents-open": [
        (node(net=listening(("10.0.0.2", 8700), ("127.0.0.1", 8701))), OK),
        (node(net=listening(("0.0.0.0", 8701))), WARN),
        (BARE, UNKNOWN),
    ],
    "runtime.firewall": [
        (node(net=walled("table inet shoal {", ("::", 27001), ("0.0.0.0", 6379))), OK),
        (node(net=walled("table ip filter {", ("::", 27099))), WARN),
        (env("SHOAL_PORT_BASE=30000", net=walled("", ("0.0.0.0", 30001))), WARN),
        (env("SHOAL_PORT_BASE=30000", net=walled("", ("0.0.0.0", 27001))), SKIP),
        (node(net=walled("", ("10.0.0.2", 6379))), SKIP),
        (node(net=walled(None, ("0.0.0.0", 6379))), UNKNOWN),
        (BARE, UNKNOWN),
    ],
    "runtime.api-open": [
        (node(net=listening(("10.0.0.2", 8000)), stack=running("vllm")), OK),
        (node(net=listening(("0.0.0.0", 8000)), stack=running("vllm")), WARN),
        (node(net=listening(("0.0.0.0", 8000))), SKIP),
        (BARE, UNKNOWN),
    ],
}
ROWS = [(id_, at) for id_, rows in CASES.items() for at in range(len(rows))]
# They inform, and cannot fail.
INFORM = {item.id for item in CHECKS.values() if item.severity == "info"}


@pytest.mark.parametrize(("id_", "at"), ROWS, ids=[f"{id_}-{at}" for id_, at in ROWS])
def test_a_check_judges_its_facts(id_: str, at: int) -> None:
    """Each row's facts get the row's status; what is wrong comes with evidence and a fix."""
    facts, status = CASES[id_][at]
    finding = CHECKS[id_].run(facts)
    assert finding.status is status, finding
    assert status is OK or finding.evidence, finding
    assert status not in {WARN, FAIL} or finding.fix, finding


def test_every_check_is_seen_to_pass_and_to_fail() -> None:
    """No check of these groups can only pass, but for those that inform."""
    seen: dict[str, set[Status]] = defaultdict(set)
    for id_, rows in CASES.items():
        seen[id_] = {status for _, status in rows}
    assert set(seen) == set(CHECKS)
    assert [id_ for id_, found in seen.items() if OK not in found] == []
    assert sorted(id_ for id_, found in seen.items() if not found & {WARN, FAIL}) == sorted(INFORM)


def test_a_machine_of_which_nothing_is_known_fails_nothing() -> None:
    """Without a single fact every check says that it cannot tell, or does not apply."""
    assert {item.run(BARE).status for item in CHECKS.values()} <= {UNKNOWN, SKIP}


def test_a_laptop_fails_nothing() -> None:
    """A plain machine with 127.0.1.1, Wi-Fi, 8 MiB of lockable memory and no RDMA has no FAIL."""
    laptop = node(
        rdma=NO_RDMA,
        gpu=GpuFacts((), installed=False, cards=()),
        net=NetFacts((LO, dev("wlan0", "192.168.1.7")), (Route("default", "wlan0"),), listening=(("127.0.0.1", 631),)),
        container=ContainerFacts(inside="", capabilities=frozenset(), pids_limited=False),
        docker=DockerFacts(installed=False),
        stack=StackFacts(processes=()),
        env={"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/opt/lib"},
        machine=MachineFacts(
            hostname="laptop",
            hostname_addresses=("127.0.1.1",),
            limits={"Max locked memory": Limit(8 << 20, 8 << 20), "Max open files": Limit(1024, 1048576)},
            shm_total=8 * GIB,
            default_route_wireless=True,
            clock_synchronised=False,
            virtual="",
            modules=("ext4",),
        ),
    )
    assert [item.id for item in CHECKS.values() if item.run(laptop).status is FAIL] == []
