"""What Snakemake tells its users while this workflow runs."""

from logging import LogRecord

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """Shows Snakemake's messages."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.default = ColorizingTextHandler(nocolor=settings.nocolor)
        self.default.setFormatter(DefaultFormatter(settings.quiet, settings.show_failed_logs))
        self.default.addFilter(
            DefaultFilter(
                settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
            )
        )

    def emit(self, record: LogRecord) -> None:
        """Pass a message on to Snakemake's own handler."""
        self.default.handle(record)

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's own output."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake writes .snakemake/log itself."""
        return False

    @property
    def has_filter(self) -> bool:
        """Errors must come through whatever is asked to be quiet."""
        return True

    @property
    def has_formatter(self) -> bool:
        """The wording is this package's own."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The order of the rules is not shown."""
        return False
