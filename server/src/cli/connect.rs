//! How a command finds the cluster and says who it is.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use stoa_client::Client;
use stoa_env::{Clock, Credentials, QuicTransport, RealClock};

/// How to find the cluster, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// Nodes to make first contact with, IP:PORT; any of them will do.
    #[arg(long, env = "STOA_SEEDS", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub seeds: Vec<SocketAddr>,
    /// The zone that this command runs in: replicas there are read first.
    #[arg(long, env = "STOA_ZONE", default_value = "")]
    pub zone: String,
    /// The directory with ca.pem, client-PRINCIPAL.pem and client-PRINCIPAL.key.
    #[arg(long, env = "STOA_CERTS", default_value = "certs")]
    pub certs: PathBuf,
    /// The principal whose certificate is used.
    #[arg(long, env = "STOA_PRINCIPAL", default_value = "admin")]
    pub principal: String,
    /// The project on whose behalf the command asks.
    #[arg(long, env = "STOA_PROJECT", default_value = "")]
    pub project: String,
}

impl Connect {
    /// Makes first contact.
    pub async fn client(&self) -> anyhow::Result<Client<QuicTransport>> {
        let file = |name: String| self.certs.join(name);
        let credentials = Credentials::from_pem_files(
            &file("ca.pem".into()),
            &file(format!("client-{}.pem", self.principal)),
            &file(format!("client-{}.key", self.principal)),
            RealClock.wall(),
        )
        .context("reading the certificates (--certs, --principal)")?;
        let client = Client::connect(self.seeds.clone(), &self.zone, &self.project, credentials).await;
        client.with_context(|| format!("connecting to {:?} (--seeds)", self.seeds))
    }
}
