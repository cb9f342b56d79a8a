//! Tower layers that cut across every server: traces, deadlines and load shedding; request bodies
//! that are given up when they come too slowly, and connections that coalesce what is written to them.
//!
//! Each is generic over the bodies, so the gRPC and the HTTP server share it; what a refusal looks
//! like on the wire is the business of [`Edge`]. A stack reads in the order a request meets it:
//!
//! ```
//! # use consort_middleware::{Edge, EnforceDeadline, JoinTrace, LoadShed};
//! # let max_in_flight = 512;
//! tower::ServiceBuilder::new()
//!     // Joins the caller's trace, so that everything later belongs to it.
//!     .layer(JoinTrace)
//!     // Refuses what comes too late, and stops what becomes too late.
//!     .layer(EnforceDeadline::new(Edge::Grpc))
//!     // Answers at once when every slot is taken.
//!     .layer(LoadShed::new(Edge::Grpc, max_in_flight));
//! ```

mod body;
mod coalesced;
mod context;
mod deadline;
mod edge;
mod load_shed;
mod paced;
mod trace;
mod turns;

pub use body::Refusable;
pub use coalesced::{Coalesced, LARGEST_FRAME};
pub use context::{context, context_among, context_in};
pub use deadline::{Deadline, DeadlineBody, DeadlineFuture, DeadlineService, EnforceDeadline};
pub use edge::{Edge, HTTP_TIMEOUT_HEADER};
pub use load_shed::{LoadShed, LoadShedService, ShedBody, ShedFuture};
pub use paced::{Halt, LONGEST_PAUSE, Paced, SLOWEST, too_slow};
pub use trace::{JoinTrace, JoinTraceService};
pub use turns::Turns;
