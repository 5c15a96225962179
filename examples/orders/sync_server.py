"""The orders service on `grpc.server`. The rules are in the proto: no handler asks who may call, only who does."""

import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from auth import LISTEN, authenticator, warm
from book import Book
from grpc_reflection.v1alpha import reflection
from orders.v1 import orders_pb2 as pb
from orders.v1 import orders_pb2_grpc

from grpc_bearer import current_claims, current_claims_or_none
from grpc_bearer.sync import AuthInterceptor


class Orders(orders_pb2_grpc.OrdersServiceServicer):
    def __init__(self, book: Book) -> None:
        self._book = book

    def GetOrder(self, request: pb.GetOrderRequest, context: grpc.ServicerContext) -> pb.GetOrderResponse:
        order = self._book.get(request.id)
        if order is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return pb.GetOrderResponse(order=order)

    def TrackOrders(
        self, requests: Iterator[pb.TrackOrdersRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.TrackOrdersResponse]:
        for request in requests:
            yield pb.TrackOrdersResponse(order=self._book.get(request.id))

    def ListOrders(self, request: pb.ListOrdersRequest, context: grpc.ServicerContext) -> Iterator[pb.ListOrdersResponse]:
        for order in self._book.all():
            yield pb.ListOrdersResponse(order=order)

    def WatchOrder(self, request: pb.WatchOrderRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchOrderResponse]:
        for _time in range(request.times) if request.times else itertools.count():
            yield pb.WatchOrderResponse(order=self._book.get(request.id))
            time.sleep(0.5)

    def ImportOrders(
        self, requests: Iterator[pb.ImportOrdersRequest], context: grpc.ServicerContext
    ) -> pb.ImportOrdersResponse:
        ordered_by = current_claims().sub
        return pb.ImportOrdersResponse(ids=[self._book.add(request.item, ordered_by) for request in requests])

    def DeleteOrder(self, request: pb.DeleteOrderRequest, context: grpc.ServicerContext) -> pb.DeleteOrderResponse:
        self._book.delete(request.id)
        return pb.DeleteOrderResponse(deleted_by=current_claims().sub)

    def RefundOrder(self, request: pb.RefundOrderRequest, context: grpc.ServicerContext) -> pb.RefundOrderResponse:
        return pb.RefundOrderResponse(refunded_by=current_claims().sub)

    def ExportOrders(self, request: pb.ExportOrdersRequest, context: grpc.ServicerContext) -> pb.ExportOrdersResponse:
        return pb.ExportOrdersResponse(csv=self._book.csv())

    def GetQuote(self, request: pb.GetQuoteRequest, context: grpc.ServicerContext) -> pb.GetQuoteResponse:
        claims = current_claims_or_none()  # None: a caller without a token
        return pb.GetQuoteResponse(cents=500) if claims is None else pb.GetQuoteResponse(cents=450, customer=claims.sub)

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        return pb.PingResponse()

    def PurgeOrders(self, request: pb.PurgeOrdersRequest, context: grpc.ServicerContext) -> pb.PurgeOrdersResponse:
        self._book.clear()
        return pb.PurgeOrdersResponse()


def serve() -> None:
    with authenticator() as auth:
        warm(auth)
        # Without so_reuseport=0 a second server could listen on the same port, unnoticed.
        options = [("grpc.so_reuseport", 0)]
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[AuthInterceptor(auth)], options=options)
        orders_pb2_grpc.add_OrdersServiceServicer_to_server(Orders(Book()), server)
        reflection.enable_server_reflection(["orders.v1.OrdersService", reflection.SERVICE_NAME], server)
        port = server.add_insecure_port(LISTEN)
        server.start()
        print(f"orders, sync, on port {port}", flush=True)
        try:
            server.wait_for_termination()
        except KeyboardInterrupt:
            server.stop(grace=5).wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # refusals and their causes are INFO
    serve()
