//! The client: first contact, then handles of views and groups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stoa_env::{Bounded, Bounds, Clock, Entropy, Peer, TaskGroup, Transport};
use stoa_protocol::catalog::parse_full_name;
use stoa_protocol::message::{
    Caller, Empty, GroupRequest, Kind, ViewAnswer as ViewDefinition, ViewRequest, encode_request,
};
use stoa_protocol::{ClusterId, ClusterMap, ErrorClass, FeatureGroup, MapVersion, Wire};

use crate::error::{CallError, ConnectError, ReadError, WriteError};
use crate::exchange::{Ask, exchange};
use crate::housekeeper::housekeep;
use crate::plan::ViewPlan;
use crate::retry::Backoff;
use crate::routes::Routes;
use crate::shared::Shared;
use crate::view::View;
use crate::writer::Group;

/// Time for the first contact with a cluster, over all seeds.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Time for one seed: a dead one must not use up the time of the others.
pub const SEED_LIMIT: Duration = Duration::from_millis(1_000);

/// Time to fetch the definition of a view or group.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// Time that one node is given for a call that another can do as well.
pub(crate) const NODE_LIMIT: Duration = Duration::from_millis(300);

/// A client of one cluster. Cheap to clone; background work ends with the last handle of client, views and groups.
pub struct Client<T: Transport> {
    pub(crate) inner: Arc<Inner<T>>,
}

impl<T: Transport> Clone for Client<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<T> {
    pub(crate) shared: Arc<Shared<T>>,
    _tasks: TaskGroup,
}

impl<T: Transport> Client<T> {
    /// Makes first contact through any of `seeds` and fetches the map. Replicas in `zone` are read first; a name that no
    /// node has is allowed. Runs on the tokio runtime around it.
    ///
    /// # Errors
    /// [`ConnectError`] if no seed answers within [`CONNECT_DEADLINE`], or one refuses for good.
    pub async fn with(
        transport: T,
        seeds: Vec<SocketAddr>,
        zone: &str,
        caller: Caller,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ConnectError> {
        Self::counted(transport, seeds, zone, caller, clock, entropy, Bounds::default()).await
    }

    /// As [`with`](Self::with); what the client bounds is counted in `bounds`, beside what its transport does.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub async fn counted(
        transport: T,
        seeds: Vec<SocketAddr>,
        zone: &str,
        caller: Caller,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        bounds: Bounds,
    ) -> Result<Self, ConnectError> {
        let map = first_contact(&transport, &seeds, &caller, &*clock, &*entropy).await?;
        let shared = Arc::new(Shared::new(transport, clock, entropy, caller, zone, map, bounds));
        let tasks = TaskGroup::new();
        tasks.spawn("client housekeeper", housekeep(shared.clone()));
        Ok(Self { inner: Arc::new(Inner { shared, _tasks: tasks }) })
    }

