//! The client as most programs want it: over QUIC, with this machine's clock and chance.

use std::net::SocketAddr;
use std::sync::Arc;

use stoa_env::{Bounds, Credentials, OsEntropy, QuicOptions, QuicTransport, RealClock};
use stoa_protocol::message::Caller;

use crate::client::Client;
use crate::error::ConnectError;

impl Client<QuicTransport> {
    /// Connects to the cluster that any of `seeds` belongs to, as the principal that the credentials name. `zone` is
    /// where this client runs; `project` is the one on whose behalf it asks. Runs on the tokio runtime around it.
    ///
    /// ```no_run
    /// # use std::path::Path;
    /// # use stoa_client::Client;
    /// # use stoa_env::{Clock, Credentials, RealClock};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let file = |name: &str| Path::new("certs").join(name);
    /// let now = RealClock.wall();
    /// let me = Credentials::from_pem_files(&file("ca.pem"), &file("ranker.pem"), &file("ranker.key"), now)?;
    /// let client = Client::connect(vec!["10.0.0.1:7400".parse()?], "zone-a", "shop", me).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`]: no socket could be had, no seed answered, or one refused for good.
    pub async fn connect(
        seeds: Vec<SocketAddr>,
        zone: &str,
        project: &str,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        let bounds = Bounds::default();
        let options = QuicOptions { bounds: bounds.clone(), ..QuicOptions::default() };
        let transport = QuicTransport::client_only(credentials, options)
            .map_err(|error| ConnectError::Local { reason: error.to_string() })?;
        // The principal is that of the certificate.
        let caller = Caller { project: project.to_owned(), principal: String::new() };
        let (clock, entropy) = (Arc::new(RealClock), Arc::new(OsEntropy));
        Self::counted(transport, seeds, zone, caller, clock, entropy, bounds).await
    }
}
