import pytest
from sqlalchemy import text

from app.config import Settings
from app.core.redis import Store
from app.main import create_app

pytestmark = pytest.mark.services

STARTUP = {"name": "Kelp Heat", "sector": "climate", "country": "Norway", "founded": 2021, "summary": "Heat from the sea."}


async def write(account, title, body, visibility="private"):
    answer = await account.request("POST", "/documents", json={"title": title, "body": body, "visibility": visibility})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_health_and_version(client):
    assert (await client.get("/health")).json() == {"status": "ok", "database": "up", "redis": "up"}
    assert (await client.get("/version")).json()["service"] == "founderhouse"


async def test_every_answer_has_a_request_id(client):
    assert (await client.get("/version", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    assert len((await client.get("/version", headers={"X-Request-Id": "no spaces!"})).headers["x-request-id"]) == 32


async def test_an_email_address_registers_once(client, ada):
    again = {"email": "ADA@example.com", "name": "Ada", "password": "another long password"}
    assert (await client.post("/api/v1/auth/register", json=again)).status_code == 409


async def test_a_wrong_password_and_an_unknown_user_look_the_same(client, ada):
    answers = [
        await client.post("/api/v1/auth/login", json={"email": email, "password": "wrong"})
        for email in ("ada@example.com", "eve@example.com")
    ]
    assert [a.status_code for a in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()


async def test_a_refresh_token_works_once(client, ada):
    body = {"refresh_token": ada.tokens["refresh_token"]}
    assert (await client.post("/api/v1/auth/refresh", json=body)).status_code == 200
    assert (await client.post("/api/v1/auth/refresh", json=body)).status_code == 401


async def test_me_needs_a_token(client, ada):
    assert (await client.get("/api/v1/auth/me")).status_code == 401
    assert (await ada.request("GET", "/auth/me")).json()["email"] == "ada@example.com"


async def test_startups_are_listed_by_sector(client, ada):
    assert (await ada.request("POST", "/startups", json=STARTUP)).status_code == 201
    assert (await ada.request("POST", "/startups", json=STARTUP)).status_code == 409
    page = (await client.get("/api/v1/startups", params={"sector": "climate"})).json()
    assert (page["total"], page["items"][0]["slug"]) == (1, "kelp-heat")
    assert (await client.get("/api/v1/startups/sectors")).json() == {"climate": 1}
    assert (await client.get("/api/v1/startups/none")).status_code == 404


async def test_private_documents_are_seen_by_their_owner_only(client, ada, bob):
    secret = await write(ada, "Plan", "We sell the company in spring")
    assert (await ada.request("GET", f"/documents/{secret['id']}")).status_code == 200
    assert (await bob.request("GET", f"/documents/{secret['id']}")).status_code == 404
    assert (await client.get(f"/api/v1/documents/{secret['id']}")).status_code == 404
    assert (await bob.request("GET", "/documents/search", params={"q": "sell the company"})).json() == []
    assert (await bob.request("GET", f"/documents/{secret['id']}/similar")).status_code == 404


async def test_only_the_owner_changes_a_document(ada, bob):
    shared = await write(ada, "Open letter", "To everybody", "public")
    assert (await bob.request("PATCH", f"/documents/{shared['id']}", json={"title": "Mine"})).status_code == 403
    assert (await bob.request("DELETE", f"/documents/{shared['id']}")).status_code == 403
    assert (await ada.request("PATCH", f"/documents/{shared['id']}", json={"title": "Open"})).json()["title"] == "Open"
    assert (await ada.request("DELETE", f"/documents/{shared['id']}")).status_code == 204


async def test_the_database_itself_refuses_rows_of_others(database, ada, bob):
    shared = await write(ada, "Open letter", "To everybody", "public")
    me = (await bob.request("GET", "/auth/me")).json()["id"]
    async with database.session(me) as session:
        changed = await session.execute(text("UPDATE documents SET title = 'stolen' WHERE id = :id"), {"id": shared["id"]})
        assert changed.rowcount == 0
    async with database.session(None) as session:
        assert (await session.execute(text("SELECT count(*) FROM documents WHERE visibility = 'private'"))).scalar_one() == 0


async def test_search_finds_the_nearest_and_forgets_old_answers(ada):
    await write(ada, "Kidneys", "A blood test for early kidney disease")
    await write(ada, "Vans", "Routes for electric delivery vans")
    found = (await ada.request("GET", "/documents/search", params={"q": "blood test kidneys"})).json()
    assert [hit["title"] for hit in found] == ["Kidneys", "Vans"]
    await write(ada, "Blood", "blood test kidneys")
    found = (await ada.request("GET", "/documents/search", params={"q": "blood test kidneys"})).json()
    assert found[0]["title"] == "Blood"
    similar = (await ada.request("GET", f"/documents/{found[0]['id']}/similar", params={"limit": 1})).json()
    assert similar[0]["title"] == "Kidneys"


async def test_too_many_requests_are_told_how_long_to_wait(client):
    limited = Settings(rate_limit_per_minute=3)
    client._transport.app.state.settings = limited
    codes = [(await client.get("/api/v1/startups")).status_code for _ in range(5)]
    assert codes.count(200) >= 3 and codes[-1] == 429
    assert int((await client.get("/api/v1/startups")).headers["retry-after"]) >= 1


async def test_without_redis_the_service_is_degraded_but_works(client, ada):
    await write(ada, "Kidneys", "A blood test")
    app = client._transport.app
    working, app.state.store = app.state.store, Store("redis://127.0.0.1:1/0")
    try:
        assert (await client.get("/health")).json()["status"] == "degraded"
        assert len((await ada.request("GET", "/documents/search", params={"q": "blood"})).json()) == 1
    finally:
        await app.state.store.close()
        app.state.store = working


async def test_the_seed_runs_twice_and_adds_once(clean, database):
    import seed

    first, second = await seed.seed(database), await seed.seed(database)
    assert first == {"users": 40, "startups": 80, "documents": 400}
    assert second == {"users": 0, "startups": 0, "documents": 0}
    assert create_app()