    /// The map that the client goes by.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.inner.shared.routes().map().clone()
    }

    /// What this client bounds, and the most of each that there was.
    pub fn bounds(&self) -> Vec<Bounded> {
        self.bounds_registry().table()
    }

    /// Where it is counted, for what is built on a client and has bounds of its own.
    pub fn bounds_registry(&self) -> &Bounds {
        &self.inner.shared.bounds
    }

    /// Opens a view by its full name, such as `shop/rank_products@1`.
    ///
    /// # Errors
    /// [`ReadError`] if the name is none, the cluster has no such view, or no node answers within [`OPEN_DEADLINE`].
    pub async fn view(&self, name: &str) -> Result<View<T>, ReadError> {
        let (project, short, version) = parse_full_name("the name of a view", name)?;
        let request = ViewRequest { project, name: short, version };
        let definition: ViewDefinition =
            self.fetch(Kind::View, &request).await.map_err(|error| match error.class() {
                ErrorClass::Reject => ReadError::Rejected { view: name.to_owned(), error: error.to_body() },
                _ => ReadError::Unreachable { view: name.to_owned(), waited: OPEN_DEADLINE, last: error.into() },
            })?;
        let plan = ViewPlan::new(&definition).map_err(|what| ReadError::View { view: name.to_owned(), what })?;
        Ok(View::new(self.inner.clone(), plan))
    }

    /// Opens a feature group for writing by its full name, such as `shop/product_activity@1`.
    ///
    /// # Errors
    /// [`WriteError`] if the name is none, the cluster has no such group, or no node answers within [`OPEN_DEADLINE`].
    pub async fn group(&self, name: &str) -> Result<Group<T>, WriteError> {
        let (project, short, version) = parse_full_name("the name of a feature group", name)?;
        let request = GroupRequest { project, name: short, version };
        let definition: FeatureGroup =
            self.fetch(Kind::Group, &request).await.map_err(|error| match error.class() {
                ErrorClass::Reject => WriteError::Group { group: name.to_owned(), error: error.to_body() },
                _ => WriteError::NotTaken { waited: OPEN_DEADLINE, attempts: 0, last: error.into() },
            })?;
        Ok(Group::new(self.clone(), definition))
    }

    /// Asks any node for a definition, nearest first.
    async fn fetch<R: Wire, A: Wire>(&self, kind: Kind, request: &R) -> Result<A, CallError> {
        let shared = &*self.inner.shared;
        let deadline = shared.now().plus(OPEN_DEADLINE);
        let body = shared.body(request);
        let mut backoff = Backoff::default();
        loop {
            let routes = shared.routes();
            let mut last = None;
            for node in nodes_in_use_first(shared, &routes) {
                let limit = NODE_LIMIT.min(deadline.since(shared.now()));
                let Some(to) = routes.peer(node).filter(|_| !limit.is_zero()) else { continue };
                let result = shared.call_node(node, to, kind, &body, limit).await;
                let answer = result.and_then(|body| {
                    A::from_bytes(&body).map_err(|error| CallError::Unfit { from: to.addr, what: error.to_string() })
                });
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.class() == ErrorClass::Reject => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
            let retry_after = last.as_ref().and_then(CallError::refusal).map_or(0, |error| error.retry_after_ms);
            let retry_after = Duration::from_millis(u64::from(retry_after));
            let pause = backoff.pause(retry_after, shared.entropy.next_u64());
            let over = shared.now().plus(pause) >= deadline || !backoff.attempt();
            if let Some(last) = last.filter(|_| over) {
                return Err(last);
            }
            stoa_env::sleep(pause).await;
        }
    }
}

/// All nodes of the map: nearest first, ejected ones last.
pub(crate) fn nodes_in_use_first<T: Transport>(shared: &Shared<T>, routes: &Routes) -> Vec<stoa_protocol::NodeId> {
    let mut nodes = routes.nodes();
    let state = shared.nodes();
    nodes.sort_by_key(|node| state.peers.is_ejected(*node));
    nodes
}

async fn first_contact<T: Transport>(
    transport: &T,
    seeds: &[SocketAddr],
    caller: &Caller,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<ClusterMap, ConnectError> {
    if seeds.is_empty() {
        return Err(ConnectError::NoSeeds);
    }
    let started = clock.boot();
    let deadline = started.plus(CONNECT_DEADLINE);
    let body = encode_request(caller, &Empty);
    let mut backoff = Backoff::default();
    loop {
        let mut last = None;
        for &addr in seeds {
            let limit = SEED_LIMIT.min(deadline.since(clock.boot()));
            if limit.is_zero() {
                continue;
            }
            let ask = Ask {
                kind: Kind::Map,
                request_id: entropy.next_u64(),
                cluster: ClusterId(0),
                map_version: MapVersion(0),
                remaining: None,
            };
            let result = exchange(transport, Peer { addr, node: None }, ask, &body, limit).await;
            match result.and_then(|(header, body)| check_map(addr, header.cluster, &body)) {
                Ok(map) => return Ok(map),
                Err(error) if error.class() == ErrorClass::Reject => return Err(ConnectError::Refused(error)),
                Err(error) => last = Some(error),
            }
        }
        let pause = backoff.pause(Duration::ZERO, entropy.next_u64());
        let waited = clock.boot().since(started);
        let over = waited + pause >= CONNECT_DEADLINE || !backoff.attempt();
        if let Some(last) = last.filter(|_| over) {
            return Err(ConnectError::NotReached { seeds: seeds.to_vec(), waited, last });
        }
        stoa_env::sleep(pause).await;
    }
}

/// A map from the wire: of the cluster that its frame names, and with a node at all.
pub(crate) fn check_map(from: SocketAddr, cluster: ClusterId, body: &[u8]) -> Result<ClusterMap, CallError> {
    let unfit = |what: String| CallError::Unfit { from, what };
    let map = ClusterMap::from_bytes(body).map_err(|error| unfit(error.to_string()))?;
    if map.cluster != cluster || map.cluster == ClusterId(0) {
        return Err(unfit(format!("a map of cluster {} in a frame of cluster {cluster}", map.cluster)));
    }
    if map.nodes.is_empty() || !map.nodes.is_sorted_by(|a, b| a.id < b.id) {
        return Err(unfit("a map whose nodes are missing or out of order".to_owned()));
    }
    Ok(map)
}
