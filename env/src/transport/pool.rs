//! Outbound connections: one for each peer, expected node and channel, made at the first call and shared by all.
//!
//! ```text
//!            call                   handshake done
//!   (none) ───────► Connecting ───────────────────► Up ──── closed ──► (none)
//!      ▲                │ failed                     │ refused by the peer
//!      └── back-off ── Down ◄────────────────────────┘
//!          over
//! ```
//! `forget` leads from everywhere to (none). An attempt runs in a task of its own with a time limit of its own, so that
//! a caller that gives up does not end it for the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::{ClientConfig, Connection, Endpoint};
use tokio::sync::watch;

use super::limits::QuicOptions;
use super::outcome::{CloseCode, not_connected, not_tried, refusal};
use super::tls::{CHANNELS, client_config, server_name};
use super::{Channel, Peer, TransportError};
use crate::transport::credentials::Credentials;
use crate::{BootTime, Gauge, TaskGroup};

type Outcome = Result<Connection, TransportError>;

/// All outbound connections of a transport.
pub(super) struct Pool {
    endpoint: Endpoint,
    configs: BTreeMap<Channel, ClientConfig>,
    options: QuicOptions,
    links: Mutex<Links>,
    counted: Gauge,
}

#[derive(Default)]
struct Links {
    by_key: BTreeMap<LinkKey, Link>,
    attempts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LinkKey {
    addr: SocketAddr,
    channel: Channel,
    node: Option<u64>,
}

enum Link {
    Connecting { attempt: u64, outcome: watch::Receiver<Option<Outcome>> },
    Up { connection: Connection, used: BootTime },
    Down { error: TransportError, since: BootTime },
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint, credentials: &Credentials, options: QuicOptions) -> Self {
        let config = |channel| {
            let mut config = ClientConfig::new(Arc::new(client_config(credentials, &options.clock, channel)));
            config.transport_config(options.dialer(channel));
            (channel, config)
        };
        let configs = CHANNELS.into_iter().map(config).collect();
        let counted =
            options.bounds.node_gauge("transport: outbound connections", options.outbound_connections_max as u64);
        Self { endpoint, configs, options, links: Mutex::default(), counted }
    }

