"""NCCL's lines about RDMA: what they mean, what would confirm it, what mends it. In order: of two that fit, the first.

The forms are those of NCCL 2.18 to 2.32, where ``since`` says when one came. Numbers with a # are NVIDIA/nccl issues.
"""

from shoal.explain.signature import Pattern, Role, Signature, words

CAUSE, SUSPECT, CASCADE, NOTE = Role.CAUSE, Role.SUSPECT, Role.CASCADE, Role.NOTE


def _completion(status: str, more: str = "") -> Pattern:
    """A failed work request: "with error 12" (to 2.18), "status=12" (2.20), "status=IBV_WC_...(12)" (2.28.9)."""
    return words("Got completion", rf"from peer (?P<peer>\S+) with (?:error|status=) ?(?:\w+\()?(?:{status})\b{more}")


def _modify_qp(number: int, text: str, more: str = "") -> Pattern:
    """A queue pair that would not connect: by number and addresses since 2.24, by words before."""
    return words("ibv_modify_qp failed", rf"ibv_modify_qp failed with (?:{number}\b|error {text}){more}")


NCCL_IB: tuple[Signature, ...] = (
    Signature(
        "nccl.no-ip-interface",
        CAUSE,
        (words("NET/IB : No IP interface found"),),
        "NET/IB found no IP interface for its out-of-band traffic: NCCL_SOCKET_IFNAME{NCCL_SOCKET_IFNAME} names none",
        "ip -br addr; give the interface an address, or correct NCCL_SOCKET_IFNAME",
        "env.interface-exists",
        "net_ib.cc; #1796",
    ),
    Signature(
        "nccl.ib-link-local-gid",
        CAUSE,
        (
            _completion("12", r".*[lL]ocalGid fe80"),
            _modify_qp(110, "Connection timed out", r".*local GID fe80"),
            _modify_qp(22, "Invalid argument", r".*local GID fe80"),
        ),
        "the GID in use is link-local (fe80): the NIC has no IPv4 address, or NCCL_IB_GID_INDEX{NCCL_IB_GID_INDEX} "
        "picks a wrong slot",
        "give the RoCE interface an IPv4 address, and unset NCCL_IB_GID_INDEX",
        "roce.gid-v2-ipv4",
        "net_ib.cc; #769",
    ),
    Signature(
        "nccl.ib-empty-gid",
        CAUSE,
        (_modify_qp(61, "No data available"), words("ibv_modify_qp failed", r"ibv_modify_qp failed .*local GID ::,")),
        "the GID slot that NCCL_IB_GID_INDEX{NCCL_IB_GID_INDEX} pins is empty, as after a link flap",
        "unset NCCL_IB_GID_INDEX, and take the link down and up",
        "env.gid-index",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.modify-qp-retry",
        NOTE,
        (words("ibv_modify_qp failed", r"ibv_modify_qp failed .*retrying \d+/\d+", "2.24"),),
        "a queue pair did not connect at once and is tried again",
        source="ibvwrap.cc",
    ),
    Signature(
        "nccl.ib-qp-timeout",
        CAUSE,
        (_modify_qp(110, "(?:Connection timed out|.*errno 110)"),),
        "the peer's GID cannot be reached from this NIC: the rails are not connected to each other, or the address is "
        "on another subnet",
        "NCCL_CROSS_NIC=0 where rails are separate; else ping the peer from that NIC: ping -I IFNAME PEER",
        "cross.rails",
        "ibvwrap.cc; #2013",
    ),
    Signature(
        "nccl.ib-qp-invalid",
        CAUSE,
        (_modify_qp(22, "(?:Invalid argument|.*errno 22)"),),
        "the two ends of a queue pair do not fit: the GID index means another kind of address on each node, or "
        "InfiniBand meets RoCE",
        "unset NCCL_IB_GID_INDEX on all nodes, and name the HCAs exactly in NCCL_IB_HCA",
        "cross.gid-index",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.ib-qp-unreachable",
        CAUSE,
        (
            _modify_qp(101, "(?:Network is unreachable|.*errno 101)"),
            _modify_qp(113, "(?:No route to host|.*errno 113)"),
        ),
        "there is no route from this NIC to the peer's GID",
        "ip route get PEER from ADDRESS; on rings without a switch NCCL_IB_SUBNET_AWARE_ROUTING=1 (NCCL 2.30.7)",
        "cross.rails",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.ib-qp-no-netdev",
        CAUSE,
        (_modify_qp(19, "(?:No such device|.*errno 19)"),),
        "the GID belongs to a network interface that this container does not have",
        "run the container with --network host, or move the interface into it",
        "container.host-network",
        "ibvwrap.cc; #925",
    ),
    Signature(
        "nccl.ib-qp-other",
        SUSPECT,
        (words("Call to ibv_modify_qp failed"),),
        "a queue pair could not be connected",
        "ib_write_bw between the two NICs of that line",
        "cross.reachable",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.ib-gdr-broken",
        CAUSE,
        (_completion("4"),),
        "the NIC may not read or write GPU memory (local protection error): PCIe ACS or the IOMMU stands between "
        "them, or a device is broken",
        "try NCCL_NET_GDR_LEVEL=0; where that helps, turn ACS off on the PCIe bridges",
        "host.acs",
        "net_ib.cc; #928 #523",
    ),
    Signature(
        "nccl.ib-retry-exceeded",
        SUSPECT,
        (_completion("12"),),
        "{peer} stopped answering on the RDMA fabric (retries exceeded): packets are lost, the sizes of packets "
        "differ, or the peer ended",
        "ping -M do -s 8972 PEER on each rail; ib_write_bw between the two; look at the peer's log first",
        "cross.path-mtu",
        "net_ib.cc; #426 #709",
    ),
    Signature(
        "nccl.ib-rnr",
        SUSPECT,
        (_completion("13"),),
        "{peer} was not ready to receive for too long: its process or its GPU stands still",
        "look at the peer's log and its stacks",
        "",
        "net_ib.cc",
    ),
    Signature(
        "nccl.ib-flush",
        CASCADE,
        (_completion("5"),),
        "a request was flushed after an earlier error on the same queue pair",
        source="net_ib.cc",
    ),
    Signature(
        "nccl.ib-remote-error",
        SUSPECT,
        (_completion("9|10|11"),),
        "{peer} refused an RDMA access: its memory was given back because it ended, or it runs another NCCL",
        "look at the peer's log; compare the NCCL versions",
        "cross.nccl",
        "net_ib.cc; #1710",
    ),
    Signature(
        "nccl.ib-completion-error",
        SUSPECT,
        (_completion(r"\d+"),),
        "an RDMA request to {peer} failed",
        "ib_write_bw between the two nodes",
        "cross.reachable",
        "net_ib.cc",
    ),
    Signature(
        "nccl.memlock",
        CAUSE,
        (
            words("ibv_reg_mr", r"Call to ibv_reg_mr\w* failed with error Cannot allocate memory"),
            words("NET/OFI Unable to register memory", r"NET/OFI Unable to register memory.*Cannot allocate memory"),
            words("ibv_create_cq failed", r"Call to ibv_create_cq failed.*Cannot allocate memory"),
            words("ibv_create_qp failed", r"Call to ibv_create_qp failed.*Cannot allocate memory"),
        ),
        "memory cannot be pinned for the NIC: the limit of locked memory is too low",
        "docker run --ulimit memlock=-1 --cap-add IPC_LOCK, or LimitMEMLOCK=infinity in the systemd unit",
        "host.memlock",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.dmabuf-memory",
        CAUSE,
        (words("ibv_reg_dmabuf_mr", r"Call to ibv_reg_dmabuf_mr failed.*Cannot allocate memory"),),
        "GPU memory cannot be registered with the NIC by DMA-BUF: its window (BAR1) is too small or used up",
        "turn resizable BAR on in the BIOS, or set NCCL_DMABUF_ENABLE=0 with nvidia_peermem loaded",
        "gpu.bar1",
        "ibvwrap.cc",
    ),
    Signature(
        "nccl.uverbs-missing",
        CAUSE,
        (
            words("ibv_open_device failed"),
            words("NET/IB : Unable to open device", r"NET/IB : Unable to open device (?P<device>\S+)"),
        ),
        "the RDMA device file cannot be opened: the container has no /dev/infiniband",
        "docker run --device=/dev/infiniband --cap-add IPC_LOCK",
        "rdma.uverbs",
        "net_ib.cc; #451",
    ),
    Signature(
        "nccl.libibverbs-abi",
        CAUSE,
        (words("couldn't load driver", r"couldn't load driver '(?P<driver>[^']+)'"),),
        "the RDMA library does not fit its driver {driver}: rdma-core in the image and its providers differ",
        "install rdma-core and ibverbs-providers of one version in the image",
        "rdma.providers",
        "libibverbs",
    ),
    Signature(
        "nccl.gid-version-unreadable",
        CAUSE,
        (
            words(
                "in ncclIbRoceGetVersionNum", r"(?:read|open) failed in ncclIbRoceGetVersionNum: (?P<error>.+)", "2.21"
            ),
        ),
        "NCCL 2.21 to 2.25 ends at an empty slot of the GID table ({error})",
        "use NCCL 2.26 or newer, or pin NCCL_IB_GID_INDEX to the RoCE v2 slot",
        "roce.gid-v2-ipv4",
        "net_ib.cc; #1538 #1573",
    ),
    Signature(
        "nccl.devices-incompatible",
        CAUSE,
        (
            words("Attempted to merge incompatible devices"),
            words("Attempted to connect incompatible devices"),
            words("device is incompatible with the local"),
        ),
        "InfiniBand and Ethernet devices are mixed",
        "name the HCAs of one kind exactly: NCCL_IB_HCA==mlx5_0,mlx5_1",
        "cross.link-layer",
        "net_ib.cc",
    ),
    Signature(
        "nccl.net-count-mismatch",
        CAUSE,
        (words("Detected mixed local Net device counts", r"counts across ranks \(min \d+, max \d+\)\. Set", "2.30"),),
        "the ranks do not have the same number of network devices",
        "give NCCL_IB_HCA on each node so that all have as many, or mend the missing device",
        "cross.hca-count",
        "init.cc; #2428",
    ),
    Signature(
        "nccl.link-event",
        SUSPECT,
        (
            words("async fatal event", r"NET/IB : (?P<device>[\w\-]+):\d+ async fatal event[^:]*: (?P<event>.+)"),
            words("Got async event", r"NET/IB : (?:(?P<device>[\w\-]+):\d+ )?Got async event : (?P<event>.+)"),
        ),
        "the RDMA device {device} reported: {event}",
        "rdma link; dmesg | grep mlx5: look for a link that went down",
        "rdma.link-steady",
        "net_ib.cc",
    ),
    Signature(
        "nccl.gid-table-changed",
        NOTE,
        (words("GID table changed", since="2.27"),),
        "the addresses of an RDMA device changed while it was in use",
        "journalctl -k | grep mlx5; pin the addresses of the RoCE interfaces",
        "rdma.link-steady",
        "net_ib.cc",
    ),
)
