"""What others are told of runs: numbers for Prometheus, and the messages that a policy file asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backstay.control.manager.ground import Ground

if TYPE_CHECKING:
    from backstay.control.notifying.outbox import Delivered


class Telling(Ground):
    """The part that tells. `backstay serve` does all this by itself; programs without it call it when they will."""

    def metrics(self) -> bytes:
        """All metrics in the text format of Prometheus, as `/metrics` of the service has them."""
        from backstay.control.metrics.expected import expectations_of
        from backstay.control.metrics.exposition import exposition

        self._settled()
        return exposition(self.records.catalog, self._setup.clock, expected=expectations_of(self._setup.policies))

    def notify(self) -> Delivered:
        """Send the messages about runs that ended since, to the targets that the policy file names.

        What cannot be sent is tried again by the next call, for as long as an outbox keeps it.
        """
        from backstay.control.notifying.notifier import Notifier

        self._settled()
        return Notifier(self.records.catalog, self._setup.clock).deliver_due()

    def _settled(self) -> None:
        """Let follow from the ends of runs what follows from them: they are counted, and messages are written."""
        from backstay.control.metrics.expected import expectations_of
        from backstay.control.notifying.alerts import Alerts
        from backstay.control.notifying.notifier import Notifier
        from backstay.control.notifying.of_policies import sync_from_policies
        from backstay.control.notifying.settling import Settling

        catalog, clock, policies = self.records.catalog, self._setup.clock, self._setup.policies
        notifier = Notifier(catalog, clock)
        with catalog.session() as session:
            sync_from_policies(session, notifier, policies)
        alerts = Alerts(catalog, clock, notifier, expected=lambda: expectations_of(policies))
        Settling(catalog, clock, notifier, alerts).sweep()