    /// The connection to `to` on `channel`, made if there is none. Waits for an attempt as long as it takes, which is
    /// `connect_within` at the most; the caller brings its own limit.
    pub(super) async fn connection(self: &Arc<Self>, tasks: &TaskGroup, to: Peer, channel: Channel) -> Outcome {
        let key = LinkKey { addr: to.addr, channel, node: to.node };
        let mut outcome = match self.lookup(tasks, key) {
            Lookup::Ready(outcome) => return outcome,
            Lookup::Wait(outcome) => outcome,
        };
        let ended = || TransportError::NotSent { addr: to.addr, reason: "the transport was closed".to_owned() };
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| ended())?;
        outcome.clone().unwrap_or_else(|| Err(ended()))
    }

    /// Closes all connections to `addr` and ends all attempts to reach it, with their back-off. Calls in progress fail.
    pub(super) fn forget(&self, addr: SocketAddr) {
        let mut links = self.lock();
        links.by_key.retain(|key, link| {
            if let Link::Up { connection, .. } = link
                && key.addr == addr
            {
                connection.close(CloseCode::Forgotten.code(), b"the peer was given up");
            }
            key.addr != addr
        });
    }

    fn lookup(self: &Arc<Self>, tasks: &TaskGroup, key: LinkKey) -> Lookup {
        let now = self.options.clock.boot();
        let mut links = self.lock();
        match links.by_key.get_mut(&key) {
            Some(Link::Up { connection, used }) => match connection.close_reason() {
                None => {
                    *used = now;
                    return Lookup::Ready(Ok(connection.clone()));
                }
                Some(reason) => {
                    // A peer that refuses us does so after each handshake: not more often than the back-off allows.
                    if let Some(error) = refusal(key.addr, &reason) {
                        links.by_key.insert(key, Link::Down { error: error.clone(), since: now });
                        return Lookup::Ready(Err(error));
                    }
                }
            },
            Some(Link::Connecting { outcome, .. }) => return Lookup::Wait(outcome.clone()),
            Some(Link::Down { error, since }) if now.since(*since) < self.options.reconnect_backoff => {
                return Lookup::Ready(Err(error.clone()));
            }
            Some(Link::Down { .. }) | None => {}
        }
        Lookup::Wait(self.start_attempt(&mut links, tasks, key, now))
    }

    fn start_attempt(
        self: &Arc<Self>,
        links: &mut Links,
        tasks: &TaskGroup,
        key: LinkKey,
        now: BootTime,
    ) -> watch::Receiver<Option<Outcome>> {
        self.make_room(links, now);
        links.attempts += 1;
        let attempt = links.attempts;
        let (publish, outcome) = watch::channel(None);
        links.by_key.insert(key, Link::Connecting { attempt, outcome: outcome.clone() });
        self.counted.note_len(links.by_key.len());
        let pool = self.clone();
        tasks.spawn("connect", async move {
            let outcome = pool.connect(key).await;
            let outcome = pool.settle(key, attempt, outcome);
            publish.send_replace(Some(outcome));
        });
        outcome
    }

    async fn connect(&self, key: LinkKey) -> Outcome {
        let within = self.options.connect_within;
        let config = self.configs[&key.channel].clone();
        let connecting = self
            .endpoint
            .connect_with(config, key.addr, &server_name(key.node))
            .map_err(|error| not_tried(key.addr, &error))?;
        match tokio::time::timeout(within, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(not_connected(key.addr, &error)),
            Err(_) => Err(TransportError::NotSent {
                addr: key.addr,
                reason: format!("no answer to the handshake within {within:?}"),
            }),
        }
    }

    /// Records what an attempt has come to, unless the peer was forgotten meanwhile.
    fn settle(&self, key: LinkKey, attempt: u64, outcome: Outcome) -> Outcome {
        let now = self.options.clock.boot();
        let mut links = self.lock();
        let current = matches!(links.by_key.get(&key), Some(Link::Connecting { attempt: a, .. }) if *a == attempt);
        if !current {
            if let Ok(connection) = &outcome {
                connection.close(CloseCode::Forgotten.code(), b"the peer was given up");
            }
            let reason = "the peer was given up while it was dialled".to_owned();
            return Err(TransportError::NotSent { addr: key.addr, reason });
        }
        let link = match &outcome {
            Ok(connection) => Link::Up { connection: connection.clone(), used: now },
            Err(error) => Link::Down { error: error.clone(), since: now },
        };
        links.by_key.insert(key, link);
        outcome
    }

    /// Drops what has no use any more; if all is in use, the connection that was used least recently.
    fn make_room(&self, links: &mut Links, now: BootTime) {
        if links.by_key.len() < self.options.outbound_connections_max {
            return;
        }
        links.by_key.retain(|_, link| match link {
            Link::Connecting { .. } => true,
            Link::Up { connection, .. } => connection.close_reason().is_none(),
            Link::Down { since, .. } => now.since(*since) < self.options.reconnect_backoff,
        });
        while links.by_key.len() >= self.options.outbound_connections_max {
            let used = |link: &Link| match link {
                Link::Up { used, .. } => *used,
                Link::Down { since, .. } => *since,
                Link::Connecting { .. } => now,
            };
            let Some(oldest) = links.by_key.iter().min_by_key(|(_, link)| used(link)).map(|(key, _)| *key) else {
                return;
            };
            if let Some(Link::Up { connection, .. }) = links.by_key.remove(&oldest) {
                connection.close(CloseCode::Forgotten.code(), b"not used for long");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

enum Lookup {
    Ready(Outcome),
    Wait(watch::Receiver<Option<Outcome>>),
}
