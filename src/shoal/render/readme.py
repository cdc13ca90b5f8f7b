"""The README of a deployment folder."""

from shoal.plan.container import PROFILES, ContainerPlan, Role

README = """\
# {title}

{about}

The machine needs {needs}.
It needs no shoal and no Python: `shoal.pyz`, beside this file, runs inside the vLLM image.

## Three commands

{get}

On the node, in the folder:

```sh
cp .env.example .env      # then edit the three settings at its top
docker compose up -d
docker compose logs -f
```

With docker-compose 1.29 write `docker-compose` for `docker compose`.

{more}

## Stop it

```sh
docker compose down
```

The node leaves the cluster first; that takes up to a minute. `state/` (logs{kept}), `cache/` (what was
compiled) and the models stay. `run/` holds sockets, and may go.

## When it does not come up

- `docker compose ps` shows whether the agent answers, `docker compose logs` what it waits for.
- `bind source path does not exist: ...shoal.pyz`, or `shoal.pyz is no file`: it was not made. See the first command;
  where Compose has made a folder of that name, `rmdir shoal.pyz` before.
{trouble}- A line with `config` names the variable in `.env` that is wrong.
"""
# The folders in deploy/ are of the first profile.
GET = {
    True: "On a machine with shoal's sources, in their folder. The first command makes `shoal.pyz` in\n"
    "`deploy/{role}`, the "
    "second copies all of it. `shoal render {role}` writes the same folder anywhere.\n\n"
    "```sh\nmake pyz\nscp -r deploy/{role} NODE:{role}\n```",
    False: "On a machine with shoal; the second command copies the folder that the first has written.\n\n"
    "```sh\nshoal render {role} --profile {profile} -o {role}\nscp -r {role} NODE:\n```",
}
NEEDS = {
    "nvidia-rdma": "Docker with Compose, the NVIDIA driver and Container Toolkit, and RDMA devices (`/dev/infiniband`)",
    "nvidia-tcp": "Docker with Compose, and the NVIDIA driver and Container Toolkit",
    "cpu": "Docker with Compose, and an image with vLLM for CPUs and Ray (`SHOAL_IMAGE`)",
}
ABOUT = {
    "worker": "One container, `ray-worker`: this machine joins the Ray cluster of the head, and runs its share of the\n"
    "model.",
    "head": "Two containers: `ray-head` is the Ray node that others join, `vllm` waits for the nodes that\n"
    "`SHOAL_EXPECT` names and serves the model over all of them.",
}
MORE = {
    "worker": "It joins as soon as the head answers, and joins again whenever the head was away.",
    "head": "Every path of the API but `/health` wants the key in `state/api.key`, made at the first start.\n"
    "vLLM's options for a model go into `models.yaml`; after a change: `docker compose restart vllm`.",
}
TROUBLE = """\
- `/dev/infiniband` or `/sys/class/infiniband` does not exist: this machine has no RDMA device, or its driver is not
  loaded. Load it, or use the profile `nvidia-tcp`.
"""
RUNTIME = "- `Unknown runtime specified nvidia`: install the NVIDIA Container Toolkit, then restart Docker.\n"


def readme(plan: ContainerPlan) -> str:
    """How to use the folder, in the order in which one does."""
    title: dict[Role, str] = {"worker": "A worker node", "head": "The head node"}
    trouble = (TROUBLE if plan.profile == "nvidia-rdma" else "") + ("" if plan.profile == "cpu" else RUNTIME)
    get = GET[plan.profile == PROFILES[0]].format(role=plan.role, profile=plan.profile)
    return README.format(
        get=get,
        title=title[plan.role],
        about=ABOUT[plan.role],
        role=plan.role,
        needs=NEEDS[plan.profile],
        more=MORE[plan.role],
        kept=", and the API key" if plan.role == "head" else "",
        trouble=trouble,
    )
