//! The chassis that every service runs on: gRPC front, health, metrics, shutdown.
