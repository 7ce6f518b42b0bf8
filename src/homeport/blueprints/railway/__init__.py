"""Railway: `railway.json` and `railway.toml`.

One file configures one service; variables, volumes, domains and databases live in Railway's dashboard. `railway_references` reads the
`${{Postgres.DATABASE_URL}}` form in which variables are exported.
"""

from homeport.blueprints.railway.reader import RailwayReader
from homeport.blueprints.railway.references import railway_addons, railway_references, railway_text
from homeport.blueprints.railway.writer import RailwayWriter

__all__ = ["RailwayReader", "RailwayWriter", "railway_addons", "railway_references", "railway_text"]
