"""What the service does by itself beside running jobs, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.control.metrics.expected import expectations_of
from backstay.control.metrics.measuring import measure
from backstay.control.metrics.repositories import keep_samples
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.of_policies import sync_from_policies
from backstay.control.notifying.settling import Settling
from backstay.control.opening.opener import Opener
from backstay.control.runs.capturing import snapshot_name
from backstay.control.scheduling.configuration import ConfigurationMarks
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.ticker import MakesJobs, Ticker
from backstay.control.service.background import Task
from backstay.control.service.policies import Policies
from backstay.core.clock import Clock
from backstay.core.ids import Random

TICK_S: Final = 2.0
