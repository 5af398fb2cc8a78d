"""`lorikeet bench`: measures the latency and throughput of any OpenAI-compatible server.

`python -m ops.lab.bench` measures a checkout of this repository instead.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ops.commands.clients.client_options import (
    ApiKeyOption,
    ChosenServer,
    UrlOption,
    check_plot,
    chosen_server,
)
from ops.load.distributions import FORMULA, Arrivals, Closed, Open, Popularity, parse_length
from shared.errors import LorikeetError, SettingsError

if TYPE_CHECKING:
    from ops.load.answers import Answer
    from ops.load.load import Load
    from ops.load.report import LoadReport

CLIENTS = 8
"""Number of clients if neither --clients nor --rate is given."""
LENGTH_HELP = "Give one number, or a range such as 64-256 to sample from uniformly."
LENGTHS, ARRIVALS, MODELS, RESULTS = "Lengths", "Arrivals", "Models", "Results"


class BenchFailed(LorikeetError):
    """Requests failed, so the figures are not valid."""


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Models and adapters to request. The URL of the server may precede them.",
        ),
    ],
    requests: Annotated[
        int, typer.Option(min=1, metavar="N", help="Total number of requests.")
    ] = 64,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Closed loop: number of clients, each of which sends its next request after the "
            f"answer to its last. {CLIENTS} by default.",
            rich_help_panel=ARRIVALS,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            metavar="RATE",
            help="Open loop: mean number of requests per second.",
            rich_help_panel=ARRIVALS,
        ),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option(
            min=1e-6,
            metavar="SHAPE",
            help="Burstiness of an open loop, whose gaps follow Gamma(shape = burstiness, "
            "scale = 1 / (rate * burstiness)). 1 is a Poisson process; lower values are burstier.",
            rich_help_panel=ARRIVALS,
        ),
    ] = 1.0,
    input_words: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="WORDS",
            help=f"Words per prompt, at about one token each. {LENGTH_HELP}",
            rich_help_panel=LENGTHS,
        ),
    ] = "128",
    output_tokens: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="TOKENS",
            help=f"Tokens per answer. {LENGTH_HELP}",
            rich_help_panel=LENGTHS,
        ),
    ] = "128",
    shared_words: Annotated[
        int,
        typer.Option(
            "--shared",
            min=0,
            metavar="WORDS",
            help="Words that all prompts share, before those of --input.",
            rich_help_panel=LENGTHS,
        ),
    ] = 0,
    popularity: Annotated[
        Popularity, typer.Option(metavar="NAME", help=FORMULA, rich_help_panel=MODELS)
    ] = Popularity.DISTINCT,
    zipf_s: Annotated[
        float,
        typer.Option(
            min=0, metavar="S", help="Exponent s of --popularity zipf.", rich_help_panel=MODELS
        ),
    ] = 1.0,
    slo_ttft_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Goodput: longest time to the first token.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    slo_itl_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Goodput: longest mean time per token after the first, for each answer.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures to this JSON file.", rich_help_panel=RESULTS
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the latencies to this PNG file. Needs matplotlib.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(help="Stream answers. Without streaming, no token times are measured."),
    ] = True,
    url: UrlOption = None,
    seed: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Seed of all random choices; another seed changes all."),
    ] = "",
    api_key: ApiKeyOption = None,
) -> None:
    """Benchmark an OpenAI-compatible server with greedy completions of exact lengths.

    A request fails if the server returns an error or a different number of tokens than requested.
    If any request fails, the command exits with status 1.
    """
    # Imported here because importing httpx is slow.
    from ops.load.load import Load
    from ops.load.report import Slo, report

    _check_outputs(stream, plot, slo_ttft_ms, slo_itl_ms)
    names, server = _names_and_server(models, url, api_key)
    load = Load(
        url=_up_to_v1(server.url),
        models=tuple(names),
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
    answers = _send(load, server.api_key)
    has_slo = slo_ttft_ms is not None or slo_itl_ms is not None
    slo = Slo(ttft_ms=slo_ttft_ms, itl_ms=slo_itl_ms) if has_slo else None
    _show(report(load, answers, slo), answers, json, plot)


def _names_and_server(
    words: list[str], url: str | None, api_key: str | None
) -> tuple[list[str], ChosenServer]:
    """Return the models, and the server that the first word, an option or the environment names."""
    if "://" in words[0]:
        if url is not None:
            raise SettingsError(f"two URLs given: {words[0]} and --url {url}; give one")
        url, *words = words
    if not words:
        raise SettingsError("MODEL: name at least one model or adapter after the URL")
    return words, chosen_server(url, api_key)


def _send(load: "Load", api_key: str | None) -> "list[Answer]":
    from ops.load.load import send_load
    from ops.terminal import progress

    with progress(Console(stderr=True)) as bar:
        task = bar.add_task("requests", total=load.requests)
        return asyncio.run(send_load(load, lambda: bar.advance(task), api_key=api_key))


def _show(
    load_report: "LoadReport", answers: "list[Answer]", json: Path | None, plot: Path | None
) -> None:
    from ops.json_files import write_json
    from ops.load.report import load_lines, load_table

    console = Console()
    console.print(load_table(load_report))
    for line in load_lines(load_report):
        console.print(line, highlight=False, soft_wrap=True)
    if json:
        write_json(load_report, json)
    if plot:
        from ops.load.plot import plot_load

        plot_load(load_report, answers, plot)
    if load_report.errors:
        reasons = "\n".join(sorted(set(load_report.errors)))
        raise BenchFailed(
            f"{len(load_report.errors)} of {load_report.load.requests} requests to "
            f"{load_report.load.url} failed:\n{reasons}"
        )


def _check_outputs(
    stream: bool, plot: Path | None, slo_ttft_ms: float | None, slo_itl_ms: float | None
) -> None:
    """Check the options for the results before any request is sent."""
    if not stream and (slo_ttft_ms is not None or slo_itl_ms is not None):
        raise SettingsError("--slo-ttft-ms and --slo-itl-ms need --stream: they limit token times")
    check_plot(plot)


def _arrivals(clients: int | None, rate: float | None, burstiness: float) -> Arrivals:
    if rate is None:
        return Closed(clients=clients or CLIENTS)
    if clients is not None:
        raise SettingsError(
            "--clients makes a closed loop and --rate an open one: give one of them"
        )
    return Open(rate=rate, burstiness=burstiness)


def _up_to_v1(url: str) -> str:
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"
