"""Widget analytics on Supabase: send events of call widgets, read calls and the usage that is billed.

    >>> from widget_analytics import Period, WidgetAnalytics
    >>> with WidgetAnalytics() as analytics:                       # doctest: +SKIP
    ...     for usage in analytics.usage(Period.month("2026-10")):
    ...         print(usage.widget_id, usage.calls, usage.billable_seconds)

Settings come from keyword arguments, the environment or ``.env``. Seconds are exact decimals, times are in UTC.
"""

from importlib.metadata import version as _version

from widget_analytics.book_models import (
    Closing,
    KnownCall,
    MonthToClose,
    PendingAdjustment,
    PendingMonth,
    Plan,
    Reconciliation,
    Recorded,
)
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import (
    ConfigError,
    NotMigrated,
    Refused,
    TooManyRequests,
    Unreachable,
    WidgetAnalyticsError,
    WrongKey,
)
from widget_analytics.models import (
    Alarm,
    BillingMonth,
    Call,
    Charge,
    CleanupResult,
    CleanupRun,
    Event,
    EventType,
    Evidence,
    Outcome,
    Rates,
    Refusal,
    Rejection,
    Statement,
    StatementLine,
    Tracked,
    Usage,
    Widget,
)
from widget_analytics.periods import Period
from widget_analytics.status import Status, Thresholds

__all__ = [
    "Alarm",
    "BillingMonth",
    "Call",
    "Charge",
    "CleanupResult",
    "CleanupRun",
    "Closing",
    "ConfigError",
    "Event",
    "EventType",
    "Evidence",
    "KnownCall",
    "MonthToClose",
    "NotMigrated",
    "Outcome",
    "PendingAdjustment",
    "PendingMonth",
    "Period",
    "Plan",
    "Rates",
    "Reconciliation",
    "Recorded",
    "Refusal",
    "Refused",
    "Rejection",
    "Statement",
    "StatementLine",
    "Status",
    "Thresholds",
    "TooManyRequests",
    "Tracked",
    "Unreachable",
    "Usage",
    "Widget",
    "WidgetAnalytics",
    "WidgetAnalyticsError",
    "WrongKey",
]

__version__ = _version("widget-analytics")
