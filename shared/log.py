"""Log output with one event per line: text on a terminal, JSON elsewhere."""

import logging
import sys

import structlog


def configure_logging(level: str, *, process: str) -> None:
    """Write the log lines of this process to standard error, from severity `level` upwards.

    Each line has the name of the process in its field `process`.
    """
    structlog.contextvars.bind_contextvars(process=process)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
