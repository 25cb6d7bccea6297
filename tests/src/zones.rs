//! Zones as network namespaces: one for the processes of each zone and one for clients, all joined by a router, in which
//! the way from one zone to another can be cut, in one direction alone too. A packet on a way that is cut vanishes
//! silently, as in a network.
//!
//! Needs root and `ip` (iproute2). Nothing outside the namespaces is touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stoa::local_cluster::{Place, ZONES};

/// What all names of namespaces begin with; the number of the process that made them follows.
const PREFIX: &str = "stoa-test-";
/// The namespace of the test's own clients is none of a zone.
const CLIENTS: &str = "clients";
const ROUTER: &str = "router";

/// The namespaces; they go with this value.
pub struct ZoneNetwork {
    prefix: String,
}

/// Why there can be no namespaces here, if so.
pub fn impossible() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    let probe = format!("{PREFIX}{}-probe", std::process::id());
    if let Err(error) = ip(&["netns", "add", &probe]) {
        return Some(format!("no network namespace can be made: {error:#}"));
    }
    ip(&["netns", "del", &probe]).err().map(|error| format!("a namespace cannot be removed: {error:#}"))
}

fn ip(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ip").args(args).output().context("running ip; it is in the package iproute2")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The number of a zone's network.
fn number(space: &str) -> u8 {
    ZONES.iter().position(|zone| *zone == space).map_or(100, |at| at as u8 + 1)
}

fn address(space: &str) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number(space), 2)
}

impl ZoneNetwork {
    /// Makes the namespaces and the ways between them.
    pub fn new() -> anyhow::Result<Self> {
        sweep()?;
        let network = Self { prefix: format!("{PREFIX}{}-", std::process::id()) };
        network.add(ROUTER)?;
        // In the namespace of whoever reads it, as all below net.
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &network.name(ROUTER), "sh", "-c", forward])?;
        for space in ZONES.into_iter().chain([CLIENTS]) {
            network.join(space).with_context(|| format!("the network of {space}"))?;
        }
        Ok(network)
    }

    fn name(&self, space: &str) -> String {
        format!("{}{space}", self.prefix)
    }

    fn add(&self, space: &str) -> anyhow::Result<()> {
        ip(&["netns", "add", &self.name(space)])?;
        ip(&["-n", &self.name(space), "link", "set", "lo", "up"]).map(drop)
    }

    /// A namespace with a pair of devices between it and the router.
    fn join(&self, space: &str) -> anyhow::Result<()> {
        self.add(space)?;
        let (here, router, device) = (self.name(space), self.name(ROUTER), format!("to-{space}"));
        ip(&["-n", &here, "link", "add", "way", "type", "veth", "peer", "name", &device, "netns", &router])?;
        let gateway = Ipv4Addr::new(10, 77, number(space), 1).to_string();
        for (namespace, device, address) in
            [(&here, "way", address(space).to_string()), (&router, device.as_str(), gateway.clone())]
        {
            ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", namespace, "link", "set", device, "up"])?;
        }
        ip(&["-n", &here, "route", "add", "default", "via", &gateway]).map(drop)
    }

    /// Where the nodes of each zone run.
    pub fn places(&self) -> BTreeMap<String, Place> {
        let place = |zone: &str| {
            let launch = ["ip", "netns", "exec", &self.name(zone)].map(str::to_owned).to_vec();
            (zone.to_owned(), Place { ip: IpAddr::V4(address(zone)), launch })
        };
        ZONES.into_iter().map(place).collect()
    }

    /// Takes the calling thread into the namespace of clients, from which all zones can be reached whatever is cut.
    pub fn enter(&self) -> anyhow::Result<()> {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name(CLIENTS)))?;
        Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Lets nothing more through from one zone to another.
    pub fn cut_way(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let (from, to) = (address(from).to_string(), address(to).to_string());
        ip(&["-n", &self.name(ROUTER), "rule", "add", "from", &from, "to", &to, "priority", "100", "blackhole"])
            .map(drop)
    }

    /// Lets nothing more through between two zones.
    pub fn cut(&self, one: &str, other: &str) -> anyhow::Result<()> {
        self.cut_way(one, other)?;
        self.cut_way(other, one)
    }

    /// Ends all cuts.
    pub fn heal(&self) -> anyhow::Result<()> {
        let router = self.name(ROUTER);
        while ip(&["-n", &router, "rule", "show", "priority", "100"])?.contains("blackhole") {
            ip(&["-n", &router, "rule", "del", "priority", "100"])?;
        }
        Ok(())
    }
}

impl Drop for ZoneNetwork {
    fn drop(&mut self) {
        if let Err(error) = remove(|name| name.starts_with(&self.prefix)) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes what tests left behind whose processes are gone.
fn sweep() -> anyhow::Result<()> {
    remove(|name| {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        maker.is_some_and(|id| !std::path::Path::new("/proc").join(id).exists())
    })
}

fn remove(which: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let list = ip(&["netns", "list"])?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| which(name));
    names.into_iter().try_for_each(|name| ip(&["netns", "del", name]).map(drop))
}
