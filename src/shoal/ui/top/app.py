"""The terminal view as a Textual application: it asks every second, and says since when what it shows is stale."""

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static, TabbedContent, TabPane

from shoal.errors import ShoalError
from shoal.state.live import ClusterLive
from shoal.ui.top import words

Look = Callable[[], Awaitable[ClusterLive]]


class Top(App[None]):
    """The cluster, live."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "shoal"
    CSS = """
    Screen { background: ansi_default; }
    #verdict { padding: 0 1; height: auto; max-height: 4; }
    #engine { padding: 0 1; height: auto; max-height: 9; border-bottom: solid $foreground 20%; }
    TabbedContent { height: 1fr; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("n", "show('nodes')", "Nodes"),
        Binding("r", "show('rails')", "Rails"),
        Binding("f", "show('findings')", "Findings"),
        Binding("e", "show('events')", "Events"),
    ]

    def __init__(self, look: Look, every: float = 1.0) -> None:
        super().__init__()
        self._look = look
        self._every = every
        self._rates = words.Rates()
        self._live: ClusterLive | None = None
        self._at = 0.0

    def compose(self) -> ComposeResult:
        """The screen: a verdict, the engine, and four tabs."""
        yield Static("asking the head's agent", id="verdict")
        yield Static(id="engine")
        with TabbedContent(initial="nodes"):
            with TabPane("Nodes", id="nodes"):
                yield DataTable[Text](id="node-table", cursor_type="row", zebra_stripes=True)
            with TabPane("Rails", id="rails"):
                yield DataTable[Text](id="rail-table", cursor_type="row", zebra_stripes=True)
            with TabPane("Findings", id="findings"), VerticalScroll():
                yield Static(id="finding-list")
            with TabPane("Events", id="events"), VerticalScroll():
                yield Static(id="event-list")
        yield Footer()

    def on_mount(self) -> None:
        """Columns, and the first look."""
        self._table("node").add_columns(*words.NODE_COLUMNS)
        self._table("rail").add_columns(*words.RAIL_COLUMNS)
        self.set_interval(self._every, self._ask)
        self._ask()

    def _ask(self) -> None:
        # Exclusive: a look that takes longer than a second is not asked for twice.
        if not any(worker.is_running for worker in self.workers):
            self.run_worker(self._refresh_all(), exit_on_error=True)

    async def _refresh_all(self) -> None:
        live: ClusterLive | ShoalError
        try:
            live = await self._look()
        except ShoalError as error:
            live = error
        if not self.query("#verdict"):
            return  # the screen is not there yet, or is being taken down
        if isinstance(live, ShoalError):
            self._stale(live)
            return
        self._live, self._at = live, time.time()
        self._rates.add(live)
        self.query_one("#verdict", Static).update(words.verdict(live))
        self.query_one("#engine", Static).update(words.engine(live.status.engine, live.serving, self._rates.all()))
        self._fill("node", [words.node_row(node) for node in live.nodes])
        self._fill("rail", words.rail_rows(live))
        self.query_one("#finding-list", Static).update(words.findings(live))
        self.query_one("#event-list", Static).update(words.events(live))

    def _stale(self, error: ShoalError) -> None:
        """Nothing new came: since when, and why."""
        seen = time.strftime("%H:%M:%S", time.localtime(self._at))
        text = Text(f"✗ stale since {seen}: " if self._live else "✗ ", style="bold red")
        text.append(error.what).append(f"\n  {words.plain(error.why or error.fix)}", style="not bold default")
        self.query_one("#verdict", Static).update(text)

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}-table", DataTable)

    def _fill(self, name: str, rows: list[words.Row]) -> None:
        """Write the rows anew, and keep the cursor where it was."""
        table = self._table(name)
        row, scroll = table.cursor_row, table.scroll_y
        table.clear()
        for cells in rows:
            table.add_row(*cells)
        if rows:
            table.move_cursor(row=min(row, len(rows) - 1), animate=False)
            table.scroll_to(y=scroll, animate=False)

    def action_show(self, tab: str) -> None:
        """Go to a tab."""
        self.query_one(TabbedContent).active = tab
