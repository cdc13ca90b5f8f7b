"""Rows of the table that NCCL reads, and those that follow the fabric as NCCL does."""

from shoal.spec.variable import Reader, Variable

_BOTH: tuple[Reader, ...] = ("agent", "serve")
_LEVELS = "`LOC`, `NVL`, `PIX`, `PXB`, `PHB` or `SYS`, or their old numbers 0 to 5"

NCCL = (
    Variable(
        "NCCL_IB_HCA",
        "text",
        "",
        ("nccl",),
        "RDMA devices; `=` in front: exact names, `^`: all but these, neither: names that begin so",
        auto=True,
        per_node=True,
    ),
    Variable(
        "NCCL_SOCKET_IFNAME",
        "text",
        "",
        ("nccl",),
        "network interfaces, in the same form as `NCCL_IB_HCA`",
        auto=True,
        per_node=True,
    ),
    Variable(
        "NCCL_NET_GDR_LEVEL",
        "text",
        "",
        ("nccl",),
        f"how far GPU and NIC may be apart for GPUDirect RDMA: {_LEVELS}",
        auto=True,
    ),
    Variable("NCCL_IB_DISABLE", "switch", "", ("nccl",), "1: no RDMA, sockets instead", auto=True),
    Variable(
        "NCCL_IB_GID_INDEX",
        "integer",
        "",
        ("nccl",),
        "slot of the GID table. Leave it out from NCCL 2.21 on: NCCL finds the RoCE v2 slot itself",
        low=-1,
        high=255,
        auto=True,
        per_node=True,
    ),
    Variable(
        "NCCL_CROSS_NIC",
        "integer",
        "",
        ("nccl",),
        "0: rings stay on one rail; 1: they may cross; 2: NCCL chooses",
        low=0,
        high=2,
        auto=True,
    ),
    Variable(
        "NCCL_DEBUG",
        "choice",
        "",
        ("nccl",),
        "how much NCCL tells",
        choices=("VERSION", "WARN", "INFO", "ABORT", "TRACE"),
        auto=True,
    ),
    Variable(
        "NCCL_DEBUG_SUBSYS",
        "text",
        "",
        ("nccl",),
        "of what NCCL tells: `INIT,NET,...`; `^` in front: all but these",
        auto=True,
    ),
    Variable(
        "NCCL_NET_PLUGIN",
        "path",
        "",
        ("nccl",),
        "network plugin, for example `/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so`. Devices and GID are then "
        "chosen by the plugin, not by NCCL",
    ),
    Variable(
        "NCCL_IB_TC",
        "integer",
        "",
        ("nccl",),
        "traffic class: DSCP times 4, plus the ECN bits. 106 is DSCP 26 with ECN bits 10",
        low=-1,
        high=255,
    ),
    Variable(
        "NCCL_IB_SL",
        "integer",
        "",
        ("nccl",),
        "service level, on InfiniBand. On RoCE it is the 802.1p priority, and needs a VLAN tag",
        low=-1,
        high=15,
    ),
    Variable(
        "NCCL_IB_TIMEOUT",
        "integer",
        "",
        ("nccl",),
        "RDMA acknowledge timeout: 4.096 µs times 2 to this power",
        low=0,
        high=31,
    ),
    Variable("NCCL_IB_RETRY_CNT", "integer", "", ("nccl",), "RDMA retries before NCCL gives up", low=0, high=7),
)

FABRIC = (
    Variable(
        "VLLM_RAY_WORKER_ENV_VARS",
        "names",
        "",
        _BOTH,
        "variables that Ray's workers must have; default: every `NCCL_*` of this table. vLLM does not know this name: "
        "each agent gives its own node's values to its Ray; the supervisor lets vLLM carry the head's values, less "
        "secrets and what differs between nodes",
    ),
    Variable(
        "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY",
        "names",
        "",
        ("serve", "vllm"),
        "further variables that vLLM copies from the head to Ray's workers",
        since="vLLM 0.17",
    ),
    Variable(
        "GLOO_SOCKET_IFNAME",
        "text",
        "",
        ("gloo",),
        "interface of Gloo, a plain name; default: as NCCL_SOCKET_IFNAME",
        per_node=True,
    ),
    Variable(
        "UCX_NET_DEVICES",
        "text",
        "",
        ("ucx",),
        "devices of UCX, plain names; default: as NCCL_SOCKET_IFNAME",
        per_node=True,
    ),
    Variable(
        "TP_SOCKET_IFNAME",
        "text",
        "",
        ("vllm",),
        "interface of torch's TensorPipe, a plain name; default: as NCCL_SOCKET_IFNAME",
        per_node=True,
    ),
)
