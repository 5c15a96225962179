"""The orders service on `grpc.aio.server`: as sync_server.py, but for `async` and `await`."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from auth import LISTEN, authenticator, warm
from book import Book
from grpc_reflection.v1alpha import reflection
from orders.v1 import orders_pb2 as pb
from orders.v1 import orders_pb2_grpc

from grpc_bearer import current_claims, current_claims_or_none
from grpc_bearer.aio import AuthInterceptor

Context = grpc.aio.ServicerContext[Any, Any]


class Orders(orders_pb2_grpc.OrdersServiceServicer):
    def __init__(self, book: Book) -> None:
        self._book = book

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        order = self._book.get(request.id)
        if order is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return pb.GetOrderResponse(order=order)

    async def TrackOrders(
        self, requests: AsyncIterator[pb.TrackOrdersRequest], context: Context
    ) -> AsyncIterator[pb.TrackOrdersResponse]:
        async for request in requests:
            yield pb.TrackOrdersResponse(order=self._book.get(request.id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> AsyncIterator[pb.ListOrdersResponse]:
        for order in self._book.all():
            yield pb.ListOrdersResponse(order=order)

    async def WatchOrder(self, request: pb.WatchOrderRequest, context: Context) -> AsyncIterator[pb.WatchOrderResponse]:
        for _time in range(request.times) if request.times else itertools.count():
            yield pb.WatchOrderResponse(order=self._book.get(request.id))
            await asyncio.sleep(0.5)

    async def ImportOrders(self, requests: AsyncIterator[pb.ImportOrdersRequest], context: Context) -> pb.ImportOrdersResponse:
        ordered_by = current_claims().sub
        return pb.ImportOrdersResponse(ids=[self._book.add(request.item, ordered_by) async for request in requests])

    async def DeleteOrder(self, request: pb.DeleteOrderRequest, context: Context) -> pb.DeleteOrderResponse:
        self._book.delete(request.id)
        return pb.DeleteOrderResponse(deleted_by=current_claims().sub)

    async def RefundOrder(self, request: pb.RefundOrderRequest, context: Context) -> pb.RefundOrderResponse:
        return pb.RefundOrderResponse(refunded_by=current_claims().sub)

    async def ExportOrders(self, request: pb.ExportOrdersRequest, context: Context) -> pb.ExportOrdersResponse:
        return pb.ExportOrdersResponse(csv=self._book.csv())

    async def GetQuote(self, request: pb.GetQuoteRequest, context: Context) -> pb.GetQuoteResponse:
        claims = current_claims_or_none()  # None: a caller without a token
        return pb.GetQuoteResponse(cents=500) if claims is None else pb.GetQuoteResponse(cents=450, customer=claims.sub)

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        return pb.PingResponse()

    async def PurgeOrders(self, request: pb.PurgeOrdersRequest, context: Context) -> pb.PurgeOrdersResponse:
        self._book.clear()
        return pb.PurgeOrdersResponse()


async def serve() -> None:
    with authenticator() as auth:
        await asyncio.to_thread(warm, auth)
        # Without so_reuseport=0 a second server could listen on the same port, unnoticed.
        options = [("grpc.so_reuseport", 0)]
        server = grpc.aio.server(interceptors=[AuthInterceptor(auth)], options=options)
        orders_pb2_grpc.add_OrdersServiceServicer_to_server(Orders(Book()), server)
        reflection.enable_server_reflection(["orders.v1.OrdersService", reflection.SERVICE_NAME], server)
        port = server.add_insecure_port(LISTEN)
        await server.start()
        print(f"orders, aio, on port {port}", flush=True)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(grace=5)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # refusals and their causes are INFO
    with suppress(KeyboardInterrupt):
        asyncio.run(serve())
