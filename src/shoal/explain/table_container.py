"""Lines of containers and of the host's limits: what they mean. In order: of two that fit, the first."""

from shoal.explain.signature import Role, Signature, words

CAUSE = Role.CAUSE

CONTAINER: tuple[Signature, ...] = (
    Signature(
        "container.nvidia-runtime",
        CAUSE,
        (
            words("could not select device driver", r'could not select device driver "(?:nvidia)?"'),
            words("unknown or invalid runtime name: nvidia"),
            words("nvidia-container-cli: initialization error"),
        ),
        "Docker cannot give GPUs to containers: the NVIDIA container toolkit is missing or not set up",
        "nvidia-ctk runtime configure --runtime=docker, then systemctl restart docker",
        "container.nvidia-runtime",
        "Docker",
    ),
    Signature(
        "container.device-missing",
        CAUSE,
        (words("error gathering device information", r'custom device "(?P<device>[^"]+)"'),),
        "the host has no {device}",
        "modprobe ib_uverbs rdma_cm; or use the profile without RDMA",
        "rdma.device-present",
        "Docker",
    ),
    Signature(
        "container.bind-missing",
        CAUSE,
        (words("bind source path does not exist", r"bind source path does not exist: (?P<path>\S+)"),),
        "the folder or file {path} that the container mounts is not there",
        "make it, or correct the path in .env",
        "",
        "Docker",
    ),
    Signature(
        "container.rlimit",
        CAUSE,
        (words("error setting rlimit type"), words("error setting rlimits for ready process")),
        "Docker may not raise the limit of locked memory",
        "run dockerd with LimitMEMLOCK=infinity",
        "host.memlock",
        "runc",
    ),
    Signature(
        "container.wrong-arch",
        CAUSE,
        (words("exec format error"),),
        "the image is built for another kind of CPU",
        "docker pull --platform linux/$(uname -m)",
        "cross.architecture",
        "Linux",
    ),
    Signature(
        "container.image-refused",
        CAUSE,
        (words("pull access denied"), words("unauthorized: authentication required")),
        "the registry refuses the image",
        "docker login REGISTRY; check SHOAL_IMAGE",
        "cross.image",
        "Docker",
    ),
    Signature(
        "host.disk-full",
        CAUSE,
        (words("No space left on device"), words("no space left on device")),
        "a disk or a memory file system is full",
        "df -h; df -h /dev/shm; df -i",
        "host.disk",
        "Linux",
    ),
    Signature(
        "host.too-many-files",
        CAUSE,
        (words("Too many open files", r"(?<!`)(?:OSError: )?\[Errno 24\] Too many open files(?!`)"),),
        "the process may not open more files",
        "raise the limit: ulimit -n 65536, or --ulimit nofile=65536",
        "host.open-files",
        "Linux",
    ),
    Signature(
        "host.too-many-threads",
        CAUSE,
        (
            words("can't start new thread"),
            words("pthread_create failed"),
            words("Resource temporarily unavailable", r"(?:thread|fork|clone).*Resource temporarily unavailable"),
        ),
        "the container or the user may not start more threads",
        "docker run --pids-limit=-1; ulimit -u",
        "host.process-limit",
        "Linux",
    ),
)
