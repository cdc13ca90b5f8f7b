"""Lines of Gloo and torch: what they mean. In order: of two that fit, the first."""

from shoal.explain.signature import Role, Signature, words

CAUSE, SUSPECT, SYMPTOM, CASCADE = Role.CAUSE, Role.SUSPECT, Role.SYMPTOM, Role.CASCADE

GLOO: tuple[Signature, ...] = (
    Signature(
        "gloo.loopback-address",
        CAUSE,
        (
            words("gloo", r"gloo.*\b127\.0\.1\.1\b"),
            words("Gloo", r"Gloo.*\b127\.0\.1\.1\b"),
            words("connectFullMesh failed", r"connectFullMesh failed.*\b127\.0\.0\.1\b"),
            words("Unable to resolve hostname to a (local) address"),
        ),
        "Gloo took a loopback address for this host: the host's name resolves to 127.0.1.1 or to nothing of its own",
        "set GLOO_SOCKET_IFNAME to the fabric's interface, or mend the host's line in /etc/hosts",
        "host.hostname",
        "gloo transport/tcp; vllm#5094",
    ),
    Signature(
        "gloo.ifname-no-match",
        CAUSE,
        (
            words("Unable to find address for"),
            words("makeDeviceForInterface", r"makeDeviceForInterface\(\): unsupported"),
        ),
        "GLOO_SOCKET_IFNAME names no interface with an address on this node",
        "ip -br addr; then set GLOO_SOCKET_IFNAME to one plain name",
        "env.gloo-interface",
        "gloo transport/tcp/device.cc",
    ),
    Signature(
        "gloo.connect-full-mesh",
        SUSPECT,
        (words("connectFullMesh failed"),),
        "Gloo could not connect all ranks to each other: an interface is the wrong one, or a firewall is in between",
        "set GLOO_SOCKET_IFNAME on all nodes; open all TCP ports between them",
        "env.gloo-interface",
        "torch ProcessGroupGloo; vllm#7074",
    ),
    Signature(
        "gloo.peer-closed",
        CASCADE,
        (
            words("Connection closed by peer", r"gloo/transport.*Connection closed by peer"),
            words("Connection reset by peer", r"gloo/transport.*Connection reset by peer"),
            words("Application timeout caused pair closure"),
        ),
        "another rank ended its Gloo connection",
        source="gloo transport/tcp/pair.cc",
    ),
    Signature(
        "gloo.timeout",
        SYMPTOM,
        (words("Timed out waiting", r"Timed out waiting \d+ms for (?:recv|send) operation"),),
        "a Gloo operation waited in vain for another rank",
        "look for the rank that stands still: its log, its stacks",
        "",
        "gloo unbound_buffer.cc",
    ),
)

TORCH: tuple[Signature, ...] = (
    Signature(
        "torch.store-port-in-use",
        CAUSE,
        (
            words("The server socket has failed to listen on any local network address"),
            words("The server socket has failed to bind"),
        ),
        "the port of torch's store is taken: an earlier run is still there",
        "ss -ltnp; end the earlier run, or choose another MASTER_PORT",
        "host.ports-free",
        "torch c10d socket.cpp",
    ),
    Signature(
        "torch.store-unreachable",
        SUSPECT,
        (
            words("The client socket has timed out after"),
            words("The client socket has failed to connect to any network address"),
            words("TCP client failed to connect/validate to host", r"timed out \(try="),
        ),
        "a rank cannot reach the store of rank 0",
        "look at rank 0's log; open all TCP ports between the nodes, and check VLLM_HOST_IP",
        "cross.reachable",
        "torch c10d socket.cpp",
    ),
    Signature(
        "torch.ranks-missing",
        SUSPECT,
        (words("clients joined", r"waiting for clients\. (?P<joined>\d+/\d+) clients joined"),),
        "not all ranks came: {joined} joined before the time was over",
        "look at the log of the rank that is missing",
        "",
        "torch c10d TCPStore.cpp",
    ),
    Signature(
        "torch.store-closed",
        CASCADE,
        (
            words("recvValueWithTimeout failed"),
            words("sendBytes failed on SocketImpl"),
            words("recvValue failed on SocketImpl"),
            words("store->get(", r"store->get\('.*'\) got error"),
            words("TCPStore.cpp", r"TCPStore\.cpp.*(?:Failed to recv|Broken pipe|Connection reset)"),
            words('failed to check the "should dump" flag on TCPStore'),
        ),
        "the store of rank 0 went away: rank 0 ended first",
        "look at rank 0's log",
        "",
        "torch c10d TCPStore.cpp",
    ),
    Signature(
        "torch.watchdog-timeout",
        SYMPTOM,
        (
            words(
                "Watchdog caught collective operation timeout",
                r"operation timeout: WorkNCCL\((?:.*?OpType=(?P<op>\w+))?",
            ),
            words("wait timeout after", r"wait timeout after \d+ms, keys"),
        ),
        "a collective {op} did not end in time: one rank never came to it",
        "find the rank that is behind: its log, its stacks",
        "",
        "torch ProcessGroupNCCL",
    ),
    Signature(
        "torch.watchdog-end",
        CASCADE,
        (
            words("watchdog thread terminated with exception"),
            words("Some NCCL operations have failed or timed out"),
            words("To avoid data inconsistency, we are taking the entire process down"),
            words("Received a dump signal"),
            words("Observed flight recorder dump signal"),
            words("To avoid this, we are tearing the whole process down", since="2.0"),
        ),
        "torch ends the process after a failed collective",
        source="torch ProcessGroupNCCL",
    ),
    Signature(
        "torch.child-failed",
        CASCADE,
        (words("ChildFailedError"), words("ProcessRaisedException"), words("ProcessExitedException")),
        "a child process failed; its own lines say why",
        source="torch.distributed.elastic",
    ),
    Signature(
        "python.broken-pipe",
        Role.ECHO,
        (words("BrokenPipeError"), words("ConnectionResetError"), words("CancelledError"), words("Broken pipe")),
        "the other side of a connection ended",
        source="Python",
    ),
)
