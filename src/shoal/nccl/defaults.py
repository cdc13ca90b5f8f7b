"""Defaults of NCCL that moved, by version. Read from NCCL's tags 2.10 to 2.30.7."""

from shoal.nccl.variables import Version

# Name -> (first version with this default, the default), oldest first. Before the first: NCCL did not have it.
MOVED: dict[str, tuple[tuple[Version, int], ...]] = {
    "NCCL_IB_GID_INDEX": (((2, 10), 0), ((2, 21), -1)),  # -1: NCCL looks for the slot itself
    "NCCL_IB_TIMEOUT": (((2, 10), 14), ((2, 14), 18), ((2, 23), 20)),
    "NCCL_IB_TC": (((2, 10), 0), ((2, 26), -1)),
    "NCCL_IB_SL": (((2, 10), 0), ((2, 26), -1)),
    "NCCL_IB_FIFO_TC": (((2, 22), 0), ((2, 24), -1)),
    "NCCL_IB_MERGE_VFS": (((2, 18), 1),),
    "NCCL_IB_MERGE_NICS": (((2, 20), 1),),
    "NCCL_IB_SPLIT_DATA_ON_QPS": (((2, 18), 1), ((2, 20), 0)),
    "NCCL_IB_ROCE_VERSION_NUM": (((2, 21), 2),),
    "NCCL_IB_ROUTABLE_FLID_GID_INDEX": (((2, 22), 1),),
    "NCCL_IB_ADAPTIVE_ROUTING": (((2, 10), -2),),  # -2: on for InfiniBand, off for RoCE
    "NCCL_IB_ECE_ENABLE": (((2, 23), 1),),
    "NCCL_IB_MQP_RETRY_CNT": (((2, 24), 34),),
    "NCCL_IB_MQP_RETRY_SLEEP_MSEC": (((2, 24), 100),),
    "NCCL_RAS_ENABLE": (((2, 24), 1),),
    "NCCL_NET_GDR_C2C": (((2, 26), 0), ((2, 27), 1)),
    "NCCL_IB_DEVICE_PCI_ORDER": (((2, 29, 7), 1),),
    "NCCL_IB_SUBNET_AWARE_ROUTING": (((2, 30, 7), 0),),
    "NCCL_IB_SUBNET_PREFIX_LEN": (((2, 30, 7), 24),),
}


def whole(version: Version) -> Version:
    """The version with a patch: 2.30 stands for its newest one."""
    return version if len(version) > 2 else (*version, 99)


def default(name: str, version: Version) -> int | None:
    """What NCCL of this version takes where the variable is not set; None where it does not have it, or never moved."""
    values = [value for first, value in MOVED.get(name, ()) if whole(version) >= first]
    return values[-1] if values else None
