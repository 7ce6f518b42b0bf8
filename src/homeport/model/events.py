"""What can happen: the kinds of events, for the reference, for filters and for whoever reads the API."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "cron.failed": "A scheduled job ended badly or could not be started.",
    "deploy.failed": "A deploy or rollback ended without a switch; what served before still serves.",
    "deploy.live": "A release went live, by a deploy or a rollback; `data` has the seconds and what the probe saw.",
    "edge.restarted": "The edge was not running and was started again.",
    "env.changed": "Variables were set or unset; names only.",
    "env.revealed": "Somebody looked at a value in the clear.",
    "home.down": "`homeport down` stopped everything this home runs.",
    "instance.ended": "An instance ended by itself; the text says how.",
    "instance.orphan": "A process of this home belonged to nothing any more and was ended.",
    "instance.restarted": "An instance was started again after it had ended or stopped answering.",
    "instance.started": "An instance that should run and did not was started.",
    "instance.unwell": "An instance fails its health check while it is live.",
    "project.destroyed": "A project, or an environment of it, was removed; its data is kept 7 days.",
    "release.rolled-back": "A watched release did worse than the one before, which is being put live again.",
    "release.worse": "A watched release does badly, and there is no earlier one to go back to.",
    "retention.removed": "Releases, builds and sources that nothing needs any more were removed.",
    "run": "A one-off command was run.",
    "scale": "The number of instances was set by hand.",
}
"""Kind to meaning. A kind is never reused for something else."""
