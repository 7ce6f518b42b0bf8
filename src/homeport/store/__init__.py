"""The store: what Homeport knows. One module per noun over one database (SQLite by default, PostgreSQL when set)."""

from homeport.store.store import Store

__all__ = ["Store"]
