"""Simulated agents: one process that answers ``/status`` as many agents would, each at a loopback address of its own.

    python -m benchmarks.simulated_agents COUNT PORT

No Ray, no GPU, no stages: what an agent says, said by an asyncio server. It prints ``ready`` once all of them listen.
"""

import asyncio
import sys

from shoal.state.status import NodeState, NodeStatus, Versions

VERSIONS = Versions(shoal="0.1.0", python="3.12.11", ray="2.60.0", vllm="0.26.0", torch="2.11.0", nccl="2.28.9")
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n"


def address(number: int) -> str:
    """The address of an agent: 127.1.0.1, 127.1.0.2, ..., 127.1.1.1, ..."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def status(number: int) -> NodeStatus:
    """What it says: all is well."""
    return NodeStatus(
        name=f"node-{number}",
        role="worker" if number else "head",
        address=address(number),
        state=NodeState.UP,
        stage="UP",
        gpus=8,
        versions=VERSIONS,
        ray_node_id=f"{number:056x}",
        ray_cluster_id="c" * 56,
        pid=1000 + number,
    )


def answers(number: int) -> tuple[bytes, bytes]:
    """To ``/status``, and to anything else."""
    body = status(number).model_dump_json()
    refused = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    return (HEAD.format(len(body)) + body).encode(), refused.encode()


class Agent(asyncio.Protocol):
    """One connection to an agent."""

    def __init__(self, told: tuple[bytes, bytes]) -> None:
        self._told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody came."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A request fits one segment here."""
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(self._told[0] if data.startswith(b"GET /status ") else self._told[1])
        self._transport.close()


async def serve(count: int, port: int) -> None:
    """All of them, until the process is ended."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        told = answers(number)
        await loop.create_server(lambda told=told: Agent(told), address(number), port)  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
