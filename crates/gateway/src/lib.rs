//! The gateway: HTTP and gRPC fronts, ensembles, routing.
