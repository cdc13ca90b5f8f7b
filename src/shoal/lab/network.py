"""The cables of namespace hosts, as commands of iproute2. Pure.

A switch in a network namespace of its own, a cable to each host, and one to this machine. Nothing is added to this
machine's own bridges, so no firewall of a container engine stands between two hosts.
"""

from dataclasses import dataclass

Argv = tuple[str, ...]
UPLINK = 254  # this machine's own address in the lab's subnet
NETDEV = "mesh0"  # a host's name of its one interface


@dataclass(frozen=True)
class Net:
    """Names and addresses of one lab's network."""

    tag: str
    subnet: str

    @property
    def switch(self) -> str:
        """The network namespace that holds the bridge."""
        return f"shoal-{self.tag}-switch"

    @property
    def uplink(self) -> str:
        """This machine's interface into the lab; interface names end at 15 bytes."""
        return f"shoal-{self.tag}"

    def namespace(self, host: str) -> str:
        """The network namespace of a host."""
        return f"shoal-{self.tag}-{host}"

    def address(self, number: int) -> str:
        """The address of the host of that number."""
        return f"{self.subnet}.{number}"

    def make_switch(self) -> tuple[Argv, ...]:
        """The switch, with a cable to this machine."""
        inside = ("ip", "-n", self.switch, "link")
        return (
            ("ip", "netns", "add", self.switch),
            (*inside, "add", "br0", "type", "bridge"),
            (*inside, "set", "br0", "up"),
            ("ip", "link", "add", self.uplink, "type", "veth", "peer", "name", "uplink", "netns", self.switch),
            (*inside, "set", "uplink", "master", "br0"),
            (*inside, "set", "uplink", "up"),
            ("ip", "addr", "add", f"{self.address(UPLINK)}/24", "dev", self.uplink),
            ("ip", "link", "set", self.uplink, "up"),
        )

    def plug(self, host: str, number: int) -> tuple[Argv, ...]:
        """A host's network namespace, with its cable to the switch."""
        namespace, port = self.namespace(host), f"port{number}"
        inside = ("ip", "-n", self.switch, "link")
        return (
            ("ip", "netns", "add", namespace),
            (*inside, "add", port, "type", "veth", "peer", "name", NETDEV, "netns", namespace),
            (*inside, "set", port, "master", "br0"),
            (*inside, "set", port, "up"),
            ("ip", "-n", namespace, "addr", "add", f"{self.address(number)}/24", "dev", NETDEV),
            ("ip", "-n", namespace, "link", "set", NETDEV, "up"),
            ("ip", "-n", namespace, "link", "set", "lo", "up"),
            # Ray asks the kernel for a way to the world to learn a host's own address.
            ("ip", "-n", namespace, "route", "add", "default", "via", self.address(UPLINK)),
        )

    def cable(self, number: int, *, up: bool) -> Argv:
        """Pull a host's cable out of the switch, or put it back."""
        return ("ip", "-n", self.switch, "link", "set", f"port{number}", "up" if up else "down")

    def unplug(self) -> Argv:
        """Take this machine's cable away: with its namespace alone it would go a little later."""
        return ("ip", "link", "del", self.uplink)

    def remove(self, namespace: str) -> Argv:
        """Remove a network namespace; its cables go with it."""
        return ("ip", "netns", "del", namespace)
