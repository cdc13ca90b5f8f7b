"""A draft as the text of ``shoal.yaml``, each value with its reason behind it."""

from collections.abc import Iterator

from shoal.plan.draft import Draft, HostDraft, Value


def cluster_file(draft: Draft) -> str:
    """The file's text."""
    return "\n".join(_lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    yield f"# Written by shoal init, which looked at {len(draft.hosts)} host(s). Every line may be changed."
    yield f"cluster: {draft.cluster}"
    yield "hosts:"
    for host in draft.hosts:
        yield from _host(host)
    yield "fabric:"
    yield _line("  kind", draft.kind)
    yield "model: smollm2  # a key of the registry, the path of a folder, or ORGANISATION/MODEL of the hub"


def _host(host: HostDraft) -> Iterator[str]:
    yield f"  - name: {_word(host.name)}"
    if host.ssh:
        yield f"    ssh: {_word(host.ssh)}"
    yield _line("    fabric", host.fabric)
    yield _line("    gpus", host.gpus)
    yield _line("    role", host.role)


def _line(key: str, value: Value) -> str:
    why = "".join(letter if letter.isprintable() else " " for letter in value.why)
    return f"{key}: {value.text}" + (f"  # {why}" if why else "")


def _word(text: str) -> str:
    """A word that YAML reads as text, whatever it is."""
    return f'"{text}"' if text[:1].isdigit() or text.lower() in {"null", "true", "false"} else text
