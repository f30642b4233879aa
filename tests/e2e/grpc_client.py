"""Queries the health of a gRPC server with grpcio, Google's client for Python.

Prints what each call and each watch returns, one result per line. Usage: grpc_client.py ADDRESS
"""

import sys
import threading

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

TIMEOUT = 30

name_of = HealthCheckResponse.ServingStatus.Name
output = threading.Lock()


def report(*words):
    with output:
        print(*words, flush=True)


def watch(stub, service):
    try:
        for response in stub.Watch(HealthCheckRequest(service=service), timeout=TIMEOUT):
            report("watch", repr(service), name_of(response.status))
        report("watch", repr(service), "ended")
    except grpc.RpcError as error:
        report("watch", repr(service), error.code().name)


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        stub = HealthStub(channel)
        for service in ["", "example.Orders", "example.Unknown"]:
            try:
                response = stub.Check(HealthCheckRequest(service=service), timeout=TIMEOUT)
                report("check", repr(service), name_of(response.status))
            except grpc.RpcError as error:
                report("check", repr(service), error.code().name)
        watches = [
            threading.Thread(target=watch, args=(stub, service))
            for service in ["", "example.Orders", "example.Unknown"]
        ]
        for thread in watches:
            thread.start()
        for thread in watches:
            thread.join()


main()
