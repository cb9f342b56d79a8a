//! Tower layers that cut across: tracing, deadlines, load shedding.
