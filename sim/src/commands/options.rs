//! What of a seed's plan is put in its place by hand: so a smaller plan is replayed.

use std::time::Duration;

use clap::Args;
use stoa_sim::plan::{FaultKind, Moves, Plan, Work};

/// Parts of a plan that are not those of its seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Overrides {
    /// The kinds of fault, by name, with commas between them; "none" for none.
    #[arg(long)]
    pub faults: Option<String>,
    /// How long clients work while faults strike, in seconds.
    #[arg(long)]
    pub chaos_s: Option<u64>,
    /// How many clients.
    #[arg(long)]
    pub clients: Option<usize>,
    /// How many partitions.
    #[arg(long)]
    pub partitions: Option<u32>,
    /// How many faults may be active at once.
    #[arg(long)]
    pub overlap: Option<usize>,
    /// No operator moves replicas.
    #[arg(long)]
    pub no_moves: bool,
    /// What clients do besides whole rows and reads: partial, mortal, catalog, loads, aging, with commas between; "none" for
    /// none.
    #[arg(long)]
    pub work: Option<String>,
}

impl Overrides {
    /// The plan of a seed with these in it. Kinds that have no name are an error.
    pub fn plan(&self, seed: u64) -> std::io::Result<Plan> {
        let mut plan = Plan::draw(seed);
        if let Some(names) = &self.faults {
            plan.faults = kinds(names)?;
            plan.lease_reads &= !plan.faults.iter().any(|kind| kind.stops_clocks());
        }
        if let Some(seconds) = self.chaos_s {
            plan.chaos = Duration::from_secs(seconds);
            plan.least = stoa_sim::plan::Least::default();
        }
        plan.clients = self.clients.unwrap_or(plan.clients);
        plan.partitions = self.partitions.unwrap_or(plan.partitions);
        plan.overlap = self.overlap.unwrap_or(plan.overlap);
        if self.no_moves {
            plan.moves = Moves::None;
        }
        if let Some(names) = &self.work {
            plan.work = Work::named(names).map_err(std::io::Error::other)?;
        }
        Ok(plan)
    }

    /// The kinds of fault of the plan, as the option takes them.
    pub fn with_faults(&self, kinds: &[FaultKind]) -> Self {
        let names: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        let faults = if names.is_empty() { "none".into() } else { names.join(",") };
        Self { faults: Some(faults), ..self.clone() }
    }

    /// The options as they are written.
    pub fn words(&self) -> String {
        let Self { faults, chaos_s, clients, partitions, overlap, no_moves, work } = self;
        let mut words = String::new();
        let mut push = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" --{name} {value}"));
            }
        };
        push("faults", faults.clone());
        push("chaos-s", chaos_s.map(|n| n.to_string()));
        push("clients", clients.map(|n| n.to_string()));
        push("partitions", partitions.map(|n| n.to_string()));
        push("overlap", overlap.map(|n| n.to_string()));
        push("work", work.clone());
        words.push_str(if *no_moves { " --no-moves" } else { "" });
        words
    }
}

fn kinds(names: &str) -> std::io::Result<Vec<FaultKind>> {
    let named = |name: &str| {
        FaultKind::named(name).ok_or_else(|| std::io::Error::other(format!("there is no kind of fault named {name:?}")))
    };
    names.split(',').filter(|name| *name != "none").map(named).collect()
}
