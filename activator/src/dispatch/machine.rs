//! The dispatcher and the process fleet as one machine, because each moves the other: waiting streams start processes, and a worker that
//! is stopped is offered no more streams. In: inputs of either. Out: the outputs of both, to `lobby`. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use super::dispatcher::Dispatcher;
use super::messages::{self, Input, Rules};
use super::processes::{self, Processes};
use super::view::{WorkerState, WorkerView};

/// An output of the dispatcher or of the process fleet.
#[derive(Debug)]
pub(crate) enum Output {
    Dispatcher(messages::Output),
    Processes(processes::Output),
}

pub(crate) struct Machine {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) processes: Option<Processes>,
    outputs: VecDeque<Output>,
}

impl Machine {
    pub(crate) fn new(rules: Rules, processes: Option<processes::Rules>) -> Self {
        Self { dispatcher: Dispatcher::new(rules), processes: processes.map(Processes::new), outputs: VecDeque::new() }
    }

    /// Takes one input of the dispatcher; drain [`Self::poll_output`] afterwards, as after every change.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        self.dispatcher.handle(now, input);
        self.settle(now);
    }

    /// Takes one input of the process fleet.
    pub(crate) fn process(&mut self, now: Instant, input: processes::Input) {
        if let Some(processes) = &mut self.processes {
            processes.handle(now, input);
        }
        self.settle(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(processes) = &mut self.processes {
            processes.handle_timeout(now);
        }
        // The dispatcher learns first whether the fleet is full, so that a hold which ends now ends with the right reason.
        self.settle(now);
        self.dispatcher.handle_timeout(now);
        self.settle(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let fleet = self.processes.as_ref().and_then(Processes::poll_timeout);
        self.dispatcher.poll_timeout().into_iter().chain(fleet).min()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Every worker: those that are starting first.
    pub(crate) fn workers(&self) -> Vec<WorkerView> {
        let starting = self.processes.iter().flat_map(|processes| {
            processes.starting().map(|name| WorkerView {
                name: name.to_owned(),
                state: WorkerState::Starting,
                streams: 0,
                capacity: u32::try_from(processes.capacity()).unwrap_or(u32::MAX),
            })
        });
        starting.chain(self.dispatcher.workers()).collect()
    }

    /// Shows each machine the changes of the other, until nothing more follows.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(mut output) = self.dispatcher.poll_output() {
                if let messages::Output::Started(started) = &mut output {
                    started.process = self.processes.as_ref().and_then(|processes| processes.times(&started.worker));
                    self.dispatcher.await_media(started);
                }
                self.outputs.push_back(Output::Dispatcher(output));
            }
            let Some(processes) = &mut self.processes else { return };
            processes.look(now, self.dispatcher.shortage(now), self.dispatcher.busy());
            let full = processes.is_full();
            let mut retired = false;
            while let Some(output) = processes.poll_output() {
                if let processes::Output::Stop(name) = &output {
                    self.dispatcher.handle(now, Input::Retire(name.clone()));
                    retired = true;
                }
                self.outputs.push_back(Output::Processes(output));
            }
            self.dispatcher.handle(now, Input::FleetFull(full));
            if !retired {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
