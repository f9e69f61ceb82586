//! Standard error, written by a thread of its own. In: whole lines, from any thread. Out: the same lines at standard error, in order, as
//! soon as its reader takes them.
//!
//! Note: a write to standard error waits for its reader, and a reader that stops (a stuck log driver, Ctrl-S, `| less`) stops every thread
//! that logs after 64 KiB, which in a process with one thread is the whole process. So threads that serve a peer only append to a queue in
//! memory; lines that do not fit are dropped and counted.
//!
//! The queue is static, as the log and standard error are: a process has one of each.
#![expect(clippy::disallowed_methods, reason = "shell: the thread that writes")]

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::event;

/// Bytes that wait for the reader, at most: some 2,000 lines, which is a burst of a second; twice as much with what is being written.
const MAX_WAITING: usize = 512 << 10;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BUFFER: usize = 8 << 10;
/// Time that the end of the process waits for the last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);
/// Stack of the thread: it formats one line of its own at most.
const STACK: usize = 128 << 10;

static OURS: OnceLock<Lines> = OnceLock::new();

/// Starts the thread, unless it runs. Without it, [`write_line`] writes by itself.
///
/// # Errors
/// The kernel has no thread left.
pub fn start() -> io::Result<Writing> {
    let lines = OURS.get_or_init(|| Lines::new(MAX_WAITING)).clone();
    if lines.begin() {
        let ours = lines.clone();
        thread::Builder::new().name("log".to_owned()).stack_size(STACK).spawn(move || {
            let reader_is_back = |dropped| {
                tracing::warn!(
                    event = event::LOG_LINES_DROPPED,
                    dropped,
                    "log lines dropped: their reader was too slow"
                )
            };
            ours.write_to(&mut Descriptor, reader_is_back);
        })?;
    }
    Ok(Writing(lines))
}

/// Queues one line, which ends in a line feed; drops it when the reader is too far behind.
pub fn write_line(line: &[u8]) {
    match OURS.get() {
        Some(lines) => lines.push(line),
        None => drop(io::stderr().write_all(line)),
    }
}

/// Lines that were dropped so far.
#[must_use]
pub fn dropped_lines() -> u64 {
    OURS.get().map_or(0, |lines| lines.shared.dropped.load(Ordering::Relaxed))
}

/// A writer for tracing, which writes each line at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineWriter;

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The guard of the log; dropped at the end of the process, it waits a moment for the last lines to be written.
#[derive(Debug)]
#[must_use = "the last lines are lost if the process does not wait for them"]
pub struct Writing(Lines);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES_TIMEOUT);
    }
}

/// A queue of lines, shared by its clones.
#[derive(Clone, Debug)]
struct Lines {
    shared: Arc<LogBuffer>,
}

#[derive(Debug)]
struct LogBuffer {
    // A lock, because any thread logs; held for copying one line, never while writing.
    queue: Mutex<Queue>,
    /// Notified when there is something to write.
    filled: Condvar,
    /// Notified when all has been written.
    emptied: Condvar,
    dropped: AtomicU64,
    most: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// True once the thread runs.
    begun: bool,
    /// True while the thread writes lines that it has taken out of `waiting`.
    writing: bool,
}

