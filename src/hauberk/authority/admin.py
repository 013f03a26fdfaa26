"""What an administrator may do, over the authority's own Unix socket. Each command is recorded under `uid:N`.

The socket is in a directory of mode 0700; on top the caller's uid, as the kernel tells it, has to be the authority's
own or root. Errors carry their details: whoever gets here owns the authority.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hauberk.authority.authority import Authority
from hauberk.authority.refusals import Attempt
from hauberk.core.event import Entry
from hauberk.core.ports import PeerCredentials
from hauberk.core.principal import ANONYMOUS
from hauberk.core.spiffe import SpiffeId
from hauberk.core.wire import EntryForm, PolicyForm, PolicyName, RevokeForm, RotationForm, TokenForm, TokenReply
from hauberk.edge.problem import problem
from hauberk.errors import EdgeError, HauberkError, IdentityError
from hauberk.identity.registration import RegistrationEntry
from hauberk.records.audit_query import Wanted
from hauberk.records.epochs import EpochForm, change_epochs
from hauberk.records.view import entry_view, last_entries

MAX_BODY = 32 * 1024 * 1024
MAX_ALIKE = 10  # entries shown of one incident
MAX_LISTED = 1_000
_NUMBER = re.compile(r"-?[0-9]{1,18}\Z")  # fits a 64-bit number


_Form = TypeVar("_Form")
Command = Callable[[Request, str, bytes], object]


def _actor(request: Request) -> str:
    peer = request.scope.get("extensions", {}).get("hauberk", {}).get("local")
    if not isinstance(peer, PeerCredentials) or peer.uid not in {0, os.geteuid()}:
        raise IdentityError("HBK-212", "not the administrator")
    return f"uid:{peer.uid}"


def _decode(data: bytes, form: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EdgeError("HBK-401", str(error)[:200]) from None


def _failure(error: HauberkError) -> Response:
    context: dict[str, Any] = {key: _plain(value) for key, value in error.context.items()}
    body = msgspec.json.encode({"code": error.code, "detail": error.detail, "context": context})
    return Response(body, error.status, media_type="application/problem+json")


def _plain(value: object) -> object:
    try:
        msgspec.json.encode(value)
    except TypeError:
        return str(value)
    return value


class _Desk:
    """Where commands are taken: makes an endpoint of each.

    Args:
        authority: who records that somebody is no administrator.
        pool: threads that only commands have, so that no other caller keeps one waiting.
    """

    def __init__(self, authority: Authority, pool: CapacityLimiter) -> None:
        self._authority = authority
        self._pool = pool

    def __call__(self, command: Command) -> Callable[[Request], Any]:
        """Return the endpoint of a command."""

        async def serve(request: Request) -> Response:
            try:
                actor = _actor(request)
            except IdentityError as error:
                return await self._turn_away(request, error)
            try:
                body = await _body(request)
                value = await to_thread.run_sync(partial(command, request, actor, body), limiter=self._pool)
            except HauberkError as error:
                return _failure(error)
            return Response(msgspec.json.encode(value), media_type="application/json")

        return serve

    async def _turn_away(self, request: Request, error: HauberkError) -> Response:
        """Record it; whoever is no administrator learns the code and nothing else."""
        peer = request.scope.get("extensions", {}).get("hauberk", {}).get("peer", ANONYMOUS)
        attempt = Attempt()
        await to_thread.run_sync(partial(self._authority.refuse, error, "admin", peer.id, attempt), limiter=self._pool)
        status, headers, text = problem((await attempt.settled(error)).code, attempt.incident)
        return Response(text, status, {key.decode(): value.decode() for key, value in headers})


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise EdgeError("HBK-404", "too large", bytes=MAX_BODY)
    return bytes(data)


def _entries(authority: Authority, desk: _Desk) -> list[Route]:
    def listed(_request: Request, _actor: str, _body: bytes) -> object:
        return [_entry_data(entry) for entry in authority.registry.entries()]

    def add(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, EntryForm)
        entry = RegistrationEntry(
            name=form.name,
            spiffe_id=SpiffeId.service(authority.config.trust_domain, form.namespace, form.account),
            selectors=frozenset(form.selectors),
            labels=form.labels,
            ttl=authority.config.authority.svid_seconds if form.ttl is None else form.ttl,
        )
        authority.add_entry(entry, actor)
        return _entry_data(entry)

    def remove(request: Request, actor: str, _body: bytes) -> object:
        authority.remove_entry(request.path_params["name"], actor)
        return {"removed": request.path_params["name"]}

    def token(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, TokenForm)
        return TokenReply(authority.token(form.entry, actor, form.ttl).text())

    return [
        Route("/admin/entries", desk(listed), methods=["GET"]),
        Route("/admin/entries", desk(add), methods=["POST"]),
        Route("/admin/entries/{name}", desk(remove), methods=["DELETE"]),
        Route("/admin/tokens", desk(token), methods=["POST"]),
    ]


def _entry_data(entry: RegistrationEntry) -> Mapping[str, object]:
    return {
        "name": entry.name,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": sorted(entry.selectors),
        "labels": dict(entry.labels),
        "ttl": entry.ttl,
    }


def _policies(authority: Authority, desk: _Desk) -> list[Route]:
    def export(_request: Request, _actor: str, _body: bytes) -> object:
        current = authority.policies.current()
        return {
            "revision": authority.policies.revision,
            "digest": current.digest,
            "text": current.export(),
            "root_namespace": current.root_namespace,
            "trust_domain": current.trust_domain,
            "aliases": current.aliases,
        }

    def apply(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, PolicyForm)
        files = [(file.name, file.text) for file in form.files]
        return authority.apply_policies(files, actor, force=form.force, replace=form.replace)

    def remove(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, PolicyName)
        return {"revision": authority.remove_policy(form.kind, form.namespace, form.name, actor)}

    return [
        Route("/admin/policies", desk(export), methods=["GET"]),
        Route("/admin/policies", desk(apply), methods=["POST"]),
        Route("/admin/policies/remove", desk(remove), methods=["POST"]),
    ]


def _identities(authority: Authority, desk: _Desk) -> list[Route]:
    def svids(_request: Request, _actor: str, _body: bytes) -> object:
        return list(authority.registry.svids())

    def revoke(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, RevokeForm)
        number = authority.revoke(actor, ids=form.ids, serials=form.serials, restore=form.restore)
        known = {str(entry.spiffe_id) for entry in authority.registry.entries()}
        known |= {svid.spiffe_id for svid in authority.registry.svids()}
        unknown = sorted(one for one in form.ids if one not in known)
        return {"number": number, "revoked": authority.revocations, "unknown": unknown}

    def renew(_request: Request, actor: str, _body: bytes) -> object:
        return {"number": authority.renew_all(actor)}

    def roots(_request: Request, _actor: str, _body: bytes) -> object:
        return authority.rotation()

    def rotate(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, RotationForm)
        return authority.rotate_root(form.step, actor, force=form.force)

    return [
        Route("/admin/svids", desk(svids), methods=["GET"]),
        Route("/admin/revocations", desk(revoke), methods=["POST"]),
        Route("/admin/renewal", desk(renew), methods=["POST"]),
        Route("/admin/roots", desk(roots), methods=["GET"]),
        Route("/admin/roots", desk(rotate), methods=["POST"]),
    ]


def _ledger(authority: Authority, desk: _Desk) -> list[Route]:
    def listed(request: Request, _actor: str, _body: bytes) -> object:
        query = request.query_params
        limit = min(max(1, _number(query.get("limit", "50"))), MAX_LISTED)
        stream, kind = query.get("stream"), query.get("type")
        if "incident" in query:
            return [entry_view(entry) for entry in _last(authority, MAX_ALIKE, incident=query["incident"])]
        if "after" not in query:
            return [entry_view(entry) for entry in _last(authority, limit, stream=stream, kind=kind)]
        found = authority.ledger.entries(after=_number(query["after"]), stream=stream, kind=kind, limit=limit)
        return [entry_view(entry) for entry in found]

    def proof(request: Request, _actor: str, _body: bytes) -> object:
        return authority.ledger.proof(_number(request.path_params["position"]))

    def checkpoint(_request: Request, _actor: str, _body: bytes) -> object:
        return {"checkpoint": authority.ledger.checkpoint(), "key": authority.ledger.verifier}

    return [
        Route("/admin/ledger", desk(listed), methods=["GET"]),
        Route("/admin/ledger/checkpoint", desk(checkpoint), methods=["GET"]),
        Route("/admin/ledger/{position}/proof", desk(proof), methods=["GET"]),
    ]


def _audit(authority: Authority, desk: _Desk) -> list[Route]:
    def ask(_request: Request, actor: str, body: bytes) -> object:
        return authority.audit.ask(_decode(body, Wanted), actor)

    def epochs(_request: Request, _actor: str, _body: bytes) -> object:
        return {"live": authority.audit.pseudonyms.live}

    def change(_request: Request, actor: str, body: bytes) -> object:
        form = _decode(body, EpochForm)
        return change_epochs(
            authority.audit.pseudonyms, form, lambda what, epoch: authority.command(actor, what, epoch=epoch)
        )

    def receipt(request: Request, _actor: str, _body: bytes) -> object:
        return authority.audit.receipt(_number(request.path_params["position"]))

    return [
        Route("/admin/audit", desk(ask), methods=["POST"]),
        Route("/admin/audit/{position}/receipt", desk(receipt), methods=["GET"]),
        Route("/admin/audit/epochs", desk(epochs), methods=["GET"]),
        Route("/admin/audit/epochs", desk(change), methods=["POST"]),
    ]


def _last(authority: Authority, limit: int, **chosen: str | None) -> Sequence[Entry]:
    ledger = authority.ledger
    return last_entries(ledger.entries, ledger.head().size, limit, **chosen)


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise EdgeError("HBK-401", "a number is needed", found=text[:20])
    return int(text)


def admin_routes(authority: Authority, pool: CapacityLimiter) -> list[Route]:
    """Return every route of the admin socket; commands run in threads of `pool`."""
    desk = _Desk(authority, pool)

    def status(_request: Request, _actor: str, _body: bytes) -> object:
        return authority.status()

    return [
        Route("/admin/status", desk(status), methods=["GET"]),
        *_entries(authority, desk),
        *_policies(authority, desk),
        *_identities(authority, desk),
        *_ledger(authority, desk),
        *_audit(authority, desk),
    ]
