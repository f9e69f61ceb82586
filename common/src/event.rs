//! The values of the `event` field of log lines. One constant per event, defined here and nowhere else, so that an operator's filter or
//! alert outlives the sentence beside it. The part before the dot is the thing that the line is about, the part after it is past tense.

// A stream's life: at info, one line for each of these.

/// A publisher was admitted and waits for a worker. If more than 20 come in one second, the line is written when a worker has accepted the stream.
pub const STREAM_PUBLISHED: &str = "stream.published";
/// The publisher is told to start: every required upstream has started, or the first one where none is required.
pub const STREAM_LIVE: &str = "stream.live";
/// The collector of traces did not take spans.
pub const TRACE_FAILED: &str = "trace.failed";
/// Another worker has taken a stream over from the one that had it.
pub const STREAM_TAKEN_OVER: &str = "stream.taken_over";
/// A stream has ended. The event has the figures of the whole stream, the line of the worker those since that worker had it.
pub const STREAM_ENDED: &str = "stream.ended";
/// An upstream that was live was lost.
pub const UPSTREAM_LOST: &str = "upstream.lost";
/// An upstream that was lost, or was not reached before, takes the stream.
pub const UPSTREAM_BACK: &str = "upstream.back";
/// A publisher's connection was lost without a goodbye; the grace time runs.
pub const PUBLISHER_LOST: &str = "publisher.lost";
/// A publisher returned within the grace time.
pub const PUBLISHER_BACK: &str = "publisher.back";
/// An upstream takes a stream for the first time, without having been told as away or failed.
pub const UPSTREAM_LIVE: &str = "upstream.live";
/// A silent publisher was replaced by another one of the same stream, which goes on under the id in `by`.
pub const PUBLISHER_REPLACED: &str = "publisher.replaced";

// activator: accept, publisher, admission

/// A connection was let in while an older, undecided one was closed for it.
pub const CONNECTION_EVICTED: &str = "connection.evicted";
/// A connection was closed at once for want of room.
pub const CONNECTION_REFUSED: &str = "connection.refused";
/// A connection was gone before it was taken.
pub const CONNECTION_LOST: &str = "connection.lost";
/// A connection to the RTMPS port ended before its TLS handshake was over: `class` is `plain_rtmp`, `proxied`, `not_tls`, `handshake`, `slow` or `left`.
/// One line in 10 s for each of the first two and for handshakes; the others at debug.
pub const RTMPS_FAILED: &str = "rtmps.failed";
/// A proxy of TRUSTED_PROXIES sent no PROXY header, or none that can be understood. One line in 10 s.
pub const PROXY_REFUSED: &str = "proxy.refused";
/// A connection of a trusted proxy ended without a byte, as its health checks do.
pub const PROXY_PROBED: &str = "proxy.probed";
/// A connection began with a PROXY header, and its address is none of TRUSTED_PROXIES. One line in 10 s.
pub const PROXY_UNTRUSTED: &str = "proxy.untrusted";
/// A publisher spoke TLS to the port for plain RTMP. One line in 10 s.
pub const PUBLISHER_SENT_TLS: &str = "publisher.sent_tls";
/// A publisher's connection was taken over by its task.
pub const PUBLISHER_CONNECTED: &str = "publisher.connected";
/// A publisher waits for its turn, because its address brings many. One line in 10 s.
pub const PUBLISHER_DELAYED: &str = "publisher.delayed";
/// A worker was offered a publisher's stream.
pub const PUBLISHER_OFFERED: &str = "publisher.offered";
/// A publisher's handoff to a worker has ended.
pub const PUBLISHER_RETURNED: &str = "publisher.returned";
/// The API, or a changed file, asked for the end of a publisher's stream.
pub const PUBLISHER_KICKED: &str = "publisher.kicked";
/// A publisher said goodbye on a connection that stays open, and may publish again.
pub const PUBLISHER_PARTED: &str = "publisher.parted";
/// Admission did not take a publisher, or did not decide in time: `class` is the reason. One line a second for each
/// class.
pub const PUBLISHER_REFUSED: &str = "publisher.refused";
/// The lobby did not take an admitted publisher, or does not hold it any longer: `class` is `duplicate`, `unmovable`, `hold_spent`, `fleet_full`
/// or `draining`. One line a second for each class.
pub const PUBLISHER_SENT_AWAY: &str = "publisher.sent_away";
/// A publisher left before a worker had its stream. One line a second.
pub const PUBLISHER_LEFT: &str = "publisher.left";
/// No worker can go on with a publisher's stream.
pub const PUBLISHER_STRANDED: &str = "publisher.stranded";
/// A publisher's connection was closed.
pub const PUBLISHER_CLOSED: &str = "publisher.closed";
/// There was no memory for a stream's ring.
pub const RING_FAILED: &str = "ring.failed";

