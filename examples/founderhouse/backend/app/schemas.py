"""What goes in and out over HTTP."""

import uuid
from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, EmailStr, Field

T = TypeVar("T")
Visibility = Literal["private", "public"]
Kind = Literal["memo", "pitch", "update", "interview", "note"]


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Registration(BaseModel):
    email: EmailStr
    name: str = Field(min_length=1, max_length=120)
    password: str = Field(min_length=10, max_length=200)


class Login(BaseModel):
    email: EmailStr
    password: str = Field(max_length=200)


class Refresh(BaseModel):
    refresh_token: str = Field(max_length=2000)


class Tokens(BaseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int


class UserOut(Out):
    id: uuid.UUID
    email: EmailStr
    name: str
    created_at: datetime


class StartupIn(BaseModel):
    name: str = Field(min_length=1, max_length=120)
    sector: str = Field(min_length=1, max_length=60)
    stage: str = Field("pre-seed", max_length=30)
    country: str = Field(min_length=1, max_length=60)
    founded: int = Field(ge=1900, le=2100)
    summary: str = Field(min_length=1, max_length=5000)


class StartupOut(Out):
    id: uuid.UUID
    owner_id: uuid.UUID
    name: str
    slug: str
    sector: str
    stage: str
    country: str
    founded: int
    summary: str


class DocumentIn(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    body: str = Field(min_length=1, max_length=50_000)
    kind: Kind = "note"
    visibility: Visibility = "private"
    startup_id: uuid.UUID | None = None


class DocumentPatch(BaseModel):
    title: str | None = Field(None, min_length=1, max_length=200)
    body: str | None = Field(None, min_length=1, max_length=50_000)
    visibility: Visibility | None = None


class DocumentOut(Out):
    id: uuid.UUID
    owner_id: uuid.UUID
    startup_id: uuid.UUID | None
    kind: Kind
    visibility: Visibility
    title: str
    body: str
    created_at: datetime
    updated_at: datetime


class Hit(BaseModel):
    id: uuid.UUID
    title: str
    kind: str
    startup: str | None
    excerpt: str
    similarity: float


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int
    limit: int
    offset: int
