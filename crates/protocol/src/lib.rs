//! Wire types of the KServe v2 / Triton gRPC protocol and model configuration, and their conversions.
