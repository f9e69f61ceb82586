//! The activator as a whole: opens the rooms, keeps them until the process is asked to stop, closes them in order. In: the configuration and signals.
//! Out: the end. Next: `accept`, in the order of the bytes.
#![expect(clippy::disallowed_methods, reason = "shell: the tasks of the process, the clock of its going down")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::control::Welcome;
use liveedgecast_common::drain::Input;
use liveedgecast_common::http::serve;
use liveedgecast_common::key::instance_name;
use liveedgecast_common::runtime::{Signals, host_name};
use liveedgecast_common::sys::network_namespace;
use liveedgecast_common::{event, health, random, trace};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accept::{self, ConnectionLimits, RtmpsListener};
use crate::admission::Admission;
use crate::config::{Fleet, Handoff, Settings};
use crate::drain::{self, Phase};
use crate::events::{self, DropCause, Events};
use crate::handoff::{HandoffListener, SpareMemories};
use crate::http::{HttpContext, OPEN, StreamChanges, handler, routes};
use crate::incidents;
#[cfg(feature = "kubernetes")]
use crate::kubernetes;
use crate::lobby::{DrainSwitch, Lobby};
use crate::metrics::ActivatorMetrics;
use crate::net::{CurrentTls, CurrentTokens, tell_limits};
use crate::peers::{Cluster, Courier, Me};
use crate::ports::Ports;
use crate::processes::{self, Launch};
use crate::reload::{self, Reload};
use crate::{control, dispatch};
use crate::{peers, publisher, scaler};

