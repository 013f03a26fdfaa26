"""The payment service: an ordinary Starlette application, protected in one line.

With a directory it keeps what happened in an event store there. Whose payment it was is sealed under a key of that
customer, so a customer can be forgotten; who may read the events, and who may see whose they are, is in the policies.

Run it with `hauberk run --entry payment-service -- python -m examples.payments.payment_service PORT [DIRECTORY]`.
"""

import sys
from itertools import count

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import hauberk
from hauberk.core.principal import Kind
from hauberk.records import Event, EventStore, Pii, Subject

_numbers = count(1)
_payments: dict[str, dict[str, object]] = {}


class PaymentTaken(Event, type="shop.payment.taken.v1"):
    """A customer has paid."""

    payment: str
    order: str
    amount: int
    customer: Subject
    email: Pii[str | None] = None


async def create_payment(request: Request) -> JSONResponse:
    """Take a payment: `{"order": "o-1", "amount": 1250, "customer": "c-1", "email": "..."}`, the amount in cents."""
    order = await request.json()
    number = next(_numbers)
    payment = f"p-{number}"
    if (events := request.app.state.events) is not None:
        customer = order.get("customer") or f"guest-{number}"
        taken = PaymentTaken(
            payment=payment, order=order["order"], amount=order["amount"], customer=customer, email=order.get("email")
        )
        await events.append(f"payment-{number}", [taken], actor=request.app.state.me)
    _payments[payment] = {"payment": payment, "order": order["order"], "amount": order["amount"]}
    return JSONResponse(_payments[payment], status_code=201)


async def show_payment(request: Request) -> JSONResponse:
    """Show one payment."""
    found = _payments.get(request.path_params["payment"])
    return JSONResponse(found or {"error": "no such payment"}, status_code=200 if found else 404)


async def show_stream(request: Request) -> JSONResponse:
    """Show the events of one stream, as far as the caller may read them."""
    events: EventStore = request.app.state.events
    reading = events.read(request.path_params["stream"], actor=peer(request))
    found = [{"position": one.position, "event": msgspec.to_builtins(one.event)} async for one in reading]
    return JSONResponse(found)


async def erase_customer(request: Request) -> JSONResponse:
    """Forget a customer: `{"customer": "c-1"}`; in the body, because paths are recorded as they are."""
    events: EventStore = request.app.state.events
    customer = (await request.json())["customer"]
    done = await events.erase(customer, actor=peer(request), reason="the customer asked for it")
    certificate = {"certificate": done.position, "keys": [key for key, _ in done.keys], "scrubbed": done.scrubbed}
    return JSONResponse(certificate, status_code=201)


def peer(request: Request) -> hauberk.Principal:
    """Return who calls, as mutual TLS has proven."""
    found: hauberk.Principal = request.scope["extensions"]["hauberk"]["peer"]
    return found


async def delete_everything(_: Request) -> JSONResponse:
    """Something no caller is ever meant to reach."""
    _payments.clear()
    return JSONResponse({"deleted": "everything"})


async def settle(_: Request) -> JSONResponse:
    """A bug: the exception names an internal host, as exceptions do."""
    raise ConnectionError("could not connect to ledger-db-7.corp.internal:5432 as payments_admin")


def create_app(events: EventStore | None = None, me: str = "") -> Starlette:
    """Build the application, without any protection.

    Args:
        events: where it keeps what happened.
        me: the SPIFFE id under which it does.
    """
    routes = [
        Route("/api/payments", create_payment, methods=["POST"]),
        Route("/api/payments/{payment}", show_payment, methods=["GET"]),
        Route("/api/settlements", settle, methods=["POST"]),
        Route("/admin/delete", delete_everything, methods=["POST"]),
    ]
    if events is not None:
        routes.append(Route("/api/streams/{stream}", show_stream, methods=["GET"]))
        routes.append(Route("/api/erasures", erase_customer, methods=["POST"]))
    app = Starlette(routes=routes)
    app.state.events, app.state.me = events, hauberk.Principal(Kind.WORKLOAD, me)
    return app


def main() -> None:
    """Serve over mutual TLS until interrupted."""
    runtime = hauberk.connect()
    events = runtime.event_store(sys.argv[2]) if len(sys.argv) > 2 else None  # noqa: PLR2004  # PORT DIRECTORY
    me = str(runtime.source.spiffe_id) if runtime.source is not None else ""
    hauberk.serve(hauberk.protect(create_app(events, me), runtime), port=int(sys.argv[1]), runtime=runtime)


if __name__ == "__main__":
    main()
