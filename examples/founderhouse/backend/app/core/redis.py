"""Cache, rate limits and used refresh tokens. Redis may be away: then nothing is cached or limited, and it is logged."""

import json
import logging
import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.errors import RateLimited

log = logging.getLogger("app.redis")

PREFIX = "fh:"


class Store:
    def __init__(self, url: str) -> None:
        self.redis: Redis = Redis.from_url(url, decode_responses=True, socket_timeout=1, socket_connect_timeout=1, health_check_interval=30)

    async def ping(self) -> None:
        await self.redis.ping()

    async def close(self) -> None:
        await self.redis.aclose()

    async def cached(self, key: str) -> Any | None:
        try:
            found = await self.redis.get(f"{PREFIX}cache:{await self._generation()}:{key}")
        except RedisError as error:
            self._away("cache", error)
            return None
        return json.loads(found) if found else None

    async def cache(self, key: str, value: Any, ttl_seconds: int) -> None:
        if ttl_seconds <= 0:
            return
        try:
            await self.redis.set(f"{PREFIX}cache:{await self._generation()}:{key}", json.dumps(value), ex=ttl_seconds)
        except RedisError as error:
            self._away("cache", error)

    async def invalidate(self) -> None:
        """Everything cached so far is out of date: a new generation begins, old keys expire by themselves."""
        try:
            await self.redis.incr(f"{PREFIX}cache-generation")
        except RedisError as error:
            self._away("cache", error)

    async def _generation(self) -> str:
        return str(await self.redis.get(f"{PREFIX}cache-generation") or "0")

    async def count(self, who: str, limit: int, window_seconds: int = 60) -> None:
        """Counts one request of `who` in the current window; raises RateLimited beyond `limit`."""
        if limit <= 0:
            return
        now = time.time()
        window = int(now // window_seconds)
        key = f"{PREFIX}rate:{who}:{window}"
        try:
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.incr(key)
                pipe.expire(key, window_seconds * 2)
                used, _ = await pipe.execute()
        except RedisError as error:
            self._away("rate limit", error)
            return
        if used > limit:
            wait = max(1, int((window + 1) * window_seconds - now))
            raise RateLimited("Too many requests.", {"Retry-After": str(wait)})

    async def first_use(self, token_id: str, ttl_seconds: int) -> bool:
        """False when this refresh token was used before. Raises RedisError: a token is not renewed unseen."""
        return bool(await self.redis.set(f"{PREFIX}used:{token_id}", "1", nx=True, ex=max(1, ttl_seconds)))

    def _away(self, use: str, error: RedisError) -> None:
        log.warning("redis not available", extra={"use": use, "reason": type(error).__name__})
