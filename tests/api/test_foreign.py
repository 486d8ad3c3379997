"""Every route of the OpenAPI document with every name of another tenant's: it answers as if there were no such thing.

Made from the document and the rows, so that a new route, parameter or table is tried as soon as it is there.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api.app import create_app
from db.tenant import keys
from tests.api.conftest import MODEL
from tests.db.inserted import a_file
from tests.db.owned import TABLES, a_row_everywhere, owner_of
from tests.waiting import HANG

LONG = 8  # characters from which a string is one of its tenant's own, and no word that all use
JOBS = "/v1/fine_tuning/jobs"


@dataclass(frozen=True)
class Try:
    """One request that names `name`; `made_up` is what stands in its place for the same with a name that nobody has."""

    verb: str
    path: str
    name: str
    made_up: str
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    def sent(self, http: httpx.Client, key: str | None, name: str) -> httpx.Response:
        def put(value: Any) -> Any:
            return json.loads(json.dumps(value).replace(json.dumps(self.name)[1:-1], json.dumps(name)[1:-1]))

        headers = put(self.headers) | ({"authorization": f"Bearer {key}"} if key else {})
        return http.request(self.verb, put(self.path), params=put(self.params), headers=headers, json=put(self.body))


@pytest.fixture(scope="module")
def document(settings) -> dict[str, Any]:
    return create_app(settings).openapi()


@pytest.fixture(scope="module")
def victim(factory) -> str:
    with factory.begin() as session:
        return a_row_everywhere(session)


@pytest.fixture(scope="module")
def thief(factory) -> str:
    """Another tenant, that has as much."""
    with factory.begin() as session:
        return a_row_everywhere(session)


@pytest.fixture(scope="module")
def secrets(factory, victim, thief) -> dict[str, str]:
    """Live keys of both, and one of the victim's that was revoked."""
    with factory.begin() as session:
        of = {"victim": victim, "thief": thief, "revoked": victim}
        made = {name: keys.create_key(session, tenant) for name, tenant in of.items()}
        keys.revoke_key(session, made["revoked"][0].id)
    return {name: secret for name, (_, secret) in made.items()}


@pytest.fixture(scope="module")
def http(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url.removesuffix("/v1"), timeout=HANG) as made:
        yield made


def everything(factory, tenant: str) -> dict[str, list[dict[str, Any]]]:
    with factory.begin() as session:
        wanted = {t.name: select(t).where(owner_of(t) == tenant).order_by(*t.primary_key) for t in TABLES}
        return {name: [dict(row) for row in session.execute(each).mappings()] for name, each in wanted.items()}


