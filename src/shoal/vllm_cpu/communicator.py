"""Shared memory between the ranks of one host, Gloo between hosts."""

import socket

import torch
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class HostAwareCpuCommunicator(CpuCommunicator):
    """Stock CPU communicator that takes shared memory only where all ranks share a host.

    Stock vLLM compares a port number, which is equal on every host, and then waits for ever for a segment that
    another host has made.
    """

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        hosts = [""] * self.world_size
        torch.distributed.all_gather_object(hosts, socket.gethostname(), group=self.device_group)
        return len(set(hosts)) == 1 and super()._all_group_ranks_share_shm_group_name()
