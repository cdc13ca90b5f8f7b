"""The fabric plan: the document of ``shoal fabric --json``, and NCCL's defaults that moved."""

from dataclasses import fields

from pages.markdown import code, page, table
from shoal.nccl.defaults import MOVED
from shoal.nccl.variables import dotted
from shoal.plan.fabric.types import FabricSetting, HcaPort
from shoal.ui.fabric_page import SHAPES

HCA = {
    "device": "the RDMA device",
    "port": "its port",
    "state": "the port's state, as the kernel names it: `ACTIVE`, `DOWN`, `INIT`",
    "link_layer": "`Ethernet` (RoCE) or `InfiniBand`",
    "rate_gbps": "Gb/s",
    "netdev": "the network interface of the slot that is used; else of the device",
    "mtu": "that interface's MTU",
    "ipv4": "the IPv4 address of the slot that is used; else the interface's first",
    "gid_index": "the slot of the GID table that NCCL uses in the environment in force. A number on unusable ports "
    "too; `null` where it is not known, as with a network plugin",
    "gid_type": "that slot's type, as the kernel names it",
    "usable": "whether the plan may use the port; `null` where that is not known",
    "why": "the reason for `gid_index`; where the port is not usable, the reason for that",
    "chosen": "whether the plan uses the port",
}
SETTING = {
    "name": "the variable",
    "value": "its value; in a `.env` a value that begins with `=` is written `NAME==a,b`",
    "reason": "why",
    "evidence": "the path, or the fact, that it follows from",
    "confidence": "`high`, `medium` or `low`",
    "undo": "what takes it back: `remove NAME`, or the value that was there",
}
TOP = {
    "schema_version": "1",
    "nccl": "`version`, and in `source` where it is from: `--nccl`, found on a node, or the newest that is known",
    "topology": "the shape of the fabric, below",
    "order": "the nodes from cable to cable, where the fabric is a ring",
    "rails": "ports that reach each other: `subnets`, `members` (node, device, port), and `assumed`, which is true "
    "where no prefix length is known and /24 was taken",
    "nodes": "for each node its `name`, `hcas`, `settings`, and `notes`",
    "unreachable": "hosts that could not be asked, with the reason",
}


def fabric_page() -> str:
    """The document, field by field, and the defaults."""
    about = (
        "`shoal fabric --json` prints one document of this form. What is not known is `null`. "
        "How it comes about: [How the fabric is chosen](../explanation/fabric.md).\n"
    )
    return page(
        "Fabric plan",
        about,
        _table("The document", TOP, list(TOP)),
        _table("An HCA", HCA, [field.name for field in fields(HcaPort)]),
        _table("A setting", SETTING, [field.name for field in fields(FabricSetting)]),
        "## Shapes\n\n" + table(("`topology`", "meaning"), ((code(name), words) for name, words in SHAPES.items())),
        "## Defaults of NCCL that moved\n\n"
        "What NCCL takes where a variable is not set, from which version on.\n\n"
        + table(("variable", "default"), ((code(name), _moved(name)) for name in sorted(MOVED))),
    )


def _table(title: str, meanings: dict[str, str], names: list[str]) -> str:
    """The fields of one part; one without a meaning fails here."""
    return f"## {title}\n\n" + table(("field", "meaning"), ((code(name), meanings[name]) for name in names))


def _moved(name: str) -> str:
    return ", ".join(f"{value} ({dotted(version)})" for version, value in MOVED[name])
