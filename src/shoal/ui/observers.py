"""How a bring-up is shown: live on a terminal, as lines elsewhere, as JSON for machines. One protocol, three forms."""

import json
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal.lab.sim.answers import MODEL as SIMULATED
from shoal.ops.bringup import Ready
from shoal.state.status import ClusterStatus, EngineStatus, NodeStatus

STYLE = {"up": "green", "ready": "green", "failed": "bold red", "lost": "bold red", "unready": "yellow"}


class Observer(Protocol):
    """Is told what happens."""

    def note(self, text: str) -> None:
        """A step outside the cluster, such as preparing the model."""

    def status(self, status: ClusterStatus) -> None:
        """The cluster, as often as it is looked at."""

    def ready(self, ready: Ready) -> None:
        """It has answered."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Leave the terminal as it was."""


def summary(ready: Ready, *, detached: bool) -> list[tuple[str, str]]:
    """What a user wants to know of a cluster that has just answered."""
    answer = ready.answer
    return [
        ("question", ready.question),
        ("answer", answer.text.strip()),
        ("start", seconds(ready.status.engine) if ready.status.engine else ""),
        ("speed", f"{answer.tokens} tokens in {answer.seconds:.1f} s, {answer.tokens_per_second:.0f} tokens/s"),
        ("endpoint", ready.record.endpoint),
        ("model", ready.record.model),
        *((("page", ready.record.page),) if ready.record.page else ()),
        ("API key", f"in {ready.record.api_key_file}"),
        ("stop", ready.stop if detached else f"Ctrl-C, or: {ready.stop}"),
    ]


def seconds(engine: EngineStatus) -> str:
    """Phases with their seconds, the current one marked."""
    return "  ".join(
        f"{name} {value:.0f} s" + ("..." if name == engine.phase else "") for name, value in engine.phases.items()
    )


class Plain:
    """A line for every change; for pipes, files and CI."""

    def __init__(self, *, detached: bool) -> None:
        self._detached = detached
        self._seen: dict[str, str] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        """One line."""
        self._line("shoal", text)

    def status(self, status: ClusterStatus) -> None:
        """A line for each node and for the engine, where it has changed."""
        for node in status.nodes:
            self._changed(node.name, f"{node.address} {node.stage or node.state.value}", node.detail)
        if engine := status.engine:
            self._changed("engine", f"{engine.state.value} {engine.phase}".strip(), "")

    def ready(self, ready: Ready) -> None:
        """The summary."""
        print(f"\nshoal is ready: {len(ready.status.nodes)} node(s), one endpoint")
        for name, value in summary(ready, detached=self._detached):
            print(f"  {name:<9} {value}")
        sys.stdout.flush()

    def _changed(self, who: str, what: str, detail: str) -> None:
        if self._seen.get(who) != what:
            self._seen[who] = what
            self._line(who, f"{what}  {detail}".rstrip())

    def _line(self, who: str, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {who:<9} {text}", flush=True)


class Json:
    """One JSON object per event."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        """``{"event": "note"}``."""
        self._emit({"event": "note", "message": text})

    def status(self, status: ClusterStatus) -> None:
        """``{"event": "status"}`` with the whole document, where states or phases have changed."""
        key = str([(node.name, node.stage) for node in status.nodes]) + str(
            status.engine and (status.engine.state, status.engine.phase)
        )
        if key != self._last:
            self._last = key
            self._emit({"event": "status", "status": status.model_dump(mode="json")})

    def ready(self, ready: Ready) -> None:
        """``{"event": "ready"}`` with question, answer and speed."""
        answer = ready.answer
        self._emit(
            {
                "event": "ready",
                "endpoint": ready.record.endpoint,
                "model": ready.record.model,
                "api_key_file": ready.record.api_key_file,
                "question": ready.question,
                "answer": answer.text,
                "tokens": answer.tokens,
                "seconds": round(answer.seconds, 3),
                "tokens_per_second": round(answer.tokens_per_second, 1),
                "status": ready.status.model_dump(mode="json"),
            }
        )

    def _emit(self, document: dict[str, object]) -> None:
        print(json.dumps(document, ensure_ascii=False), flush=True)


class Terminal:
    """A table that is redrawn in place."""

    def __init__(self, *, detached: bool) -> None:
        self._detached = detached
        self._console = Console()
        self._began = time.monotonic()
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._live.__exit__(kind, value, tb)

    def note(self, text: str) -> None:
        """The step that runs now."""
        self._live.update(Text(f"{self._elapsed()}  {text}"))

    def status(self, status: ClusterStatus) -> None:
        """The table."""
        title = Text(f"{self._elapsed()}  bringing up {len(status.nodes)} node(s)")
        phases = Text(seconds(status.engine) if status.engine else "", style="dim")
        self._live.update(Group(title, table(status), phases))

    def ready(self, ready: Ready) -> None:
        """The last table, and the summary."""
        self._live.stop()
        self._console.print(table(ready.status))
        self._console.print(f"[bold green]shoal is ready[/]: {len(ready.status.nodes)} node(s), one endpoint")
        for name, value in summary(ready, detached=self._detached):
            self._console.print(Text.assemble("  ", (f"{name:<9} ", "dim"), value), soft_wrap=True)

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:3.0f} s"


def table(status: ClusterStatus) -> Table:
    """Nodes and engine as a table."""
    out = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("node", "role", "address", "state", "GPUs", ""):
        out.add_column(name, overflow="fold")
    for node in status.nodes:
        out.add_row(
            Text(node.name), node.role, Text(node.address), _state(node.state.value), str(node.gpus), _about(node)
        )
    if engine := status.engine:
        words = engine.detail or engine.phase
        server = "no vLLM" if engine.model == SIMULATED else "vLLM"
        out.add_row("engine", server, Text(engine.model), _state(engine.state.value), "", Text(words))
    return out


def _about(node: NodeStatus) -> Text:
    return Text(node.detail or node.stage)


def _state(value: str) -> Text:
    return Text(value, style=STYLE.get(value, ""))


def choose(*, as_json: bool, detached: bool) -> Observer:
    """The observer for this standard output."""
    if as_json:
        return Json()
    return Terminal(detached=detached) if sys.stdout.isatty() else Plain(detached=detached)
