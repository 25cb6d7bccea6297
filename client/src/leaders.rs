//! The search for a partition's leader, as a state machine: last known leader first, then whom the answers name, then
//! the other replicas, each once a round.

use stoa_protocol::NodeId;

/// Whom to ask next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this node.
    Ask(NodeId),
    /// All were asked; pause, then begin again.
    Pause,
}

/// The search of one call.
#[derive(Debug, Clone, Default)]
pub struct LeaderSearch {
    hint: Option<NodeId>,
    tried: Vec<NodeId>,
}

impl LeaderSearch {
    /// Begins with the last known leader.
    pub fn new(last_known: Option<NodeId>) -> Self {
        Self { hint: last_known, tried: Vec::new() }
    }

    /// Whom to ask next among `replicas` (in the order of the map, the preferred leader first). Ejected nodes come last.
    pub fn next(&mut self, replicas: &[NodeId], is_ejected: impl Fn(NodeId) -> bool) -> Step {
        // A hint outside the map is followed too: the map may be older than the hint. The caller finds no address then.
        let hint = self.hint.take().filter(|node| !self.tried.contains(node) && !is_ejected(*node));
        let rest = || replicas.iter().copied().filter(|node| !self.tried.contains(node));
        let choice = hint.or_else(|| rest().min_by_key(|node| is_ejected(*node)));
        match choice {
            Some(node) => {
                self.tried.push(node);
                Step::Ask(node)
            }
            None => {
                self.tried.clear();
                Step::Pause
            }
        }
    }

    /// A node named the leader.
    pub fn on_hint(&mut self, leader: NodeId) {
        self.hint = Some(leader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICAS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    #[test]
    fn the_last_known_leader_then_hints_then_the_others_once_a_round() {
        let mut search = LeaderSearch::new(Some(NodeId(2)));
        assert_eq!(search.next(&REPLICAS, |_| false), Step::Ask(NodeId(2)));
        search.on_hint(NodeId(3));
        assert_eq!(search.next(&REPLICAS, |_| false), Step::Ask(NodeId(3)));
        search.on_hint(NodeId(2)); // two nodes name each other
        assert_eq!(search.next(&REPLICAS, |_| false), Step::Ask(NodeId(1)));
        assert_eq!(search.next(&REPLICAS, |_| false), Step::Pause);
        assert_eq!(search.next(&REPLICAS, |_| false), Step::Ask(NodeId(1)));
    }

    #[test]
    fn ejected_nodes_come_last_even_if_they_led() {
        let mut search = LeaderSearch::new(Some(NodeId(1)));
        let order: Vec<_> = (0..4).map(|_| search.next(&REPLICAS, |node| node == NodeId(1))).collect();
        assert_eq!(order, [Step::Ask(NodeId(2)), Step::Ask(NodeId(3)), Step::Ask(NodeId(1)), Step::Pause]);
    }
}
