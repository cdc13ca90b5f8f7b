"""``shoal.yaml``: the cluster that an operator wants, as typed values. Errors carry file, line and the nearest key."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shoal.spec import yaml_text
from shoal.spec.env_table import BY_NAME
from shoal.spec.nearest import did_you_mean, nearest
from shoal.spec.variable import is_address, wrong
from shoal.spec.yaml_text import Document, Where

DEFAULT_FILE = "shoal.yaml"
FOUND_BY_PLAN = "auto"
FEW = 200  # mistakes that are put into words
# pydantic's words for what nobody but a programmer would call so.
WORDS = {
    "dict_type": "expected keys with values",
    "model_type": "expected keys with values",
    "tuple_type": "expected a list",
    "string_type": "expected text; put it in quotes",
    "int_type": "expected a whole number",
}


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", value):
        raise ValueError("expected letters, digits, dots and dashes, at most 63")
    return value


def _destination(value: str) -> str:
    if value.startswith("-") or not re.fullmatch(r"[^\s\0-\x1f]{1,255}", value):
        raise ValueError("expected a name of your ssh config, USER@HOST, or ssh://USER@HOST:PORT")
    return value


def _fabric_address(value: str) -> str:
    if value == FOUND_BY_PLAN:
        return value
    if not is_address(value):
        raise ValueError("expected an IP address, or auto")
    address = ipaddress.ip_address(value)
    if address.is_unspecified or address.is_multicast:
        raise ValueError("expected the address of one machine")
    return str(address)


def _gpus(value: Any) -> Any:
    if value != FOUND_BY_PLAN and not (type(value) is int and 0 <= value <= 64):
        raise ValueError("expected auto, or a number from 0 to 64")
    return value


def _api_host(value: str) -> str:
    if value not in {"fabric", "loopback"} and not is_address(value):
        raise ValueError("expected fabric, loopback, or an IP address")
    return value


def _api_key(value: str) -> str:
    if not re.fullmatch(r"generate|env:[A-Za-z_][A-Za-z0-9_]*|file:.+", value):
        raise ValueError("expected generate, env:VARIABLE or file:PATH; the key itself never stands here")
    return value


def _image(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}", value):
        raise ValueError("expected an image, such as nvcr.io/nvidia/vllm:25.09-py3")
    return value


def _folder(value: str) -> str:
    if not re.fullmatch(r"/[^\s\0:$'\"]{0,200}", value) or "/../" in f"{value}/":
        raise ValueError("expected an absolute path, without blanks and colons")
    return value


def _variables(value: Any) -> Any:
    """Numbers and truth values as Compose would write them."""
    if not isinstance(value, dict):
        return value
    plain = (int, float)
    return {key: str(item).lower() if isinstance(item, plain) else item for key, item in value.items()}


def _known(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        row = BY_NAME.get(name)
        if row is None:
            raise ValueError(f"{name} is not in the environment's table; {did_you_mean(name, BY_NAME)}")
        if row.secret:
            raise ValueError(f"{name} is a secret, and never stands here")
        if text and (why := wrong(row, text)):
            raise ValueError(f"{name}={text}: {why}")
    return value


def _from_word(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _by_table(variable: str) -> Any:
    """A number that goes into a variable of the environment: its bounds and meaning are that variable's."""
    row = BY_NAME[variable]
    return Field(default=None, strict=True, ge=row.low, le=row.high, description=f"{row.meaning}; default: planned")


