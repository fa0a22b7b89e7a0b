"""What the tour shows while it works: bars and a live table on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.flight_delay.lineup import Part
from models.flight_delay.scrape import Seen
from models.flight_delay.steps import Step
from models.flight_delay.summary import agreement
from models.flight_delay.tally import PROTOCOLS, Tally, quantile
from models.flight_delay.training import Program

PLAIN_EVERY_S: Final = 2.0
WIDTH: Final = 120
EXPECT: Final = "training takes 1 to 4 minutes, most of it Spark's fitting; the result is kept for the next run"


def console() -> Console:
    """Return the console: as wide as the terminal, fixed where there is none."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)


class Training:
    """Bars of the training programs."""

    def __init__(self, to: Console) -> None:
        self._to = to
        self._bars = Progress(
            TextColumn("{task.fields[program]:<13}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.description}"),
            TimeElapsedColumn(),
            console=to,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begun = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self._bars if self._to.is_terminal else contextlib.nullcontext():
            yield
            for task in self._bars.tasks:
                self._bars.update(task.id, completed=task.total, description="done")

    def told(self, program: Program, step: Step) -> None:
        """Show a step, before the first one what to expect."""
        if not self._begun:
            self._begun = True
            self._to.print(EXPECT, soft_wrap=True)
        if not self._to.is_terminal:
            self._to.print(f"training {program.name}: {step.number}/{step.steps} {step.text}")
            return
        if program.name not in self._tasks:
            self._tasks[program.name] = self._bars.add_task("", total=step.steps, program=program.name)
        self._bars.update(self._tasks[program.name], completed=step.number - 1, description=step.text)


class Driving:
    """The live table: rate, latencies, share and agreement of each version."""

    def __init__(self, to: Console, parts: tuple[Part, ...], tally: Tally, flights: int) -> None:
        self._to = to
        self._parts = parts
        self._tally = tally
        self._flights = flights
        self._began = self._then = self._printed = time.monotonic()
        self._rows_then = 0
        self._rate = 0.0
        self._live = Live(console=to, auto_refresh=False) if to.is_terminal else None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table while the block runs."""
        with self._live or contextlib.nullcontext():
            yield

    def update(self, seen: Seen) -> None:
        """Show the present state; on no terminal a line every two seconds."""
        now = time.monotonic()
        rows = self._tally.total_rows
        if now > self._then:
            self._rate = (rows - self._rows_then) / (now - self._then)
        self._then, self._rows_then = now, rows
        if self._live:
            self._live.update(self._render(seen), refresh=True)
        elif now - self._printed >= PLAIN_EVERY_S:
            self._printed = now
            self._to.print(self._line(seen), soft_wrap=True)

    def _render(self, seen: Seen) -> Group:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("version", "role", "requests", "share", "p50 ms", "p99 ms", "agrees"):
            table.add_column(name, justify="left" if name in {"version", "role"} else "right")
        for part in self._parts:
            table.add_row(f"{part.version} {part.runtime}", part.role, *self._cells(part, seen))
        protocols = "   ".join(
            f"{protocol}: {len(taken):,} requests, p50 {quantile(taken, 0.5):.2f}, p99 {quantile(taken, 0.99):.2f} ms"
            for protocol, taken in ((name, self._tally.latencies_ms[name]) for name in PROTOCOLS)
            if taken
        )
        flown = f"{self._tally.total_rows:,} of {self._flights:,} flights, {self._rate:,.0f} flights/s"
        bar = ProgressBar(total=self._flights, completed=self._tally.total_rows)
        return Group(Text(flown), bar, table, Text(protocols))

    def _cells(self, part: Part, seen: Seen) -> tuple[str, ...]:
        found = agreement(part, self._tally, seen)
        agrees = f"{found['equal'] / found['flights']:.3%}" if found and found["flights"] else ""
        taken = self._tally.version_latencies_ms[part.version]
        if not taken:
            copies = sum(count for (version, _), count in seen.verdicts.items() if version == part.version)
            return (f"{copies:,} flights" if part.role == "shadow" else "0", "", "", "", agrees)
        share = self._tally.requests[part.version] / self._tally.total_requests
        return (
            f"{len(taken):,}",
            f"{share:.2%}",
            f"{quantile(taken, 0.5):.2f}",
            f"{quantile(taken, 0.99):.2f}",
            agrees,
        )

    def _line(self, seen: Seen) -> str:
        """Return the state in one short line: a log, or a pager of 100 columns, shows it unbroken."""
        taken = [latency for latencies in self._tally.latencies_ms.values() for latency in latencies]
        words = [f"{self._tally.total_rows:,} flights", f"{self._rate:,.0f}/s"]
        words += [f"p99 {quantile(taken, 0.99):.1f} ms"] if taken else []
        for part in self._parts:
            if part.role == "canary":
                words.append(f"canary {self._tally.requests[part.version] / max(1, self._tally.total_requests):.1%}")
            found = agreement(part, self._tally, seen)
            if found and found["flights"]:
                words.append(f"@{part.version} agrees {found['equal'] / found['flights']:.2%}")
        return f"{time.monotonic() - self._began:5.0f} s  {', '.join(words)}"
