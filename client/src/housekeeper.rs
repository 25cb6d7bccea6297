//! What goes on beside the calls: pings of ejected peers, and newer maps.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stoa_env::Transport;
use stoa_protocol::message::{Empty, Kind};
use stoa_protocol::{MapVersion, NodeId};

use crate::client::{NODE_LIMIT, check_map, nodes_in_use_first};
use crate::peers::PING_EVERY;
use crate::shared::Shared;

/// Time between two attempts to fetch a map: answers that show a newer one come by the hundred.
const MAP_PAUSE: Duration = Duration::from_millis(20);

/// The client's one background task; it ends when its task group is dropped.
pub(crate) async fn housekeep<T: Transport>(shared: Arc<Shared<T>>) {
    // Two loops of one task, so that a slow ping does not delay a map.
    tokio::join!(keep_pinging(&shared), keep_map(&shared));
}

async fn keep_pinging<T: Transport>(shared: &Shared<T>) {
    loop {
        // Half the interval: a due ping is late by no more than that.
        stoa_env::sleep(PING_EVERY / 2).await;
        let now = shared.now();
        let due = shared.nodes().peers.pings_due(now);
        let mut pings: FuturesUnordered<_> = due.into_iter().map(|node| ping(shared, node)).collect();
        while pings.next().await.is_some() {}
    }
}

async fn ping<T: Transport>(shared: &Shared<T>, node: NodeId) {
    let Some(to) = shared.routes().peer(node) else { return };
    let good = shared.call(to, Kind::Ping, &shared.body(&Empty), PING_EVERY).await.is_ok();
    let now = shared.now();
    shared.nodes().peers.on_ping(node, good, now);
}

async fn keep_map<T: Transport>(shared: &Shared<T>) {
    loop {
        shared.map_wanted_signal.notified().await;
        // A wish that no node can fulfil (a version that was never committed) ends after one round; the next answer
        // that shows it renews it.
        fetch_map(shared).await;
        stoa_env::sleep(MAP_PAUSE).await;
    }
}

/// Asks one node after the other until one has the map that is wanted.
async fn fetch_map<T: Transport>(shared: &Shared<T>) {
    let routes = shared.routes();
    for node in nodes_in_use_first(shared, &routes) {
        if !shared.map_is_wanted() {
            return;
        }
        let Some(to) = routes.peer(node) else { continue };
        let body = shared.body(&Empty);
        match shared.call_node(node, to, Kind::Map, &body, NODE_LIMIT).await {
            Ok(body) => match check_map(to.addr, routes.map().cluster, &body) {
                Ok(map) => shared.take_map(map),
                Err(error) => tracing::warn!(%node, %error, "a map was refused"),
            },
            Err(error) => tracing::debug!(%node, %error, "no map from this node"),
        }
    }
    let wanted = MapVersion(routes.map().version.0 + 1);
    tracing::debug!(%wanted, "no node has a newer map");
}