// activator: lobby, processes, control

/// A waiting stream was offered to a worker.
pub const STREAM_OFFERED: &str = "stream.offered";
/// A worker was told to end its part of a stream that another worker gets.
pub const STREAM_FENCED: &str = "stream.fenced";
/// A stream started on a worker that was running already.
pub const START_WARM: &str = "start.warm";
/// A stream started on a worker that had to be started for it; told with the first media, or with the end of a stream without any. It has the time of each phase that is known.
pub const START_COLD: &str = "start.cold";
/// A stream that a worker had taken ended before it started.
pub const START_FAILED: &str = "start.failed";
/// A worker registered.
pub const WORKER_REGISTERED: &str = "worker.registered";
/// A worker's call ended.
pub const WORKER_LEFT: &str = "worker.left";
/// A worker that serves streams was silent; it is offered nothing.
pub const WORKER_SILENT: &str = "worker.silent";
/// A worker died with streams of publishers that are connected here; they go to other workers.
pub const WORKER_LOST: &str = "worker.lost";
/// A worker reported more sessions than its capacity; they are left out.
pub const WORKER_EXCEEDED: &str = "worker.exceeded";
/// A worker reported a stream that it was not given.
pub const WORKER_DISBELIEVED: &str = "worker.disbelieved";
/// The network namespaces of a worker and this activator were compared.
pub const NETWORKS_COMPARED: &str = "networks.compared";
/// A connection of one of our processes came without encryption, and `ENCRYPTION` asks for it. One line in 10 s.
pub const PLAIN_REFUSED: &str = "plain.refused";
/// One of our processes refused the certificate of another, or had its own refused, where certificates are given. One line in 10 s.
pub const CERTIFICATE_REFUSED: &str = "certificate.refused";
/// A connection to the control listener ended before its TLS handshake was over.
pub const CONTROL_UNSECURED: &str = "control.unsecured";
/// A call on the control listener was refused.
pub const CONTROL_REFUSED: &str = "control.refused";
/// A call on the control listener broke before its first message.
pub const CONTROL_BROKEN: &str = "control.broken";
/// A worker process was started.
pub const PROCESS_STARTED: &str = "process.started";
/// A worker process was sent a signal.
pub const PROCESS_SIGNALLED: &str = "process.signalled";
/// A worker process could not be sent a signal.
pub const SIGNAL_FAILED: &str = "signal.failed";
/// A worker process failed; the line has its last words.
pub const PROCESS_FAILED: &str = "process.failed";
/// A worker process ended as asked.
pub const PROCESS_ENDED: &str = "process.ended";
/// A worker process ended in order, without being asked.
pub const PROCESS_TERMINATED: &str = "process.terminated";

// activator: handoff, link

/// A worker was lost, or given up, while it had a publisher or was given one.
pub const HANDOFF_WORKER_LOST: &str = "handoff.worker_lost";
/// A worker ended a stream by descriptor.
pub const HANDOFF_DONE: &str = "handoff.done";
/// The connection to a worker broke before the worker had the stream.
pub const HANDOFF_BROKEN: &str = "handoff.broken";
/// The bytes of a worker could not be read as frames.
pub const HANDOFF_UNREADABLE: &str = "handoff.unreadable";
/// A worker that did not let go of a publisher's socket was killed.
pub const HANDOFF_WORKER_KILLED: &str = "handoff.worker_killed";
/// A stream was not taken over, because its worker may hold the publisher's socket still.
pub const HANDOFF_NOT_RELEASED: &str = "handoff.not_released";
/// A connection to the handoff listener was closed before it proved to be a worker's.
pub const HANDOFF_PEER_REFUSED: &str = "handoff.peer_refused";
/// A stream by link did not fit into an assignment.
pub const LINK_NOT_ASSIGNED: &str = "link.not_assigned";
/// A worker was lost, or given up, while it had a stream by link.
pub const LINK_WORKER_LOST: &str = "link.worker_lost";
/// The bytes of a worker by link could not be read as frames.
pub const LINK_UNREADABLE: &str = "link.unreadable";

