"""`statistics`: settings of intervals and tests; it has no key until there is something to set."""

from fcos.config.section import Section


class StatisticsConfig(Section):
    """Empty: an option that is accepted and does nothing would be a trap."""
