"""Lines that look bad and are normal, and the signs of health and of an ordered end."""

from shoal.explain.signature import Role, Signature, words

BENIGN, ALIVE, STOP = Role.BENIGN, Role.ALIVE, Role.STOP

BENIGNS: tuple[Signature, ...] = (
    Signature(
        "benign.plugin-not-there",
        BENIGN,
        (
            words("/Plugin: Could not find", since="2.23"),
            words("NET/Plugin : No plugin found", since="2.18"),
            words("Plugin load", r"/Plugin ?: Plugin load (?:\(\S+\) )?returned"),
            words("/Plugin: No plugin found"),
        ),
        "NCCL looks for optional plugins, and does without",
        source="plugin_open.cc, net.cc",
    ),
    Signature(
        "benign.plugin-symbol",
        BENIGN,
        (
            words("Failed to find ncclNetPlugin"),
            words("Failed to find ncclCollNetPlugin"),
            words("Failed to find nccl"),
        ),
        "NCCL tries a plugin's interfaces from the newest to the oldest",
        source="net.cc",
    ),
    Signature(
        "benign.dlvsym",
        BENIGN,
        (words("dlvsym failed on"),),
        "the RDMA library is older than NCCL and lacks an optional call",
        source="mlx5dvsymbols.cc",
    ),
    Signature(
        "benign.no-device-before-use",
        BENIGN,
        (words("NET/IB : No device found"),),
        "NET/IB says so where it is not the network in use, or before a plugin finds its devices",
        source="net_ib.cc",
    ),
    Signature(
        "benign.libibverbs",
        BENIGN,
        (words("Failed to open libibverbs"), words("Failed to open libmlx5"), words("Failed to open mlx5dv")),
        "without RDMA no RDMA library is needed",
        source="ibvsymbols.cc",
    ),
    Signature(
        "benign.net-plugin-init",
        BENIGN,
        (words("Failed to initialize NET plugin"), words("plugin.cc", r"plugin/net\.cc:\d+ -> 2")),
        "a network that cannot be used is passed over, and the next is taken",
        source="net.cc (2.27)",
    ),
    Signature(
        "benign.socket-speed",
        BENIGN,
        (words("Could not get speed from"),),
        "a virtual interface does not tell its speed",
        source="net_socket.cc",
    ),
    Signature(
        "benign.topology",
        BENIGN,
        (
            words("Topology detection"),
            words("Could not find real path of"),
            words("Affinity for GPU"),
            words("P2P is disabled between connected GPUs"),
        ),
        "a virtual machine shows less of its PCI tree than a real one",
        source="xml.cc, paths.cc",
    ),
    Signature(
        "benign.connect-retry",
        BENIGN,
        (
            words(", retrying", r"(?:[cC]onnect|Connection).*, retrying"),
            words("retrying (try="),
            words("Failed to connect to GCS", r"Failed to connect to GCS .*[rR]etry"),
        ),
        "the peer was not there yet, and is tried again",
        source="socket.cc, torch, Ray",
    ),
    Signature(
        "benign.ras",
        BENIGN,
        (words("RAS failed to establish a client listening socket"), words("Continuing in spite of a RAS")),
        "NCCL's own watch service is optional",
        source="NCCL 2.24",
    ),
    Signature(
        "benign.virtual-nics",
        BENIGN,
        (words("Subnet-aware routing: overriding dev"), words("mismatched physical devices between local")),
        "NCCL chose another local device for this peer",
        source="NCCL 2.24, 2.30",
    ),
    Signature(
        "benign.not-destroyed",
        BENIGN,
        (
            words("destroy_process_group() was not called"),
            words("leaked shared_memory objects"),
            words("leaked semaphore"),
        ),
        "the program ended without tidying up",
        source="torch, Python",
    ),
    Signature(
        "benign.triton",
        BENIGN,
        (
            words("Triton is not installed"),
            words("Triton is installed, but"),
            words("Triton not installed or not compatible"),
            words("libtcmalloc is not found"),
            words("libiomp is not found"),
            words("No module named 'vllm._C'", r"(?:WARNING|Failed to import from).*No module named 'vllm\._C'"),
        ),
        "an optional part of vLLM is not there",
        source="vLLM",
    ),
    Signature(
        "benign.ulimit",
        BENIGN,
        (words("Found ulimit of", r"can cause fd limit errors"),),
        "vLLM would like to open more files than it may; it matters under heavy load only",
        source="vllm/utils/system_utils.py",
    ),
    Signature(
        "benign.custom-all-reduce",
        BENIGN,
        (
            words("Custom allreduce is disabled"),
            words("SymmMemCommunicator"),
            words("Failed to import Triton kernels"),
            words("FutureWarning"),
            words("DeprecationWarning"),
        ),
        "vLLM and its libraries say what they do without",
        source="vLLM",
    ),
    Signature(
        "benign.ray-usage",
        BENIGN,
        (
            words("Failed to establish connection to the metrics exporter agent"),
            words("Failed to establish connection to the event+metrics exporter agent"),
            words("The object store is using", r"object store is using \S+ instead of /dev/shm"),
            words("Tip: In future versions of Ray"),
            words("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"),
            words("RAY_DISABLE_DOCKER_CPU_WARNING"),
            words("core_worker_process", r"RpcChaos|rpc_code: 14"),
        ),
        "Ray says so at a normal start",
        source="Ray",
    ),
    Signature(
        "benign.gdr-socket",
        BENIGN,
        (words("NET/Socket : GPU Direct RDMA Disabled"),),
        "sockets have no GPUDirect",
        source="topo.cc",
    ),
    Signature(
        "benign.hint",
        BENIGN,
        (words("NCCL INFO HINT:"),),
        "NCCL's hints are guesses; some versions print the hints of other errors too",
        source="NCCL 2.30",
    ),
    Signature(
        "benign.model-warning",
        BENIGN,
        (
            words("Your GPU does not have native support for FP8"),
            words("Default vLLM sampling parameters have been overridden"),
            words("Default sampling parameters have been overridden"),
            words("Using default MoE config"),
            words("Using default W8A8"),
            words("Performance might be sub-optimal"),
        ),
        "a choice of vLLM that costs some speed",
        source="vLLM",
    ),
)

LIFE: tuple[Signature, ...] = (
    Signature(
        "life.serving",
        ALIVE,
        (
            words("Application startup complete"),
            words("Avg generation throughput", r"Avg generation throughput: (?!0\.0 )"),
            words('HTTP/1.1" 200', r'"(?:POST|GET) /v1/\S+ HTTP/1\.1" 200'),
        ),
        "the server answers",
        source="uvicorn, vLLM",
    ),
    Signature(
        "life.stop",
        STOP,
        (
            words("Waiting for application shutdown"),
            words("Received SIGTERM", r"(?i)received sigterm"),
            words("received SIGTERM"),
            words("KeyboardInterrupt"),
            words("Shutdown initiated"),
            words("shutdown signal from"),
        ),
        "someone asked for the end",
        source="uvicorn, vLLM, Ray",
    ),
)