/// Time in which load balancers and endpoints notice that this process is unready. One machine has neither.
const PROPAGATION: Duration = Duration::from_secs(3);
/// Time in which the streams that are closed last get their goodbyes before workers are asked to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time in which publishers that are closed read the reason.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which the last events are delivered.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Time in which hooks are told of the last ends.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which killed workers are reaped, and the servers end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Facts that `main` has gathered.
#[derive(Debug)]
pub struct Startup {
    /// The configuration.
    pub settings: Settings,
    /// The worker's program; for the process fleet.
    pub program: Option<PathBuf>,
    /// Format and filter of logs, for workers.
    pub log: (&'static str, Option<String>),
}

/// Tasks and listeners that run and have to be ended.
struct Running {
    drain: DrainSwitch,
    phase: watch::Sender<Phase>,
    accepting: Vec<JoinHandle<()>>,
    publishers: TaskTracker,
    /// Tells publishers that are put off.
    draining: CancellationToken,
    events: Events,
    /// The delivery of events by HTTP: it ends when the last one is delivered.
    delivery: Option<JoinHandle<()>>,
    /// Ends control and HTTP.
    stop: CancellationToken,
    serving: TaskTracker,
    /// Hooks are told of ends until the end.
    admission: Arc<Admission>,
    /// The lobby's time and the process fleet: they end with the process.
    keeping: Vec<JoinHandle<()>>,
}

/// Serves until asked to stop, then goes down by the list.
///
/// # Errors
/// A port cannot be bound; the text says which.
pub async fn run(start: Startup, mut signals: Signals) -> anyhow::Result<()> {
    let propagation = match start.settings.fleet {
        Fleet::Process => Duration::ZERO,
        Fleet::External => PROPAGATION,
    };
    let mut drain = drain::list(propagation, start.settings.drain);
    let open = open(start)?;
    let mut step = PhaseStep::begin(&open, drain.phase());
    loop {
        let phase = drain.phase();
        let moved = tokio::select! {
            stop = signals.next() => {
                info!(event = event::SIGNAL_RECEIVED, signal = %stop, phase = phase.as_str(), "signal received");
                drain.handle(now(), Input::Signal)
            }
            () = step.done() => drain.handle(now(), Input::Done(phase)),
            () = sleep_until(drain.poll_timeout()) => drain.handle_timeout(now()),
        };
        if !moved {
            continue;
        }
        let phase = drain.phase();
        info!(event = event::DRAIN_ADVANCED, phase = phase.as_str(), "drain advanced");
        open.phase.send_replace(phase);
        if phase == Phase::StopServing {
            break;
        }
        step = PhaseStep::begin(&open, phase);
    }
    open.end().await;
    Ok(())
}

fn open(start: Startup) -> anyhow::Result<Running> {
    let Startup { settings, program, log } = start;
    let settings = Arc::new(settings);
    let at = settings.listen;
    let bound = Ports::bind(&at)?;
    let (found_at, shared) = (bound.found_at().context("CONTROL_LISTEN")?, bound.shared().context("shared ports")?);
    let within = health::listen_within().unwrap_or_else(|error| {
        warn!(event = event::PROBE_SOCKET_FAILED, %error, "socket for probes in this container not opened");
        None
    });
    let rtmps = settings.rtmps_tls.clone().map(RtmpsListener::new).transpose()?.map(Arc::new);
    say_hello(&settings, &bound)?;

    // Two containers on one host network have the same host name, and process 1 both of them.
    let unique = format!("{}-{}~{:08x}", host_name(), std::process::id(), u32::from_be_bytes(random::bytes()));
    let name = instance_name(&unique);
    if let Some(collector) = &settings.traces {
        trace::start(collector, "liveedgecast-activator", &name);
    }
    let metrics = ActivatorMetrics::new().context("metrics")?;
    metrics.fleet_is(settings.fleet);
    let events = Events::new(metrics.events.clone());
    let delivery = settings.events.clone().map(|hook| tokio::spawn(events::deliver(events.clone(), hook)));
    let admission = Arc::new(Admission::new(&settings, events.clone(), metrics.admission.clone()));
    let rules = dispatch::Rules {
        workers_stay: settings.fleet == Fleet::External,
        baseline: settings.baseline,
        names_publishers: settings.names_publishers,
    };
    let processes = program.is_some().then(|| process_rules(&settings));
    let lobby = Lobby::new(rules, processes, metrics.lobby.clone(), events.clone());
    let listener = HandoffListener::open(bound.link, settings.protection.clone(), settings.secret.clone())
        .context("the socket for handing over descriptors")?;
    let by_descriptor = settings.handoff != Handoff::Link;
    let network = if by_descriptor { network_namespace() } else { String::new() };
    if settings.handoff == Handoff::Descriptor && network.is_empty() {
        bail!("HANDOFF=descriptor: without /proc nobody can tell whether a worker is on this host: use auto or link");
    }
    let changes = StreamChanges { views: lobby.views.clone(), streams: lobby.streams.clone() };
    let tokens = CurrentTokens::new(&settings);
    let control = control::Terms {
        welcome: Welcome {
            activator: name.clone(),
            handoff_socket: if by_descriptor { listener.socket_name() } else { String::new() },
            link_port: listener.link_port(),
            counters: true,
            totals: true,
        },
        protection: settings.protection.clone(),
        secret: settings.secret.clone(),
        network,
        activators: tokens.clone(),
        totals: metrics.totals.clone(),
        handler: handler(changes.clone(), tokens.clone()),
    };
    let cluster = if settings.peers.is_empty() {
        Cluster::alone(lobby.peers.clone(), settings.fleet)
    } else {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let me = Me {
            name: name.clone(),
            control: found_at,
            started: u64::try_from(started).unwrap_or(u64::MAX),
            shares_ports: at.shared,
            introducer: settings.introducer.is_some(),
        };
        Cluster::with_peers(lobby.peers.clone(), me)
    };
    let (phase, phases) = watch::channel(Phase::Serving);
    let keda = scaler::ScalerContext {
        cluster: cluster.clone(),
        target: settings.capacity,
        tls: settings.scaler_tls.clone().map(CurrentTls::new).transpose()?.map(Arc::new),
        phase: phases.clone(),
        metrics: metrics.scaler.clone(),
    };
    let shown = HttpContext {
        name: name.clone(),
        views: lobby.views.clone(),
        cluster: cluster.clone(),
        changes,
        courier: Courier::new(cluster.clone(), settings.protection.clone(), tokens.clone()),
        target: settings.capacity,
        admission: Arc::clone(&admission),
        is_local: at.is_local(),
        tokens: tokens.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        protection: settings.protection.clone(),
        rtmps: rtmps.clone(),
        scaler: keda.tls.clone(),
        phase: phases,
        started: now(),
    };

    let (stop, serving, publishers) = (CancellationToken::new(), TaskTracker::new(), TaskTracker::new());
    // The listeners that a successor shares end when it has the ports; the others end with the process.
    let release = stop.child_token();
    if let Some(within) = within {
        serving.spawn(serve(within, routes(shown.clone()), stop.clone()));
    }
    serving.spawn(serve(bound.http, routes(shown), release.clone()));
    serving.spawn({
        let listeners =
            control::ControlListeners { all: bound.control, ours: bound.own_control, release: release.clone() };
        let served = control::serve(
            listeners,
            control,
            lobby.workers.clone(),
            cluster.clone(),
            metrics.control.clone(),
            stop.clone(),
        );
        async move {
            if let Err(error) = served.await {
                tracing::error!(event = event::SERVER_FAILED, server = "control", %error, "server failed");
            }
        }
    });
    if let Some(listener) = bound.scaler {
        let served = scaler::serve(listener, keda, release.clone());
        serving.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(event = event::SERVER_FAILED, server = "scaler", %error, "server failed");
            }
        });
    }
    let mut keeping = vec![tokio::spawn(lobby.keep_time())];
    keeping.push(tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.tell_of_ends().await }
    }));
    if let Some(folder) = settings.incidents.clone() {
        keeping.push(tokio::spawn(incidents::run(folder, events.clone(), lobby.views.clone())));
    }
    let reload = Reload {
        files: admission.files().clone(),
        tokens: tokens.clone(),
        streams: lobby.streams.clone(),
        views: lobby.views.clone(),
        metrics: metrics.reload.clone(),
    };
    // Taken over also where there is no file: SIGHUP must not end streams.
    let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    keeping.push(tokio::spawn(reload::run(reload, hangup)));
    #[cfg(feature = "kubernetes")]
    if let Some(asked) = &settings.kubernetes {
        keeping.push(tokio::spawn(kubernetes::run(kubernetes::Room {
            api: kubernetes::Api::in_pod(&asked.deployment),
            cluster: cluster.clone(),
            views: lobby.views.clone(),
            workers: lobby.workers.clone(),
            capacity: settings.capacity,
            most: usize::try_from(settings.max_workers).unwrap_or(usize::MAX),
            idle_go_after: asked.idle_may_go.then_some(settings.cooldown),
            metrics: metrics.kubernetes.clone(),
        })));
        let api = kubernetes::Api::in_pod(&asked.deployment);
        keeping.push(tokio::spawn(kubernetes::watch_pods(api, cluster.clone(), metrics.kubernetes.clone())));
    }
    if let Some(shared) = shared {
        keeping.push(tokio::spawn(shared.leave(cluster.clone(), phase.subscribe(), release)));
    }
    if !settings.peers.is_empty() {
        let search = peers::Search {
            addresses: settings.peers.clone(),
            introducer: settings.introducer.clone(),
            protection: settings.protection.clone(),
            secret: settings.secret.clone(),
            activators: tokens,
        };
        let others = peers::run(cluster, search);
        keeping.push(tokio::spawn(others));
    }
    if let Some(program) = program {
        let launch = Launch::new(&settings, program, found_at, (log.0, log.1.as_deref()));
        keeping.push(tokio::spawn(processes::run(lobby.processes.clone(), launch, metrics.processes.clone())));
    }
    let draining = CancellationToken::new();
    let context = Arc::new(publisher::Context {
        admission: Arc::clone(&admission),
        places: lobby.places.clone(),
        listener,
        events: events.clone(),
        spares: SpareMemories::new(metrics.handoff.clone()),
        name,
        stat_shows_keys: settings.stat_shows_keys,
        metrics: metrics.publisher.clone(),
        draining: draining.clone(),
    });
    let limits = ConnectionLimits::new(settings.limits);
    let accept = |listener, rtmps| {
        let (context, publishers) = (Arc::clone(&context), publishers.clone());
        let (proxies, limits, metrics) = (settings.proxies.clone(), limits.clone(), metrics.accept.clone());
        tokio::spawn(accept::run(listener, rtmps, proxies, limits, metrics, move |connection| {
            publishers.spawn(publisher::run(connection, Arc::clone(&context)));
        }))
    };
    let mut accepting = vec![accept(bound.rtmp, None)];
    accepting.extend(bound.rtmps.map(|listener| accept(listener, rtmps)));
    Ok(Running {
        drain: lobby.drain,
        phase,
        accepting,
        publishers,
        draining,
        events,
        delivery,
        stop,
        serving,
        admission,
        keeping,
    })
}

