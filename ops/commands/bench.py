"""`lorikeet bench`: load on any OpenAI-compatible server, and how it bears it."""

import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ops.bench.load.arrivals import Arrivals, Closed, Open
from ops.bench.load.lengths import parse_length
from ops.bench.load.popularity import FORMULA, Popularity
from shared.api_keys import parse_keys
from shared.errors import LorikeetError, SettingsError

if TYPE_CHECKING:
    from ops.bench.load.answers import Answer
    from ops.bench.load.load import Load
    from ops.bench.load.report import LoadReport

CLIENTS = 8
"""Unless a number or a rate is given."""
LENGTH_HELP = "one number, or a range like 64-256 of which each is as likely"
LENGTHS, WHEN, WHICH, RESULT = "How long", "When", "Which model", "Result"


class BenchFailed(LorikeetError):
    """Requests failed, so that the figures count for nothing."""


def bench(
    url: Annotated[str, typer.Argument(help="the server; /v1 is added if it isn't there")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="what to ask for")],
    requests: Annotated[int, typer.Option(min=1, help="requests in all")] = 64,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"closed loop: so many, each sends when it was answered; {CLIENTS} by default",
            rich_help_panel=WHEN,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="open loop: requests per second, on average", rich_help_panel=WHEN
        ),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option(
            min=1e-6,
            help="of an open loop, whose gaps are Gamma(shape = burstiness, "
            "scale = 1 / (rate * burstiness)): 1 is Poisson, less is burstier",
            rich_help_panel=WHEN,
        ),
    ] = 1.0,
    input_words: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="WORDS",
            help=f"words of a prompt, about a token each: {LENGTH_HELP}",
            rich_help_panel=LENGTHS,
        ),
    ] = "128",
    output_tokens: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="TOKENS",
            help=f"tokens of an answer: {LENGTH_HELP}",
            rich_help_panel=LENGTHS,
        ),
    ] = "128",
    shared_words: Annotated[
        int,
        typer.Option(
            "--shared",
            min=0,
            metavar="WORDS",
            help="in front of --input, the same for all prompts",
            rich_help_panel=LENGTHS,
        ),
    ] = 0,
    popularity: Annotated[
        Popularity, typer.Option(help=FORMULA, rich_help_panel=WHICH)
    ] = Popularity.DISTINCT,
    zipf_s: Annotated[float, typer.Option(min=0, help="s of zipf", rich_help_panel=WHICH)] = 1.0,
    slo_ttft_ms: Annotated[
        float | None,
        typer.Option(help="for goodput: longest time to the first token", rich_help_panel=RESULT),
    ] = None,
    slo_itl_ms: Annotated[
        float | None,
        typer.Option(
            help="for goodput: longest time per token after it, mean of an answer",
            rich_help_panel=RESULT,
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="file to write all figures to", rich_help_panel=RESULT)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to draw latencies into", rich_help_panel=RESULT)
    ] = None,
    stream: Annotated[bool, typer.Option(help="whole answers have no first token to time")] = True,
    seed: Annotated[str, typer.Option(help="another one draws everything anew")] = "",
    api_key: Annotated[
        str | None,
        typer.Option(
            help="of the server, by default the first in LORIKEET_API_KEYS",
            envvar="LORIKEET_API_KEYS",
            show_envvar=False,
        ),
    ] = None,
) -> None:
    """Load a running server, Lorikeet or another, with greedy completions of exact length.

    A request that fails, or gets another number of tokens, is an error, and ends this with 1.
    """
    # Later, as httpx takes its time.
    from ops.bench.load.load import Load
    from ops.bench.load.report import Slo, report

    _check_outputs(stream, plot, slo_ttft_ms, slo_itl_ms)
    load = Load(
        url=_up_to_v1(url),
        models=tuple(models),
        popularity=popularity,
        zipf_s=zipf_s,
        arrivals=_arrivals(clients, rate, burstiness),
        requests=requests,
        input_words=parse_length("--input", input_words),
        shared_words=shared_words,
        output_tokens=parse_length("--output", output_tokens),
        stream=stream,
        seed=seed,
    )
    keys = parse_keys([api_key or ""])
    answers = _send(load, keys[0].secret if keys else None)
    has_slo = slo_ttft_ms is not None or slo_itl_ms is not None
    slo = Slo(ttft_ms=slo_ttft_ms, itl_ms=slo_itl_ms) if has_slo else None
    _show(report(load, answers, slo), answers, json, plot)


def _send(load: "Load", api_key: str | None) -> "list[Answer]":
    from ops.bench.load.load import send_load
    from ops.bench.progress import progress

    with progress(Console(stderr=True)) as bar:
        task = bar.add_task("requests", total=load.requests)
        return asyncio.run(send_load(load, lambda: bar.advance(task), api_key=api_key))


def _show(
    found: "LoadReport", answers: "list[Answer]", json: Path | None, plot: Path | None
) -> None:
    from ops.bench.json_files import write_json
    from ops.bench.load.output import load_lines, load_table

    console = Console()
    console.print(load_table(found))
    for line in load_lines(found):
        console.print(line, highlight=False, soft_wrap=True)
    if json:
        write_json(found, json)
    if plot:
        from ops.bench.load.plot import plot_load

        plot_load(found, answers, plot)
    if found.errors:
        reasons = "\n".join(sorted(set(found.errors)))
        raise BenchFailed(f"{len(found.errors)} of {found.load.requests} failed:\n{reasons}")


def _check_outputs(
    stream: bool, plot: Path | None, slo_ttft_ms: float | None, slo_itl_ms: float | None
) -> None:
    """Refuse what would only fail, or mean nothing, after a long load."""
    if not stream and (slo_ttft_ms is not None or slo_itl_ms is not None):
        raise SettingsError("--slo-ttft-ms and --slo-itl-ms need --stream: they time tokens")
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: pip install matplotlib")


def _arrivals(clients: int | None, rate: float | None, burstiness: float) -> Arrivals:
    if rate is None:
        return Closed(clients=clients or CLIENTS)
    if clients is not None:
        raise SettingsError("--clients is a closed loop and --rate an open one: give one of them")
    return Open(rate=rate, burstiness=burstiness)


def _up_to_v1(url: str) -> str:
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"