// activator: peers, scaler, kubernetes

/// Another activator has told everything that it knows.
pub const PEER_SYNCED: &str = "peer.synced";
/// The call to another activator broke after it had synced.
pub const PEER_VANISHED: &str = "peer.vanished";
/// Another activator said goodbye.
pub const PEER_LEFT: &str = "peer.left";
/// Another activator ended the call.
pub const PEER_ENDED: &str = "peer.ended";
/// Another activator refused our proof, or we its.
pub const PEER_REFUSED: &str = "peer.refused";
/// No activator could be followed at an address.
pub const PEER_FAILED: &str = "peer.failed";
/// The Kubernetes API could not be used; another activator acts meanwhile, if one can.
pub const KUBERNETES_FAILED: &str = "kubernetes.failed";
/// A pod could not be told the cost of losing it.
pub const POD_COST_FAILED: &str = "pod.cost_failed";
/// A pod was told the cost of losing it.
pub const POD_COST_SET: &str = "pod.cost_set";
/// The watchdog looked for streams that had waited too long without a new worker.
pub const WATCHDOG_ACTED: &str = "watchdog.acted";
/// An idle worker was asked to take no more streams.
pub const WORKER_CORDONED: &str = "worker.cordoned";
/// An idle worker was released: its pod may be removed.
pub const WORKER_RELEASED: &str = "worker.released";
/// A worker that was out of use was asked to take streams again.
pub const WORKER_RECALLED: &str = "worker.recalled";
/// A call of KEDA was answered with an error.
pub const SCALER_CALL_FAILED: &str = "scaler.call_failed";
/// A push stream of KEDA was opened.
pub const SCALER_STREAM_OPENED: &str = "scaler.stream_opened";
/// `true` was pushed to KEDA.
pub const SCALER_PUSHED: &str = "scaler.pushed";
/// A TLS handshake with the scaler failed.
pub const SCALER_HANDSHAKE_FAILED: &str = "scaler.handshake_failed";
/// The scaler could not offer reflection.
pub const SCALER_REFLECTION_FAILED: &str = "scaler.reflection_failed";

// activator: http, ports, the process

/// The process was started, and serves.
pub const ACTIVATOR_STARTED: &str = "activator.started";
/// The process has stopped; with `error`, because it could not serve.
pub const ACTIVATOR_STOPPED: &str = "activator.stopped";
/// A server of `on_publish` or `on_publish_done` did not answer in time, or not at all.
pub const HOOK_FAILED: &str = "hook.failed";
/// The answer of the server of `on_publish` made no sense, so its publisher was refused.
pub const HOOK_ANSWER_UNUSABLE: &str = "hook.answer_unusable";
/// Too many ends waited for the server of `on_publish_done`, so one was not told.
pub const HOOK_NOTICE_DROPPED: &str = "hook.notice_dropped";
/// The keys that tokens are checked with were fetched.
pub const JWKS_FETCHED: &str = "jwks.fetched";
/// The keys that tokens are checked with could not be fetched, or made no sense; the last good ones count for an hour.
pub const JWKS_FAILED: &str = "jwks.failed";
/// Anyone who reaches the RTMP port may publish.
pub const ACTIVATOR_OPEN: &str = "activator.open";
/// The HTTP API is not open for everything: without `ADMIN_TOKEN` nothing can be changed, and without any token only this machine reads.
pub const API_LIMITED: &str = "api.limited";
/// The file of a token is missing, as it may be, so there is no such token until it appears.
pub const TOKEN_MISSING: &str = "token.missing";
/// A request to the HTTP API was refused for want of a token, or because of a wrong one. One line a second.
pub const API_REFUSED: &str = "api.refused";
/// A server of the process ended by itself.
pub const SERVER_FAILED: &str = "server.failed";
/// The shared ports were left to a successor.
pub const PORTS_LEFT: &str = "ports.left";
/// New connections could not be sent to the successor before the ports are closed.
pub const PORTS_NOT_STEERED: &str = "ports.not_steered";
/// An HTTP request changed a destination of a stream.
pub const DESTINATION_CHANGED_OVER_HTTP: &str = "destination.changed_over_http";
/// An HTTP request ended a stream.
pub const STREAM_KICKED_OVER_HTTP: &str = "stream.kicked_over_http";
/// An HTTP request ordered a worker to give its streams to others, or to take streams again.
pub const WORKER_DRAIN_ORDERED: &str = "worker.drain_ordered";
/// A reader of the events was too slow, or asked for events that are not kept any more.
pub const EVENTS_MISSED: &str = "events.missed";
/// The receiver of events did not take one; it is sent again. One line until the next one is taken.
pub const EVENTS_UNDELIVERED: &str = "events.undelivered";
/// The receiver of events takes them again.
pub const EVENTS_DELIVERED_AGAIN: &str = "events.delivered_again";
/// The receiver of events wants no more of them (status 410).
pub const EVENTS_UNWANTED: &str = "events.unwanted";
/// Events were not delivered, and are not sent again. One line in 10 s.
pub const EVENTS_DROPPED: &str = "events.dropped";
/// The destinations of a stream were changed.
pub const DESTINATIONS_CHANGED: &str = "destinations.changed";
/// A change of a stream's destinations could not be made.
pub const DESTINATIONS_KEPT: &str = "destinations.kept";
/// The last seconds of a stream and the events before are in the folder of incidents.
pub const INCIDENT_KEPT: &str = "incident.kept";
/// The files of an incident could not be written.
pub const INCIDENT_LOST: &str = "incident.lost";
/// A file of the configuration was read again.
pub const FILE_RELOADED: &str = "file.reloaded";
/// A file of the configuration could not be used; its last good values stay in force.
pub const FILE_REJECTED: &str = "file.rejected";
/// A file of the configuration is not watched, or a folder on the way to it: a change counts when a publisher comes, or on SIGHUP.
pub const FILE_UNWATCHED: &str = "file.unwatched";
/// SIGHUP asked for another look at the files of the configuration.
pub const RELOAD_ASKED: &str = "reload.asked";
/// A changed file has reached the streams that run; the line has their numbers.
pub const STREAMS_FOLLOWED: &str = "streams.followed";
/// A publisher was disconnected, because a changed file has no entry for it.
pub const PUBLISHER_REMOVED: &str = "publisher.removed";

