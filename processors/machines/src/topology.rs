//! The topology: which processors there are, what they read, which machine they run. Data, so that
//! the runtime, the simulation and the documentation use the same.

use std::rc::Rc;

use events::topics;

use crate::couriers::Couriers;
use crate::fulfilment::Fulfilment;
use crate::machine::Machine;
use crate::stock::Stock;
use crate::table::Backing;

/// One processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Its name; the changelog is `<name>-changelog`.
    pub name: &'static str,
    /// Its command inbox.
    pub commands: &'static str,
    /// Its outcome inbox, co-partitioned with the commands and read before them.
    pub outcomes: Option<&'static str>,
}

/// The orders processor: dedupe and the saga.
pub const ORDERS: Processor = Processor {
    name: "orders",
    commands: topics::ORDERS.name,
    outcomes: Some(topics::ORDER_OUTCOMES.name),
};

/// The stock processor.
pub const STOCK: Processor =
    Processor { name: "stock", commands: topics::STOCK.name, outcomes: None };

/// The couriers processor.
pub const COURIERS: Processor =
    Processor { name: "couriers", commands: topics::COURIERS.name, outcomes: None };

/// Every processor.
pub const ALL: &[Processor] = &[ORDERS, STOCK, COURIERS];

impl Processor {
    /// The processor with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        ALL.iter().find(|p| p.name == name).copied()
    }

    /// The processor that reads commands from this topic.
    pub fn by_commands(topic: &str) -> Option<Self> {
        ALL.iter().find(|p| p.commands == topic).copied()
    }

    /// Its machine over a task's committed state.
    pub fn machine(&self, backing: &Rc<dyn Backing>) -> Box<dyn Machine> {
        match self.name {
            "orders" => Box::new(Fulfilment::new(backing)),
            "stock" => Box::new(Stock::new(backing)),
            _ => Box::new(Couriers::new(backing)),
        }
    }

    /// The inboxes, the one to be read first in front.
    pub fn inboxes(&self) -> impl Iterator<Item = &'static str> {
        self.outcomes.into_iter().chain([self.commands])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn processors_and_changelogs_agree() {
        let names: Vec<_> = ALL.iter().map(|p| p.name).collect();
        assert_eq!(names, topics::PROCESSORS);
    }

    #[test]
    fn processors_and_inboxes_agree() {
        let read: BTreeSet<&str> = ALL.iter().flat_map(Processor::inboxes).collect();
        let inboxes: BTreeSet<&str> = topics::INBOXES.iter().map(|topic| topic.name).collect();
        assert_eq!(read, inboxes);
    }
}
