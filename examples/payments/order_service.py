"""The order service: takes orders from the storefront and pays them at the payment service.

Run it with `hauberk run --entry order-service -- python -m examples.payments.order_service PORT PAYMENTS_PORT`.
"""

import sys

import httpx2
from fastapi import FastAPI, Response

import hauberk


def create_app(payments: httpx2.AsyncClient) -> FastAPI:
    """Build the application.

    Args:
        payments: a client of the payment service.
    """
    app = FastAPI(openapi_url=None)

    @app.post("/api/orders", status_code=201)
    async def create_order(order: dict[str, object], response: Response) -> dict[str, object]:
        paid = await payments.post("/api/payments", json=order)
        if paid.status_code != httpx2.codes.CREATED:
            response.status_code = 502
            return {"error": "payment failed"}
        return {"order": order["order"], "payment": paid.json()["payment"]}

    return app


def main() -> None:
    """Serve over mutual TLS until interrupted."""
    runtime = hauberk.connect()
    payments = hauberk.async_client(
        to="payment-service", runtime=runtime, base_url=f"https://127.0.0.1:{int(sys.argv[2])}"
    )
    hauberk.serve(hauberk.protect(create_app(payments), runtime), port=int(sys.argv[1]), runtime=runtime)


if __name__ == "__main__":
    main()
