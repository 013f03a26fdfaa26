"""One order paid, and one thing tried that the policy does not allow: what a caller of the payment service sees.

Run it with `hauberk run --entry order-service -- python -m examples.payments.pay PAYMENTS_PORT`.
"""

import sys

import hauberk


def main() -> None:
    """Make both calls over mutual TLS."""
    runtime = hauberk.connect()
    payments = f"https://127.0.0.1:{int(sys.argv[1])}"
    with hauberk.client(to="payment-service", runtime=runtime, base_url=payments) as http:
        paid = http.post("/api/payments", json={"order": "o-1", "amount": 1250})
        print(paid.status_code, paid.json()["payment"])
        refused = http.post("/admin/delete")
        print(refused.status_code, refused.json()["code"], refused.json()["title"])
    runtime.close()


if __name__ == "__main__":
    main()
