"""Durable work: journaled steps that survive `kill -9`. The only importer of the durable engine (DBOS)."""

from homeport.durable.engine import Durable
from homeport.durable.faults import Faults

__all__ = ["Durable", "Faults"]
