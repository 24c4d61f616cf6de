//! Faults that strike at moments of the seed's choosing; most wait for work in progress.

use super::{Event, Order, World};
use crate::chance::Chance;
use crate::couriers::{BAD, Mode};

/// A fault.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// kill -9.
    Kill(usize),
    /// kill -9 at the n-th call from now.
    KillAtCall(usize, u64),
    /// The machine loses power.
    PowerCut(usize),
    /// Stopped by a signal for so many microseconds.
    Pause(usize, u64),
    /// Told to stop, and started again.
    Restart(usize),
    /// Brokers answer nobody for so many microseconds.
    Brokers(u64),
    /// A company behaves badly for so many microseconds.
    Company(usize, Mode, u64),
    /// A company is well again.
    Recovered(usize),
    /// A payment provider behaves badly for so many microseconds.
    Provider(usize, Mode, u64),
    /// A payment provider is well again.
    ProviderRecovered(usize),
    /// A sink's process is killed.
    Sink(usize),
    /// A sink's process is stopped by a signal for so many microseconds; another one takes over.
    SinkPause(usize, u64),
    /// The sinks' database loses what it has not synced.
    Database,
    /// The faults are over.
    Peace,
}

impl World {
    pub(super) fn set_up_faults(&mut self, chance: &mut Chance) {
        let span = self.plan.span;
        for _ in 0..self.plan.faults {
            let at = chance.below(span);
            let process = chance.index(self.plan.processes);
            let fault = match chance.below(106) {
                0..14 => Fault::Kill(process),
                14..32 => Fault::KillAtCall(process, chance.below(400)),
                32..42 => Fault::PowerCut(process),
                42..58 => Fault::Pause(process, chance.between(200_000, 12_000_000)),
                58..65 => Fault::Restart(process),
                65..72 => Fault::Brokers(chance.between(100_000, 3_000_000)),
                72..82 => {
                    let company = chance.index(self.companies.len());
                    Fault::Company(company, *chance.pick(BAD), chance.between(500_000, 6_000_000))
                }
                82..90 => Fault::Sink(chance.index(self.sinks.count())),
                90..95 => {
                    let sink = chance.index(self.sinks.count());
                    Fault::SinkPause(sink, chance.between(500_000, 6_000_000))
                }
                95..100 => Fault::Database,
                _ => {
                    let provider = chance.index(self.providers.len());
                    Fault::Provider(provider, *chance.pick(BAD), chance.between(500_000, 6_000_000))
                }
            };
            self.schedule(at, Event::Fault(fault));
        }
        self.schedule(span, Event::Fault(Fault::Peace));
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(process) | Fault::PowerCut(process) => {
                if self.target(process, fault) {
                    let power_cut = matches!(fault, Fault::PowerCut(_));
                    self.fault(if power_cut { "power cut" } else { "process killed" });
                    self.kill(process, power_cut);
                }
            }
            Fault::KillAtCall(process, calls) => {
                if self.target(process, fault) {
                    self.processes[process].dies_in = Some(calls);
                }
            }
            Fault::Pause(process, time) => {
                if self.target(process, fault) {
                    self.fault("process paused");
                    self.processes[process].paused_until = self.now + time;
                }
            }
            Fault::Restart(process) => {
                if self.target(process, fault) {
                    self.fault("process told to stop");
                    self.processes[process].stopping = true;
                }
            }
            Fault::Brokers(time) => {
                self.fault("brokers away");
                self.kafka.down_until = self.now + time;
            }
            Fault::Company(company, mode, time) => {
                self.companies[company].mode = mode;
                self.schedule(time, Event::Fault(Fault::Recovered(company)));
            }
            Fault::Provider(provider, mode, time) => {
                self.providers[provider].mode = mode;
                self.schedule(time, Event::Fault(Fault::ProviderRecovered(provider)));
            }
            Fault::ProviderRecovered(provider) => self.providers[provider].mode = Mode::Well,
            Fault::Recovered(company) => self.companies[company].mode = Mode::Well,
            Fault::Sink(sink) => self.kill_sink(sink),
            Fault::SinkPause(sink, time) => self.pause_sink(sink, time),
            Fault::Database => self.cut_database(),
            Fault::Peace => {
                self.faulty = false;
                for company in &mut self.companies {
                    company.mode = Mode::Well;
                }
                for provider in &mut self.providers {
                    provider.mode = Mode::Well;
                }
                for process in &mut self.processes {
                    process.dies_in = None;
                }
                self.note(|| "fault".into(), || "no more faults".into());
            }
        }
    }

    /// Whether the fault would hit a process at work; if not, it is kept for a little later.
    fn target(&mut self, process: usize, fault: Fault) -> bool {
        let there =
            self.processes[process].alive && self.processes[process].paused_until <= self.now;
        if there && self.busy(process) {
            return true;
        }
        if self.faulty {
            let after = self.chance.between(50_000, 300_000);
            self.schedule(after, Event::Fault(fault));
        }
        false
    }

    /// The process dies where it stands and comes back.
    pub fn kill(&mut self, process: usize, power_cut: bool) {
        let back = self.chance.between(50_000, 9_000_000);
        self.orders.push(Order::Kill { process, power_cut, back });
    }
}
