"""``shoal.yaml``: its form, field by field, and its JSON schema."""

import json

from pydantic import BaseModel

from pages.markdown import code, page, table
from pages.status import words
from shoal.spec.cluster import ClusterSpec, FabricSpec, HostSpec, ModelSpec, ServingSpec

EXAMPLE = """\
cluster: lab
image: nvcr.io/nvidia/vllm:25.09-py3
hosts:
  - name: spark-1
    ssh: me@spark-1.lan
    fabric: 192.168.100.1
    role: head
  - name: spark-2
    fabric: 192.168.100.2
    gpus: 1
    env:
      NCCL_DEBUG: INFO
fabric:
  kind: roce
model:
  name: smollm2
  tensor-parallel: 2
serving:
  port: 8000
  api-key: env:SHOAL_KEY
runtime: compose
"""

FORM = f"""\
One file says which machines are to become one endpoint. Only `cluster` and `hosts` are needed.

```yaml
{EXAMPLE}```

It is YAML, and read strictly. All mistakes are told at once, each with its line and the nearest right word:

- an unknown key, a key that stands twice, a value that does not fit
- two hosts with one name, one address or one ssh destination; two heads
- tabs, aliases (`*x`), tags (`!!x`), more than 4 MiB, more than 20 levels

Words are typed as in YAML 1.2: only `true` and `false` are truth values, so a host may be called `no`.
No secret stands in it. An API key is named by where it is: `env:VARIABLE` or `file:PATH`.

[cluster.schema.json](cluster.schema.json) is the same as JSON schema. An editor with the YAML language server checks
the file while you write it, once this is its first line:

```yaml
# yaml-language-server: $schema=/path/to/shoal/docs/reference/cluster.schema.json
```
"""

PARTS: dict[str, type[BaseModel]] = {
    "The file": ClusterSpec,
    "HostSpec": HostSpec,
    "FabricSpec": FabricSpec,
    "ModelSpec": ModelSpec,
    "ServingSpec": ServingSpec,
}


def cluster_schema() -> str:
    """The file as JSON schema."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | ClusterSpec.model_json_schema()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def cluster_page() -> str:
    """The file, part by part."""
    return page("shoal.yaml", FORM, *(f"## {title}\n\n{_fields(part)}" for title, part in PARTS.items()))


def _fields(part: type[BaseModel]) -> str:
    schema = part.model_json_schema()
    needed = set(schema.get("required", ()))
    return table(
        ("key", "value", "default", "meaning"),
        (
            (code(name), words(value), "required" if name in needed else _default(value), value.get("description", ""))
            for name, value in schema["properties"].items()
        ),
    )


def _default(value: dict[str, object]) -> str:
    default = value.get("default")
    return code(str(default)) if isinstance(default, (str, int)) and default != "" else ""
