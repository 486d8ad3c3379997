"""One request from its body to a worker's first byte, and what comes of it. Knows tenants by id, and no row."""

import hashlib
import hmac
import json
import math
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api import errors, missing
from api.auth import Caller
from api.chat import gathered, prompts
from api.chat.gathered import Gathered
from api.chat.ledger import Ledger
from api.chat.lines import Ask, Lines, Nobody, Reply
from api.chat.prompts import Prompt
from api.chat.request import ChatCreate, CompletionCreate
from api.chat.routing import Wants, able, ordered
from api.chat.stream import Stream, Voice, passed_on
from api.context import Context
from api.errors import ApiError
from api.flights import attended
from api.ops.metrics import ChatCounts
from db.tenant.served import Allowance, Answered
from db.tenant.speakers import Speaker

BASE: Final = "base"  # what the engine calls a model without an adapter
OURS: Final = {
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "user",
    "metadata",
    "stream_options",
}
# A worker that starts loads its base first: a client's two retries are to last as long.
NO_WORKER_SECONDS: Final = 30


@dataclass(frozen=True)
class Exchange:
    """A request of `tenant`, and what its answer goes through."""

    request: Request
    tenant: Caller
    context: Context
    lines: Lines
    ledger: Ledger
    counts: ChatCounts
    asked: ChatCreate | CompletionCreate

    async def answer(self) -> Response:
        """Raises ApiError; everything that can be refused is before a worker is asked."""
        secret = self.context.settings.serve_secret
        if secret is None:
            said = "This installation serves no chats: its operator has set no ONWARD_SERVE_SECRET."
            raise ApiError(503, said, kind="server_error", code="no_worker", headers=errors.FINAL)
        known, who, prompt = await run_in_threadpool(self._prepared)
        self._affords(prompt, known.allowance)
        wants = Wants(who.wears, bool(who.invocation), bool(getattr(self.asked, "tools", None)), who.holder)
        offers = able(known.offers, wants)
        if not offers:
            raise self._unserved(who, wants, bool(known.offers))
        if self.context.settings.serve_tokens_a_minute:
            await run_in_threadpool(self._charge, prompt)
        ask = self._ask(who, prompt, secret.get_secret_value())
        order = ordered(offers, wants, self.lines.under_way, self.lines.shunned)
        try:
            reply = await attended(self.request, self.context.ending, self.lines.begin(ask, order))
        except Nobody as error:
            raise self._refused(who, error) from error
        options = self.asked.stream_options
        voice = Voice(ask.headers["x-onward-request"], who.name, who.wears or BASE)
        voice.wants_usage = not self.asked.stream or (options is not None and bool(options.include_usage))
        return await self._told(reply, voice, who, prompt)

    def _prepared(self) -> tuple[Gathered, Speaker, Prompt]:
        """On a thread, and on one: each change of threads waits for a processor."""
        known = gathered.gathered(self.tenant.id, self.context, self.asked.model)
        who = gathered.speaker(self.asked.model, known.found)
        return known, who, self._prompt(who)

    def _prompt(self, who: Speaker) -> Prompt:
        base = gathered.base_of(self.context, who)
        if isinstance(self.asked, ChatCreate):
            return prompts.of_chat(self.asked, base, who.invocation)
        return prompts.of_completion(self.asked, base, who.invocation)

    def _affords(self, prompt: Prompt, left: Allowance) -> None:
        """What is under way at this moment is not known to be any number of tokens: a quota can be passed by that."""
        waits = self.ledger.waiting(self.tenant.id)
        for what, rest in (("", left.whole), (" of the day", left.day)):
            if rest is not None and waits + prompt.tokens + 1 > rest:
                message = f"You exceeded your quota{what}: {max(rest - waits, 0)} served tokens are left."
                kind = "insufficient_quota"
                raise ApiError(429, message, kind=kind, code="insufficient_quota", headers=errors.FINAL)

    def _charge(self, prompt: Prompt) -> None:
        most = self.context.settings.serve_tokens_a_minute
        taken = self.context.rates.charge("tokens", self.tenant.id, most, prompt.tokens + prompt.most, whole=True)
        if taken is not None:
            self.request.scope["rates"] = self.request.scope.get("rates", {}) | taken.headers

    def _unserved(self, who: Speaker, wants: Wants, some: bool) -> ApiError:
        if some and wants.tools:
            message = f"'{who.name}' calls no tools: its base has no parser of such calls here."
            return errors.invalid(message, "tools", "unsupported_parameter")
        self.counts.ended(who.base, "no_worker")
        after = {"retry-after": str(NO_WORKER_SECONDS)}
        message = f"No worker that serves '{who.name}' is there at the moment: try again."
        return ApiError(503, message, kind="server_error", code="no_worker", headers=after)

    def _refused(self, who: Speaker, error: Nobody) -> ApiError:
        if error.feared:
            self.counts.ended(who.base, "failed")
            message = "The engines of two workers failed with this request: no other is asked."
            return ApiError(500, message, kind="server_error", code="worker_failed", headers=errors.FINAL)
        if not error.overloaded:
            return self._unserved(who, Wants(), False)
        self.counts.ended(who.base, "overloaded")
        # Repeated at once by every client, it would be three times as much.
        after = {"retry-after": str(math.ceil(error.retry_after))} | errors.FINAL
        message = f"More is asked of '{who.base}' than its workers take: try again."
        return ApiError(503, message, kind="server_error", code="overloaded", headers=after)

    def _ask(self, who: Speaker, prompt: Prompt, secret: str) -> Ask:
        chats = isinstance(self.asked, ChatCreate)
        stream = bool(self.asked.stream)
        said: dict[str, Any] = self.asked.model_dump(mode="json", exclude_none=True, exclude=OURS, by_alias=True)
        said |= {"model": who.wears or BASE, **prompt.fields}
        if stream:
            said["stream_options"] = {"include_usage": True}
        deadline = time.time() + self.context.settings.serve_seconds
        salt = hmac.new(secret.encode(), f"onward tenant {self.tenant.id}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            "accept-encoding": "identity",
            "x-onward-request": f"{'chatcmpl' if chats else 'cmpl'}-{secrets.token_hex(16)}",
            "x-onward-salt": salt,
            "x-onward-share": repr(self.tenant.weight),
            "x-onward-deadline": f"{deadline:.3f}",
        }
        body = json.dumps(said, ensure_ascii=False).encode()
        path = "/v1/chat/completions" if chats else "/v1/completions"
        return Ask(path, body, headers, stream, deadline, prompt.tokens + prompt.most)

    async def _told(self, reply: Reply, voice: Voice, who: Speaker, prompt: Prompt) -> Response:
        if reply.events is not None:

            async def finish() -> None:
                await reply.close()
                self.counts.ended(who.base, voice.outcome)
                if not voice.failed:
                    self._note(voice, who, prompt)

            return Stream(passed_on(reply, voice), finish, {})
        await reply.close()
        answer = _parsed(reply.body)
        if reply.status != 200 or answer is None:
            error = _of_worker(reply, answer, voice)
            self.counts.ended(who.base, voice.outcome)
            raise error
        whole = voice.rewritten(answer)
        self.counts.ended(who.base, voice.outcome)
        self._note(voice, who, prompt)
        return JSONResponse(whole)

    def _note(self, voice: Voice, who: Speaker, prompt: Prompt) -> None:
        cost = voice.cost(prompt.tokens)
        if any(cost):
            self.ledger.note(self.tenant.id, Answered(voice.request, who.base, *cost))


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _of_worker(reply: Reply, answer: dict[str, Any] | None, voice: Voice) -> ApiError:
    """What a worker refused, as ours: its reasons for what the client sent, and none for what failed in it."""
    said = voice.fail((answer or {}).get("error"))
    if reply.status == 200:
        return ApiError(500, "The worker's answer could not be read.", kind="server_error", headers=errors.FINAL)
    if reply.status == 404:
        return missing.model(voice.name)
    if reply.status < 500:
        return ApiError(reply.status, said["message"], param=said["param"], code=said["code"])
    message = said["message"] if reply.status == 504 else "The worker failed with this request."
    status = 504 if reply.status == 504 else 500
    return ApiError(status, message, kind="server_error", code=said["code"], headers=errors.FINAL)
