"""``python -m widget_analytics``."""

from widget_analytics.cli import main

main()
