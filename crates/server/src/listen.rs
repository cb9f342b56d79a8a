//! Opens a port, or says which option to change when it cannot.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpListener;

/// A listener on `address`; `option` is the option that chose the port.
pub(crate) async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is something running there already? choose another with `{option}`")
    })
}
