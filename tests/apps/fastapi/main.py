import os

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
items: dict[int, "Item"] = {}


class Item(BaseModel):
    name: str
    price: float


@app.get("/")
def index() -> dict[str, str]:
    return {"hello": os.environ.get("GREETING", "world")}


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}


@app.put("/items/{item_id}")
def put_item(item_id: int, item: Item) -> Item:
    items[item_id] = item
    return item