fn process_rules(settings: &Settings) -> dispatch::processes::Rules {
    dispatch::processes::Rules {
        prefix: format!("worker-{}", std::process::id()),
        most: usize::try_from(settings.max_workers).unwrap_or(usize::MAX),
        capacity: usize::try_from(settings.capacity).unwrap_or(usize::MAX),
        cooldown: settings.cooldown,
        drain: settings.drain,
        seed: u64::from_be_bytes(random::bytes()),
    }
}

fn say_hello(settings: &Settings, bound: &Ports) -> anyhow::Result<()> {
    let upstreams: Vec<String> = settings.push.iter().map(ToString::to_string).collect();
    info!(
        event = event::ACTIVATOR_STARTED,
        rtmp = %bound.rtmp.local_addr()?,
        rtmps = bound.rtmps.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display),
        http = %bound.http.local_addr()?,
        control = %bound.control.local_addr()?,
        link = %bound.link.local_addr()?,
        scaler = bound.scaler.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display),
        upstreams = upstreams.join(" "),
        "activator started"
    );
    if settings.is_open_to_strangers() {
        warn!(event = event::ACTIVATOR_OPEN, "{OPEN}");
    }
    tell_limits(&settings.token_sources, &settings.tokens);
    Ok(())
}

/// The step of a phase, and its end.
struct PhaseStep(Option<JoinHandle<()>>);

