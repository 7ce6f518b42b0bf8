"""Heroku's `app.json`, with Dokku's additions and those of Google's Cloud Run button; its commands stand in the Procfile beside it."""

from homeport.blueprints.appjson.reader import AppJsonReader
from homeport.blueprints.appjson.writer import AppJsonWriter

__all__ = ["AppJsonReader", "AppJsonWriter"]
