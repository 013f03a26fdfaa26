"""The payment service: an ordinary Starlette application, protected in one line.

Run it with `hauberk run --entry payment-service -- python -m examples.payments.payment_service PORT`.
"""

import sys
from itertools import count

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import hauberk

_numbers = count(1)
_payments: dict[str, dict[str, object]] = {}


async def create_payment(request: Request) -> JSONResponse:
    """Take a payment: `{"order": "o-1", "amount": 1250}` in cents."""
    order = await request.json()
    payment = f"p-{next(_numbers)}"
    _payments[payment] = {"payment": payment, "order": order["order"], "amount": order["amount"]}
    return JSONResponse(_payments[payment], status_code=201)


async def show_payment(request: Request) -> JSONResponse:
    """Show one payment."""
    found = _payments.get(request.path_params["payment"])
    return JSONResponse(found or {"error": "no such payment"}, status_code=200 if found else 404)


async def delete_everything(_: Request) -> JSONResponse:
    """Something no caller is ever meant to reach."""
    _payments.clear()
    return JSONResponse({"deleted": "everything"})


async def settle(_: Request) -> JSONResponse:
    """A bug: the exception names an internal host, as exceptions do."""
    raise ConnectionError("could not connect to ledger-db-7.corp.internal:5432 as payments_admin")


def create_app() -> Starlette:
    """Build the application, without any protection."""
    return Starlette(
        routes=[
            Route("/api/payments", create_payment, methods=["POST"]),
            Route("/api/payments/{payment}", show_payment, methods=["GET"]),
            Route("/api/settlements", settle, methods=["POST"]),
            Route("/admin/delete", delete_everything, methods=["POST"]),
        ]
    )


def main() -> None:
    """Serve over mutual TLS until interrupted."""
    runtime = hauberk.connect()
    hauberk.serve(hauberk.protect(create_app(), runtime), port=int(sys.argv[1]), runtime=runtime)


if __name__ == "__main__":
    main()
