"""A server of the KServe v2 (open inference) gRPC protocol that has its five calls and none of Triton's extensions.

Every other call answers UNIMPLEMENTED, as in servers that were generated from the standard alone.
It serves `scale`, which multiplies FP32[-1,4] by its version's number and refuses negative numbers, and prints its port.

usage: kserve_server.py [VERSION ...]; without a version the model has none, and is multiplied by 10
"""

import sys
from concurrent import futures

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as service

VERSIONS = sys.argv[1:]


class Standard(service.GRPCInferenceServiceServicer):
    def ServerLive(self, request, context):
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):
        self.find(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request, context):
        self.find(request.name, request.version, context)
        tensor = lambda name: pb.ModelMetadataResponse.TensorMetadata(name=name, datatype="FP32", shape=[-1, 4])
        return pb.ModelMetadataResponse(
            name=request.name, versions=VERSIONS, platform="python", inputs=[tensor("x")], outputs=[tensor("y")]
        )

    def ModelInfer(self, request, context):
        version = self.find(request.model_name, request.model_version, context)
        (x,) = (np.frombuffer(raw, dtype=np.float32) for raw in request.raw_input_contents)
        if (x < 0).any():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "x must not be negative")
        y = x * float(version or 10)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
        # Typed contents, as the standard has them; a server need not answer raw.
        output = response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        output.contents.fp32_contents.extend(y.tolist())
        return response

    def find(self, model, version, context):
        """The version that is meant; ends the call when there is no such model."""
        if model != "scale" or version not in ["", *VERSIONS]:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {model} {version}")
        return version or (VERSIONS or [""])[-1]


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
service.add_GRPCInferenceServiceServicer_to_server(Standard(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