impl Lines {
    fn new(most: usize) -> Self {
        let (filled, emptied) = (Condvar::new(), Condvar::new());
        Self {
            shared: Arc::new(LogBuffer { queue: Mutex::default(), filled, emptied, dropped: AtomicU64::new(0), most }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for the first call.
    fn begin(&self) -> bool {
        !mem::replace(&mut self.lock().begun, true)
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.waiting.len() + line.len() > self.shared.most {
            drop(queue);
            self.drop_lines(1);
            return;
        }
        let idle = queue.waiting.is_empty() && !queue.writing;
        queue.waiting.extend_from_slice(line);
        drop(queue);
        if idle {
            self.shared.filled.notify_one();
        }
    }

    fn drop_lines(&self, count: usize) {
        self.shared.dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Writes all lines, for ever. `tell` is called after a write that followed drops, with the number of dropped lines.
    fn write_to(&self, out: &mut impl Write, tell: impl Fn(u64)) {
        let (mut lines, mut told) = (Vec::new(), 0);
        loop {
            let mut queue = self.lock();
            queue.writing = false;
            if queue.waiting.is_empty() {
                self.shared.emptied.notify_all();
                queue = self
                    .shared
                    .filled
                    .wait_while(queue, |queue| queue.waiting.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
            }
            queue.writing = true;
            mem::swap(&mut lines, &mut queue.waiting);
            drop(queue);
            match write_all(out, &lines) {
                Ok(()) => {
                    let dropped = self.shared.dropped.load(Ordering::Relaxed);
                    if dropped > told {
                        tell(dropped - told);
                        told = dropped;
                    }
                }
                // The reader has closed its end.
                Err(written) => self.drop_lines(lines[written..].iter().filter(|byte| **byte == b'\n').count()),
            }
            lines.clear();
            if lines.capacity() > KEPT_BUFFER {
                lines = Vec::new();
            }
        }
    }

    /// Waits until all lines have been written, or until the limit.
    fn flush(&self, limit: Duration) {
        let queue = self.lock();
        if !queue.begun {
            return;
        }
        let busy = |queue: &mut Queue| queue.writing || !queue.waiting.is_empty();
        drop(self.shared.emptied.wait_timeout_while(queue, limit, busy));
    }
}

/// Writes all bytes as [`Write::write_all`] does, but an error gives the number of bytes written.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// Standard error itself, without the lock that std holds while it writes: other writers must not wait for this one.
struct Descriptor;

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                // A worker shares its pipe with other processes, which have set it non-blocking.
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                },
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A queue whose thread writes to the first stream; the receiver gets the numbers of dropped lines.
    fn written(most: usize) -> (Lines, UnixStream, mpsc::Receiver<u64>) {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let (lines, (told, tells)) = (Lines::new(most), mpsc::channel());
        assert!(lines.begin());
        let ours = lines.clone();
        let write = move || ours.write_to(&mut writer, |count| told.send(count).unwrap());
        thread::Builder::new().spawn(write).unwrap();
        (lines, reader, tells)
    }

    fn read(reader: &mut UnixStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        io::Read::read_exact(reader, &mut read).unwrap();
        read
    }

    #[test]
    fn lines_arrive_in_order_and_a_flush_waits_for_the_last_one() {
        let (lines, mut reader, _tells) = written(MAX_WAITING);
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        expected.split_inclusive('\n').for_each(|line| lines.push(line.as_bytes()));
        lines.flush(SOON);
        reader.set_nonblocking(true).unwrap();
        assert_eq!(read(&mut reader, expected.len()), expected.as_bytes());
    }

    #[test]
    fn writers_never_wait_for_a_stopped_reader_and_dropped_lines_are_counted() {
        const LINE: &[u8] = &[b'x'; 1000];
        let (lines, mut reader, tells) = written(10 * LINE.len());
        // More than any socket buffer and the queue hold together.
        for _ in 0..100_000 {
            lines.push(LINE);
        }
        let dropped = lines.shared.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0 && dropped < 100_000, "{dropped}");
        let arrives = usize::try_from(100_000 - dropped).unwrap() * LINE.len();
        read(&mut reader, arrives);
        let told: u64 = std::iter::from_fn(|| tells.recv_timeout(SOON).ok()).take(1).sum();
        assert!(told > 0 && told <= dropped, "{told} of {dropped}");
        lines.flush(SOON);
        assert!(lines.lock().waiting.is_empty());
    }

    #[test]
    fn lines_without_a_reader_are_counted_as_dropped() {
        let (lines, reader, _tells) = written(MAX_WAITING);
        drop(reader);
        lines.push(b"one\n");
        lines.flush(SOON);
        lines.push(b"two\n");
        lines.flush(SOON);
        assert_eq!(lines.shared.dropped.load(Ordering::Relaxed), 2);
    }
}
