//! The lobby and the process fleet as one machine, because each moves the other: what waits starts processes, what is stopped takes no
//! more. In: changes of either. Out: the outputs of both. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use super::machine::{self, Input, Matching, Rules};
use crate::fleet::processes::{self, Processes};

/// What either of them wants done.
#[derive(Debug)]
pub(super) enum Output {
    Lobby(machine::Output),
    Fleet(processes::Output),
}

pub(super) struct Core {
    pub(super) matching: Matching,
    pub(super) processes: Option<Processes>,
    outputs: VecDeque<Output>,
}

impl Core {
    pub(super) fn new(rules: Rules, processes: Option<processes::Rules>) -> Self {
        Self { matching: Matching::new(rules), processes: processes.map(Processes::new), outputs: VecDeque::new() }
    }

    /// Takes one input of the lobby; drain [`Self::poll_output`] afterwards, as after every change.
    pub(super) fn handle(&mut self, now: Instant, input: Input) {
        self.matching.handle(now, input);
        self.settle(now);
    }

    /// Takes one input of the process fleet.
    pub(super) fn process(&mut self, now: Instant, input: processes::Input) {
        if let Some(processes) = &mut self.processes {
            processes.handle(now, input);
        }
        self.settle(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(processes) = &mut self.processes {
            processes.handle_timeout(now);
        }
        // First, so that a hold that ends now ends with the right reason.
        self.settle(now);
        self.matching.handle_timeout(now);
        self.settle(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let fleet = self.processes.as_ref().and_then(Processes::poll_timeout);
        self.matching.poll_timeout().into_iter().chain(fleet).min()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Lets each see what the other has done, until nothing more follows.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            self.outputs.extend(std::iter::from_fn(|| self.matching.poll_output()).map(Output::Lobby));
            let Some(processes) = &mut self.processes else { return };
            processes.look(now, self.matching.shortage(now), self.matching.busy());
            let full = processes.is_full();
            let mut retired = false;
            while let Some(output) = processes.poll_output() {
                if let processes::Output::Stop(name) = &output {
                    self.matching.handle(now, Input::Retire(name.clone()));
                    retired = true;
                }
                self.outputs.push_back(Output::Fleet(output));
            }
            self.matching.handle(now, Input::FleetFull(full));
            if !retired {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