// worker: register, receive

/// The refusal of a stream that was fetched did not reach its activator.
pub const REFUSAL_FAILED: &str = "refusal.failed";
/// No activator answered at an address.
pub const CALL_FAILED: &str = "call.failed";
/// An activator or the worker refused the other's proof.
pub const CALL_REFUSED: &str = "call.refused";
/// A worker's call to an activator broke.
pub const CALL_LOST: &str = "call.lost";
/// A worker's call was ended because its activator did not read.
pub const CALL_STALLED: &str = "call.stalled";
/// No activator is left through which a lost publisher could return.
pub const ACTIVATOR_NONE: &str = "activator.none";
/// No activator has been reached for some seconds.
pub const ACTIVATOR_UNREACHED: &str = "activator.unreached";
/// An activator asked for the end of a stream.
pub const STREAM_KICKED: &str = "stream.kicked";
/// An offered stream was fetched from its activator.
pub const STREAM_FETCHED: &str = "stream.fetched";
/// An offered stream could not be fetched from its activator.
pub const FETCH_FAILED: &str = "fetch.failed";

// worker: engine, stream

/// An activator's connection for one stream was lost, or takes no more frames.
pub const HANDOFF_LOST: &str = "handoff.lost";
/// A snapshot was too large for the state page.
pub const SNAPSHOT_TOO_LARGE: &str = "snapshot.too_large";
/// A publisher broke the protocol.
pub const PUBLISHER_ERRED: &str = "publisher.erred";
/// A message of the publisher was skipped.
pub const MESSAGE_SKIPPED: &str = "stream.message_skipped";
/// A header of the publisher was too long to be kept.
pub const HEADER_LEFT_OUT: &str = "publisher.header_left_out";
/// The publisher's clock jumped.
pub const CLOCK_JUMPED: &str = "publisher.clock_jumped";
/// A publisher's connection could not be read on.
pub const STREAM_RESUME_FAILED: &str = "stream.resume_failed";
/// No worker has passed on the last bytes of a stream that was live; upstreams may lack them.
pub const STREAM_REST_LOST: &str = "stream.rest_lost";
/// A publisher came to a stream of its identity; the line has the decision.
pub const PUBLISHER_ATTACHED: &str = "publisher.attached";
/// A destination was added to a stream that runs.
pub const DESTINATION_ADDED: &str = "destination.added";
/// A destination was removed from a stream that runs, or switched off.
pub const DESTINATION_REMOVED: &str = "destination.removed";
/// The session at a destination was asked to begin anew.
pub const DESTINATION_RESTARTED: &str = "destination.restarted";
/// A destination was asked to move: the session at its new place is begun.
pub const DESTINATION_MOVING: &str = "destination.moving";
/// The session at a destination's new place is live, and the old one was ended.
pub const DESTINATION_MOVED: &str = "destination.moved";
/// A stream lost upstreams to another stream.
pub const UPSTREAM_TAKEN_OVER: &str = "upstream.taken_over";
/// A worker ended its part of a stream that goes on: it gave the stream back, or another worker has it.
pub const STREAM_GIVEN_BACK: &str = "stream.given_back";
/// A stream moved to another state; its turns have lines of their own.
pub const STREAM_MOVED: &str = "stream.moved";
/// A stream was refused, because it wants an upstream that another stream keeps.
pub const STREAM_REFUSED: &str = "stream.refused";
/// A stream does not take the engine's commands.
pub const STREAM_DEAF: &str = "stream.deaf";
/// A stream's task ended without a goodbye.
pub const STREAM_DIED: &str = "stream.died";
/// A stream's sockets could not be used in its thread.
pub const STREAM_UNUSABLE: &str = "stream.unusable";
/// No thread for streams could be started.
pub const THREAD_FAILED: &str = "thread.failed";