class Part(BaseModel):
    """A part of the file: nothing unknown in it, and nothing changes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"))


Name = Annotated[str, AfterValidator(_name)]
Size = Annotated[int, Field(strict=True, ge=1, le=4096)]


class HostSpec(Part):
    """One machine."""

    name: Name = Field(description="what it is called, everywhere")
    ssh: Annotated[str, AfterValidator(_destination)] | None = Field(
        default=None, description="how ssh finds it: a name of your ssh config or USER@HOST; default: its name"
    )
    fabric: Annotated[str, AfterValidator(_fabric_address)] = Field(
        default=FOUND_BY_PLAN, description="its address on the fabric, or auto: found when it is looked at"
    )
    role: Literal["head", "worker"] = Field(
        default="worker", description="one host is the head; where none says so, the first"
    )
    gpus: Annotated[Literal["auto"] | Annotated[int, Field(ge=0, le=64)], BeforeValidator(_gpus)] = Field(
        default="auto", description="how many GPUs it offers; auto: all that are seen"
    )
    env: Annotated[dict[str, str], BeforeValidator(_variables), AfterValidator(_known)] = Field(
        default={}, description="variables of its environment that are to be other than planned"
    )


class FabricSpec(Part):
    """The RDMA network."""

    kind: Literal["auto", "roce", "infiniband", "tcp"] = Field(default="auto", description="tcp: use no RDMA")
    tc: int | None = _by_table("NCCL_IB_TC")
    sl: int | None = _by_table("NCCL_IB_SL")
    timeout: int | None = _by_table("NCCL_IB_TIMEOUT")
    retry: int | None = _by_table("NCCL_IB_RETRY_CNT")
    gdr: Literal["auto", "LOC", "PIX", "PXB", "PHB", "SYS"] = Field(
        default="auto", description="how far apart GPU and NIC may be for GPUDirect RDMA"
    )


class ModelSpec(Part):
    """What is served."""

    name: Annotated[str, Field(min_length=1)] = Field(
        description="a key of the registry, the path of a folder, or ORGANISATION/MODEL of the hub"
    )
    registry: str | None = Field(default=None, description="a models.yaml beside the built-in one")
    tensor_parallel: Size | None = Field(default=None, description="GPUs that share each layer; default: planned")
    pipeline_parallel: Size | None = Field(default=None, description="stages of layers; default: planned")


class ServingSpec(Part):
    """The endpoint."""

    host: Annotated[str, AfterValidator(_api_host)] = Field(
        default="fabric", description="where it listens: the head's fabric address, loopback, or an IP address"
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(default=8000, description="its port")
    api_key: Annotated[str, AfterValidator(_api_key)] = Field(
        default="generate", description="generate, env:VARIABLE or file:PATH: the endpoint is never without a key"
    )


class ClusterSpec(Part):
    """The whole file."""

    cluster: Name = Field(description="the cluster's name")
    image: Annotated[str, AfterValidator(_image)] = Field(
        default=BY_NAME["SHOAL_IMAGE"].default or "", description=BY_NAME["SHOAL_IMAGE"].meaning
    )
    hosts: tuple[HostSpec, ...] = Field(description="the machines; at least one")
    fabric: FabricSpec = Field(default=FabricSpec(), description="the RDMA network")
    model: Annotated[ModelSpec, BeforeValidator(_from_word, json_schema_input_type=str | ModelSpec)] = Field(
        default=ModelSpec(name="smollm2"), description="what is served: a word, or its settings"
    )
    serving: ServingSpec = Field(default=ServingSpec(), description="the endpoint")
    runtime: Literal["compose", "process", "local"] = Field(
        default="compose",
        description="containers, processes without containers; local is refused: see `shoal up --local`",
    )
    python: Annotated[str, AfterValidator(_folder)] | None = Field(
        default=None,
        description="runtime process: absolute path of every host's Python with vLLM, and with Ray where Ray is wanted",
    )
    model_cache: Annotated[str, AfterValidator(_folder)] | None = Field(
        default=None,
        description="folder of every host with models, as the Hugging Face hub keeps them; default: the cluster's own",
    )


def load(path: Path) -> ClusterSpec:
    """The cluster in a file; ConfigError names the line of everything that is wrong."""
    return parse(yaml_text.read(path), str(path))


def parse(text: str, origin: str) -> ClusterSpec:
    """The cluster in YAML text; ``origin`` is the file's name in errors."""
    document = yaml_text.parse(text, origin)
    if not isinstance(document.data, dict):
        document.wrong((), f"expected keys such as `hosts:`; known: {', '.join(_keys(ClusterSpec))}")
        document.check()
    hosts = _hosts(document)
    _choose_head(document, hosts)
    if document.data.get("runtime") == "process" and not document.data.get("python"):
        document.wrong(("runtime",), "process needs `python: PATH`, the Python of every host that has vLLM and Ray")
    _look_for_twins(document, hosts)
    try:
        spec = ClusterSpec.model_validate(document.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        for problem in problems[:FEW]:
            _note(document, problem)
        document.untold += len(problems[FEW:])
        spec = None
    document.check()
    assert spec is not None  # its errors were noted
    return spec


def _hosts(document: Document) -> list[tuple[int, dict[str, Any]]]:
    """What can be looked at before each value is known to be right."""
    hosts = document.data.get("hosts")
    if hosts == []:
        document.wrong(("hosts",), "expected at least one host")
    return [
        (index, host) for index, host in enumerate(hosts if isinstance(hosts, list) else []) if isinstance(host, dict)
    ]


def _choose_head(document: Document, hosts: list[tuple[int, dict[str, Any]]]) -> None:
    heads = [index for index, host in hosts if host.get("role") == "head"]
    for index in heads[1:]:
        document.wrong(("hosts", index, "role"), f"a second head; the first is hosts[{heads[0]}]")
    if not heads and hosts:
        if all(host.get("role") == "worker" for _, host in hosts):
            document.wrong(("hosts",), "no host is the head: expected `role: head` for one")
        next((host for _, host in hosts if "role" not in host), {})["role"] = "head"


def _look_for_twins(document: Document, hosts: list[tuple[int, dict[str, Any]]]) -> None:
    """A name, an address or a machine that two hosts claim."""
    for key in ("name", "fabric", "ssh"):
        first: dict[str, int] = {}
        for index, host in hosts:
            value = host.get(key)
            if not isinstance(value, str) or value == FOUND_BY_PLAN:
                continue
            known = first.setdefault(_same(value), index)
            if known != index:
                document.wrong(("hosts", index, key), f"{value!r} is hosts[{known}] already")


def _same(value: str) -> str:
    return str(ipaddress.ip_address(value)) if is_address(value) else value


def _keys(part: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in part.model_fields.items()]


def _parts(kind: Any) -> Iterator[type[Part]]:
    """The parts that a type speaks of, through lists and unions."""
    if isinstance(kind, type) and issubclass(kind, Part):
        yield kind
    for inner in get_args(kind):
        yield from _parts(inner)


def _part_at(where: Where) -> type[Part] | None:
    """The part that a place stands in."""
    part: type[Part] | None = ClusterSpec
    for step in where:
        if isinstance(step, str):
            fields = {field.alias: field for field in part.model_fields.values()} if part else {}
            part = next(_parts(fields[step].annotation), None) if step in fields else None
    return part


def _note(document: Document, problem: Any) -> None:
    """One of pydantic's errors in this file's words."""
    # Beyond the file's own places stand the branches of a union, of which one is told.
    where = tuple(problem["loc"])
    while where and where not in document.lines and problem["type"] != "missing":
        where = where[:-1]
    part = _part_at(where[:-1])
    if problem["type"] == "extra_forbidden":
        what = f"unknown key; {did_you_mean(str(where[-1]), _keys(part) if part else ())}"
    elif problem["type"] == "missing":
        what = "expected, and missing"
    else:
        what = _told(where, problem)
    document.wrong(where, what)


def _told(where: Where, problem: Any) -> str:
    value, message = problem["input"], WORDS.get(problem["type"]) or str(problem["msg"])
    message = message.removeprefix("Value error, ").replace("Input should be", "expected")
    if where[-1:] == ("api-key",) or isinstance(value, (dict, list)):
        return message  # a key that was written here by mistake is not shown
    choices = {choice.lower(): choice for choice in re.findall(r"'(\w+)'", message)}
    near = nearest(str(value).lower(), choices, count=1)
    return f"{value!r}: {message}" + (f'; did you mean "{choices[near[0]]}"?' if near else "")