def strings(value: Any) -> Iterator[str]:
    """What a row holds that could be read off an answer, to any depth."""
    if isinstance(value, str) and len(value) >= LONG:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def names(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What a request may call a row by: ids and names as rows have them, and those that answers make of numbers."""
    found = {
        row[column]
        for of in rows.values()
        for row in of
        for column in ("id", "name", "idempotency_key")
        if column in row
    }
    shown = {f"ftevent-{number}" for number in found if isinstance(number, int)}
    steps = {f"ftckpt-{row['job_id'].partition('-')[2]}-{row['step']}" for row in rows["evaluations"]}
    stepped = {f"file-{row['job_id'].partition('-')[2]}-step-{row['step']}" for row in rows["evaluations"]}
    named = {f"{row['name']}:ckpt-step-0" for row in rows["adapters"]}
    return sorted({name for name in found if isinstance(name, str)} | shown | steps | stepped | named)


def made_up(name: str) -> str:
    """A name of the same form that nobody has."""
    if "-step-" in name:
        return name.replace("-step-", "zzzz-step-", 1)
    if name.startswith(("ftevent-", "ftckpt-")):
        return f"{name.rpartition('-')[0]}-999999999"
    return name[:-6] + ("zzzzzz" if not name.endswith("zzzzzz") else "yyyyyy")


def valid(own_file: str) -> dict[str, Any]:
    return {"model": MODEL, "training_file": own_file, "onward": {"steps": 1, "batch_size": 1, "rank": 2}}


def tries(document: dict[str, Any], known: list[str], own_file: str) -> Iterator[Try]:
    """Each name in each place of each route that takes a string."""
    for path, verbs in document["paths"].items():
        for verb, route in verbs.items():
            parameters = route.get("parameters", [])
            places = [(p["in"], p["name"]) for p in parameters]
            if "requestBody" in route:
                places += [("body", name) for name in fields(document, route)]
            body = valid(own_file) if (verb, path) == ("post", JOBS) else None
            for name in known:
                filled = path
                for kind, parameter in places:
                    if kind == "path":
                        filled = filled.replace(f"{{{parameter}}}", name)
                if filled != path:
                    yield Try(verb, filled, name, made_up(name), body=body)
                for kind, parameter in places:
                    at = filled if kind != "path" else ""
                    if kind == "query":
                        yield Try(verb, at, name, made_up(name), params={parameter: name}, body=body)
                    elif kind == "header":
                        yield Try(verb, at, name, made_up(name), headers={parameter: name}, body=body)
                    elif kind == "body":
                        yield Try(verb, at, name, made_up(name), body=(body or {}) | {parameter: name})
            if not places:
                yield Try(verb, path, "-" * LONG, "+" * LONG)


def fields(document: dict[str, Any], route: dict[str, Any]) -> list[str]:
    """The names in a body; those of a form are tried as JSON too, which must be refused in order."""
    found: list[str] = []
    for kind in route["requestBody"]["content"].values():
        schema = kind["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        found += schema.get("properties", {})
    return found


def told(answer: httpx.Response, of: set[str], but: str) -> list[str]:
    """What of another's is in the answer, beside the name that was sent and its parts (a suffix is answered tidied)."""
    heard = answer.text + json.dumps(dict(answer.headers))
    return [one for one in of if one not in but and one in heard]


@pytest.fixture(scope="module")
def own(factory, victim, thief) -> set[str]:
    """Every string of the victim's rows that is in none of the thief's."""
    mine, theirs = (
        {s for of in everything(factory, t).values() for row in of for s in strings(row)} for t in (victim, thief)
    )
    assert victim in mine - theirs
    return mine - theirs


def test_nothing_of_anothers_can_be_named_read_or_changed(factory, document, http, victim, thief, secrets, own, capsys):
    before = everything(factory, victim)
    with factory.begin() as session:
        file = a_file(session, thief)
    known = names(before)
    assert len(known) >= 15
    tried, leaks, differ = 0, [], []
    strangers: set[tuple[str, str, str]] = set()  # whose key is none, or none any more: once for each place
    for one in tries(document, known, file):
        answers = {}
        place = one.verb, one.path.replace(one.name, "NAME"), str((*one.params, *one.headers, *(one.body or ())))
        for who in ("thief",) if place in strangers else ("thief", "revoked", None):
            strangers.add(place)
            answer = answers[who] = one.sent(http, secrets.get(who or ""), one.name)
            tried += 1
            wrong = answer.status_code >= 500 and one.path not in ("/readyz",)
            if (
                wrong
                or told(answer, own, one.name)
                or (who != "thief" and one.path.startswith("/v1") and answer.is_success)
            ):
                leaks.append((who, one, answer.status_code, answer.text[:300]))
        unknown = one.sent(http, secrets["thief"], one.made_up)
        tried += 1
        if seen(answers["thief"], one.name) != seen(unknown, one.made_up) and one.path.startswith("/v1"):
            differ.append((one, answers["thief"].text[:300], unknown.text[:300]))
    with capsys.disabled():
        of = f"{tried} requests ({len(document['paths'])} paths, {len(known)} names)"
        print(f"\ncross-tenant reads: {len(leaks)} of {of}")
    assert leaks == []
    assert differ == [], "an answer tells that the name is another's"
    after = everything(factory, victim)
    assert {name: after[name] for name in before if name != "api_keys"} == {
        name: before[name] for name in before if name != "api_keys"
    }


def seen(answer: httpx.Response, name: str) -> tuple[int, Any]:
    """What a caller can tell of the answer: of a thing it made itself, that it was made."""
    if answer.is_success and answer.request.method == "POST":
        return answer.status_code, None
    return answer.status_code, answer.text.replace(name, "NAME")


def test_the_same_names_open_everything_to_their_own_tenant(factory, document, http, victim, secrets):
    """So that what is refused above is refused for whose it is."""
    known, opened = names(everything(factory, victim)), set()
    for path, verbs in document["paths"].items():
        for name in known if "get" in verbs else ():
            filled = path
            for parameter in verbs["get"].get("parameters", []):
                if parameter["in"] == "path":
                    filled = filled.replace(f"{{{parameter['name']}}}", name)
            one = Try("get", filled, name, "")
            answer = one.sent(http, secrets["victim"], name)
            if answer.is_success and name in filled:
                opened.add(path)
    wanted = {path for path, verbs in document["paths"].items() if "get" in verbs and "{" in path}
    assert opened == {path for path in wanted if "/profiles/" not in path}  # those are of no tenant: anybody's