// worker: upstream

/// An upstream is not reached; it is asked again.
pub const UPSTREAM_AWAY: &str = "upstream.away";
/// An upstream refuses, and waiting alone does not help.
pub const UPSTREAM_FAILED: &str = "upstream.failed";
/// An upstream with a backup goes on with its other server. One line at info until a session has lasted, the others at debug.
pub const UPSTREAM_TURNED: &str = "upstream.turned";
/// An upstream sent us to another server.
pub const UPSTREAM_REDIRECTED: &str = "upstream.redirected";
/// An upstream moved to another state; its turns have lines of their own.
pub const UPSTREAM_MOVED: &str = "upstream.moved";
/// Messages were skipped, because an upstream lagged.
pub const UPSTREAM_LAGGED: &str = "upstream.lagged";
/// Certificates could not be read.
pub const CERTIFICATES_UNREADABLE: &str = "certificates.unreadable";

// worker: http, the process

/// The process was started, and serves.
pub const WORKER_STARTED: &str = "worker.started";
/// The process has stopped, because it could not serve.
pub const WORKER_STOPPED: &str = "worker.stopped";
/// A worker that an activator had started was without that activator and without a stream, and ends.
pub const WORKER_ORPHANED: &str = "worker.orphaned";

// common

/// A signal asked the process to go down.
pub const SIGNAL_RECEIVED: &str = "signal.received";
/// Going down reached another phase.
pub const DRAIN_ADVANCED: &str = "drain.advanced";
/// The socket for health probes inside the container could not be opened.
pub const PROBE_SOCKET_FAILED: &str = "probe_socket.failed";
/// A limit was lowered to what the open files of the process have room for.
pub const LIMIT_LOWERED: &str = "limit.lowered";
/// A host name of an activator or an introducer was not resolved.
pub const NAME_UNRESOLVED: &str = "name.unresolved";
/// The introducer gave no addresses of activators.
pub const INTRODUCER_FAILED: &str = "introducer.failed";

/// A program had set up a log of its own before ours.
pub const LOG_KEPT: &str = "log.kept";
/// Lines were dropped, because the reader of standard error was too slow.
pub const LOG_LINES_DROPPED: &str = "log.lines_dropped";
/// A metrics registry could not be written as text, which is a bug of ours.
pub const METRICS_FAILED: &str = "metrics.failed";
/// The soft limit of open files could not be raised to the hard one.
pub const OPEN_FILES_NOT_RAISED: &str = "open_files.not_raised";
/// The limit of open files was found, and raised where the hard one is higher.
pub const OPEN_FILES_CHECKED: &str = "open_files.checked";
/// A task panicked, which is a bug of ours.
pub const TASK_PANICKED: &str = "task.panicked";
/// `accept` failed for want of descriptors or memory.
pub const ACCEPT_EXHAUSTED: &str = "accept.exhausted";
/// A connection broke in the backlog, before it was accepted.
pub const ACCEPT_FAILED: &str = "accept.failed";
/// An answer could not be written as JSON, which is a bug of ours.
pub const HTTP_ANSWER_FAILED: &str = "http.answer_failed";
/// An HTTP connection ended with an error.
pub const HTTP_CONNECTION_FAILED: &str = "http.connection_failed";
