"""An existing ASGI application, protected. Run this file, or serve it: uvicorn examples.quickstart.app:app."""

import asyncio

import httpx2
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import hauberk

shop = Starlette(routes=[Route(path, lambda _: PlainTextResponse("paid")) for path in ("/payments/7", "/admin")])
runtime = hauberk.Runtime.embedded(".shop", policies="examples/quickstart/policy.yaml")
app = hauberk.protect(shop, runtime)


async def main() -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://shop.test") as client:
        for answer in (await client.get("/payments/7"), await client.get("/admin")):
            print(answer.status_code, answer.text)


if __name__ == "__main__":
    asyncio.run(main())
    runtime.close()
