//! A far stage made near: discovery, balancing and the gRPC client.