impl PhaseStep {
    fn begin(open: &Running, phase: Phase) -> Self {
        let drain = open.drain.clone();
        Self(match phase {
            Phase::Serving | Phase::Unready | Phase::StopServing => None,
            Phase::StopAccepting => {
                // The ports close with the loops. Who is connected and not held yet gets the lobby's answer.
                open.accepting.iter().for_each(JoinHandle::abort);
                drain.drain();
                open.draining.cancel();
                Some(tokio::spawn(async {}))
            }
            Phase::FinishStreams => Some(tokio::spawn(async move { drain.emptied().await })),
            Phase::StopWorkers => Some(tokio::spawn(async move {
                drain.close();
                let _ = timeout(CLOSE_TIMEOUT, drain.emptied()).await;
                drain.stop_processes();
                drain.without_processes().await;
            })),
        })
    }

    /// Returns once, when it is done.
    async fn done(&mut self) {
        match &mut self.0 {
            Some(task) => {
                let _ = task.await;
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for PhaseStep {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Running {
    /// The last phase.
    async fn end(self) {
        self.drain.kill_processes();
        let _ = timeout(END_TIMEOUT, self.drain.without_processes()).await;
        self.publishers.close();
        let _ = timeout(LINGER_TIMEOUT, self.publishers.wait()).await;
        let _ = timeout(TELL_TIMEOUT, self.admission.ends_are_told()).await;
        self.events.end();
        if let Some(delivery) = self.delivery
            && timeout(DELIVERY_TIMEOUT, delivery).await.is_err()
        {
            warn!(
                event = event::EVENTS_DROPPED,
                events = self.events.waiting(),
                why = DropCause::Ended.as_str(),
                "events not delivered"
            );
        }
        self.stop.cancel();
        self.serving.close();
        let _ = timeout(END_TIMEOUT, self.serving.wait()).await;
        self.keeping.iter().for_each(JoinHandle::abort);
        info!(event = event::ACTIVATOR_STOPPED, "activator stopped");
    }
}
