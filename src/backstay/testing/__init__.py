"""The public test kit: fake clock, faulty and scheduled stores, and what every storage backend must do."""

from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.testing.conformance import StorageConformance
from backstay.testing.faults import Call, CrashPoint, Fault, FaultKind, FaultyBackend, Operation
from backstay.testing.filesystem import FaultyFilesystem, PowerCutFilesystem
from backstay.testing.glacier import GlacierStorage
from backstay.testing.interleaving import Fate, Interleaving, Outcome, ScheduledBackend
from backstay.testing.locked import LockedStorage

__all__ = [
    "Call",
    "CrashPoint",
    "FakeClock",
    "Fate",
    "Fault",
    "FaultKind",
    "FaultyBackend",
    "FaultyFilesystem",
    "GlacierStorage",
    "Interleaving",
    "LockedStorage",
    "MemoryStorage",
    "Operation",
    "Outcome",
    "PowerCutFilesystem",
    "ScheduledBackend",
    "StorageConformance",
]
