"""The order service: takes orders from the storefront and pays them at the payment service.

Run it with `hauberk run --entry order-service -- python -m examples.payments.order_service PORT PAYMENTS_PORT`.
"""

import sys

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import hauberk


def create_app(payments: httpx2.AsyncClient) -> Starlette:
    """Build the application, without any protection.

    Args:
        payments: a client of the payment service.
    """

    async def create_order(request: Request) -> JSONResponse:
        """Take an order: `{"order": "o-1", "amount": 1250}` in cents."""
        order = await request.json()
        paid = await payments.post("/api/payments", json=order)
        if paid.status_code != httpx2.codes.CREATED:
            return JSONResponse({"error": "payment failed"}, status_code=502)
        return JSONResponse({"order": order["order"], "payment": paid.json()["payment"]}, status_code=201)

    return Starlette(routes=[Route("/api/orders", create_order, methods=["POST"])])


def main() -> None:
    """Serve over mutual TLS until interrupted."""
    runtime = hauberk.connect()
    payments = hauberk.async_client(
        to="payment-service", runtime=runtime, base_url=f"https://127.0.0.1:{int(sys.argv[2])}"
    )
    hauberk.serve(hauberk.protect(create_app(payments), runtime), port=int(sys.argv[1]), runtime=runtime)


if __name__ == "__main__":
    main()
